/* math.h - float32 functions made of additions, multiplications and bit moves only, so that loops over them
 * vectorise and every level of the CPU (and every device that neither contracts nor reorders) gives the same
 * bits. Accuracy against double, over the ranges tested in tests/engine/math_test.cc: exp, log 2 ulp; tanh,
 * sigmoid, softplus 4 ulp; erf 2e-7 absolute; erfc 1e-5 relative where it is a normal number. */
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
} tp_float_bits;

/* e^x: x = n ln 2 + r, |r| <= ln 2 / 2, then a degree-7 polynomial (Cephes expf) whose exponent n is added
 * to; what that gives outside the limits is not used. Below -87.33 gives 0 and above 88.72 infinity; NaN
 * stays NaN. */
TP_MATH float tp_expf(float x)
{
    const float hi = 88.72283f, lo = -87.33654f;
    tp_float_bits n, y;
    n.f = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds to the nearest integer */
    const float whole = n.f - 12582912.0f;
    const float r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    y.f = (p * r) * r + r + 1.0f;
    y.i = (int32_t)((uint32_t)y.i + ((uint32_t)n.i << 23)); /* the low bits of n, the others fall out */
    const float infinity = 3.4028235e38f * 2.0f;
    return x < lo ? 0.0f : (x <= hi ? y.f : x + infinity);
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
    const float a = x < 0.0f ? x : -x;
    const float e = tp_expf(a);
    const float s = 1.0f / (1.0f + e);
    return x < 0.0f ? e * s : s;
}

/* tanh x: an odd polynomial below 0.625, 1 - 2 / (e^2x + 1) above (Cephes). */
TP_MATH float tp_tanhf(float x)
{
    const float a = x < 0.0f ? -x : x;
    const float z = x * x;
    float p = -5.70498872745e-3f;
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    const float small = p * z * x + x;
    const float c = a > 20.0f ? 20.0f : a;
    const float large = 1.0f - 2.0f / (tp_expf(c + c) + 1.0f);
    const float signed_large = x < 0.0f ? -large : large;
    return x != x ? x : (a < 0.625f ? small : signed_large);
}

/* ln(1 + e^x) = max(x, 0) + ln(1 + t), t = e^-|x|. With u = 1 + t rounded, ln(u) t / (u - 1) gives back what
 * the rounding took (Kahan). */
TP_MATH float tp_softplusf(float x)
{
    const float t = tp_expf(x < 0.0f ? x : -x);
    const float u = 1.0f + t, d = u - 1.0f;
    const float l = d == 0.0f ? t : tp_logf(u) * (t / d);
    return (x > 0.0f ? x : 0.0f) + l;
}

/* erf x for |x| < 1: x times a polynomial of x^2 (Cephes). */
TP_MATH float tp_erf_small(float x)
{
    const float z = x * x;
    float p = 7.853861353153693e-5f;
    p = p * z - 8.010193625184903e-4f;
    p = p * z + 5.188327685732524e-3f;
    p = p * z - 2.685381193529856e-2f;
    p = p * z + 1.128358514861418e-1f;
    p = p * z - 3.761262582423300e-1f;
    p = p * z + 1.128379165726710f;
    return x * p;
}

/* erfc a for a >= 1: e^-a^2 / a times a polynomial of 1 / a^2, one below 2 and one above (Cephes). */
TP_MATH float tp_erfc_tail(float a)
{
    const float q = 1.0f / a, y = q * q;
    float p = 2.326819970068386e-2f;
    p = p * y - 1.387039388740657e-1f;
    p = p * y + 3.687424674597105e-1f;
    p = p * y - 5.824733027278666e-1f;
    p = p * y + 6.210004621745983e-1f;
    p = p * y - 4.944515323274145e-1f;
    p = p * y + 3.404879937665872e-1f;
    p = p * y - 2.741127028184656e-1f;
    p = p * y + 5.638259427386472e-1f;
    float r = -1.047766399936249e+1f;
    r = r * y + 1.297719955372516e+1f;
    r = r * y - 7.495518717768503f;
    r = r * y + 2.921019019210786f;
    r = r * y - 1.015265279202700f;
    r = r * y + 4.218463358204948e-1f;
    r = r * y - 2.820767439740514e-1f;
    r = r * y + 5.641895067754075e-1f;
    return tp_expf(-a * a) * q * (a < 2.0f ? p : r);
}

TP_MATH float tp_erff(float x)
{
    const float a = x < 0.0f ? -x : x;
    const float tail = 1.0f - tp_erfc_tail(a < 1.0f ? 1.0f : a);
    return a < 1.0f ? tp_erf_small(x) : (x < 0.0f ? -tail : tail);
}

/* 1 - erf x, without the cancellation for large x. */
TP_MATH float tp_erfcf(float x)
{
    const float a = x < 0.0f ? -x : x;
    const float tail = tp_erfc_tail(a < 1.0f ? 1.0f : a);
    return a < 1.0f ? 1.0f - tp_erf_small(x) : (x < 0.0f ? 2.0f - tail : tail);
}

#endif
