/* norm.c - batch, layer and group norm and their gradients.
 *
 * All three are one pattern: elements fall into sets that share a mean and a deviation (a channel of the
 * batch; a row; a group of channels of a sample), and into channels that share gamma and beta. Sums run in
 * double, a set or a channel at a time by one thread, so the bits do not depend on how many there are. */
#include "kernels/cpu.h"
#include <math.h>

/* x seen as (n, c, s): samples, channels, elements of a channel. For layer norm: (rows, D, 1). */
typedef struct norm_dims {
    int64_t n, c, s, groups;
} norm_dims;

static norm_dims dims_of(tp_shape x, int last, int64_t groups)
{
    norm_dims d = {1, 1, 1, groups > 0 ? groups : 1};
    if (last) {
        d.c = x.d[x.nd - 1];
        for (int i = 0; i < x.nd - 1; i++)
            d.n *= x.d[i];
        return d;
    }
    d.n = x.d[0];
    d.c = x.d[1];
    for (int i = 2; i < x.nd; i++)
        d.s *= x.d[i];
    return d;
}

typedef struct norm_job {
    const tp_call *c;
    norm_dims d;
} norm_job;

static tp_status run_over(const tp_call *c, norm_dims d, int64_t items, int64_t cost,
                          void (*body)(void *, int64_t, int64_t))
{
    norm_job j = {c, d};
    tp_parallel(items, 1 + TP_GRAIN / (4 * cost + 1), body, &j);
    return TP_OK;
}

/* ---- float32 rows ---- */

TP_SIMD static void sum_row(const float *x, int64_t n, double *sum, double *squares, double shift)
{
    double a[TP_LANES] = {0}, b[TP_LANES] = {0};
    int64_t i = 0;
    for (; i + TP_LANES <= n; i += TP_LANES)
        for (int k = 0; k < TP_LANES; k++) {
            const double v = (double)x[i + k] - shift;
            a[k] += v;
            b[k] += v * v;
        }
    for (int k = 0; i + k < n; k++) {
        const double v = (double)x[i + k] - shift;
        a[k] += v;
        b[k] += v * v;
    }
    for (int half = TP_LANES / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++) {
            a[k] += a[k + half];
            b[k] += b[k + half];
        }
    *sum += a[0];
    *squares += b[0];
}

TP_SIMD static void dot_row(const float *x, const float *dy, int64_t n, double mean, double *sum, double *dot)
{
    double a[TP_LANES] = {0}, b[TP_LANES] = {0};
    int64_t i = 0;
    for (; i + TP_LANES <= n; i += TP_LANES)
        for (int k = 0; k < TP_LANES; k++) {
            a[k] += (double)dy[i + k];
            b[k] += (double)dy[i + k] * ((double)x[i + k] - mean);
        }
    for (int k = 0; i + k < n; k++) {
        a[k] += (double)dy[i + k];
        b[k] += (double)dy[i + k] * ((double)x[i + k] - mean);
    }
    for (int half = TP_LANES / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++) {
            a[k] += a[k + half];
            b[k] += b[k + half];
        }
    *sum += a[0];
    *dot += b[0];
}

TP_SIMD static void affine_row(float *y, const float *x, int64_t n, float scale, float shift)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] * scale + shift;
}

/* dx = a dy + b x + c */
TP_SIMD static void affine2_row(float *dx, const float *dy, const float *x, int64_t n, float a, float b,
                                float c)
{
    for (int64_t i = 0; i < n; i++)
        dx[i] = a * dy[i] + b * x[i] + c;
}

/* Rows of any float dtype: float32 by the loops above, float64 one element at a time. */
static void sum_any(const tp_tensor *x, int64_t at, int64_t n, double *sum, double *squares, double shift)
{
    if (x->dtype == TP_F32) {
        sum_row((const float *)x->data + at, n, sum, squares, shift);
        return;
    }
    for (int64_t i = at; i < at + n; i++) {
        const double v = tp_get(x, i) - shift;
        *sum += v;
        *squares += v * v;
    }
}

