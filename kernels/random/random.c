/* random.c - uniform and normal numbers, and dropout, from Philox: element i of a step is a function of
 * (seed, stream, step, i) alone. Four elements share one draw; dropout's gradient is dropout itself with the
 * same stream. */
#include "host/core/rng.h"
#include "kernels/cpu.h"
#include "kernels/random/normal.h"

static tp_rng4 draw(const tp_tensor *counter, uint32_t stream, int64_t block)
{
    const uint64_t *c = counter->data;
    return tp_rng_draw(c[0], TP_RNG_OP + stream, (uint64_t)block, c[1]);
}

static tp_status infer_random(tp_infer *x)
{
    const tp_random_attr *a = x->attr;
    TP_CHECK(x->dtype[0] == TP_U64 && tp_shape_len(x->shape[0]) == 2, TP_ESHAPE,
             "counter must be uint64 (2)");
    x->out_shape[0] = a->shape;
    x->out_dtype[0] = TP_F32;
    return TP_OK;
}

static void uniform_blocks(void *ctx, int64_t begin, int64_t end)
{
    const tp_call *c = ctx;
    const tp_random_attr *a = c->attr;
    const int64_t n = tp_len(&c->out[0]);
    for (int64_t b = begin; b < end; b++) {
        const tp_rng4 r = draw(&c->in[0], a->stream, b);
        for (int k = 0; k < 4 && 4 * b + k < n; k++)
            tp_out_f32(c, 0)[4 * b + k] = (float)(a->a + (a->b - a->a) * (double)tp_rng_uniform(r.v[k]));
    }
}

static void normal_blocks(void *ctx, int64_t begin, int64_t end)
{
    const tp_call *c = ctx;
    const tp_random_attr *a = c->attr;
    const int64_t n = tp_len(&c->out[0]);
    for (int64_t b = begin; b < end; b++) {
        const tp_rng4 r = draw(&c->in[0], a->stream, b);
        for (int k = 0; k < 4 && 4 * b + k < n; k++)
            tp_out_f32(c, 0)[4 * b + k] = (float)(a->a + a->b * tp_normal(&r, k));
    }
}

static tp_status uniform_run(const tp_call *c)
{
    tp_parallel((tp_len(&c->out[0]) + 3) / 4, 512, uniform_blocks, (void *)(uintptr_t)c);
    return TP_OK;
}

static tp_status normal_run(const tp_call *c)
{
    tp_parallel((tp_len(&c->out[0]) + 3) / 4, 512, normal_blocks, (void *)(uintptr_t)c);
    return TP_OK;
}

/* ---- dropout ---- */

static tp_status infer_dropout(tp_infer *x)
{
    const tp_dropout_attr *a = x->attr;
    TP_CHECK(tp_is_float(x->dtype[0]), TP_ESHAPE, "x is %s, want a float dtype", tp_dtype_name(x->dtype[0]));
    TP_CHECK(x->dtype[1] == TP_U64 && tp_shape_len(x->shape[1]) == 2, TP_ESHAPE,
             "counter must be uint64 (2)");
    TP_CHECK(a->rate >= 0.0 && a->rate < 1.0, TP_ESHAPE, "rate is %g, must be in [0, 1)", a->rate);
    return TP_OK;
}

static void dropout_blocks(void *ctx, int64_t begin, int64_t end)
{
    const tp_call *c = ctx;
    const tp_dropout_attr *a = c->attr;
    const int64_t n = tp_len(&c->out[0]);
    const float scale = (float)(1.0 / (1.0 - a->rate));
    const uint32_t limit = tp_dropout_limit(a->rate);
    const float *x = tp_in_f32(c, 0);
    float *y = tp_out_f32(c, 0);

    for (int64_t b = begin; b < end; b++) {
        const tp_rng4 r = draw(&c->in[1], a->stream, b);
        for (int k = 0; k < 4 && 4 * b + k < n; k++)
            y[4 * b + k] = r.v[k] >= limit ? x[4 * b + k] * scale : 0.0f;
    }
}

static tp_status dropout_simd(const tp_call *c)
{
    tp_parallel((tp_len(&c->out[0]) + 3) / 4, 1024, dropout_blocks, (void *)(uintptr_t)c);
    return TP_OK;
}

