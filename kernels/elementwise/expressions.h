/* expressions.h - what the elementwise ops compute, once for the loops of the CPU and the kernels of a GPU.
 */
#ifndef TP_KERNELS_EXPRESSIONS_H
#define TP_KERNELS_EXPRESSIONS_H
#include "kernels/math.h"

#define TP_SQRT1_2     0.70710678118654752
#define TP_RSQRT_2PI   0.39894228040143268
#define TP_RSQRT_2PI_F 0.39894228f

/* X(name, float32 expression of x and the attributes a, b; the same in double) */
#define TP_UNARY_OPS(X)                                                                                      \
    X(neg, -x, -x)                                                                                           \
    X(abs, fabsf(x), fabs(x))                                                                                \
    X(exp, tp_expf(x), exp(x))                                                                               \
    X(log, tp_logf(x), log(x))                                                                               \
    X(sqrt, sqrtf(x), sqrt(x))                                                                               \
    X(rsqrt, 1.0f / sqrtf(x), 1.0 / sqrt(x))                                                                 \
    X(sign, (float)((x > 0.0f) - (x < 0.0f)), (double)((x > 0.0) - (x < 0.0)))                               \
    X(tanh, tp_tanhf(x), tanh(x))                                                                            \
    X(sigmoid, tp_sigmoidf(x), x > 0 ? 1.0 / (1.0 + exp(-x)) : exp(x) / (1.0 + exp(x)))                      \
    X(relu, x > 0.0f ? x : (x == x ? 0.0f : x), x > 0.0 ? x : (x == x ? 0.0 : x))                            \
    X(leaky_relu, x > 0.0f ? x : a * x, x > 0.0 ? x : a * x)                                                 \
    X(elu, x > 0.0f ? x : a * (tp_expf(x) - 1.0f), x > 0.0 ? x : a * expm1(x))                               \
    X(gelu, x *tp_normal_cdff(x), 0.5 * x * erfc(-x * TP_SQRT1_2))                                           \
    X(silu, x *tp_sigmoidf(x), x / (1.0 + exp(-x)))                                                          \
    X(softplus, tp_softplusf(x), fmax(x, 0.0) + log1p(exp(-fabs(x))))                                        \
    X(clip, x < a ? a : (x > b ? b : x), x < a ? a : (x > b ? b : x))

/* X(name, float32 expression of x (or y), dy, a, b; the same in double) */
#define TP_UNARY_GRAD_OPS(X)                                                                                 \
    X(relu_grad, x > 0.0f ? dy : 0.0f, x > 0.0 ? dy : 0.0)                                                   \
    X(leaky_relu_grad, x > 0.0f ? dy : a * dy, x > 0.0 ? dy : a * dy)                                        \
    X(elu_grad, x > 0.0f ? dy : a * tp_expf(x) * dy, x > 0.0 ? dy : a * exp(x) * dy)                         \
    X(gelu_grad, dy *(tp_normal_cdff(x) + x * TP_RSQRT_2PI_F * tp_gaussf(x)),                                \
      dy *(0.5 * erfc(-x * TP_SQRT1_2) + x * TP_RSQRT_2PI * exp(-0.5 * x * x)))                              \
    X(silu_grad, dy *(tp_sigmoidf(x) * (1.0f + x * (1.0f - tp_sigmoidf(x)))),                                \
      dy *(1.0 + x * (1.0 - 1.0 / (1.0 + exp(-x)))) / (1.0 + exp(-x)))                                       \
    X(softplus_grad, dy *tp_sigmoidf(x), dy / (1.0 + exp(-x)))                                               \
    X(tanh_grad, dy *(1.0f - x * x), dy *(1.0 - x * x))                                                      \
    X(sigmoid_grad, dy *x *(1.0f - x), dy *x *(1.0 - x))                                                     \
    X(clip_grad, x >= a && x <= b ? dy : 0.0f, x >= a && x <= b ? dy : 0.0)

/* X(name, float32 expression of a and b; the same in double) */
#define TP_BINARY_OPS(X)                                                                                     \
    X(add, a + b, a + b)                                                                                     \
    X(sub, a - b, a - b)                                                                                     \
    X(mul, a *b, a *b)                                                                                       \
    X(div, a / b, a / b)                                                                                     \
    X(pow, powf(a, b), pow(a, b))                                                                            \
    X(min, b < a ? b : a, b < a ? b : a)                                                                     \
    X(max, b > a ? b : a, b > a ? b : a)                                                                     \
    X(greater, a > b ? 1.0f : 0.0f, a > b ? 1.0 : 0.0)

#endif