static void dot_any(const tp_tensor *x, const tp_tensor *dy, int64_t at, int64_t n, double mean, double *sum,
                    double *dot)
{
    if (x->dtype == TP_F32) {
        dot_row((const float *)x->data + at, (const float *)dy->data + at, n, mean, sum, dot);
        return;
    }
    for (int64_t i = at; i < at + n; i++) {
        *sum += tp_get(dy, i);
        *dot += tp_get(dy, i) * (tp_get(x, i) - mean);
    }
}

static void affine_any(const tp_tensor *y, const tp_tensor *x, int64_t at, int64_t n, double scale,
                       double shift)
{
    if (x->dtype == TP_F32) {
        affine_row((float *)y->data + at, (const float *)x->data + at, n, (float)scale, (float)shift);
        return;
    }
    for (int64_t i = at; i < at + n; i++)
        tp_set(y, i, tp_get(x, i) * scale + shift);
}

static void affine2_any(const tp_tensor *dx, const tp_tensor *dy, const tp_tensor *x, int64_t at, int64_t n,
                        double a, double b, double c)
{
    if (x->dtype == TP_F32) {
        affine2_row((float *)dx->data + at, (const float *)dy->data + at, (const float *)x->data + at, n,
                    (float)a, (float)b, (float)c);
        return;
    }
    for (int64_t i = at; i < at + n; i++)
        tp_set(dx, i, a * tp_get(dy, i) + b * tp_get(x, i) + c);
}

/* ---- batch norm: a set is a channel. inputs: x, gamma, beta, running_mean, running_var, weight ---- */

enum { BN_X, BN_GAMMA, BN_BETA, BN_MEAN, BN_VAR, BN_WEIGHT };

static double row_weight(const tp_call *c, int at, int64_t n)
{
    return c->n_in > at && c->in[at].dtype != TP_DTYPE_NONE ? (tp_get(&c->in[at], n) != 0.0 ? 1.0 : 0.0)
                                                            : 1.0;
}

static void batch_norm_channels(void *ctx, int64_t begin, int64_t end)
{
    const norm_job *j = ctx;
    const tp_call *c = j->c;
    const tp_norm_attr *a = c->attr;
    const norm_dims d = j->d;

    for (int64_t ch = begin; ch < end; ch++) {
        double count = 0.0, sum = 0.0, squares = 0.0, unused = 0.0, rest = 0.0;
        for (int64_t n = 0; n < d.n; n++)
            if (row_weight(c, BN_WEIGHT, n) != 0.0) {
                count += (double)d.s;
                sum_any(&c->in[BN_X], (n * d.c + ch) * d.s, d.s, &sum, &unused, 0.0);
            }
        const double mean = count > 0.0 ? sum / count : 0.0;
        for (int64_t n = 0; n < d.n; n++)
            if (row_weight(c, BN_WEIGHT, n) != 0.0)
                sum_any(&c->in[BN_X], (n * d.c + ch) * d.s, d.s, &rest, &squares, mean);
        const double var = count > 0.0 ? squares / count : 0.0, rstd = 1.0 / sqrt(var + a->epsilon);
        const double gamma = tp_get(&c->in[BN_GAMMA], ch), beta = tp_get(&c->in[BN_BETA], ch);
        for (int64_t n = 0; n < d.n; n++)
            affine_any(&c->out[0], &c->in[BN_X], (n * d.c + ch) * d.s, d.s, rstd * gamma,
                       beta - mean * rstd * gamma);
        tp_set(&c->out[1], ch, mean);
        tp_set(&c->out[2], ch, rstd);
        if (count > 0.0) {
            const double unbiased = count > 1.0 ? squares / (count - 1.0) : var;
            tp_set(&c->in[BN_MEAN], ch,
                   (1.0 - a->momentum) * tp_get(&c->in[BN_MEAN], ch) + a->momentum * mean);
            tp_set(&c->in[BN_VAR], ch,
                   (1.0 - a->momentum) * tp_get(&c->in[BN_VAR], ch) + a->momentum * unbiased);
        }
    }
}

static tp_status batch_norm_run(const tp_call *c)
{
    const norm_dims d = dims_of(c->in[0].shape, 0, 1);
    return run_over(c, d, d.c, d.n * d.s, batch_norm_channels);
}

