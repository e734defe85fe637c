/* pool.c - max and average pooling of (N,C,H,W) and (N,C,W), or with channels last, and their gradients.
 * Channels first, a plane (one channel of one sample) is the unit of work; channels last, a row of pixels, or
 * for a gradient a sample: a thread owns what it writes, so gradients need no atomics. The float32 loops go
 * along an output row or along the channels of a pixel, one tap of the window at a time. */
#include "kernels/pool/pool.h"
#include "kernels/cpu.h"
#include <math.h>
#include <string.h>

/* Kernels and strides above this are refused: products of them stay in 64 bits. */
#define MOST (1 << 24)

static tp_status pooled_shape(tp_shape x, tp_dtype dtype, const tp_pool_attr *a, tp_shape *y)
{
    TP_CHECK(tp_is_float(dtype) && (x.nd == 3 || x.nd == 4), TP_ESHAPE,
             "x must be float (N,C,W) or (N,C,H,W), or with channels last");
    for (int i = 0; i < x.nd - 2; i++)
        TP_CHECK(
            a->kernel[i] > 0 && a->kernel[i] <= MOST && a->stride[i] >= 0 && a->stride[i] <= MOST &&
                a->pad[i] >= 0 && 2 * a->pad[i] <= a->kernel[i],
            TP_ESHAPE,
            "kernel %lld, stride %lld, padding %lld: want a kernel of 1 to %d and padding at most half of it",
            (long long)a->kernel[i], (long long)a->stride[i], (long long)a->pad[i], MOST);
    const tp_pool_dims d = tp_pool_dims_of(x, a);
    TP_CHECK(d.oh > 0 && d.ow > 0, TP_ESHAPE, "the window does not fit into %lld x %lld pixels",
             (long long)d.h, (long long)d.w);
    *y = x;
    const int first = tp_image_first_dim(a->channels_last);
    y->d[first] = d.oh;
    y->d[first + (x.nd == 4)] = d.ow;
    return TP_OK;
}

typedef void (*pool_unit)(const tp_call *c, const tp_pool_dims *d, int64_t unit);

typedef struct pool_job {
    const tp_call *c;
    tp_pool_dims d;
    pool_unit body;
} pool_job;

static void pool_pieces(void *ctx, int64_t begin, int64_t end)
{
    const pool_job *j = ctx;
    for (int64_t u = begin; u < end; u++)
        j->body(j->c, &j->d, u);
}

static tp_status run_units(const tp_call *c, tp_pool_dims d, int64_t units, pool_unit body)
{
    pool_job j = {c, d, body};
    const int64_t elements = d.n * d.c * d.h * d.w;
    tp_parallel(units, 1 + TP_GRAIN / (4 * elements / (units > 0 ? units : 1) + 1), pool_pieces, &j);
    return TP_OK;
}

/* ---- planes, float32 ---- */

/* The part [first, last) of an output row for which tap s of the window lies in the image. */
typedef struct span {
    int64_t first, last;
} span;

static span inside(const tp_pool_dims *d, int64_t s)
{
    const int64_t step = d->stride[1], gap = d->pad[1] - s, room = d->w - 1 + gap;
    span v = {gap > 0 ? (gap + step - 1) / step : 0, room < 0 ? 0 : room / step + 1};
    v.last = v.last < d->ow ? v.last : d->ow;
    return v;
}

/* A NaN wins and stays. */
TP_SIMD static void max_row(float *y, const float *x, int64_t n, int64_t step)
{
    if (step == 1)
        for (int64_t j = 0; j < n; j++)
            y[j] = x[j] > y[j] || x[j] != x[j] ? x[j] : y[j];
    else if (step == 2)
        for (int64_t j = 0; j < n; j++)
            y[j] = x[2 * j] > y[j] || x[2 * j] != x[2 * j] ? x[2 * j] : y[j];
    else
        for (int64_t j = 0; j < n; j++)
            y[j] = x[step * j] > y[j] || x[step * j] != x[step * j] ? x[step * j] : y[j];
}

