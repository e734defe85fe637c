#include "kernels/linear/activation.h"
#include "kernels/cpu.h"
#include "kernels/elementwise/broadcast.h"
#include <math.h>

tp_status tp_activation_check(tp_activation act)
{
    TP_CHECK((int)act >= TP_ACT_NONE && (int)act <= TP_ACT_SIGMOID, TP_ESHAPE, "activation %d, want %d to %d",
             (int)act, TP_ACT_NONE, TP_ACT_SIGMOID);
    return TP_OK;
}

double tp_activate(double v, tp_activation act)
{
    switch (act) {
    case TP_ACT_RELU:
        return v > 0.0 || v != v ? v : 0.0;
    case TP_ACT_TANH:
        return tanh(v);
    case TP_ACT_SIGMOID:
        return v > 0.0 ? 1.0 / (1.0 + exp(-v)) : exp(v) / (1.0 + exp(v));
    default:
        return v;
    }
}

TP_SIMD static void relu_run(float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = tp_activate_f32(y[i], TP_ACT_RELU);
}

TP_SIMD static void tanh_run(float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = tp_activate_f32(y[i], TP_ACT_TANH);
}

TP_SIMD static void sigmoid_run(float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = tp_activate_f32(y[i], TP_ACT_SIGMOID);
}

void tp_activate_run(float *y, int64_t n, tp_activation act)
{
    if (act == TP_ACT_RELU)
        relu_run(y, n);
    else if (act == TP_ACT_TANH)
        tanh_run(y, n);
    else if (act == TP_ACT_SIGMOID)
        sigmoid_run(y, n);
}

typedef struct activate_job {
    float *y;
    tp_activation act;
} activate_job;

static void activate_pieces(void *ctx, int64_t begin, int64_t end)
{
    const activate_job *j = ctx;
    tp_activate_run(j->y + begin, end - begin, j->act);
}

void tp_activate_all(float *y, int64_t n, tp_activation act)
{
    activate_job j = {y, act};
    if (act != TP_ACT_NONE)
        tp_parallel(n, TP_GRAIN, activate_pieces, &j);
}

tp_val tp_activation_grad(tp_graph *g, tp_val y, tp_val dy, tp_activation act)
{
    switch (act) {
    case TP_ACT_RELU:
        return tp_relu_grad(g, y, dy);
    case TP_ACT_TANH:
        return tp_tanh_grad(g, y, dy);
    case TP_ACT_SIGMOID:
        return tp_sigmoid_grad(g, y, dy);
    default:
        return dy;
    }
}