/* inputs: x, gamma, mean, rstd, dy, weight. With xh = (x - mean) rstd and sums over the rows that count:
 * dgamma = sum dy xh, dbeta = sum dy, dx = gamma rstd (dy - dbeta / n - xh dgamma / n). Rows of weight 0 had
 * no part in the statistics, so there dx = gamma rstd dy. */
enum { BG_X, BG_GAMMA, BG_MEAN, BG_RSTD, BG_DY, BG_WEIGHT };

static void batch_norm_grad_channels(void *ctx, int64_t begin, int64_t end)
{
    const norm_job *j = ctx;
    const tp_call *c = j->c;
    const norm_dims d = j->d;

    for (int64_t ch = begin; ch < end; ch++) {
        const double mean = tp_get(&c->in[BG_MEAN], ch), rstd = tp_get(&c->in[BG_RSTD], ch),
                     gamma = tp_get(&c->in[BG_GAMMA], ch);
        double count = 0.0, sum = 0.0, dot = 0.0;
        for (int64_t n = 0; n < d.n; n++) {
            dot_any(&c->in[BG_X], &c->in[BG_DY], (n * d.c + ch) * d.s, d.s, mean, &sum, &dot);
            count += row_weight(c, BG_WEIGHT, n) * (double)d.s;
        }
        const double a = gamma * rstd, b = count > 0.0 ? -a * rstd * rstd * dot / count : 0.0;
        const double shift = count > 0.0 ? -a * sum / count - b * mean : 0.0;
        for (int64_t n = 0; n < d.n; n++) {
            const double w = row_weight(c, BG_WEIGHT, n);
            affine2_any(&c->out[0], &c->in[BG_DY], &c->in[BG_X], (n * d.c + ch) * d.s, d.s, a, w * b,
                        w * shift);
        }
        tp_set(&c->out[1], ch, dot * rstd);
        tp_set(&c->out[2], ch, sum);
    }
}

static tp_status batch_norm_grad_run(const tp_call *c)
{
    const norm_dims d = dims_of(c->in[0].shape, 0, 1);
    return run_over(c, d, d.c, d.n * d.s, batch_norm_grad_channels);
}

/* inputs: x, gamma, beta, mean, var */
static void batch_norm_eval_channels(void *ctx, int64_t begin, int64_t end)
{
    const norm_job *j = ctx;
    const tp_call *c = j->c;
    const tp_norm_attr *a = c->attr;
    const norm_dims d = j->d;

    for (int64_t ch = begin; ch < end; ch++) {
        const double scale = tp_get(&c->in[1], ch) / sqrt(tp_get(&c->in[4], ch) + a->epsilon);
        for (int64_t n = 0; n < d.n; n++)
            affine_any(&c->out[0], &c->in[0], (n * d.c + ch) * d.s, d.s, scale,
                       tp_get(&c->in[2], ch) - tp_get(&c->in[3], ch) * scale);
    }
}

static tp_status batch_norm_eval_run(const tp_call *c)
{
    const norm_dims d = dims_of(c->in[0].shape, 0, 1);
    return run_over(c, d, d.c, d.n * d.s, batch_norm_eval_channels);
}

/* ---- layer and group norm: a set is a run of consecutive elements ---- */

static double affine_of(const tp_call *c, int input, const norm_dims *d, int64_t set, int64_t i)
{
    const int64_t per = d->c / d->groups;
    return tp_get(&c->in[input], set % d->groups * per + i / d->s);
}

static void set_norm_sets(void *ctx, int64_t begin, int64_t end)
{
    const norm_job *j = ctx;
    const tp_call *c = j->c;
    const tp_norm_attr *a = c->attr;
    const int64_t len = j->d.c / j->d.groups * j->d.s;

    for (int64_t set = begin; set < end; set++) {
        double sum = 0.0, squares = 0.0, rest = 0.0, unused = 0.0;
        sum_any(&c->in[0], set * len, len, &sum, &unused, 0.0);
        const double mean = sum / (double)len;
        sum_any(&c->in[0], set * len, len, &rest, &squares, mean);
        const double rstd = 1.0 / sqrt(squares / (double)len + a->epsilon);
        for (int64_t i = 0; i < len; i += j->d.s) {
            const double scale = rstd * affine_of(c, 1, &j->d, set, i);
            affine_any(&c->out[0], &c->in[0], set * len + i, j->d.s, scale,
                       affine_of(c, 2, &j->d, set, i) - mean * scale);
        }
        tp_set(&c->out[1], set, mean);
        tp_set(&c->out[2], set, rstd);
    }
}

