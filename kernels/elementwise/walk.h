/* walk.h - elements of inputs that are broadcast against each other, in the order of the output.
 *
 * Shapes are collapsed: neighbouring dimensions over which every input either advances densely or stands
 * still become one. What is left is walked as rows of the innermost dimension. */
#ifndef TP_KERNELS_WALK_H
#define TP_KERNELS_WALK_H
#include "host/core/hd.h"
#include "kernels/op.h"

#define TP_WALK_ARGS 3

typedef struct tp_walk {
    int n_args, nd;
    int64_t d[TP_MAX_DIMS];
    int64_t stride[TP_WALK_ARGS][TP_MAX_DIMS]; /* elements; 0 where the input is broadcast */
} tp_walk;

static inline void tp_walk_strides(tp_shape in, tp_shape out, int64_t *stride)
{
    int64_t step = 1;
    for (int i = out.nd - 1, k = in.nd - 1; i >= 0; i--, k--) {
        stride[i] = k >= 0 && in.d[k] > 1 ? step : 0;
        step *= k >= 0 ? in.d[k] : 1;
    }
}

static inline int tp_walk_joins(const tp_walk *w, int64_t inner, const int64_t *outer_stride,
                                const int64_t *inner_stride)
{
    for (int a = 0; a < w->n_args; a++)
        if (outer_stride[a] != inner_stride[a] * inner)
            return 0;
    return 1;
}

static inline void tp_walk_init(tp_walk *w, const tp_call *c)
{
    const tp_shape out = c->out[0].shape;
    int64_t full[TP_WALK_ARGS][TP_MAX_DIMS] = {{0}};

    w->n_args = c->n_in;
    w->nd = 0;
    for (int a = 0; a < c->n_in; a++)
        tp_walk_strides(c->in[a].shape, out, full[a]);
    for (int i = 0; i < out.nd; i++) {
        int64_t now[TP_WALK_ARGS], last[TP_WALK_ARGS];
        if (out.d[i] == 1)
            continue;
        for (int a = 0; a < c->n_in; a++) {
            now[a] = full[a][i];
            last[a] = w->nd > 0 ? w->stride[a][w->nd - 1] : 0;
        }
        if (w->nd > 0 && tp_walk_joins(w, out.d[i], last, now))
            w->d[w->nd - 1] *= out.d[i];
        else
            w->d[w->nd++] = out.d[i];
        for (int a = 0; a < c->n_in; a++)
            w->stride[a][w->nd - 1] = now[a];
    }
    if (w->nd == 0) {
        w->d[w->nd++] = 1;
        for (int a = 0; a < c->n_in; a++)
            w->stride[a][0] = 0;
    }
}

/* Offsets of every input at flat output index i. */
TP_HD void tp_walk_offsets(const tp_walk *w, int64_t i, int64_t *offset)
{
    for (int a = 0; a < w->n_args; a++)
        offset[a] = 0;
    for (int k = w->nd - 1; k >= 0; k--) {
        const int64_t at = i % w->d[k];
        for (int a = 0; a < w->n_args; a++)
            offset[a] += at * w->stride[a][k];
        i /= w->d[k];
    }
}

#endif
