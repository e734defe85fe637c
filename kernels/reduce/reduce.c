/* reduce.c - sums, means and maxima over any set of dimensions.
 *
 * Dimensions are collapsed to runs that are all kept or all reduced, then reduced one run at a time,
 * innermost first: each pass is out(outer, inner) = reduce over r of x(outer, r, inner). Sums run in double
 * over fixed blocks, so the result depends neither on threads nor on the CPU level. */
#include "kernels/cpu.h"
#include <math.h>
#include <string.h>

#define ROW_BLOCK 65536 /* elements of one partial sum when a row is reduced */
#define COLUMNS   64    /* columns reduced together when inner > 1 */

typedef struct pass {
    int64_t outer, r, inner;
} pass;

typedef struct reduction {
    int n_passes;
    pass pass[TP_MAX_DIMS];
    int64_t count; /* elements that make one output */
} reduction;

static uint32_t axes_of(const tp_shape *shape, uint32_t axes)
{
    return axes != 0 ? axes : (1u << shape->nd) - 1u;
}

static void reduction_init(reduction *red, const tp_shape *shape, uint32_t axes)
{
    int64_t d[TP_MAX_DIMS];
    int reduced[TP_MAX_DIMS], nd = 0;

    red->n_passes = 0;
    red->count = 1;
    for (int i = 0; i < shape->nd; i++) {
        const int is = (axes >> i) & 1u;
        if (is)
            red->count *= shape->d[i];
        if (nd > 0 && reduced[nd - 1] == is)
            d[nd - 1] *= shape->d[i];
        else {
            d[nd] = shape->d[i];
            reduced[nd++] = is;
        }
    }
    for (int i = nd - 1; i >= 0; i--) {
        if (!reduced[i])
            continue;
        pass *p = &red->pass[red->n_passes++];
        *p = (pass){1, d[i], 1};
        for (int k = 0; k < i; k++)
            p->outer *= d[k];
        for (int k = i + 1; k < nd; k++)
            if (!reduced[k])
                p->inner *= d[k];
    }
    if (red->n_passes == 0)
        red->pass[red->n_passes++] = (pass){tp_shape_len(*shape), 1, 1};
}

/* ---- float32 passes ---- */

TP_SIMD static double sum_block(const float *x, int64_t n)
{
    double lane[TP_LANES] = {0};
    int64_t i = 0;
    for (; i + TP_LANES <= n; i += TP_LANES)
        for (int k = 0; k < TP_LANES; k++)
            lane[k] += (double)x[i + k];
    for (int k = 0; i + k < n; k++)
        lane[k] += (double)x[i + k];
    for (int half = TP_LANES / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++)
            lane[k] += lane[k + half];
    return lane[0];
}

TP_SIMD static float max_block(const float *x, int64_t n)
{
    float lane[TP_LANES];
    int64_t i = 0;
    for (int k = 0; k < TP_LANES; k++)
        lane[k] = -INFINITY;
    for (; i + TP_LANES <= n; i += TP_LANES)
        for (int k = 0; k < TP_LANES; k++)
            lane[k] = x[i + k] > lane[k] || x[i + k] != x[i + k] ? x[i + k] : lane[k];
    for (; i < n; i++)
        lane[0] = x[i] > lane[0] || x[i] != x[i] ? x[i] : lane[0];
    for (int k = 1; k < TP_LANES; k++)
        lane[0] = lane[k] > lane[0] || lane[k] != lane[k] ? lane[k] : lane[0];
    return lane[0];
}

TP_SIMD static void add_columns(double *sum, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        sum[i] += (double)x[i];
}

TP_SIMD static void max_columns(float *most, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        most[i] = x[i] > most[i] || x[i] != x[i] ? x[i] : most[i];
}

typedef struct pass_job {
    pass p;
    const float *x;
    float *y;
    double *partial; /* (outer, blocks) when rows are reduced */
    int64_t blocks;
    double scale;
    int is_max;
} pass_job;

static void row_blocks(void *ctx, int64_t begin, int64_t end)
{
    const pass_job *j = ctx;
    for (int64_t i = begin; i < end; i++) {
        const int64_t o = i / j->blocks, b = i % j->blocks, at = b * ROW_BLOCK;
        const int64_t n = j->p.r - at < ROW_BLOCK ? j->p.r - at : ROW_BLOCK;
        const float *x = j->x + o * j->p.r + at;
        j->partial[i] = j->is_max ? (double)max_block(x, n) : sum_block(x, n);
    }
}