/* inputs: x, gamma, mean, rstd, dy. With g = dy gamma: dx = rstd (g - mean(g) - xh mean(g xh)). */
static void set_norm_grad_sets(void *ctx, int64_t begin, int64_t end)
{
    const norm_job *j = ctx;
    const tp_call *c = j->c;
    const int64_t len = j->d.c / j->d.groups * j->d.s;

    for (int64_t set = begin; set < end; set++) {
        const double mean = tp_get(&c->in[2], set), rstd = tp_get(&c->in[3], set);
        double sum = 0.0, dot = 0.0;
        for (int64_t i = 0; i < len; i += j->d.s) {
            const double gamma = affine_of(c, 1, &j->d, set, i);
            double part = 0.0, part_dot = 0.0;
            dot_any(&c->in[0], &c->in[4], set * len + i, j->d.s, mean, &part, &part_dot);
            sum += gamma * part;
            dot += gamma * part_dot;
        }
        const double b = -rstd * rstd * rstd * dot / (double)len,
                     shift = -rstd * sum / (double)len - b * mean;
        for (int64_t i = 0; i < len; i += j->d.s)
            affine2_any(&c->out[0], &c->in[4], &c->in[0], set * len + i, j->d.s,
                        rstd * affine_of(c, 1, &j->d, set, i), b, shift);
    }
}

/* dgamma and dbeta: a channel at a time, over every sample. */
static void set_norm_grad_channels(void *ctx, int64_t begin, int64_t end)
{
    const norm_job *j = ctx;
    const tp_call *c = j->c;
    const norm_dims d = j->d;
    const int64_t per = d.c / d.groups;

    for (int64_t ch = begin; ch < end; ch++) {
        double dgamma = 0.0, dbeta = 0.0;
        for (int64_t n = 0; n < d.n; n++) {
            const int64_t set = n * d.groups + ch / per;
            double sum = 0.0, dot = 0.0;
            dot_any(&c->in[0], &c->in[4], (n * d.c + ch) * d.s, d.s, tp_get(&c->in[2], set), &sum, &dot);
            dgamma += dot * tp_get(&c->in[3], set);
            dbeta += sum;
        }
        tp_set(&c->out[1], ch, dgamma);
        tp_set(&c->out[2], ch, dbeta);
    }
}

static tp_status set_norm_run(const tp_call *c, int last)
{
    const norm_dims d = dims_of(c->in[0].shape, last, ((const tp_norm_attr *)c->attr)->groups);
    return run_over(c, d, d.n * d.groups, d.c / d.groups * d.s, set_norm_sets);
}

static tp_status set_norm_grad_run(const tp_call *c, int last)
{
    const norm_dims d = dims_of(c->in[0].shape, last, ((const tp_norm_attr *)c->attr)->groups);
    TP_TRY(run_over(c, d, d.n * d.groups, d.c / d.groups * d.s, set_norm_grad_sets));
    return run_over(c, d, d.c, d.n * d.s, set_norm_grad_channels);
}

static tp_status layer_norm_run(const tp_call *c)
{
    return set_norm_run(c, 1);
}

static tp_status group_norm_run(const tp_call *c)
{
    return set_norm_run(c, 0);
}

static tp_status layer_norm_grad_run(const tp_call *c)
{
    return set_norm_grad_run(c, 1);
}

static tp_status group_norm_grad_run(const tp_call *c)
{
    return set_norm_grad_run(c, 0);
}

/* ---- shapes ---- */

static tp_status check_channels(const tp_infer *x, int from, int to, int64_t n)
{
    TP_CHECK(tp_is_float(x->dtype[0]) && x->shape[0].nd >= 2 && tp_shape_len(x->shape[0]) > 0, TP_ESHAPE,
             "x must be float (N,C,...) and not empty");
    for (int i = from; i <= to && i < x->n_in; i++)
        TP_CHECK(x->dtype[i] == x->dtype[0] && tp_shape_len(x->shape[i]) == n, TP_ESHAPE,
                 "input %d must have %lld values of x's dtype", i, (long long)n);
    return TP_OK;
}

