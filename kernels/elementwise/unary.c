/* unary.c - y = f(x), and the gradients that need x or y and dy. 8 or 12 bytes for each element. y may be x's
 * memory (TP_OP_INPLACE), hence no restrict: ivdep alone says that iterations are independent. */
#include "kernels/cpu.h"
#include "kernels/elementwise/expressions.h"
#include <math.h>

typedef void (*loop1_fn)(float *y, const float *x, int64_t n, float a, float b);
typedef void (*loop2_fn)(float *dx, const float *x, const float *dy, int64_t n, float a, float b);

typedef struct unary_job {
    loop1_fn loop1;
    loop2_fn loop2;
    float *y;
    const float *x, *dy;
    float a, b;
} unary_job;

static void unary_piece(void *ctx, int64_t begin, int64_t end)
{
    const unary_job *j = ctx;
    if (j->loop1 != NULL)
        j->loop1(j->y + begin, j->x + begin, end - begin, j->a, j->b);
    else
        j->loop2(j->y + begin, j->x + begin, j->dy + begin, end - begin, j->a, j->b);
}

static tp_status unary_run(const tp_call *c, loop1_fn loop1, loop2_fn loop2)
{
    const tp_unary_attr *attr = c->attr;
    unary_job j = {loop1, loop2, tp_out_f32(c, 0), tp_in_f32(c, 0), c->n_in > 1 ? tp_in_f32(c, 1) : NULL,
                   0.0f,  0.0f};

    if (attr != NULL) {
        j.a = (float)attr->a;
        j.b = (float)attr->b;
    }
    tp_parallel(tp_len(&c->out[0]), TP_GRAIN, unary_piece, &j);
    return TP_OK;
}

static tp_status ref_run1(const tp_call *c, double (*f)(double x, double a, double b))
{
    const tp_unary_attr zero = {0}, *attr = c->attr != NULL ? c->attr : &zero;
    for (int64_t i = 0, n = tp_len(&c->out[0]); i < n; i++)
        tp_set(&c->out[0], i, f(tp_get(&c->in[0], i), attr->a, attr->b));
    return TP_OK;
}

static tp_status ref_run2(const tp_call *c, double (*f)(double x, double dy, double a, double b))
{
    const tp_unary_attr zero = {0}, *attr = c->attr != NULL ? c->attr : &zero;
    for (int64_t i = 0, n = tp_len(&c->out[0]); i < n; i++)
        tp_set(&c->out[0], i, f(tp_get(&c->in[0], i), tp_get(&c->in[1], i), attr->a, attr->b));
    return TP_OK;
}

static tp_status infer_unary(tp_infer *x)
{
    TP_CHECK(tp_is_float(x->dtype[0]), TP_ESHAPE, "x is %s, want a float dtype", tp_dtype_name(x->dtype[0]));
    return TP_OK;
}

static tp_status infer_unary_grad(tp_infer *x)
{
    TP_TRY(infer_unary(x));
    TP_CHECK(x->dtype[1] == x->dtype[0] && tp_shape_equal(x->shape[0], x->shape[1]), TP_ESHAPE,
             "dy must have the shape and dtype of x");
    return TP_OK;
}

/* FORWARD(name, float expression of x a b, double expression of x a b): the loops and implementations of a
 * unary op. */
