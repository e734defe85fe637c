/* binary.c - two inputs (three for where), broadcast against each other (walk.h): each row of the innermost
 * dimension is a plain loop with input strides 0 or 1. */
#include "kernels/cpu.h"
#include "kernels/elementwise/broadcast.h"
#include "kernels/elementwise/expressions.h"
#include "kernels/elementwise/walk.h"
#include <math.h>

typedef void (*row_fn)(float *y, const float *const *x, const int *stride, int64_t n);

typedef struct binary_job {
    tp_walk w;
    const tp_call *call;
    row_fn row;
} binary_job;

static void binary_piece(void *ctx, int64_t begin, int64_t end)
{
    const binary_job *j = ctx;
    const int64_t inner = j->w.d[j->w.nd - 1];
    float *y = tp_out_f32(j->call, 0);

    for (int64_t i = begin; i < end;) {
        const int64_t left = inner - i % inner, n = left < end - i ? left : end - i;
        int64_t offset[TP_WALK_ARGS];
        const float *x[TP_WALK_ARGS];
        int stride[TP_WALK_ARGS];
        tp_walk_offsets(&j->w, i, offset);
        for (int a = 0; a < j->w.n_args; a++) {
            x[a] = tp_in_f32(j->call, a) + offset[a];
            stride[a] = j->w.stride[a][j->w.nd - 1] != 0;
        }
        j->row(y + i, x, stride, n);
        i += n;
    }
}

static tp_status binary_run(const tp_call *c, row_fn row)
{
    binary_job j = {.call = c, .row = row};
    tp_walk_init(&j.w, c);
    tp_parallel(tp_len(&c->out[0]), TP_GRAIN, binary_piece, &j);
    return TP_OK;
}

static tp_status ref_run(const tp_call *c, double (*f)(double, double, double))
{
    tp_walk w;
    int64_t at[TP_WALK_ARGS] = {0};

    tp_walk_init(&w, c);
    for (int64_t i = 0, n = tp_len(&c->out[0]); i < n; i++) {
        tp_walk_offsets(&w, i, at);
        tp_set(&c->out[0], i,
               f(tp_get(&c->in[0], at[0]), tp_get(&c->in[1], at[1]),
                 c->n_in > 2 ? tp_get(&c->in[2], at[2]) : 0.0));
    }
    return TP_OK;
}

/* ---- shapes ---- */

tp_status tp_broadcast_shapes(tp_shape a, tp_shape b, tp_shape *out)
{
    *out = (tp_shape){.nd = a.nd > b.nd ? a.nd : b.nd};
    for (int i = 0; i < out->nd; i++) {
        const int ka = a.nd - out->nd + i, kb = b.nd - out->nd + i;
        const int64_t da = ka >= 0 ? a.d[ka] : 1, db = kb >= 0 ? b.d[kb] : 1;
        TP_CHECK(da == db || da == 1 || db == 1, TP_ESHAPE,
                 "dimension %d is %lld in one input and %lld in the other", i, (long long)da, (long long)db);
        out->d[i] = da == 1 ? db : da;
    }
    return TP_OK;
}

tp_val tp_sum_to(tp_graph *g, tp_val v, tp_shape shape)
{
    const tp_shape from = tp_val_shape(g, v);
    uint32_t axes = 0;

    if (v == 0 || tp_shape_equal(from, shape))
        return v;
    for (int i = 0; i < from.nd; i++) {
        const int k = shape.nd - from.nd + i;
        if (k < 0 || (shape.d[k] == 1 && from.d[i] != 1))
            axes |= 1u << i;
    }
    const tp_val sum = axes != 0 ? tp_reduce_sum(g, v, axes, 1) : v;
    return tp_reshape(g, sum, shape);
}

static tp_status infer_broadcast(tp_infer *x)
{
    tp_shape shape = x->shape[0];

    for (int i = 0; i < x->n_in; i++) {
        TP_CHECK(tp_is_float(x->dtype[i]) && x->dtype[i] == x->dtype[0], TP_ESHAPE,
                 "input %d is %s, want every input of one float dtype", i, tp_dtype_name(x->dtype[i]));
        TP_TRY(tp_broadcast_shapes(shape, x->shape[i], &shape));
    }
    x->out_shape[0] = shape;
    return TP_OK;
}

/* ---- ops ---- */

#define LOOP(expression)                                                                                     \
    _Pragma("GCC ivdep") for (int64_t i = 0; i < n; i++)                                                     \
    {                                                                                                        \
        y[i] = (expression);                                                                                 \
    }

/* What tp_expand made v of; v itself if it did not make it. */
static tp_val expanded(const tp_graph *g, tp_val v)
{
    const tp_node *by = tp_graph_producer(g, v);
    return by != NULL && by->op == &tp_op_expand ? by->in[0] : v;
}