static tp_status check_rows(const tp_infer *x, int weight)
{
    TP_CHECK(x->n_in <= weight || x->dtype[weight] == TP_DTYPE_NONE ||
                 tp_shape_len(x->shape[weight]) == x->shape[0].d[0],
             TP_ESHAPE, "weight must have %lld values", (long long)x->shape[0].d[0]);
    return TP_OK;
}

static tp_status infer_batch_norm(tp_infer *x)
{
    TP_TRY(check_channels(x, BN_GAMMA, BN_VAR, x->shape[0].nd > 1 ? x->shape[0].d[1] : 0));
    TP_TRY(check_rows(x, BN_WEIGHT));
    x->out_shape[1] = x->out_shape[2] = (tp_shape){1, {x->shape[0].d[1]}};
    return TP_OK;
}

static tp_status infer_batch_norm_grad(tp_infer *x)
{
    TP_TRY(check_channels(x, BG_GAMMA, BG_RSTD, x->shape[0].nd > 1 ? x->shape[0].d[1] : 0));
    TP_TRY(check_rows(x, BG_WEIGHT));
    TP_CHECK(tp_shape_equal(x->shape[0], x->shape[BG_DY]), TP_ESHAPE, "dy must have the shape of x");
    x->out_shape[1] = x->out_shape[2] = (tp_shape){1, {x->shape[0].d[1]}};
    return TP_OK;
}

static tp_status infer_batch_norm_eval(tp_infer *x)
{
    return check_channels(x, 1, 4, x->shape[0].nd > 1 ? x->shape[0].d[1] : 0);
}

static tp_status infer_set(tp_infer *x, int last, int grad)
{
    const tp_shape s = x->shape[0];
    const tp_norm_attr *a = x->attr;

    TP_CHECK(s.nd >= 2, TP_ESHAPE, "x has %d dimensions, want at least 2", s.nd);
    const norm_dims d = dims_of(s, last, a->groups);
    TP_TRY(check_channels(x, 1, grad ? 1 : 2, d.c));
    TP_CHECK(d.c % d.groups == 0, TP_ESHAPE, "%lld groups do not divide %lld channels", (long long)d.groups,
             (long long)d.c);
    if (grad) {
        TP_CHECK(tp_shape_len(x->shape[2]) == d.n * d.groups && tp_shape_len(x->shape[3]) == d.n * d.groups &&
                     tp_shape_equal(s, x->shape[4]),
                 TP_ESHAPE, "mean and rstd must have %lld values and dy the shape of x",
                 (long long)(d.n * d.groups));
        x->out_shape[1] = x->out_shape[2] = (tp_shape){1, {d.c}};
    } else
        x->out_shape[1] = x->out_shape[2] = (tp_shape){1, {d.n * d.groups}};
    return TP_OK;
}

static tp_status infer_layer_norm(tp_infer *x)
{
    return infer_set(x, 1, 0);
}

static tp_status infer_layer_norm_grad(tp_infer *x)
{
    return infer_set(x, 1, 1);
}

static tp_status infer_group_norm(tp_infer *x)
{
    return infer_set(x, 0, 0);
}

static tp_status infer_group_norm_grad(tp_infer *x)
{
    return infer_set(x, 0, 1);
}

/* ---- gradients ---- */

static void spread(const uint8_t *need, tp_val first, tp_val *dx)
{
    for (int i = 0; i < 3; i++)
        if (need[i] && first != 0)
            dx[i] = first + (tp_val)i;
}

static void grad_batch_norm(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    spread(need,
           tp_batch_norm_grad(g, n->in[0], n->in[1], n->out[1], n->out[2], dy[0],
                              n->n_in > BN_WEIGHT ? n->in[BN_WEIGHT] : 0),
           dx);
}

static void grad_layer_norm(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    spread(need, tp_layer_norm_grad(g, n->in[0], n->in[1], n->out[1], n->out[2], dy[0]), dx);
}

