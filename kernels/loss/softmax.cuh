/* softmax.cuh - the maximum of a row and the sum of e^(x - maximum), for softmax and cross entropy. */
#ifndef TP_KERNELS_SOFTMAX_CUH
#define TP_KERNELS_SOFTMAX_CUH
#include "kernels/loss/rows.cuh"
#include "kernels/math.h"

/* Reads the row into x. A NaN is left to the sum, which it spoils. */
template <typename R> __device__ inline float tp_row_max(R &x, const float *row, int cols)
{
    float most = -INFINITY;
    TP_PIECES (R, first, cols) {
        x.load(row, first, cols, -INFINITY);
        TP_ELEMENTS (R, j, e)
            most = fmaxf(most, x.v[j][e]);
    }
    return R::team::max(most);
}

/* KEEP: what is held of the row becomes e^(x - most). */
template <bool KEEP, typename R>
__device__ inline float tp_row_exp_sum(R &x, const float *row, int cols, float most)
{
    typename R::total sum = 0;
    TP_PIECES (R, first, cols) {
        float part = 0.0f;
        x.load_again(row, first, cols, -INFINITY);
        TP_ELEMENTS (R, j, e) {
            const float y = tp_exp_fused(x.v[j][e] - most);
            part += y;
            if (KEEP)
                x.v[j][e] = y;
        }
        sum += part;
    }
    return (float)R::team::sum(sum);
}

/* A piece of e^(x - most) after a sum that kept it; 0 in columns beyond the row. */
template <typename R>
__device__ inline void tp_row_exp_again(R &x, const float *row, int first, int cols, float most)
{
    if (!R::held) {
        x.load(row, first, cols, -INFINITY);
        TP_ELEMENTS (R, j, e)
            x.v[j][e] = tp_exp_fused(x.v[j][e] - most);
    }
}

#endif