/* An expanded operand is read where it came from, if the other one has the shape of the result. */
static tp_val add_binary(tp_graph *g, const tp_op *op, tp_val a, tp_val b)
{
    const tp_val from_a = expanded(g, a), from_b = expanded(g, b);

    if (a != 0 && b != 0 && tp_shape_equal(tp_val_shape(g, a), tp_val_shape(g, b))) {
        if (from_a != a)
            a = from_a;
        else
            b = from_b;
    }
    return tp_graph_add(g, op, 2, (const tp_val[]){a, b}, NULL);
}

/* BINARY(name, float expression of a and b, double expression of a and b) */
#define BINARY(name, fast, exact)                                                                            \
    static inline __attribute__((always_inline)) float name##_f(float a, float b)                            \
    {                                                                                                        \
        return (fast);                                                                                       \
    }                                                                                                        \
    TP_SIMD static void name##_row(float *y, const float *const *x, const int *stride, int64_t n)            \
    {                                                                                                        \
        const float *p = x[0], *q = x[1];                                                                    \
        const float p0 = p[0], q0 = q[0];                                                                    \
        if (stride[0] && stride[1])                                                                          \
            LOOP(name##_f(p[i], q[i]))                                                                       \
        else if (stride[0])                                                                                  \
            LOOP(name##_f(p[i], q0))                                                                         \
        else if (stride[1])                                                                                  \
            LOOP(name##_f(p0, q[i]))                                                                         \
        else                                                                                                 \
            LOOP(name##_f(p0, q0))                                                                           \
    }                                                                                                        \
    static double name##_exact(double a, double b, double unused)                                            \
    {                                                                                                        \
        (void)unused;                                                                                        \
        return (exact);                                                                                      \
    }                                                                                                        \
    static tp_status name##_simd(const tp_call *c)                                                           \
    {                                                                                                        \
        return binary_run(c, name##_row);                                                                    \
    }                                                                                                        \
    static tp_status name##_ref(const tp_call *c)                                                            \
    {                                                                                                        \
        return ref_run(c, name##_exact);                                                                     \
    }                                                                                                        \
    static const tp_impl name##_cpu = {"simd", tp_accept_f32, name##_simd, NULL, 0};                         \
    static const tp_impl name##_cpu_ref = {"ref", tp_accept_float, name##_ref, NULL, 0};                     \
    tp_val tp_##name(tp_graph *g, tp_val a, tp_val b)                                                        \
    {                                                                                                        \
        return add_binary(g, &tp_op_##name, a, b);                                                           \
    }

#define DESCRIPTOR(opname, onnx_name, inputs, op_flags, constants, grad_fn, case_table)                      \
    const tp_op tp_op_##opname = {                                                                           \
        .name = #opname,                                                                                     \
        .onnx = onnx_name,                                                                                   \
        .min_in = inputs,                                                                                    \
        .max_in = inputs,                                                                                    \
        .n_out = 1,                                                                                          \
        .flags = op_flags,                                                                                   \
        .constant_in = constants,                                                                            \
        .infer = infer_broadcast,                                                                            \
        .grad = grad_fn,                                                                                     \
        .cost = tp_cost_stream,                                                                              \
        .cpu = TP_IMPLS(&opname##_cpu, &opname##_cpu_ref),                                                   \
        .cases = case_table,                                                                                 \
        .n_cases = TP_COUNT(case_table),                                                                     \
    };

#define CASES(name, lo, hi, flags)                                                                           \
    static const tp_case name[] = {                                                                          \
        {"1,1", lo, hi, 0, NULL, 2e-6, flags},                                                               \
        {"(),7x9", lo, hi, 0, NULL, 2e-6, flags},                                                            \
        {"7x9,7x9", lo, hi, 0, NULL, 2e-6, flags},                                                           \
        {"5x33,33", lo, hi, 0, NULL, 2e-6, flags},                                                           \
        {"6x1x5,3x1", lo, hi, 0, NULL, 2e-6, flags},                                                         \
        {"2x3x4x5,1x3x1x1", lo, hi, 0, NULL, 2e-6, flags},                                                   \
        {"130x257,130x257", lo, hi, 0, NULL, 2e-6, flags},                                                   \
        {"2*31x65:bf16", lo, hi, 0, NULL, 4e-3, (flags) | TP_CASE_NO_GRAD},                                  \
        {"6x9x8:bf16,9x1:bf16", lo, hi, 0, NULL, 4e-3, (flags) | TP_CASE_NO_GRAD},                           \
        {"1x64,512x1", lo, hi, 0, NULL, 2e-6, flags},                                                        \
        {"5x33:bf16,33:bf16", lo, hi, 0, NULL, 4e-3, (flags) | TP_CASE_NO_GRAD},                             \
        {"0x9,9", lo, hi, 0, NULL, 0, (flags) | TP_CASE_NO_GRAD}};

CASES(cases_any, -3.0, 3.0, 0)
CASES(cases_positive, 0.3, 3.0, 0)
CASES(cases_distinct, -3.0, 3.0, TP_CASE_DISTINCT)
CASES(cases_compare, -3.0, 3.0, TP_CASE_NO_GRAD | TP_CASE_DISTINCT)

TP_BINARY_OPS(BINARY)

#define GRAD(name)                                                                                           \
    static void name(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)

/* d a and d b from expressions of a, b, y and d, summed back to each input's shape. */
#define RULE(name, da, db)                                                                                   \
    GRAD(name)                                                                                               \
    {                                                                                                        \
        const tp_val a = n->in[0], b = n->in[1], y = n->out[0], d = dy[0];                                   \
        (void)a, (void)b, (void)y;                                                                           \
        if (need[0])                                                                                         \
            dx[0] = tp_sum_to(g, (da), tp_val_shape(g, a));                                                  \
        if (need[1])                                                                                         \
            dx[1] = tp_sum_to(g, (db), tp_val_shape(g, b));                                                  \
    }

RULE(grad_add, d, d)
RULE(grad_sub, d, tp_neg(g, d))
RULE(grad_mul, tp_mul(g, d, b), tp_mul(g, d, a))
RULE(grad_div, tp_div(g, d, b), tp_neg(g, tp_div(g, tp_mul(g, d, y), b)))
RULE(grad_pow, tp_div(g, tp_mul(g, tp_mul(g, d, b), y), a), tp_mul(g, tp_mul(g, d, y), tp_log(g, a)))

static tp_val zero_of(tp_graph *g, tp_val like)
{
    return tp_scalar(g, tp_val_dtype(g, like), 0.0);
}
RULE(grad_min, tp_where(g, tp_greater(g, a, b), zero_of(g, a), d),
     tp_where(g, tp_greater(g, a, b), d, zero_of(g, a)))
RULE(grad_max, tp_where(g, tp_greater(g, b, a), zero_of(g, a), d),
     tp_where(g, tp_greater(g, b, a), d, zero_of(g, a)))

DESCRIPTOR(add, "Add", 2, TP_OP_INPLACE, 0, grad_add, cases_any)
DESCRIPTOR(sub, "Sub", 2, TP_OP_INPLACE, 0, grad_sub, cases_any)
DESCRIPTOR(mul, "Mul", 2, TP_OP_INPLACE, 0, grad_mul, cases_any)
DESCRIPTOR(div, "Div", 2, TP_OP_INPLACE, 0, grad_div, cases_positive)
DESCRIPTOR(pow, "Pow", 2, TP_OP_INPLACE, 0, grad_pow, cases_positive)
DESCRIPTOR(min, "Min", 2, TP_OP_INPLACE, 0, grad_min, cases_distinct)
DESCRIPTOR(max, "Max", 2, TP_OP_INPLACE, 0, grad_max, cases_distinct)
DESCRIPTOR(greater, "Greater", 2, TP_OP_INPLACE | TP_OP_STOP, 0, NULL, cases_compare)

/* ---- where ---- */

TP_SIMD static void where_row(float *y, const float *const *x, const int *stride, int64_t n)
{
    const float *c = x[0], *p = x[1], *q = x[2];
    const int64_t sc = stride[0], sp = stride[1], sq = stride[2];
    LOOP(c[i * sc] != 0.0f ? p[i * sp] : q[i * sq])
}

static double where_exact(double c, double a, double b)
{
    return c != 0.0 ? a : b;
}

static tp_status where_simd(const tp_call *c)
{
    return binary_run(c, where_row);
}

static tp_status where_ref(const tp_call *c)
{
    return ref_run(c, where_exact);
}

static const tp_impl where_cpu = {"simd", tp_accept_f32, where_simd, NULL, 0};
static const tp_impl where_cpu_ref = {"ref", tp_accept_float, where_ref, NULL, 0};

GRAD(grad_where)
{
    const tp_val zero = zero_of(g, dy[0]);
    if (need[1])
        dx[1] = tp_sum_to(g, tp_where(g, n->in[0], dy[0], zero), tp_val_shape(g, n->in[1]));
    if (need[2])
        dx[2] = tp_sum_to(g, tp_where(g, n->in[0], zero, dy[0]), tp_val_shape(g, n->in[2]));
}

static const tp_case cases_where[] = {
    {"1,1,1", -1.0, 1.0, 0, NULL, 2e-6, TP_CASE_AWAY},
    {"7x9,7x9,7x9", -1.0, 1.0, 0, NULL, 2e-6, TP_CASE_AWAY},
    {"7x1,(),9", -1.0, 1.0, 0, NULL, 2e-6, TP_CASE_AWAY},
    {"129x257,257,129x1", -1.0, 1.0, 0, NULL, 2e-6, TP_CASE_AWAY},
};
DESCRIPTOR(where, "Where", 3, 0, 1u, grad_where, cases_where)

tp_val tp_where(tp_graph *g, tp_val cond, tp_val a, tp_val b)
{
    return tp_graph_add(g, &tp_op_where, 3, (const tp_val[]){cond, a, b}, NULL);
}