TP_SIMD static void sum_row(float *y, const float *x, int64_t n, int64_t step)
{
    if (step == 1)
        for (int64_t j = 0; j < n; j++)
            y[j] += x[j];
    else if (step == 2)
        for (int64_t j = 0; j < n; j++)
            y[j] += x[2 * j];
    else
        for (int64_t j = 0; j < n; j++)
            y[j] += x[step * j];
}

TP_SIMD static void share_row(float *dx, const float *dy, int64_t n, int64_t step, float area)
{
    if (step == 1)
        for (int64_t j = 0; j < n; j++)
            dx[j] += dy[j] / area;
    else
        for (int64_t j = 0; j < n; j++)
            dx[step * j] += dy[j] / area;
}

/* Calls row(y from span.first, x under it) for each tap of output row i. */
static void take_row(const tp_pool_dims *d, const float *x, float *y, int64_t i,
                     void (*row)(float *, const float *, int64_t, int64_t))
{
    const tp_window v = tp_window_at(d, i, 0);
    for (int64_t r = v.top; r < v.bottom; r++)
        for (int64_t s = 0; s < d->kernel[1]; s++) {
            const span p = inside(d, s);
            if (p.first < p.last)
                row(y + p.first, x + r * d->w + p.first * d->stride[1] - d->pad[1] + s, p.last - p.first,
                    d->stride[1]);
        }
}

static void max_plane_f32(const tp_call *c, const tp_pool_dims *d, int64_t p)
{
    const float *x = tp_in_f32(c, 0) + p * d->h * d->w;
    for (int64_t i = 0; i < d->oh; i++) {
        float *y = tp_out_f32(c, 0) + (p * d->oh + i) * d->ow;
        for (int64_t j = 0; j < d->ow; j++)
            y[j] = -INFINITY;
        take_row(d, x, y, i, max_row);
    }
}

static void avg_plane_f32(const tp_call *c, const tp_pool_dims *d, int64_t p)
{
    const float *x = tp_in_f32(c, 0) + p * d->h * d->w, area = (float)(d->kernel[0] * d->kernel[1]);
    for (int64_t i = 0; i < d->oh; i++) {
        float *y = tp_out_f32(c, 0) + (p * d->oh + i) * d->ow;
        memset(y, 0, (size_t)d->ow * sizeof(float));
        take_row(d, x, y, i, sum_row);
        for (int64_t j = 0; j < d->ow; j++)
            y[j] /= area;
    }
}

static void avg_grad_plane_f32(const tp_call *c, const tp_pool_dims *d, int64_t p)
{
    const float area = (float)(d->kernel[0] * d->kernel[1]);
    float *dx = tp_out_f32(c, 0) + p * d->h * d->w;
    memset(dx, 0, (size_t)(d->h * d->w) * sizeof(float));
    for (int64_t i = 0; i < d->oh; i++) {
        const float *dy = tp_in_f32(c, 0) + (p * d->oh + i) * d->ow;
        const tp_window v = tp_window_at(d, i, 0);
        for (int64_t r = v.top; r < v.bottom; r++)
            for (int64_t s = 0; s < d->kernel[1]; s++) {
                const span at = inside(d, s);
                if (at.first < at.last)
                    share_row(dx + r * d->w + at.first * d->stride[1] - d->pad[1] + s, dy + at.first,
                              at.last - at.first, d->stride[1], area);
            }
    }
}

