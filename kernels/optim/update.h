/* update.h - what an optimizer does to one element, once for the loops of the CPU and the kernels of a GPU.
 */
#ifndef TP_KERNELS_UPDATE_H
#define TP_KERNELS_UPDATE_H
#include "kernels/math.h"
#include "kernels/op.h"
#include <math.h>

/* What one step needs, worked out once for all elements of a tensor. */
typedef struct tp_update {
    tp_optimizer_kind kind;
    double lr, decay, scale; /* lr already times the tensor's multiplier */
    double beta1, beta2, epsilon, momentum;
    double correct1, correct2; /* 1 - beta^t */
    int nesterov, first;       /* first: t is 1 */
    float keep;                /* of a moving average; 0 where there is none */
} tp_update;

static inline int tp_optimizer_two_states(tp_optimizer_kind kind)
{
    return kind == TP_ADAM || kind == TP_ADAMW || kind == TP_RMSPROP;
}

/* Tensors that belong to one weight: w, dw, s1, (two states) s2, (with averages) ema, (with copies) low;
 * which of them the last two are, and how many there are. */
static inline int tp_optimize_ema(const tp_optimizer_attr *a)
{
    return 3 + tp_optimizer_two_states(a->kind);
}

static inline int tp_optimize_low(const tp_optimizer_attr *a)
{
    return tp_optimize_ema(a) + (a->ema > 0.0);
}

static inline int tp_optimize_groups(const tp_optimizer_attr *a)
{
    return tp_optimize_low(a) + (a->low != 0);
}

/* base^n by squaring: its error is about n 2^-53 of it at most, far below what 1 - beta^t keeps in float32,
 * and the same bits on every device, at a fraction of pow's latency in front of every block's work. */
TP_HD double tp_power(double base, uint64_t n)
{
    double power = 1.0;
    for (; n > 0; n >>= 1) {
        if ((n & 1) != 0)
            power *= base;
        base *= base;
    }
    return power;
}

/* The rule of step t; lr and decay are those of one tensor (tp_update_tensor). */
TP_HD tp_update tp_update_of(tp_optimizer_attr a, double t, double scale)
{
    tp_update r;
    r.kind = a.kind;
    r.lr = r.decay = 0.0;
    r.scale = scale;
    r.beta1 = a.beta1;
    r.beta2 = a.beta2;
    r.epsilon = a.epsilon;
    r.momentum = a.momentum;
    r.nesterov = a.nesterov;
    r.first = t <= 1.0;
    r.keep = (float)a.ema;
    r.correct1 = 1.0 - tp_power(a.beta1, t > 0.0 ? (uint64_t)t : 0);
    r.correct2 = 1.0 - tp_power(a.beta2, t > 0.0 ? (uint64_t)t : 0);
    return r;
}

TP_MATH float tp_average_f(float average, float w, float keep)
{
    return keep * average + (1.0f - keep) * w;
}

/* The update of one element, in REAL: float or double. */
#define TP_UPDATE(name, REAL, SQRT)                                                                          \
    TP_MATH void name(const tp_update *r, tp_optimizer_kind kind, REAL *w, REAL grad, REAL *s1, REAL *s2)    \
    {                                                                                                        \
        const REAL lr = (REAL)r->lr, decay = (REAL)r->decay, b1 = (REAL)r->beta1, b2 = (REAL)r->beta2;       \
        const REAL eps = (REAL)r->epsilon, mu = (REAL)r->momentum, one = (REAL)1.0;                          \
        REAL g = grad * (REAL)r->scale;                                                                      \
        if (kind == TP_ADAMW || kind == TP_LION)                                                             \
            *w = *w * (one - lr * decay);                                                                    \
        else                                                                                                 \
            g = g + decay * *w;                                                                              \
        if (kind == TP_SGD) {                                                                                \
            *s1 = r->first ? g : mu * *s1 + g;                                                               \
            *w = *w - lr * (r->nesterov ? g + mu * *s1 : *s1);                                               \
        } else if (kind == TP_ADAM || kind == TP_ADAMW) {                                                    \
            *s1 = b1 * *s1 + (one - b1) * g;                                                                 \
            *s2 = b2 * *s2 + (one - b2) * g * g;                                                             \
            const REAL denominator = SQRT(*s2) / (REAL)sqrt(r->correct2) + eps;                              \
            *w = *w - lr / (REAL)r->correct1 * (*s1 / denominator);                                          \
        } else if (kind == TP_LION) {                                                                        \
            const REAL c = b1 * *s1 + (one - b1) * g;                                                        \
            *w = *w - lr * (c > (REAL)0.0 ? one : (c < (REAL)0.0 ? -one : (REAL)0.0));                       \
            *s1 = b2 * *s1 + (one - b2) * g;                                                                 \
        } else if (kind == TP_RMSPROP) {                                                                     \
            *s1 = b2 * *s1 + (one - b2) * g * g;                                                             \
            *s2 = mu * *s2 + g / (SQRT(*s1) + eps);                                                          \
            *w = *w - lr * *s2;                                                                              \
        } else {                                                                                             \
            *s1 = *s1 + g * g;                                                                               \
            *w = *w - lr * (g / (SQRT(*s1) + eps));                                                          \
        }                                                                                                    \
    }

TP_UPDATE(tp_update_f, float, sqrtf)
TP_UPDATE(tp_update_d, double, sqrt)

#endif