static tp_status dropout_ref(const tp_call *c)
{
    const tp_dropout_attr *a = c->attr;
    for (int64_t i = 0, n = tp_len(&c->out[0]); i < n; i++) {
        const tp_rng4 r = draw(&c->in[1], a->stream, i / 4);
        tp_set(&c->out[0], i,
               r.v[i % 4] >= tp_dropout_limit(a->rate) ? tp_get(&c->in[0], i) / (1.0 - a->rate) : 0.0);
    }
    return TP_OK;
}

static void grad_dropout(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    const tp_dropout_attr *a = n->attr;
    if (need[0])
        dx[0] = tp_dropout(g, dy[0], n->in[1], a->stream, a->rate);
}

static tp_status accept_any(tp_call *c, size_t *scratch)
{
    (void)c, (void)scratch;
    return TP_OK;
}

static const tp_random_attr uniform_attr = {3, {2, {7, 9}}, -1.0, 2.0},
                            normal_attr = {4, {1, {1001}}, 0.5, 2.0};
static const tp_dropout_attr half = {5, 0.5}, tenth = {6, 0.1};
static const tp_case cases_uniform[] = {{"2:u64", 0, 1, 1000, &uniform_attr, 0, 0}};
static const tp_case cases_normal[] = {{"2:u64", 0, 1, 1000, &normal_attr, 0, 0}};
static const tp_case cases_dropout[] = {{"5,2:u64", -1.0, 1.0, 1000, &tenth, 0, 0},
                                        {"37x5,2:u64", -1.0, 1.0, 1000, &half, 0, 0},
                                        {"9001,2:u64", -1.0, 1.0, 1000, &tenth, 0, 0}};
static const tp_impl uniform_cpu_ref = {"ref", accept_any, uniform_run, NULL, 0};
static const tp_impl normal_cpu_ref = {"ref", accept_any, normal_run, NULL, 0};
static const tp_impl dropout_cpu = {"simd", tp_accept_f32, dropout_simd, NULL, 0};
static const tp_impl dropout_cpu_ref = {"ref", tp_accept_float, dropout_ref, NULL, 0};

const tp_op tp_op_random_uniform = {.name = "random_uniform",
                                    .onnx = "RandomUniform",
                                    .min_in = 1,
                                    .max_in = 1,
                                    .n_out = 1,
                                    .flags = TP_OP_RANDOM | TP_OP_STOP,
                                    .attr_size = sizeof(tp_random_attr),
                                    .infer = infer_random,
                                    .cost = tp_cost_stream,
                                    .cpu = TP_IMPLS(&uniform_cpu_ref),
                                    .cases = cases_uniform,
                                    .n_cases = TP_COUNT(cases_uniform)};
const tp_op tp_op_random_normal = {.name = "random_normal",
                                   .onnx = "RandomNormal",
                                   .min_in = 1,
                                   .max_in = 1,
                                   .n_out = 1,
                                   .flags = TP_OP_RANDOM | TP_OP_STOP,
                                   .attr_size = sizeof(tp_random_attr),
                                   .infer = infer_random,
                                   .cost = tp_cost_stream,
                                   .cpu = TP_IMPLS(&normal_cpu_ref),
                                   .cases = cases_normal,
                                   .n_cases = TP_COUNT(cases_normal)};
const tp_op tp_op_dropout = {.name = "dropout",
                             .onnx = "Dropout",
                             .min_in = 2,
                             .max_in = 2,
                             .n_out = 1,
                             .flags = TP_OP_RANDOM | TP_OP_INPLACE,
                             .attr_size = sizeof(tp_dropout_attr),
                             .infer = infer_dropout,
                             .grad = grad_dropout,
                             .cost = tp_cost_stream,
                             .cpu = TP_IMPLS(&dropout_cpu, &dropout_cpu_ref),
                             .cases = cases_dropout,
                             .n_cases = TP_COUNT(cases_dropout)};

tp_val tp_random_uniform(tp_graph *g, tp_val counter, uint32_t stream, tp_shape shape, double lo, double hi)
{
    return tp_graph_add(g, &tp_op_random_uniform, 1, &counter,
                        &(const tp_random_attr){stream, shape, lo, hi});
}

tp_val tp_random_normal(tp_graph *g, tp_val counter, uint32_t stream, tp_shape shape, double mean, double std)
{
    return tp_graph_add(g, &tp_op_random_normal, 1, &counter,
                        &(const tp_random_attr){stream, shape, mean, std});
}

tp_val tp_dropout(tp_graph *g, tp_val x, tp_val counter, uint32_t stream, double rate)
{
    return tp_graph_add(g, &tp_op_dropout, 2, (const tp_val[]){x, counter},
                        &(const tp_dropout_attr){stream, rate});
}