static void grad_group_norm(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    const tp_norm_attr *a = n->attr;
    spread(need, tp_group_norm_grad(g, n->in[0], n->in[1], n->out[1], n->out[2], dy[0], a->groups), dx);
}

/* Frozen statistics: y = (x - mean) r gamma + beta with r = 1 / sqrt(var + eps), elementwise in x. */
static void grad_batch_norm_eval(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need,
                                 tp_val *dx)
{
    const tp_norm_attr *a = n->attr;
    const tp_shape s = tp_val_shape(g, n->in[0]);
    const tp_dtype dtype = tp_val_dtype(g, n->in[0]);
    tp_shape per = {.nd = s.nd, .d = {1, s.d[1]}};
    uint32_t axes = 1;

    for (int i = 2; i < s.nd; i++) {
        per.d[i] = 1;
        axes |= 1u << i;
    }
    const tp_val r = tp_rsqrt(g, tp_add(g, n->in[4], tp_scalar(g, dtype, a->epsilon)));
    if (need[0])
        dx[0] = tp_mul(g, dy[0], tp_reshape(g, tp_mul(g, r, n->in[1]), per));
    if (need[1]) {
        const tp_val centred = tp_sub(g, n->in[0], tp_reshape(g, n->in[3], per));
        dx[1] = tp_mul(g, r, tp_reduce_sum(g, tp_mul(g, dy[0], centred), axes, 0));
    }
    if (need[2])
        dx[2] = tp_reduce_sum(g, dy[0], axes, 0);
}

/* ---- descriptors ---- */

static const tp_norm_attr norm = {1e-5, 0.1, 1}, norm_3 = {1e-5, 0.1, 3};
static const tp_case cases_batch_norm[] = {
    {"4x3,3,3,3,3,-", 0.2, 2.0, 0, &norm, 5e-6, 0},
    {"5x3x4x2,3,3,3,3,5", 0.2, 2.0, 0, &norm, 5e-6, 0},
    {"33x17x9,17,17,17,17,-", 0.2, 2.0, 0, &norm, 5e-6, 0},
};
static const tp_case cases_batch_norm_grad[] = {
    {"4x3,3,3,3,4x3,-", 0.2, 2.0, 0, &norm, 2e-5, TP_CASE_NO_GRAD},
    {"5x3x4x2,3,3,3,5x3x4x2,5", 0.2, 2.0, 0, &norm, 2e-5, TP_CASE_NO_GRAD},
};
static const tp_case cases_batch_norm_eval[] = {
    {"4x3,3,3,3,3", 0.2, 2.0, 0, &norm, 5e-6, 0},
    {"5x3x4x2,3,3,3,3", 0.2, 2.0, 0, &norm, 5e-6, 0},
};
static const tp_case cases_layer_norm[] = {
    {"4x3,3,3", -2.0, 2.0, 0, &norm, 5e-6, 0},
    {"2x5x33,33,33", -2.0, 2.0, 0, &norm, 5e-6, 0},
};
static const tp_case cases_layer_norm_grad[] = {
    {"4x3,3,4,4,4x3", 0.2, 2.0, 0, &norm, 2e-5, TP_CASE_NO_GRAD},
    {"70x33,33,70,70,70x33", 0.2, 2.0, 0, &norm, 2e-5, TP_CASE_NO_GRAD},
};
static const tp_case cases_group_norm[] = {
    {"2x6,6,6", -2.0, 2.0, 0, &norm_3, 5e-6, 0},
    {"2x6x5x4,6,6", -2.0, 2.0, 0, &norm_3, 5e-6, 0},
};
static const tp_case cases_group_norm_grad[] = {
    {"2x6,6,6,6,2x6", 0.2, 2.0, 0, &norm_3, 2e-5, TP_CASE_NO_GRAD},
    {"2x6x5x4,6,6,6,2x6x5x4", 0.2, 2.0, 0, &norm_3, 2e-5, TP_CASE_NO_GRAD},
};

