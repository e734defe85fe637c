/* math.h - float32 functions made of additions, multiplications, divisions and bit moves only, so that loops
 * over them vectorise and every level of the CPU (and every device that neither contracts nor reorders) gives
 * the same bits. Accuracy against double, over the ranges tested in tests/engine/math_test.cc: exp, log 2
 * ulp; tanh, sigmoid, softplus 4 ulp; the normal distribution 1.3e-7 absolute, and 1e-5 relative where it is
 * a normal number. */
#ifndef TP_KERNELS_MATH_H
#define TP_KERNELS_MATH_H
#include "host/core/hd.h"
#include <math.h>
#include <stdint.h>

#if defined(__CUDACC__)
#define TP_MATH TP_HD
#elif !defined(TP_MATH)                              /* set by tests/scripts/coverage.py */
#define TP_MATH TP_HD __attribute__((always_inline)) /* or the loops around them would not vectorise */
#endif

typedef union tp_float_bits {
    float f;
    int32_t i;
    uint32_t u;
} tp_float_bits;

/* n / d to the nearest float, for n, d and n / d far from overflow and from the subnormal numbers: what a
 * GPU's division does in that range, without its test for the rest (8 instructions, not 13 and a branch). */
TP_MATH float tp_ratiof(float n, float d)
{
#ifdef __CUDA_ARCH__
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(d));
    r = fmaf(r, fmaf(-d, r, 1.0f), r);
    float q = n * r;
    q = fmaf(r, fmaf(-d, q, n), q);
    return fmaf(r, fmaf(-d, q, n), q);
#else
    return n / d;
#endif
}

/* x = n ln 2 + r with |r| <= ln 2 / 2 and n = shifted - 1.5 * 2^23, so that e^x = 2^n e^r. */
typedef struct tp_exp_parts {
    float r, shifted;
} tp_exp_parts;

TP_MATH tp_exp_parts tp_exp_split(float x)
{
    tp_exp_parts e;
    e.shifted = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds to the nearest integer */
    const float n = e.shifted - 12582912.0f;
    e.r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    return e;
}

/* e^r - 1 for |r| <= ln 2 / 2: r + r^2 times a polynomial (minimax, 0.22 * 2^-24 relative). */
TP_MATH float tp_expm1_small(float r)
{
    float p = 1.38824818e-3f;
    p = p * r + 8.36652306e-3f;
    p = p * r + 4.16672004e-2f;
    p = p * r + 1.66665436e-1f;
    p = p * r + 4.99999982e-1f;
    return (p * r) * r + r;
}

/* 2^n for -126 <= n <= 127 from the sum n + 1.5 * 2^23; 0 for n = -127. */
TP_MATH float tp_exp2_shifted(float shifted)
{
    tp_float_bits b;
    b.f = shifted;
    b.u = (b.u << 23) + 0x3f800000u;
    return b.f;
}

/* e^x. Below -87.33 gives 0 and above 88.72 infinity; NaN stays NaN. */
TP_MATH float tp_expf(float x)
{
    const tp_exp_parts e = tp_exp_split(x);
    tp_float_bits y, shifted;
    y.f = tp_expm1_small(e.r) + 1.0f;
    shifted.f = e.shifted;
    y.u += shifted.u << 23; /* n may be 128 where y is below 1 */
    const float infinity = 3.4028235e38f * 2.0f;
    const float up = x <= 88.72283f ? y.f : x + infinity;
    return x < -87.33654f ? 0.0f : up;
}

/* e^x for x <= 0. */
TP_MATH float tp_exp_downf(float x)
{
    const tp_exp_parts e = tp_exp_split(x);
    const float y = (tp_expm1_small(e.r) + 1.0f) * tp_exp2_shifted(e.shifted);
    return x < -87.33654f ? 0.0f : y;
}

/* e^x for x <= 0 from fused products: half the instructions of tp_expf on a GPU, and slow on a CPU without
 * them, so it is not for the CPU's loops. Below -87.33 gives 0; NaN stays NaN. */
