/* activation.h - what gemm and conv share about the activations that fuse into them. */
#ifndef TP_KERNELS_ACTIVATION_H
#define TP_KERNELS_ACTIVATION_H
#include "kernels/math.h"
#include "kernels/op.h"

/* TP_ESHAPE unless act is one of tp_activation. */
tp_status tp_activation_check(tp_activation act);

/* act(v), for references. NaN stays NaN, here and below, as in the ops relu, tanh and sigmoid. */
double tp_activate(double v, tp_activation act);

/* The same in float32. */
TP_MATH float tp_activate_f32(float v, tp_activation act)
{
    switch (act) {
    case TP_ACT_RELU:
        return v <= 0.0f ? 0.0f : v;
    case TP_ACT_TANH:
        return tp_tanhf(v);
    case TP_ACT_SIGMOID:
        return tp_sigmoidf(v);
    default:
        return v;
    }
}

/* The gradient of act's argument, given y = act(z) and dy: the expressions of relu_grad, tanh_grad and
 * sigmoid_grad. */
TP_MATH float tp_activate_grad_f32(float y, float dy, tp_activation act)
{
    switch (act) {
    case TP_ACT_RELU:
        return y > 0.0f ? dy : 0.0f;
    case TP_ACT_TANH:
        return dy * (1.0f - y * y);
    case TP_ACT_SIGMOID:
        return dy * y * (1.0f - y);
    default:
        return dy;
    }
}

/* The same in double, for references. */
double tp_activate_grad(double y, double dy, tp_activation act);

/* y = act(y), on this thread. */
void tp_activate_run(float *y, int64_t n, tp_activation act);

/* dz = act'(y) dz, on this thread. */
void tp_activate_grad_run(float *dz, const float *y, int64_t n, tp_activation act);

/* y = act(y), on every thread. Used after oneDNN, whose own fused activations turn NaN into 0 (relu) or a
 * number (logistic) in some of its kernels (2.6.3), which would hide a diverged model. */
void tp_activate_all(float *y, int64_t n, tp_activation act);
void tp_activate_grad_all(float *dz, const float *y, int64_t n, tp_activation act);

/* dz of y = act(z): a node of its own, or part of the product that gave dy. */
tp_val tp_activation_grad(tp_graph *g, tp_val y, tp_val dy, tp_activation act);

#endif
