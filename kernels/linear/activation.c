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

double tp_activate_grad(double y, double dy, tp_activation act)
{
    switch (act) {
    case TP_ACT_RELU:
        return y > 0.0 ? dy : 0.0;
    case TP_ACT_TANH:
        return dy * (1.0 - y * y);
    case TP_ACT_SIGMOID:
        return dy * y * (1.0 - y);
    default:
        return dy;
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

#define ACT_GRAD(name, act)                                                                                  \
    TP_SIMD static void name(float *dz, const float *y, int64_t n)                                           \
    {                                                                                                        \
        for (int64_t i = 0; i < n; i++)                                                                      \
            dz[i] = tp_activate_grad_f32(y[i], dz[i], act);                                                  \
    }
ACT_GRAD(relu_grad_run, TP_ACT_RELU)
ACT_GRAD(tanh_grad_run, TP_ACT_TANH)
ACT_GRAD(sigmoid_grad_run, TP_ACT_SIGMOID)

void tp_activate_grad_run(float *dz, const float *y, int64_t n, tp_activation act)
{
    if (act == TP_ACT_RELU)
        relu_grad_run(dz, y, n);
    else if (act == TP_ACT_TANH)
        tanh_grad_run(dz, y, n);
    else if (act == TP_ACT_SIGMOID)
        sigmoid_grad_run(dz, y, n);
}

typedef struct activate_job {
    float *y;
    const float *through; /* of the gradient, else NULL */
    tp_activation act;
} activate_job;

static void activate_pieces(void *ctx, int64_t begin, int64_t end)
{
    const activate_job *j = ctx;
    if (j->through != NULL)
        tp_activate_grad_run(j->y + begin, j->through + begin, end - begin, j->act);
    else
        tp_activate_run(j->y + begin, end - begin, j->act);
}

void tp_activate_all(float *y, int64_t n, tp_activation act)
{
    activate_job j = {y, NULL, act};
    if (act != TP_ACT_NONE)
        tp_parallel(n, TP_GRAIN, activate_pieces, &j);
}

void tp_activate_grad_all(float *dz, const float *y, int64_t n, tp_activation act)
{
    activate_job j = {dz, y, act};
    if (act != TP_ACT_NONE)
        tp_parallel(n, TP_GRAIN, activate_pieces, &j);
}

/* A product that nobody else reads is not made: the plan drops it. */
tp_val tp_activation_grad(tp_graph *g, tp_val y, tp_val dy, tp_activation act)
{
    const tp_node *by = tp_graph_producer(g, dy);

    if (by != NULL && by->op == &tp_op_matmul && act != TP_ACT_NONE && tp_val_shape(g, by->in[0]).nd == 2 &&
        tp_val_shape(g, by->in[1]).nd == 2) {
        const tp_matmul_attr *a = by->attr;
        return tp_gemm_input_grad(g, by->in[0], by->in[1], y, (tp_gemm_attr){a->trans_a, a->trans_b, act});
    }
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
