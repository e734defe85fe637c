/* normal.h - from random bits to normal numbers and to what dropout keeps, once for the loops of the CPU and
 * the kernels of a GPU. */
#ifndef TP_KERNELS_NORMAL_H
#define TP_KERNELS_NORMAL_H
#include "host/core/rng.h"
#include <math.h>

/* Standard normal number k of the four that four random words give (Box & Muller 1958). */
TP_HD double tp_normal(const tp_rng4 *r, int k)
{
    const int pair = k / 2 * 2;
    const double u = ((double)r->v[pair] + 0.5) * 0x1p-32,
                 angle = 6.28318530717958648 * ((double)r->v[pair + 1] + 0.5) * 0x1p-32;
    return sqrt(-2.0 * log(u)) * (k % 2 == 0 ? cos(angle) : sin(angle));
}

/* An element is kept when its 32 random bits reach this: whole numbers, so every device agrees. */
TP_HD uint32_t tp_dropout_limit(double rate)
{
    return (uint32_t)(rate * 0x1p32);
}

#endif
