/* cpu.h - what fast loops on the CPU share.
 *
 * A loop marked TP_SIMD is compiled for three levels of x86-64 and chosen when the program is loaded, so
 * nothing is built for one machine. No contraction (-ffp-contract=off) and reductions over TP_LANES fixed
 * partial sums give the same bits at every level and for every number of threads. */
#ifndef TP_KERNELS_CPU_H
#define TP_KERNELS_CPU_H
#include "host/core/parallel.h"
#include "kernels/op.h"

/* Sanitizers start after the dynamic loader has resolved the clones, and clang names the resolvers of static
 * functions of several files alike, so with either there is one level only. */
#if defined(__x86_64__) && !defined(__clang__) && !defined(TP_SANITIZE)
#define TP_SIMD __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define TP_SIMD
#endif

#define TP_LANES 16

/* Elements below which a second thread costs more than it gains. */
#define TP_GRAIN 16384

/* Sum of the lanes in a fixed tree. */
static inline float tp_lanes_sum(const float *lane)
{
    float s[TP_LANES];
    for (int i = 0; i < TP_LANES; i++)
        s[i] = lane[i];
    for (int half = TP_LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            s[i] += s[i + half];
    return s[0];
}

#endif