static void columns(void *ctx, int64_t begin, int64_t end)
{
    const pass_job *j = ctx;
    const int64_t per_row = (j->p.inner + COLUMNS - 1) / COLUMNS;
    for (int64_t i = begin; i < end; i++) {
        const int64_t o = i / per_row, at = i % per_row * COLUMNS;
        const int64_t n = j->p.inner - at < COLUMNS ? j->p.inner - at : COLUMNS;
        const float *x = j->x + o * j->p.r * j->p.inner + at;
        float *y = j->y + o * j->p.inner + at;
        double sum[COLUMNS] = {0};
        float most[COLUMNS];
        for (int k = 0; k < COLUMNS; k++)
            most[k] = -INFINITY;
        for (int64_t r = 0; r < j->p.r; r++)
            if (j->is_max)
                max_columns(most, x + r * j->p.inner, n);
            else
                add_columns(sum, x + r * j->p.inner, n);
        for (int64_t k = 0; k < n; k++)
            y[k] = j->is_max ? most[k] : (float)(sum[k] * j->scale);
    }
}

static void run_pass(pass_job *j)
{
    if (j->p.inner > 1) {
        const int64_t per_row = (j->p.inner + COLUMNS - 1) / COLUMNS;
        const int64_t cost = j->p.r * COLUMNS;
        tp_parallel(j->p.outer * per_row, 1 + TP_GRAIN / (cost + 1), columns, j);
        return;
    }
    j->blocks = (j->p.r + ROW_BLOCK - 1) / ROW_BLOCK;
    tp_parallel(j->p.outer * j->blocks, 1 + TP_GRAIN / (j->p.r / (j->blocks + 1) + 1), row_blocks, j);
    for (int64_t o = 0; o < j->p.outer; o++) {
        double total = j->is_max ? (double)-INFINITY : 0.0;
        for (int64_t b = 0; b < j->blocks; b++) {
            const double v = j->partial[o * j->blocks + b];
            total = j->is_max ? (v > total || v != v ? v : total) : total + v;
        }
        j->y[o] = (float)(j->is_max ? total : total * j->scale);
    }
}