/* dy goes to the first element of the window that equals its maximum. */
static void max_grad_plane_f32(const tp_call *c, const tp_pool_dims *d, int64_t p)
{
    const float *x = tp_in_f32(c, 0) + p * d->h * d->w, *y = tp_in_f32(c, 1) + p * d->oh * d->ow;
    const float *dy = tp_in_f32(c, 2) + p * d->oh * d->ow;
    float *dx = tp_out_f32(c, 0) + p * d->h * d->w;
    memset(dx, 0, (size_t)(d->h * d->w) * sizeof(float));
    for (int64_t i = 0; i < d->oh; i++)
        for (int64_t j = 0; j < d->ow; j++) {
            const tp_window v = tp_window_at(d, i, j);
            int64_t hit = -1;
            for (int64_t r = v.top; r < v.bottom && hit < 0; r++)
                for (int64_t s = v.left; s < v.right && hit < 0; s++)
                    if (x[r * d->w + s] == y[i * d->ow + j])
                        hit = r * d->w + s;
            if (hit >= 0)
                dx[hit] += dy[i * d->ow + j];
        }
}

/* ---- channels last, float32 ---- */

/* Calls row(y of pixel, x of a tap under it) for each tap of output pixel (n, i, j). */
static void take_pixel(const tp_pool_dims *d, const float *x, float *y, int64_t n, int64_t i, int64_t j,
                       void (*row)(float *, const float *, int64_t, int64_t))
{
    const tp_window v = tp_window_at(d, i, j);
    for (int64_t r = v.top; r < v.bottom; r++)
        for (int64_t s = v.left; s < v.right; s++)
            row(y, x + tp_image_at(d->x, n, 0, r, s), d->c, 1);
}

/* Unit: row i of sample n, u = n * OH + i. */
static void max_pixels_f32(const tp_call *c, const tp_pool_dims *d, int64_t u)
{
    for (int64_t j = 0; j < d->ow; j++) {
        float *y = tp_out_f32(c, 0) + tp_image_at(d->y, u / d->oh, 0, u % d->oh, j);
        for (int64_t k = 0; k < d->c; k++)
            y[k] = -INFINITY;
        take_pixel(d, tp_in_f32(c, 0), y, u / d->oh, u % d->oh, j, max_row);
    }
}

static void avg_pixels_f32(const tp_call *c, const tp_pool_dims *d, int64_t u)
{
    const float area = (float)(d->kernel[0] * d->kernel[1]);
    for (int64_t j = 0; j < d->ow; j++) {
        float *y = tp_out_f32(c, 0) + tp_image_at(d->y, u / d->oh, 0, u % d->oh, j);
        memset(y, 0, (size_t)d->c * sizeof(float));
        take_pixel(d, tp_in_f32(c, 0), y, u / d->oh, u % d->oh, j, sum_row);
        for (int64_t k = 0; k < d->c; k++)
            y[k] /= area;
    }
}

#define CHANNELS 256 /* of a window whose maxima are looked for side by side */

/* dx += dy where x is the maximum y and none before it in the window was; open is 1 where none was yet. */
TP_SIMD static void hit_row(float *dx, float *open, const float *x, const float *y, const float *dy,
                            int64_t n)
{
    for (int64_t k = 0; k < n; k++) {
        const float hit = x[k] == y[k] ? open[k] : 0.0f;
        dx[k] = hit != 0.0f ? dx[k] + dy[k] : dx[k];
        open[k] -= hit;
    }
}

/* Unit: sample n. */
static void max_grad_sample_f32(const tp_call *c, const tp_pool_dims *d, int64_t n)
{
    const float *x = tp_in_f32(c, 0), *y = tp_in_f32(c, 1), *dy = tp_in_f32(c, 2);
    float *dx = tp_out_f32(c, 0), open[CHANNELS];

    memset(dx + n * d->x.n, 0, (size_t)d->x.n * sizeof(float));
    for (int64_t p = 0; p < d->oh * d->ow; p++)
        for (int64_t ch = 0; ch < d->c; ch += CHANNELS) {
            const tp_window v = tp_window_at(d, p / d->ow, p % d->ow);
            const int64_t width = d->c - ch < CHANNELS ? d->c - ch : CHANNELS,
                          o = tp_image_at(d->y, n, ch, p / d->ow, p % d->ow);
            for (int64_t k = 0; k < width; k++)
                open[k] = 1.0f;
            for (int64_t r = v.top; r < v.bottom; r++)
                for (int64_t s = v.left; s < v.right; s++) {
                    const int64_t at = tp_image_at(d->x, n, ch, r, s);
                    hit_row(dx + at, open, x + at, y + o, dy + o, width);
                }
        }
}

