/* norm.h - what the references and the fast loops of the norms share. */
#ifndef TP_KERNELS_NORM_H
#define TP_KERNELS_NORM_H
#include "kernels/op.h"
#include <math.h>

/* x seen as (n, c, s): samples, channels, elements of a channel. For layer norm: (rows, D, 1), one group. */
typedef struct norm_dims {
    int64_t n, c, s, groups;
} norm_dims;

static inline norm_dims tp_norm_dims(tp_shape x, int last, int64_t groups)
{
    norm_dims d = {1, 1, 1, groups > 0 ? groups : 1};
    if (last) {
        d.c = x.d[x.nd - 1];
        for (int i = 0; i < x.nd - 1; i++)
            d.n *= x.d[i];
        return d;
    }
    d.n = x.d[0];
    d.c = x.d[1];
    for (int i = 2; i < x.nd; i++)
        d.s *= x.d[i];
    return d;
}

/* Inputs of batch_norm, batch_norm_grad, batch_norm_eval, and of the layer and group norms. */
enum { BN_X, BN_GAMMA, BN_BETA, BN_MEAN, BN_VAR, BN_WEIGHT, BN_RESIDUAL };
enum { BG_X, BG_GAMMA, BG_MEAN, BG_RSTD, BG_DY, BG_WEIGHT, BG_BETA };
enum { SN_X, SN_GAMMA, SN_BETA };
enum { SG_X, SG_GAMMA, SG_MEAN, SG_RSTD, SG_DY };

/* 1 if an optional input is there. */
static inline int tp_norm_has(const tp_call *c, int input)
{
    return c->n_in > input && c->in[input].dtype != TP_DTYPE_NONE;
}

/* 1 if batch norm or its gradient goes through relu. */
static inline int tp_norm_relu(const tp_call *c)
{
    return ((const tp_norm_attr *)c->attr)->act == TP_ACT_RELU;
}

/* Rows that share a weight; 1 where there are none. */
static inline int64_t tp_norm_run(const tp_call *c, int weight)
{
    return tp_norm_has(c, weight) ? c->in[0].shape.d[0] / tp_len(&c->in[weight]) : 1;
}

/* 1 if row n takes part in the statistics: no weights, or a weight that is not 0. */
static inline int tp_norm_counts(const tp_call *c, int weight, int64_t n)
{
    return !tp_norm_has(c, weight) || tp_get(&c->in[weight], n / tp_norm_run(c, weight)) != 0.0;
}

/* running = (1 - momentum) running + momentum batch for channel ch, the variance unbiased (as PyTorch).
 * Statistics that are not finite are left out: a step that diverged is not applied, and must not spoil the
 * running ones for the steps after it. */
static inline void tp_norm_running(const tp_call *c, int64_t ch, double count, double mean, double squares)
{
    const double m = ((const tp_norm_attr *)c->attr)->momentum;

    if (count <= 0.0 || !isfinite(mean) || !isfinite(squares))
        return;
    const double var = squares / (count > 1.0 ? count - 1.0 : count);
    tp_set(&c->in[BN_MEAN], ch, (1.0 - m) * tp_get(&c->in[BN_MEAN], ch) + m * mean);
    tp_set(&c->in[BN_VAR], ch, (1.0 - m) * tp_get(&c->in[BN_VAR], ch) + m * var);
}

/* float32, any number of threads. */
tp_status tp_batch_norm_simd(const tp_call *c);
tp_status tp_batch_norm_grad_simd(const tp_call *c);
tp_status tp_batch_norm_eval_simd(const tp_call *c);
tp_status tp_layer_norm_simd(const tp_call *c);
tp_status tp_layer_norm_grad_simd(const tp_call *c);
tp_status tp_group_norm_simd(const tp_call *c);
tp_status tp_group_norm_grad_simd(const tp_call *c);

#endif