static size_t padded(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* Scratch: partial sums of the widest row pass, then two float buffers that passes hand results through. */
static void scratch_layout(const reduction *red, size_t *partial, size_t *buffer)
{
    *partial = *buffer = 0;
    for (int i = 0; i < red->n_passes; i++) {
        const pass *p = &red->pass[i];
        const size_t doubles = (size_t)(p->outer * ((p->r + ROW_BLOCK - 1) / ROW_BLOCK)) * sizeof(double);
        const size_t floats = (size_t)(p->outer * p->inner) * sizeof(float);
        if (p->inner == 1 && padded(doubles) > *partial)
            *partial = padded(doubles);
        if (i + 1 < red->n_passes && padded(floats) > *buffer)
            *buffer = padded(floats);
    }
}

static tp_status simd_prepare(tp_call *c, size_t *scratch)
{
    reduction red;
    size_t partial, buffer;
    const tp_reduce_attr *attr = c->attr;

    TP_TRY(tp_accept_f32(c, scratch));
    reduction_init(&red, &c->in[0].shape, axes_of(&c->in[0].shape, attr->axes));
    scratch_layout(&red, &partial, &buffer);
    *scratch = partial + 2 * buffer;
    return TP_OK;
}

typedef enum reduce_kind { SUM, MEAN, MAX } reduce_kind;

static tp_status simd_run(const tp_call *c, reduce_kind kind)
{
    reduction red;
    size_t partial, buffer;
    const tp_reduce_attr *attr = c->attr;
    char *scratch = c->scratch;

    reduction_init(&red, &c->in[0].shape, axes_of(&c->in[0].shape, attr->axes));
    scratch_layout(&red, &partial, &buffer);
    const float *x = tp_in_f32(c, 0);
    for (int i = 0; i < red.n_passes; i++) {
        const int last = i + 1 == red.n_passes;
        float *y = last ? tp_out_f32(c, 0) : (float *)(void *)(scratch + partial + (size_t)(i % 2) * buffer);
        pass_job j = {
            .p = red.pass[i], .x = x, .y = y, .partial = (double *)(void *)scratch, .is_max = kind == MAX};
        j.scale = kind == MEAN && last ? 1.0 / (double)red.count : 1.0;
        run_pass(&j);
        x = y;
    }
    return TP_OK;
}

/* ---- reference ---- */

static int64_t out_index(const tp_shape *in, uint32_t axes, int64_t i)
{
    int64_t at[TP_MAX_DIMS], out = 0;
    for (int k = in->nd - 1; k >= 0; k--) {
        at[k] = i % in->d[k];
        i /= in->d[k];
    }
    for (int k = 0; k < in->nd; k++)
        if (!((axes >> k) & 1u))
            out = out * in->d[k] + at[k];
    return out;
}

static tp_status ref_run(const tp_call *c, reduce_kind kind)
{
    const tp_reduce_attr *attr = c->attr;
    const tp_tensor *x = &c->in[0], *y = &c->out[0];
    const uint32_t axes = axes_of(&x->shape, attr->axes);
    const int64_t n_out = tp_len(y), n_in = tp_len(x);

    /* One output at a time, so that a float32 output never rounds a running sum. */
    for (int64_t o = 0; o < n_out; o++) {
        double value = kind == MAX ? (double)-INFINITY : 0.0;
        for (int64_t i = 0; i < n_in; i++)
            if (out_index(&x->shape, axes, i) == o)
                value = kind == MAX ? (tp_get(x, i) > value ? tp_get(x, i) : value) : value + tp_get(x, i);
        tp_set(y, o, kind == MEAN ? value * (double)n_out / (double)n_in : value);
    }
    return TP_OK;
}

/* ---- ops ---- */

static tp_status infer_reduce(tp_infer *x)
{
    const tp_reduce_attr *attr = x->attr;
    const tp_shape in = x->shape[0];
    tp_shape out = {0};

    TP_CHECK(tp_is_float(x->dtype[0]), TP_ESHAPE, "x is %s, want a float dtype", tp_dtype_name(x->dtype[0]));
    TP_CHECK(attr->axes < 1u << in.nd, TP_ESHAPE, "axes are 0x%x, but x has %d dimensions", attr->axes,
             in.nd);
    TP_CHECK(tp_shape_len(in) > 0, TP_ESHAPE, "x has no elements");
    const uint32_t axes = axes_of(&in, attr->axes);
    for (int i = 0; i < in.nd; i++)
        if (!((axes >> i) & 1u))
            out.d[out.nd++] = in.d[i];
        else if (attr->keep)
            out.d[out.nd++] = 1;
    x->out_shape[0] = out;
    return TP_OK;
}

/* x's shape with the reduced dimensions as 1. */
static tp_shape kept_shape(const tp_graph *g, tp_val x, uint32_t axes)
{
    tp_shape s = tp_val_shape(g, x);
    const uint32_t all = axes_of(&s, axes);
    for (int i = 0; i < s.nd; i++)
        if ((all >> i) & 1u)
            s.d[i] = 1;
    return s;
}

static tp_val spread(tp_graph *g, const tp_node *n, tp_val dy)
{
    const tp_reduce_attr *attr = n->attr;
    return tp_expand(g, tp_reshape(g, dy, kept_shape(g, n->in[0], attr->axes)), tp_val_shape(g, n->in[0]));
}

static void grad_sum(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    (void)need;
    dx[0] = spread(g, n, dy[0]);
}

static void grad_mean(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    const double share =
        (double)tp_shape_len(tp_val_shape(g, n->out[0])) / (double)tp_shape_len(tp_val_shape(g, n->in[0]));
    (void)need;
    dx[0] = spread(g, n, tp_mul(g, dy[0], tp_scalar(g, tp_val_dtype(g, dy[0]), share)));
}

static void grad_max(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    const tp_reduce_attr *attr = n->attr;
    const tp_shape kept = kept_shape(g, n->in[0], attr->axes);
    (void)need;
    dx[0] = tp_reduce_max_grad(g, n->in[0], tp_reshape(g, n->out[0], kept), tp_reshape(g, dy[0], kept),
                               attr->axes);
}

static const tp_reduce_attr all_axes = {0, 0}, first = {1, 0}, last2 = {2, 1}, middle = {2, 0},
                            outside = {13, 0};
/* The last ones are packs of four: one block, parts that threads or a block reduce, neighbouring columns,
 * short rows. */
#define CASES(name, flags)                                                                                   \
    static const tp_case name[] = {{"1", -1.0, 1.0, 0, &all_axes, 0, flags},                                 \
                                   {"7x9", -1.0, 1.0, 0, &all_axes, 0, flags},                               \
                                   {"130x33", -1.0, 1.0, 0, &first, 0, flags},                               \
                                   {"17x131", -1.0, 1.0, 0, &last2, 0, flags},                               \
                                   {"3x5x70", -1.0, 1.0, 0, &middle, 0, flags},                              \
                                   {"3x5x4x7", -1.0, 1.0, 0, &outside, 0, flags},                            \
                                   {"4x33x9x9", -1.0, 1.0, 0, &outside, 0, flags},                           \
                                   {"40x1500", -1.0, 1.0, 0, &last2, 0, flags},                              \
                                   {"9001x3", -1.0, 1.0, 0, &first, 1e-5, flags | TP_CASE_NO_GRAD},          \
                                   {"8300x20", -1.0, 1.0, 0, &first, 1e-5, flags | TP_CASE_NO_GRAD},         \
                                   {"70001", -1.0, 1.0, 0, &all_axes, 1e-5, flags | TP_CASE_NO_GRAD},        \
                                   {"1024", -1.0, 1.0, 0, &all_axes, 1e-5, flags | TP_CASE_NO_GRAD},         \
                                   {"66000", -1.0, 1.0, 0, &all_axes, 1e-5, flags | TP_CASE_NO_GRAD},        \
                                   {"600004", -1.0, 1.0, 0, &all_axes, 1e-5, flags | TP_CASE_NO_GRAD},       \
                                   {"3x20004", -1.0, 1.0, 0, &last2, 1e-5, flags | TP_CASE_NO_GRAD},         \
                                   {"700x132", -1.0, 1.0, 0, &first, 1e-5, flags | TP_CASE_NO_GRAD},         \
                                   {"7x40x4x12", -1.0, 1.0, 0, &outside, 0, flags | TP_CASE_NO_GRAD},        \
                                   {"3x50x160", -1.0, 1.0, 0, &middle, 0, flags | TP_CASE_NO_GRAD}};
CASES(cases_sum, 0)
CASES(cases_max, TP_CASE_DISTINCT)

#define REDUCE(opname, onnx_name, kind, grad_fn, case_table)                                                 \
    static tp_status opname##_simd(const tp_call *c)                                                         \
    {                                                                                                        \
        return simd_run(c, kind);                                                                            \
    }                                                                                                        \
    static tp_status opname##_ref(const tp_call *c)                                                          \
    {                                                                                                        \
        return ref_run(c, kind);                                                                             \
    }                                                                                                        \
    static const tp_impl opname##_cpu = {"simd", simd_prepare, opname##_simd, NULL, 0};                      \
    static const tp_impl opname##_cpu_ref = {"ref", tp_accept_float, opname##_ref, NULL, 0};                 \
    const tp_op tp_op_##opname = {                                                                           \
        .name = #opname,                                                                                     \
        .onnx = onnx_name,                                                                                   \
        .min_in = 1,                                                                                         \
        .max_in = 1,                                                                                         \
        .n_out = 1,                                                                                          \
        .attr_size = sizeof(tp_reduce_attr),                                                                 \
        .infer = infer_reduce,                                                                               \
        .grad = grad_fn,                                                                                     \
        .cost = tp_cost_stream,                                                                              \
        .cpu = TP_IMPLS(&opname##_cpu, &opname##_cpu_ref),                                                   \
        .cases = case_table,                                                                                 \
        .n_cases = TP_COUNT(case_table),                                                                     \
    };                                                                                                       \
    tp_val tp_##opname(tp_graph *g, tp_val x, uint32_t axes, int keep)                                       \
    {                                                                                                        \
        return tp_graph_add(g, &tp_op_##opname, 1, &x, &(const tp_reduce_attr){axes, keep});                 \
    }

REDUCE(reduce_sum, "ReduceSum", SUM, grad_sum, cases_sum)
REDUCE(reduce_mean, "ReduceMean", MEAN, grad_mean, cases_sum)
REDUCE(reduce_max, "ReduceMax", MAX, grad_max, cases_max)

/* ---- reduce_max_grad: dx = dy / ties where x equals the maximum ---- */

static tp_status max_grad_prepare(tp_call *c, size_t *scratch)
{
    (void)c;
    *scratch = (size_t)tp_len(&c->in[1]) * sizeof(int64_t);
    return TP_OK;
}

static tp_status max_grad_ref(const tp_call *c)
{
    const tp_reduce_attr *attr = c->attr;
    const tp_tensor *x = &c->in[0], *y = &c->in[1], *dy = &c->in[2];
    const uint32_t axes = axes_of(&x->shape, attr->axes);
    int64_t *ties = c->scratch;

    memset(ties, 0, (size_t)tp_len(y) * sizeof(int64_t));
    for (int64_t i = 0, n = tp_len(x); i < n; i++)
        ties[out_index(&x->shape, axes, i)] += tp_get(x, i) == tp_get(y, out_index(&x->shape, axes, i));
    for (int64_t i = 0, n = tp_len(x); i < n; i++) {
        const int64_t o = out_index(&x->shape, axes, i);
        tp_set(&c->out[0], i, tp_get(x, i) == tp_get(y, o) ? tp_get(dy, o) / (double)ties[o] : 0.0);
    }
    return TP_OK;
}

static tp_status infer_max_grad(tp_infer *x)
{
    const tp_reduce_attr *attr = x->attr;
    const uint32_t axes = axes_of(&x->shape[0], attr->axes);
    int64_t want = 1;
    for (int i = 0; i < x->shape[0].nd; i++)
        want *= (axes >> i) & 1u ? 1 : x->shape[0].d[i];
    TP_CHECK(tp_is_float(x->dtype[0]), TP_ESHAPE, "x is %s, want a float dtype", tp_dtype_name(x->dtype[0]));
    TP_CHECK(tp_shape_len(x->shape[0]) > 0, TP_ESHAPE, "x has no elements");
    TP_CHECK(tp_shape_len(x->shape[1]) == want && tp_shape_len(x->shape[2]) == want, TP_ESHAPE,
             "y and dy must have the %lld elements that remain of x", (long long)want);
    return TP_OK;
}

static const tp_case cases_max_grad[] = {
    {"1,1,1", -1.0, 1.0, 0, &all_axes, 0, TP_CASE_NO_GRAD},
    {"5x7,5x1,5x1", -1.0, 1.0, 0, &last2, 0, TP_CASE_NO_GRAD},
    /* several elements equal what is taken for their maximum */
    {"5x7,5x1,5x1", 1.0, 4.0, 0, &last2, 0, TP_CASE_NO_GRAD | TP_CASE_WHOLE},
    {"3x5x70,3x1x70,3x1x70", 1.0, 4.0, 0, &middle, 0, TP_CASE_NO_GRAD | TP_CASE_WHOLE},
    {"3x5x72,3x1x72,3x1x72", 1.0, 4.0, 0, &middle, 0, TP_CASE_NO_GRAD | TP_CASE_WHOLE},
    {"5x300,5x1,5x1", 1.0, 4.0, 0, &last2, 0, TP_CASE_NO_GRAD | TP_CASE_WHOLE},
    {"20x1000,1x1000,1x1000", 1.0, 4.0, 0, &first, 0, TP_CASE_NO_GRAD | TP_CASE_WHOLE},
};
static const tp_impl max_grad_cpu_ref = {"ref", max_grad_prepare, max_grad_ref, NULL, 0};
const tp_op tp_op_reduce_max_grad = {
    .name = "reduce_max_grad",
    .min_in = 3,
    .max_in = 3,
    .n_out = 1,
    .attr_size = sizeof(tp_reduce_attr),
    .infer = infer_max_grad,
    .cost = tp_cost_stream,
    .cpu = TP_IMPLS(&max_grad_cpu_ref),
    .cases = cases_max_grad,
    .n_cases = TP_COUNT(cases_max_grad),
};

tp_val tp_reduce_max_grad(tp_graph *g, tp_val x, tp_val y, tp_val dy, uint32_t axes)
{
    return tp_graph_add(g, &tp_op_reduce_max_grad, 3, (const tp_val[]){x, y, dy},
                        &(const tp_reduce_attr){axes, 1});
}