static void avg_grad_sample_f32(const tp_call *c, const tp_pool_dims *d, int64_t n)
{
    const float area = (float)(d->kernel[0] * d->kernel[1]);
    float *dx = tp_out_f32(c, 0);

    memset(dx + n * d->x.n, 0, (size_t)d->x.n * sizeof(float));
    for (int64_t p = 0; p < d->oh * d->ow; p++) {
        const tp_window v = tp_window_at(d, p / d->ow, p % d->ow);
        const float *dy = tp_in_f32(c, 0) + tp_image_at(d->y, n, 0, p / d->ow, p % d->ow);
        for (int64_t r = v.top; r < v.bottom; r++)
            for (int64_t s = v.left; s < v.right; s++)
                share_row(dx + tp_image_at(d->x, n, 0, r, s), dy, d->c, 1, area);
    }
}

/* ---- planes, any float, any order ---- */

/* Element (row, col) of plane p of x, and of y. */
static int64_t x_at(const tp_pool_dims *d, int64_t p, int64_t row, int64_t col)
{
    return tp_image_at(d->x, p / d->c, p % d->c, row, col);
}

static int64_t y_at(const tp_pool_dims *d, int64_t p, int64_t i, int64_t j)
{
    return tp_image_at(d->y, p / d->c, p % d->c, i, j);
}

static void max_plane_ref(const tp_call *c, const tp_pool_dims *d, int64_t p)
{
    for (int64_t i = 0; i < d->oh; i++)
        for (int64_t j = 0; j < d->ow; j++) {
            const tp_window v = tp_window_at(d, i, j);
            double most = (double)-INFINITY;
            for (int64_t r = v.top; r < v.bottom; r++)
                for (int64_t s = v.left; s < v.right; s++) {
                    const double at = tp_get(&c->in[0], x_at(d, p, r, s));
                    most = at > most || at != at ? at : most;
                }
            tp_set(&c->out[0], y_at(d, p, i, j), most);
        }
}

static void max_grad_plane_ref(const tp_call *c, const tp_pool_dims *d, int64_t p)
{
    for (int64_t k = 0; k < d->h * d->w; k++)
        tp_set(&c->out[0], x_at(d, p, k / d->w, k % d->w), 0.0);
    for (int64_t i = 0; i < d->oh; i++)
        for (int64_t j = 0; j < d->ow; j++) {
            const tp_window v = tp_window_at(d, i, j);
            const int64_t o = y_at(d, p, i, j);
            int64_t hit = -1;
            for (int64_t r = v.top; r < v.bottom && hit < 0; r++)
                for (int64_t s = v.left; s < v.right && hit < 0; s++)
                    if (tp_get(&c->in[0], x_at(d, p, r, s)) == tp_get(&c->in[1], o))
                        hit = x_at(d, p, r, s);
            if (hit >= 0)
                tp_set(&c->out[0], hit, tp_get(&c->out[0], hit) + tp_get(&c->in[2], o));
        }
}

static void avg_plane_ref(const tp_call *c, const tp_pool_dims *d, int64_t p)
{
    const double area = (double)(d->kernel[0] * d->kernel[1]);
    for (int64_t i = 0; i < d->oh; i++)
        for (int64_t j = 0; j < d->ow; j++) {
            const tp_window v = tp_window_at(d, i, j);
            double sum = 0.0;
            for (int64_t r = v.top; r < v.bottom; r++)
                for (int64_t s = v.left; s < v.right; s++)
                    sum += tp_get(&c->in[0], x_at(d, p, r, s));
            tp_set(&c->out[0], y_at(d, p, i, j), sum / area);
        }
}