#define FORWARD(name, fast, exact)                                                                           \
    TP_SIMD static void name##_loop(float *y, const float *xs, int64_t n, float a, float b)                  \
    {                                                                                                        \
        (void)a, (void)b;                                                                                    \
        _Pragma("GCC ivdep") for (int64_t i = 0; i < n; i++)                                                 \
        {                                                                                                    \
            const float x = xs[i];                                                                           \
            y[i] = (fast);                                                                                   \
        }                                                                                                    \
    }                                                                                                        \
    static double name##_exact(double x, double a, double b)                                                 \
    {                                                                                                        \
        (void)a, (void)b;                                                                                    \
        return (exact);                                                                                      \
    }                                                                                                        \
    static tp_status name##_simd(const tp_call *c)                                                           \
    {                                                                                                        \
        return unary_run(c, name##_loop, NULL);                                                              \
    }                                                                                                        \
    static tp_status name##_ref(const tp_call *c)                                                            \
    {                                                                                                        \
        return ref_run1(c, name##_exact);                                                                    \
    }                                                                                                        \
    static const tp_impl name##_cpu = {"simd", tp_accept_f32, name##_simd, NULL, 0};                         \
    static const tp_impl name##_cpu_ref = {"ref", tp_accept_float, name##_ref, NULL, 0};

#define BACKWARD(name, fast, exact)                                                                          \
    TP_SIMD static void name##_loop(float *dx, const float *xs, const float *dys, int64_t n, float a,        \
                                    float b)                                                                 \
    {                                                                                                        \
        (void)a, (void)b;                                                                                    \
        _Pragma("GCC ivdep") for (int64_t i = 0; i < n; i++)                                                 \
        {                                                                                                    \
            const float x = xs[i], dy = dys[i];                                                              \
            dx[i] = (fast);                                                                                  \
        }                                                                                                    \
    }                                                                                                        \
    static double name##_exact(double x, double dy, double a, double b)                                      \
    {                                                                                                        \
        (void)a, (void)b;                                                                                    \
        return (exact);                                                                                      \
    }                                                                                                        \
    static tp_status name##_simd(const tp_call *c)                                                           \
    {                                                                                                        \
        return unary_run(c, NULL, name##_loop);                                                              \
    }                                                                                                        \
    static tp_status name##_ref(const tp_call *c)                                                            \
    {                                                                                                        \
        return ref_run2(c, name##_exact);                                                                    \
    }                                                                                                        \
    static const tp_impl name##_cpu = {"simd", tp_accept_f32, name##_simd, NULL, 0};                         \
    static const tp_impl name##_cpu_ref = {"ref", tp_accept_float, name##_ref, NULL, 0};

#define DESCRIPTOR(opname, onnx_name, n_inputs, op_flags, attr_bytes, infer_fn, grad_fn, case_table)         \
    const tp_op tp_op_##opname = {                                                                           \
        .name = #opname,                                                                                     \
        .onnx = onnx_name,                                                                                   \
        .min_in = n_inputs,                                                                                  \
        .max_in = n_inputs,                                                                                  \
        .n_out = 1,                                                                                          \
        .flags = op_flags,                                                                                   \
        .attr_size = attr_bytes,                                                                             \
        .infer = infer_fn,                                                                                   \
        .grad = grad_fn,                                                                                     \
        .cost = tp_cost_stream,                                                                              \
        .cpu = TP_IMPLS(&opname##_cpu, &opname##_cpu_ref),                                                   \
        .cases = case_table,                                                                                 \
        .n_cases = TP_COUNT(case_table),                                                                     \
    };

/* Case tables: sizes below, at and above a vector; values over the range where f is interesting. */
#define CASES1(name, lo, hi, attr, flags)                                                                    \
    static const tp_case name[] = {{"1", lo, hi, 0, attr, 2e-6, flags},                                      \
                                   {"7x9", lo, hi, 0, attr, 2e-6, flags},                                    \
                                   {"16x3x11", lo, hi, 0, attr, 2e-6, flags},                                \
                                   {"33x65:bf16", lo, hi, 0, attr, 4e-3, flags},                             \
                                   {"40000", lo, hi, 0, attr, 2e-6, flags}};
#define CASES2(name, lo, hi, attr, flags)                                                                    \
    static const tp_case name[] = {{"1,1", lo, hi, 0, attr, 2e-6, flags},                                    \
                                   {"7x9,7x9", lo, hi, 0, attr, 2e-6, flags},                                \
                                   {"2*33x65:bf16", lo, hi, 0, attr, 4e-3, flags},                           \
                                   {"40000,40000", lo, hi, 0, attr, 2e-6, flags}};

static const tp_unary_attr attr_leaky = {0.1, 0.0}, attr_elu = {1.3, 0.0}, attr_clip = {-0.5, 1.25};

CASES1(cases_wide, -8.0, 8.0, NULL, 0)
CASES1(cases_tanh, -4.0, 4.0, NULL, 0)
CASES1(cases_away, -8.0, 8.0, NULL, TP_CASE_AWAY)
CASES1(cases_positive, 0.05, 30.0, NULL, 0)
CASES1(cases_sign, -2.0, 2.0, NULL, TP_CASE_NO_GRAD | TP_CASE_AWAY)
CASES1(cases_leaky, -4.0, 4.0, &attr_leaky, TP_CASE_AWAY)
CASES1(cases_elu, -4.0, 4.0, &attr_elu, TP_CASE_AWAY)
CASES1(cases_clip, -0.4, 1.2, &attr_clip, 0)
CASES2(cases2, -3.0, 3.0, NULL, TP_CASE_NO_GRAD)
CASES2(cases2_leaky, -3.0, 3.0, &attr_leaky, TP_CASE_NO_GRAD)
CASES2(cases2_elu, -3.0, 3.0, &attr_elu, TP_CASE_NO_GRAD)
CASES2(cases2_clip, -3.0, 3.0, &attr_clip, TP_CASE_NO_GRAD)

TP_UNARY_OPS(FORWARD)
TP_UNARY_GRAD_OPS(BACKWARD)

/* ---- gradient rules ---- */

#define GRAD(name)                                                                                           \
    static void name(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
#define RULE(name, expression)                                                                               \
    GRAD(name)                                                                                               \
    {                                                                                                        \
        const tp_val x = n->in[0], y = n->out[0];                                                            \
        (void)need, (void)x, (void)y;                                                                        \
        dx[0] = (expression);                                                                                \
    }

static double attr_a(const tp_node *n)
{
    return ((const tp_unary_attr *)n->attr)->a;
}

RULE(grad_neg, tp_neg(g, dy[0]))
RULE(grad_abs, tp_mul(g, dy[0], tp_sign(g, x)))
RULE(grad_exp, tp_mul(g, dy[0], y))
RULE(grad_log, tp_div(g, dy[0], x))
RULE(grad_sqrt, tp_div(g, tp_mul(g, dy[0], tp_scalar(g, tp_val_dtype(g, x), 0.5)), y))
RULE(grad_rsqrt,
     tp_mul(g, tp_mul(g, dy[0], tp_scalar(g, tp_val_dtype(g, x), -0.5)), tp_mul(g, y, tp_mul(g, y, y))))
RULE(grad_tanh, tp_tanh_grad(g, y, dy[0]))
RULE(grad_sigmoid, tp_sigmoid_grad(g, y, dy[0]))
RULE(grad_relu, tp_relu_grad(g, y, dy[0]))
RULE(grad_leaky_relu, tp_leaky_relu_grad(g, x, dy[0], attr_a(n)))
RULE(grad_elu, tp_elu_grad(g, x, dy[0], attr_a(n)))
RULE(grad_gelu, tp_gelu_grad(g, x, dy[0]))
RULE(grad_silu, tp_silu_grad(g, x, dy[0]))
RULE(grad_softplus, tp_softplus_grad(g, x, dy[0]))
RULE(grad_clip, tp_clip_grad(g, x, dy[0], attr_a(n), ((const tp_unary_attr *)n->attr)->b))

DESCRIPTOR(neg, "Neg", 1, TP_OP_INPLACE, 0, infer_unary, grad_neg, cases_wide)
DESCRIPTOR(abs, "Abs", 1, TP_OP_INPLACE, 0, infer_unary, grad_abs, cases_away)
DESCRIPTOR(exp, "Exp", 1, TP_OP_INPLACE, 0, infer_unary, grad_exp, cases_wide)
DESCRIPTOR(log, "Log", 1, TP_OP_INPLACE, 0, infer_unary, grad_log, cases_positive)
DESCRIPTOR(sqrt, "Sqrt", 1, TP_OP_INPLACE, 0, infer_unary, grad_sqrt, cases_positive)
DESCRIPTOR(rsqrt, NULL, 1, TP_OP_INPLACE, 0, infer_unary, grad_rsqrt, cases_positive)
DESCRIPTOR(sign, "Sign", 1, TP_OP_INPLACE | TP_OP_STOP, 0, infer_unary, NULL, cases_sign)
DESCRIPTOR(tanh, "Tanh", 1, TP_OP_INPLACE, 0, infer_unary, grad_tanh, cases_tanh)
DESCRIPTOR(sigmoid, "Sigmoid", 1, TP_OP_INPLACE, 0, infer_unary, grad_sigmoid, cases_wide)
DESCRIPTOR(relu, "Relu", 1, TP_OP_INPLACE, 0, infer_unary, grad_relu, cases_away)
DESCRIPTOR(leaky_relu, "LeakyRelu", 1, TP_OP_INPLACE, sizeof(tp_unary_attr), infer_unary, grad_leaky_relu,
           cases_leaky)
DESCRIPTOR(elu, "Elu", 1, TP_OP_INPLACE, sizeof(tp_unary_attr), infer_unary, grad_elu, cases_elu)
DESCRIPTOR(gelu, "Gelu", 1, TP_OP_INPLACE, 0, infer_unary, grad_gelu, cases_tanh)
DESCRIPTOR(silu, NULL, 1, TP_OP_INPLACE, 0, infer_unary, grad_silu, cases_wide)
DESCRIPTOR(softplus, "Softplus", 1, TP_OP_INPLACE, 0, infer_unary, grad_softplus, cases_wide)
DESCRIPTOR(clip, "Clip", 1, TP_OP_INPLACE, sizeof(tp_unary_attr), infer_unary, grad_clip, cases_clip)
DESCRIPTOR(relu_grad, NULL, 2, TP_OP_INPLACE, 0, infer_unary_grad, NULL, cases2)
DESCRIPTOR(leaky_relu_grad, NULL, 2, TP_OP_INPLACE, sizeof(tp_unary_attr), infer_unary_grad, NULL,
           cases2_leaky)
DESCRIPTOR(elu_grad, NULL, 2, TP_OP_INPLACE, sizeof(tp_unary_attr), infer_unary_grad, NULL, cases2_elu)
DESCRIPTOR(gelu_grad, NULL, 2, TP_OP_INPLACE, 0, infer_unary_grad, NULL, cases2)
DESCRIPTOR(silu_grad, NULL, 2, TP_OP_INPLACE, 0, infer_unary_grad, NULL, cases2)
DESCRIPTOR(softplus_grad, NULL, 2, TP_OP_INPLACE, 0, infer_unary_grad, NULL, cases2)
DESCRIPTOR(tanh_grad, NULL, 2, TP_OP_INPLACE, 0, infer_unary_grad, NULL, cases2)
DESCRIPTOR(sigmoid_grad, NULL, 2, TP_OP_INPLACE, 0, infer_unary_grad, NULL, cases2)
DESCRIPTOR(clip_grad, NULL, 2, TP_OP_INPLACE, sizeof(tp_unary_attr), infer_unary_grad, NULL, cases2_clip)

/* ---- builders ---- */

#define BUILD1(name)                                                                                         \
    tp_val tp_##name(tp_graph *g, tp_val x)                                                                  \
    {                                                                                                        \
        return tp_graph_add(g, &tp_op_##name, 1, &x, NULL);                                                  \
    }
#define BUILD2(name)                                                                                         \
    tp_val tp_##name(tp_graph *g, tp_val x, tp_val dy)                                                       \
    {                                                                                                        \
        return tp_graph_add(g, &tp_op_##name, 2, (const tp_val[]){x, dy}, NULL);                             \
    }
#define BUILD1_ALPHA(name)                                                                                   \
    tp_val tp_##name(tp_graph *g, tp_val x, double alpha)                                                    \
    {                                                                                                        \
        return tp_graph_add(g, &tp_op_##name, 1, &x, &(const tp_unary_attr){alpha, 0.0});                    \
    }
#define BUILD2_ALPHA(name)                                                                                   \
    tp_val tp_##name(tp_graph *g, tp_val x, tp_val dy, double alpha)                                         \
    {                                                                                                        \
        return tp_graph_add(g, &tp_op_##name, 2, (const tp_val[]){x, dy},                                    \
                            &(const tp_unary_attr){alpha, 0.0});                                             \
    }

BUILD1(neg)
BUILD1(abs)
BUILD1(exp)
BUILD1(log)
BUILD1(sqrt)
BUILD1(rsqrt)
BUILD1(sign)
BUILD1(tanh)
BUILD1(sigmoid)
BUILD1(relu)
BUILD1(gelu)
BUILD1(silu)
BUILD1(softplus)
BUILD1_ALPHA(leaky_relu)
BUILD1_ALPHA(elu)
BUILD2(relu_grad)
BUILD2(gelu_grad)
BUILD2(silu_grad)
BUILD2(softplus_grad)
BUILD2(tanh_grad)
BUILD2(sigmoid_grad)
BUILD2_ALPHA(leaky_relu_grad)
BUILD2_ALPHA(elu_grad)

tp_val tp_clip(tp_graph *g, tp_val x, double lo, double hi)
{
    if (!(lo <= hi))
        return tp_graph_ok(g) ? tp_graph_fail(g, TP_EINVAL, "clip: bounds %g and %g, want lo <= hi", lo, hi)
                              : 0;
    return tp_graph_add(g, &tp_op_clip, 1, &x, &(const tp_unary_attr){lo, hi});
}

tp_val tp_clip_grad(tp_graph *g, tp_val x, tp_val dy, double lo, double hi)
{
    return tp_graph_add(g, &tp_op_clip_grad, 2, (const tp_val[]){x, dy}, &(const tp_unary_attr){lo, hi});
}
