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

/* y = act(y), on this thread. */
void tp_activate_run(float *y, int64_t n, tp_activation act);

/* y = act(y), on every thread. Used after oneDNN, whose own fused activations turn NaN into 0 (relu) or a
 * number (logistic) in some of its kernels (2.6.3), which would hide a diverged model. */
void tp_activate_all(float *y, int64_t n, tp_activation act);

#endif