#define NORM_OP(opname, onnx_name, fewest, most, outs, op_flags, constants, grad_fn)                         \
    static const tp_impl opname##_cpu_ref = {"ref", tp_accept_float, opname##_run, NULL, 0};                 \
    const tp_op tp_op_##opname = {.name = #opname,                                                           \
                                  .onnx = onnx_name,                                                         \
                                  .min_in = fewest,                                                          \
                                  .max_in = most,                                                            \
                                  .n_out = outs,                                                             \
                                  .flags = op_flags,                                                         \
                                  .constant_in = constants,                                                  \
                                  .attr_size = sizeof(tp_norm_attr),                                         \
                                  .infer = infer_##opname,                                                   \
                                  .grad = grad_fn,                                                           \
                                  .cost = tp_cost_stream,                                                    \
                                  .impls = {[TP_CPU] = TP_IMPLS(&opname##_cpu_ref)},                         \
                                  .cases = cases_##opname,                                                   \
                                  .n_cases = TP_COUNT(cases_##opname)};

NORM_OP(batch_norm, "BatchNormalization", 5, 6, 3, TP_OP_EFFECT, 56u, grad_batch_norm)
NORM_OP(batch_norm_grad, NULL, 5, 6, 3, 0, 0, NULL)
NORM_OP(batch_norm_eval, "BatchNormalization", 5, 5, 1, 0, 24u, grad_batch_norm_eval)
NORM_OP(layer_norm, "LayerNormalization", 3, 3, 3, 0, 0, grad_layer_norm)
NORM_OP(layer_norm_grad, NULL, 5, 5, 3, 0, 0, NULL)
NORM_OP(group_norm, "GroupNormalization", 3, 3, 3, 0, 0, grad_group_norm)
NORM_OP(group_norm_grad, NULL, 5, 5, 3, 0, 0, NULL)

tp_val tp_batch_norm(tp_graph *g, tp_val x, tp_val gamma, tp_val beta, tp_val running_mean,
                     tp_val running_var, tp_val weight, double epsilon, double momentum)
{
    return tp_graph_add(g, &tp_op_batch_norm, 6,
                        (const tp_val[]){x, gamma, beta, running_mean, running_var, weight},
                        &(const tp_norm_attr){epsilon, momentum, 1});
}

tp_val tp_batch_norm_grad(tp_graph *g, tp_val x, tp_val gamma, tp_val mean, tp_val rstd, tp_val dy,
                          tp_val weight)
{
    return tp_graph_add(g, &tp_op_batch_norm_grad, 6, (const tp_val[]){x, gamma, mean, rstd, dy, weight},
                        &(const tp_norm_attr){0.0, 0.0, 1});
}

tp_val tp_batch_norm_eval(tp_graph *g, tp_val x, tp_val gamma, tp_val beta, tp_val mean, tp_val var,
                          double epsilon)
{
    return tp_graph_add(g, &tp_op_batch_norm_eval, 5, (const tp_val[]){x, gamma, beta, mean, var},
                        &(const tp_norm_attr){epsilon, 0.0, 1});
}

tp_val tp_layer_norm(tp_graph *g, tp_val x, tp_val gamma, tp_val beta, double epsilon)
{
    return tp_graph_add(g, &tp_op_layer_norm, 3, (const tp_val[]){x, gamma, beta},
                        &(const tp_norm_attr){epsilon, 0.0, 1});
}

tp_val tp_layer_norm_grad(tp_graph *g, tp_val x, tp_val gamma, tp_val mean, tp_val rstd, tp_val dy)
{
    return tp_graph_add(g, &tp_op_layer_norm_grad, 5, (const tp_val[]){x, gamma, mean, rstd, dy},
                        &(const tp_norm_attr){0.0, 0.0, 1});
}

tp_val tp_group_norm(tp_graph *g, tp_val x, tp_val gamma, tp_val beta, int64_t groups, double epsilon)
{
    return tp_graph_add(g, &tp_op_group_norm, 3, (const tp_val[]){x, gamma, beta},
                        &(const tp_norm_attr){epsilon, 0.0, groups});
}

tp_val tp_group_norm_grad(tp_graph *g, tp_val x, tp_val gamma, tp_val mean, tp_val rstd, tp_val dy,
                          int64_t groups)
{
    return tp_graph_add(g, &tp_op_group_norm_grad, 5, (const tp_val[]){x, gamma, mean, rstd, dy},
                        &(const tp_norm_attr){0.0, 0.0, groups});
}