static void avg_grad_plane_ref(const tp_call *c, const tp_pool_dims *d, int64_t p)
{
    const double area = (double)(d->kernel[0] * d->kernel[1]);
    for (int64_t k = 0; k < d->h * d->w; k++)
        tp_set(&c->out[0], x_at(d, p, k / d->w, k % d->w), 0.0);
    for (int64_t i = 0; i < d->oh; i++)
        for (int64_t j = 0; j < d->ow; j++) {
            const tp_window v = tp_window_at(d, i, j);
            const double share = tp_get(&c->in[0], y_at(d, p, i, j)) / area;
            for (int64_t r = v.top; r < v.bottom; r++)
                for (int64_t s = v.left; s < v.right; s++) {
                    const int64_t at = x_at(d, p, r, s);
                    tp_set(&c->out[0], at, tp_get(&c->out[0], at) + share);
                }
        }
}

static tp_pool_dims dims_of(const tp_call *c)
{
    return tp_pool_dims_of(c->in[0].shape, c->attr);
}

static tp_pool_dims avg_grad_dims(const tp_call *c)
{
    const tp_pool_grad_attr *a = c->attr;
    return tp_pool_dims_of(a->shape, &a->pool);
}

static tp_status run_ref(const tp_call *c, tp_pool_dims d, pool_unit plane)
{
    return run_units(c, d, d.n * d.c, plane);
}

static tp_status max_simd(const tp_call *c)
{
    const tp_pool_dims d = dims_of(c);
    return d.last ? run_units(c, d, d.n * d.oh, max_pixels_f32) : run_units(c, d, d.n * d.c, max_plane_f32);
}

static tp_status max_grad_simd(const tp_call *c)
{
    const tp_pool_dims d = dims_of(c);
    return d.last ? run_units(c, d, d.n, max_grad_sample_f32)
                  : run_units(c, d, d.n * d.c, max_grad_plane_f32);
}

static tp_status avg_simd(const tp_call *c)
{
    const tp_pool_dims d = dims_of(c);
    return d.last ? run_units(c, d, d.n * d.oh, avg_pixels_f32) : run_units(c, d, d.n * d.c, avg_plane_f32);
}

static tp_status avg_grad_simd(const tp_call *c)
{
    const tp_pool_dims d = avg_grad_dims(c);
    return d.last ? run_units(c, d, d.n, avg_grad_sample_f32)
                  : run_units(c, d, d.n * d.c, avg_grad_plane_f32);
}

static tp_status max_ref(const tp_call *c)
{
    return run_ref(c, dims_of(c), max_plane_ref);
}

static tp_status max_grad_ref(const tp_call *c)
{
    return run_ref(c, dims_of(c), max_grad_plane_ref);
}

static tp_status avg_ref(const tp_call *c)
{
    return run_ref(c, dims_of(c), avg_plane_ref);
}

static tp_status avg_grad_ref(const tp_call *c)
{
    return run_ref(c, avg_grad_dims(c), avg_grad_plane_ref);
}

/* ---- shapes and gradients ---- */

static tp_status infer_pool(tp_infer *x)
{
    return pooled_shape(x->shape[0], x->dtype[0], x->attr, &x->out_shape[0]);
}

static tp_status infer_max_grad(tp_infer *x)
{
    tp_shape y;
    TP_TRY(pooled_shape(x->shape[0], x->dtype[0], x->attr, &y));
    TP_CHECK(tp_shape_equal(y, x->shape[1]) && tp_shape_equal(y, x->shape[2]), TP_ESHAPE,
             "y and dy must have the pooled shape");
    return TP_OK;
}