TP_MATH float tp_exp_fused(float x)
{
    tp_float_bits n;
    n.f = fmaf(x, 1.44269504f, 12583039.0f); /* 1.5 * 2^23 + 127: the low bits are n + 127 */
    const float whole = n.f - 12583039.0f;
    const float r = fmaf(whole, 2.12194440e-4f, fmaf(whole, -0.693359375f, x));
    float p = 1.3926250831e-3f;
    p = fmaf(p, r, 8.3632328837e-3f);
    p = fmaf(p, r, 4.1666554213e-2f);
    p = fmaf(p, r, 1.6666576666e-1f);
    p = fmaf(p, r, 5.0000000000e-1f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    n.i = (int32_t)((uint32_t)n.i << 23); /* 2^n */
    return x < -87.33654f ? 0.0f : p * n.f;
}

/* ln x: x = m 2^e with m in [sqrt(1/2), sqrt 2), then Cephes' polynomial. 0 gives -infinity, x < 0 NaN. */
TP_MATH float tp_logf(float x)
{
    tp_float_bits b;
    const int tiny = x < 1.17549435e-38f;
    b.f = tiny ? x * 8388608.0f : x;
    int32_t e = ((b.i >> 23) & 0xff) - 126 - (tiny ? 23 : 0);
    b.i = (b.i & 0x007fffff) | 0x3f000000;
    float m = b.f;
    const int low = m < 0.707106781f;
    e = low ? e - 1 : e;
    m = low ? m + m - 1.0f : m - 1.0f;
    const float z = m * m, fe = (float)e;
    float p = 7.0376836292e-2f;
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    float y = (m * z) * p;
    y = y + fe * -2.12194440e-4f;
    y = y - 0.5f * z;
    y = (m + y) + fe * 0.693359375f;
    const float infinity = 3.4028235e38f * 2.0f;
    y = x > 3.4028235e38f ? x : y;
    return x == 0.0f ? -infinity : (x > 0.0f ? y : (infinity - infinity));
}

/* 1 / (1 + e^-x), from e^-|x| so that nothing overflows. */
TP_MATH float tp_sigmoidf(float x)
{
    const float e = tp_exp_downf(-fabsf(x));
    const float s = tp_ratiof(1.0f, 1.0f + e);
    return x < 0.0f ? e * s : s;
}

/* tanh |x| = m / (m + 2), m = e^2|x| - 1 = (2^n - 1) + 2^n (e^r - 1). It is 1 from 9.02 on. */
TP_MATH float tp_tanhf(float x)
{
    const float a = fabsf(x), c = a > 10.0f ? 10.0f : a;
    const tp_exp_parts e = tp_exp_split(c + c);
    const float scale = tp_exp2_shifted(e.shifted);
    const float m = (scale - 1.0f) + scale * tp_expm1_small(e.r);
    return copysignf(tp_ratiof(m, m + 2.0f), x);
}

/* ln(1 + e^x) = max(x, 0) + ln(1 + t), t = e^-|x|. With u = 1 + t rounded, ln(u) t / (u - 1) gives back what
 * the rounding took (Kahan). */
TP_MATH float tp_softplusf(float x)
{
    const float t = tp_exp_downf(-fabsf(x));
    const float u = 1.0f + t, d = u - 1.0f;
    const float l = d == 0.0f ? t : tp_logf(u) * tp_ratiof(t, d);
    return (x > 0.0f ? x : 0.0f) + l;
}

/* e^(-x^2 / 2) = 2^n 2^r, with 2^r - 1 a polynomial (minimax, 0.03 * 2^-24 relative). |x| from 13.27 on has
 * n = -127 and gives 0. */
TP_MATH float tp_gaussf(float x)
{
    const float a = fabsf(x), z = a > 13.27f ? 13.27f : a;
    const float t = z * z * -0.721347520f;
    const float shifted = t + 12582912.0f, r = t - (shifted - 12582912.0f);
    float p = 1.53534641e-4f;
    p = p * r + 1.33988997e-3f;
    p = p * r + 9.61843714e-3f;
    p = p * r + 5.55033240e-2f;
    p = p * r + 2.40226479e-1f;
    p = p * r + 6.93147203e-1f;
    p = p * r + 1.0f;
    return p * tp_exp2_shifted(shifted);
}

/* The standard normal distribution, from below: e^(-x^2 / 2) times a rational function of |x|
 * (minimax: 1.5e-8 absolute, 1.5e-6 relative) is its tail. The factor 1.35 of both polynomials keeps the
 * denominator away from the powers of two where rounding costs most. */
TP_MATH float tp_normal_cdff(float x)
{
    const float a = fabsf(x), z = a > 13.27f ? 13.27f : a;
    float p = 0.0193565477f;
    p = p * z + 0.146021533f;
    p = p * z + 0.462195916f;
    p = p * z + 0.675f;
    float q = 0.0485332668f;
    q = q * z + 0.3655398f;
    q = q * z + 1.21406499f;
    q = q * z + 2.00153398f;
    q = q * z + 1.35f;
    const float tail = tp_gaussf(x) * tp_ratiof(p, q);
    return x < 0.0f ? tail : 1.0f - tail;
}

#endif
