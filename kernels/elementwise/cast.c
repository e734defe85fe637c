/* cast.c - another dtype for the same numbers: float32 to bfloat16, rounded to the nearest, and back. */
#include "kernels/cpu.h"

TP_SIMD static void widen(float *y, const uint16_t *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = tp_bf16_to_f32(x[i]);
}

TP_SIMD static void narrow(uint16_t *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = tp_bf16_from_f32(x[i]);
}

static void cast_piece(void *ctx, int64_t begin, int64_t end)
{
    const tp_call *c = ctx;
    if (c->in[0].dtype == TP_BF16)
        widen((float *)c->out[0].data + begin, (const uint16_t *)c->in[0].data + begin, end - begin);
    else
        narrow((uint16_t *)c->out[0].data + begin, (const float *)c->in[0].data + begin, end - begin);
}

static tp_status cast_prepare(tp_call *c, size_t *scratch)
{
    TP_TRY(tp_accept_stored(c, scratch));
    TP_CHECK(c->in[0].dtype != c->out[0].dtype, TP_EUNSUP, "nothing to cast");
    return TP_OK;
}

static tp_status cast_simd(const tp_call *c)
{
    tp_call call = *c;
    tp_parallel(tp_len(&c->out[0]), TP_GRAIN, cast_piece, &call);
    return TP_OK;
}

static tp_status cast_ref(const tp_call *c)
{
    for (int64_t i = 0, n = tp_len(&c->out[0]); i < n; i++)
        tp_set(&c->out[0], i, tp_get(&c->in[0], i));
    return TP_OK;
}

static tp_status infer_cast(tp_infer *x)
{
    const tp_dtype to = ((const tp_cast_attr *)x->attr)->to;

    TP_CHECK(tp_is_float(x->dtype[0]) && (to == TP_F32 || to == TP_BF16), TP_ESHAPE,
             "%s to %s: want float32 or bfloat16", tp_dtype_name(x->dtype[0]), tp_dtype_name(to));
    x->out_dtype[0] = x->dtype[0] == TP_F64 ? TP_F64 : to;
    return TP_OK;
}

static void grad_cast(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    (void)need;
    dx[0] = tp_cast(g, dy[0], tp_val_dtype(g, n->in[0]));
}

static const tp_cast_attr to_f32 = {TP_F32}, to_bf16 = {TP_BF16};
static const tp_case cases_cast[] = {
    {"1:bf16", -2.0, 2.0, 0, &to_f32, 0, 0},      {"7x9:bf16", -2.0, 2.0, 0, &to_f32, 0, 0},
    {"33x130:bf16", -2.0, 2.0, 0, &to_f32, 0, 0}, {"1", -2.0, 2.0, 0, &to_bf16, 4e-3, 0},
    {"7x9", -2.0, 2.0, 0, &to_bf16, 4e-3, 0},     {"33x130", -2.0, 2.0, 0, &to_bf16, 4e-3, 0},
    {"2x3x4x5", -2.0, 2.0, 0, &to_bf16, 4e-3, 0},
};
static const tp_impl cast_cpu = {"simd", cast_prepare, cast_simd, NULL, 0};
static const tp_impl cast_cpu_ref = {"ref", tp_accept_float, cast_ref, NULL, 0};
const tp_op tp_op_cast = {.name = "cast",
                          .onnx = "Cast",
                          .min_in = 1,
                          .max_in = 1,
                          .n_out = 1,
                          .attr_size = sizeof(tp_cast_attr),
                          .infer = infer_cast,
                          .grad = grad_cast,
                          .cost = tp_cost_stream,
                          .cpu = TP_IMPLS(&cast_cpu, &cast_cpu_ref),
                          .cases = cases_cast,
                          .n_cases = TP_COUNT(cases_cast)};

tp_val tp_cast(tp_graph *g, tp_val x, tp_dtype to)
{
    if (x != 0 && (tp_val_dtype(g, x) == to || tp_val_dtype(g, x) == TP_F64))
        return x;
    return tp_graph_add(g, &tp_op_cast, 1, &x, &(const tp_cast_attr){to});
}