static tp_status infer_avg_grad(tp_infer *x)
{
    const tp_pool_grad_attr *a = x->attr;
    tp_shape y;
    TP_TRY(pooled_shape(a->shape, x->dtype[0], &a->pool, &y));
    TP_CHECK(tp_shape_equal(y, x->shape[0]), TP_ESHAPE, "dy must have the pooled shape");
    x->out_shape[0] = a->shape;
    return TP_OK;
}

static void grad_max(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    (void)need;
    dx[0] = tp_max_pool_grad(g, n->in[0], n->out[0], dy[0], *(const tp_pool_attr *)n->attr);
}

static void grad_avg(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    (void)need;
    dx[0] = tp_avg_pool_grad(g, tp_val_shape(g, n->in[0]), dy[0], *(const tp_pool_attr *)n->attr);
}

static void grad_avg_grad(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    (void)need;
    dx[0] = tp_avg_pool(g, dy[0], ((const tp_pool_grad_attr *)n->attr)->pool);
}

/* ---- descriptors ---- */

#define TWO(last)                                                                                            \
    {                                                                                                        \
        {2, 2}, {0, 0}, {0, 0}, last                                                                         \
    }
#define THREE(last)                                                                                          \
    {                                                                                                        \
        {3, 3}, {2, 2}, {1, 1}, last                                                                         \
    }
#define MIXED(last)                                                                                          \
    {                                                                                                        \
        {3, 2}, {1, 2}, {1, 0}, last                                                                         \
    }
#define FLAT(last)                                                                                           \
    {                                                                                                        \
        {3, 0}, {2, 0}, {1, 0}, last                                                                         \
    }
static const tp_pool_attr two = TWO(0), three = THREE(0), mixed = MIXED(0), far = {{2, 5}, {3, 3}, {0, 2}, 0},
                          flat = FLAT(0), apart = {{2, 3}, {3, 4}, {0, 0}, 0},
                          l_apart = {{2, 3}, {3, 4}, {0, 0}, 1}, l_two = TWO(1), l_three = THREE(1),
                          l_mixed = MIXED(1), l_flat = FLAT(1);
#define CASES(name, flags)                                                                                   \
    static const tp_case name[] = {                                                                          \
        {"1x1x2x2", -1.0, 1.0, 0, &two, 0, flags},                                                           \
        {"2x3x8x6", -1.0, 1.0, 0, &two, 0, flags},                                                           \
        {"2x3x9x7", -1.0, 1.0, 0, &three, 0, flags},                                                         \
        {"2x5x7x8", -1.0, 1.0, 0, &mixed, 0, flags},                                                         \
        {"1x2x5x37", -1.0, 1.0, 0, &far, 0, flags},                                                          \
        {"3x4x17", -1.0, 1.0, 0, &flat, 0, flags},                                                           \
        {"2x8x6x3", -1.0, 1.0, 0, &l_two, 0, flags},                                                         \
        {"2x9x7x4", -1.0, 1.0, 0, &l_three, 0, flags},                                                       \
        {"2x7x8x20", -1.0, 1.0, 0, &l_mixed, 0, flags},                                                      \
        {"3x17x5", -1.0, 1.0, 0, &l_flat, 0, flags},                                                         \
        {"2x9x7x16:bf16", -1.0, 1.0, 0, &l_three, 4e-3, (flags) | TP_CASE_NO_GRAD},                          \
        {"2x3x9x7:bf16", -1.0, 1.0, 0, &three, 4e-3, (flags) | TP_CASE_NO_GRAD}};
