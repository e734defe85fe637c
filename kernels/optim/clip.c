/* clip.c - the global norm of all gradients, the factor that clips it, and whether the step may be applied at
 * all. The norm sums squares in double over fixed blocks, tensor after tensor: the same bits for any number
 * of threads. */
#include "kernels/cpu.h"
#include <math.h>

#define BLOCK 16384

TP_SIMD static double square_sum(const float *x, int64_t n)
{
    double lane[TP_LANES] = {0};
    int64_t i = 0;
    for (; i + TP_LANES <= n; i += TP_LANES)
        for (int k = 0; k < TP_LANES; k++)
            lane[k] += (double)x[i + k] * (double)x[i + k];
    for (int k = 0; i + k < n; k++)
        lane[k] += (double)x[i + k] * (double)x[i + k];
    for (int half = TP_LANES / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++)
            lane[k] += lane[k + half];
    return lane[0];
}

static int n_gradients(const tp_call *c)
{
    return c->n_in - 1; /* input 0 is the loss, which may be absent */
}

static int64_t blocks_of(const tp_tensor *t)
{
    return (tp_len(t) + BLOCK - 1) / BLOCK;
}

static void clip_blocks(void *ctx, int64_t begin, int64_t end)
{
    const tp_call *c = ctx;
    double *partial = c->scratch;
    int64_t first = 0;

    for (int i = 1; i < c->n_in && first < end; i++) {
        const int64_t n = tp_len(&c->in[i]), blocks = blocks_of(&c->in[i]);
        for (int64_t b = begin > first ? begin - first : 0; b < blocks && first + b < end; b++) {
            const int64_t at = b * BLOCK, left = n - at;
            partial[first + b] = square_sum(tp_in_f32(c, i) + at, left < BLOCK ? left : BLOCK);
        }
        first += blocks;
    }
}

static void clip_finish(const tp_call *c, double sum)
{
    const tp_clip_norm_attr *attr = c->attr;
    const int has_loss = c->in[0].dtype != TP_DTYPE_NONE;
    const double norm = sqrt(sum), factor = attr->max_norm / (norm + 1e-6);
    const int ok = isfinite(norm) && (!has_loss || isfinite(tp_get(&c->in[0], 0)));

    tp_set(&c->out[0], 0, attr->max_norm > 0.0 && factor < 1.0 ? factor : 1.0);
    tp_set(&c->out[0], 1, ok ? 1.0 : 0.0);
    tp_set(&c->out[1], 0, norm);
}

static tp_status clip_prepare(tp_call *c, size_t *scratch)
{
    TP_TRY(tp_accept_f32(c, scratch));
    for (int i = 1; i < c->n_in; i++)
        *scratch += (size_t)blocks_of(&c->in[i]) * sizeof(double);
    return TP_OK;
}

static tp_status clip_simd(const tp_call *c)
{
    const double *partial = c->scratch;
    int64_t blocks = 0, elements = 0;
    double sum = 0.0;

    for (int i = 1; i < c->n_in; i++) {
        blocks += blocks_of(&c->in[i]);
        elements += tp_len(&c->in[i]);
    }
    /* Many small tensors are many blocks, but little work. */
    tp_parallel(blocks, 1 + 2 * blocks * TP_GRAIN / (elements + 1), clip_blocks, (void *)(uintptr_t)c);
    for (int64_t b = 0; b < blocks; b++)
        sum += partial[b];
    clip_finish(c, sum);
    return TP_OK;
}

static tp_status clip_ref(const tp_call *c)
{
    double sum = 0.0;

    for (int i = 1; i < c->n_in; i++)
        for (int64_t k = 0, n = tp_len(&c->in[i]); k < n; k++)
            sum += tp_get(&c->in[i], k) * tp_get(&c->in[i], k);
    clip_finish(c, sum);
    return TP_OK;
}

static tp_status infer_clip(tp_infer *x)
{
    tp_dtype dtype = TP_F32;
    for (int i = 1; i < x->n_in; i++) {
        TP_CHECK(tp_is_float(x->dtype[i]) && tp_sums_dtype(x->dtype[i]) == tp_sums_dtype(x->dtype[1]),
                 TP_ESHAPE, "gradient %d is %s", i - 1, tp_dtype_name(x->dtype[i]));
        dtype = tp_sums_dtype(x->dtype[i]);
    }
    TP_CHECK(x->dtype[0] == TP_DTYPE_NONE || tp_shape_len(x->shape[0]) == 1, TP_ESHAPE,
             "the loss has %lld elements, want 1", (long long)tp_shape_len(x->shape[0]));
    TP_CHECK(n_gradients(&(tp_call){.n_in = x->n_in}) > 0, TP_ESHAPE, "there are no gradients");
    x->out_shape[0] = (tp_shape){1, {2}};
    x->out_shape[1] = tp_shape_scalar();
    x->out_dtype[0] = x->out_dtype[1] = dtype;
    return TP_OK;
}

static const tp_clip_norm_attr clip_tight = {0.5}, clip_off = {0.0}, clip_loose = {1e9};
static const tp_case cases_clip[] = {
    {"(),1", -1.0, 1.0, 0, &clip_tight, 0, 0},
    {"(),7,3x5", -1.0, 1.0, 0, &clip_tight, 0, 0},
    {"-,40000,17,3", -1.0, 1.0, 0, &clip_off, 0, 0},
    {"-,33x65", -1.0, 1.0, 0, &clip_loose, 0, 0},
    {"(),7:bf16,3x5,130x33:bf16", -1.0, 1.0, 0, &clip_tight, 0, 0},
};
static const tp_impl clip_cpu = {"simd", clip_prepare, clip_simd, NULL, 0};
static const tp_impl clip_cpu_ref = {"ref", tp_accept_float, clip_ref, NULL, 0};
const tp_op tp_op_clip_norm = {.name = "clip_norm",
                               .min_in = 0,
                               .max_in = -1,
                               .n_out = 2,
                               .attr_size = sizeof(tp_clip_norm_attr),
                               .infer = infer_clip,
                               .cost = tp_cost_stream,
                               .cpu = TP_IMPLS(&clip_cpu, &clip_cpu_ref),
                               .cases = cases_clip,
                               .n_cases = TP_COUNT(cases_clip)};

tp_val tp_clip_norm(tp_graph *g, int n, const tp_val *dw, tp_val loss, double max_norm)
{
    tp_val in[TP_MAX_TENSORS + 1];

    if (n > TP_MAX_TENSORS)
        return tp_graph_ok(g)
                   ? tp_graph_fail(g, TP_ESHAPE, "clip_norm: %d gradients, at most %d", n, TP_MAX_TENSORS)
                   : 0;
    in[0] = loss;
    for (int i = 0; i < n; i++)
        in[i + 1] = dw[i];
    return tp_graph_add(g, &tp_op_clip_norm, n + 1, in, &(const tp_clip_norm_attr){max_norm});
}