CASES(cases_max, TP_CASE_DISTINCT)
CASES(cases_avg, 0)
#define TIES (TP_CASE_NO_GRAD | TP_CASE_WHOLE)
static const tp_case cases_max_grad[] = {
    {"2x3x8x6,2x3x4x3,2x3x4x3", -1.0, 1.0, 0, &two, 0, TP_CASE_NO_GRAD},
    {"1x1x2x2,1x1x1x1,1x1x1x1", 1.0, 1.0, 0, &two, 0, TP_CASE_NO_GRAD},
    /* ties: the first of each window takes the gradient */
    {"2x3x9x7,2x3x5x4,2x3x5x4", 1.0, 4.0, 0, &three, 0, TIES},
    {"2x5x7x8,2x5x7x4,2x5x7x4", 1.0, 4.0, 0, &mixed, 0, TIES},
    {"3x4x17,3x4x9,3x4x9", 1.0, 4.0, 0, &flat, 0, TIES},
    {"2x9x7x4,2x5x4x4,2x5x4x4", 1.0, 4.0, 0, &l_three, 0, TIES},
    {"2x7x8x5,2x7x4x5,2x7x4x5", 1.0, 4.0, 0, &l_mixed, 0, TIES},
    {"1x4x4x260,1x2x2x260,1x2x2x260", 1.0, 4.0, 0, &l_two, 0, TIES},
    {"3x17x4,3x9x4,3x9x4", 1.0, 4.0, 0, &l_flat, 0, TIES},
    {"2x9x7x8:bf16,2x5x4x8:bf16,2x5x4x8:bf16", 1.0, 4.0, 0, &l_three, 4e-3, TIES},
    {"2x7x9x4,2x3x4x4,2x3x4x4", 1.0, 4.0, 0, &l_two, 0, TIES},
    {"2x3x7x9,2x3x3x4,2x3x3x4", 1.0, 4.0, 0, &two, 0, TIES},
    {"2x3x10x9,2x3x3x2,2x3x3x2", 1.0, 4.0, 0, &apart, 0, TIES},
    {"2x11x16x8,2x4x4x8,2x4x4x8", 1.0, 4.0, 0, &l_apart, 0, TIES},
    {"2x8x6x8:bf16,2x4x3x8:bf16,2x4x3x8:bf16", 1.0, 4.0, 0, &l_two, 4e-3, TIES}};
static const tp_pool_grad_attr g_two = {TWO(0), {4, {2, 3, 8, 6}}}, g_three = {THREE(0), {4, {2, 3, 9, 7}}},
                               g_flat = {FLAT(0), {3, {3, 4, 17}}}, lg_three = {THREE(1), {4, {2, 9, 7, 3}}},
                               lg_mixed = {MIXED(1), {4, {2, 7, 8, 8}}}, lg_flat = {FLAT(1), {3, {3, 17, 4}}};
static const tp_case cases_avg_grad[] = {{"2x3x4x3", -1.0, 1.0, 0, &g_two, 0, 0},
                                         {"2x3x5x4", -1.0, 1.0, 0, &g_three, 0, 0},
                                         {"3x4x9", -1.0, 1.0, 0, &g_flat, 0, 0},
                                         {"2x5x4x3", -1.0, 1.0, 0, &lg_three, 0, 0},
                                         {"2x7x4x8", -1.0, 1.0, 0, &lg_mixed, 0, 0},
                                         {"3x9x4", -1.0, 1.0, 0, &lg_flat, 0, 0},
                                         {"2x7x4x8:bf16", -1.0, 1.0, 0, &lg_mixed, 4e-3, 0}};
static const tp_impl max_cpu = {"simd", tp_accept_f32, max_simd, NULL, 0};
static const tp_impl max_cpu_ref = {"ref", tp_accept_float, max_ref, NULL, 0};
static const tp_impl max_grad_cpu = {"simd", tp_accept_f32, max_grad_simd, NULL, 0};
static const tp_impl max_grad_cpu_ref = {"ref", tp_accept_float, max_grad_ref, NULL, 0};
static const tp_impl avg_cpu = {"simd", tp_accept_f32, avg_simd, NULL, 0};
static const tp_impl avg_grad_cpu = {"simd", tp_accept_f32, avg_grad_simd, NULL, 0};
static const tp_impl avg_cpu_ref = {"ref", tp_accept_float, avg_ref, NULL, 0};
static const tp_impl avg_grad_cpu_ref = {"ref", tp_accept_float, avg_grad_ref, NULL, 0};

const tp_op tp_op_max_pool = {.name = "max_pool",
                              .onnx = "MaxPool",
                              .min_in = 1,
                              .max_in = 1,
                              .n_out = 1,
                              .attr_size = sizeof(tp_pool_attr),
                              .infer = infer_pool,
                              .grad = grad_max,
                              .cost = tp_cost_stream,
                              .cpu = TP_IMPLS(&max_cpu, &max_cpu_ref),
                              .cases = cases_max,
                              .n_cases = TP_COUNT(cases_max)};
const tp_op tp_op_max_pool_grad = {.name = "max_pool_grad",
                                   .min_in = 3,
                                   .max_in = 3,
                                   .n_out = 1,
                                   .attr_size = sizeof(tp_pool_attr),
                                   .infer = infer_max_grad,
                                   .cost = tp_cost_stream,
                                   .cpu = TP_IMPLS(&max_grad_cpu, &max_grad_cpu_ref),
                                   .cases = cases_max_grad,
                                   .n_cases = TP_COUNT(cases_max_grad)};
const tp_op tp_op_avg_pool = {.name = "avg_pool",
                              .onnx = "AveragePool",
                              .min_in = 1,
                              .max_in = 1,
                              .n_out = 1,
                              .attr_size = sizeof(tp_pool_attr),
                              .infer = infer_pool,
                              .grad = grad_avg,
                              .cost = tp_cost_stream,
                              .cpu = TP_IMPLS(&avg_cpu, &avg_cpu_ref),
                              .cases = cases_avg,
                              .n_cases = TP_COUNT(cases_avg)};
const tp_op tp_op_avg_pool_grad = {.name = "avg_pool_grad",
                                   .min_in = 1,
                                   .max_in = 1,
                                   .n_out = 1,
                                   .attr_size = sizeof(tp_pool_grad_attr),
                                   .infer = infer_avg_grad,
                                   .grad = grad_avg_grad,
                                   .cost = tp_cost_stream,
                                   .cpu = TP_IMPLS(&avg_grad_cpu, &avg_grad_cpu_ref),
                                   .cases = cases_avg_grad,
                                   .n_cases = TP_COUNT(cases_avg_grad)};

tp_val tp_max_pool(tp_graph *g, tp_val x, tp_pool_attr attr)
{
    return tp_graph_add(g, &tp_op_max_pool, 1, &x, &attr);
}

tp_val tp_max_pool_grad(tp_graph *g, tp_val x, tp_val y, tp_val dy, tp_pool_attr attr)
{
    return tp_graph_add(g, &tp_op_max_pool_grad, 3, (const tp_val[]){x, y, dy}, &attr);
}

tp_val tp_avg_pool(tp_graph *g, tp_val x, tp_pool_attr attr)
{
    return tp_graph_add(g, &tp_op_avg_pool, 1, &x, &attr);
}

tp_val tp_avg_pool_grad(tp_graph *g, tp_shape x_shape, tp_val dy, tp_pool_attr attr)
{
    return tp_graph_add(g, &tp_op_avg_pool_grad, 1, &dy, &(const tp_pool_grad_attr){attr, x_shape});
}

tp_val tp_global_avg_pool(tp_graph *g, tp_val x, int channels_last)
{
    const int nd = tp_val_shape(g, x).nd;
    if (x != 0 && nd < 3)
        return tp_graph_fail(g, TP_ESHAPE, "global_avg_pool: x has %d dimensions, want (N,C,...)", nd);
    return tp_reduce_mean(g, x, ((1u << nd) - 1u) & ~(1u | 1u << tp_image_channel_dim(nd, channels_last)), 0);
}
