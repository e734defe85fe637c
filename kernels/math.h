/* math.h - float32 functions made of additions, multiplications and bit moves only, so that loops over them
 * vectorise and every level of the CPU (and every device that neither contracts nor reorders) gives the same
 * bits. Accuracy against double, over the ranges tested in tests/engine/math_test.cc: exp, log 2 ulp; tanh,
 * sigmoid 4 ulp; erf 2e-7 absolute. */
#ifndef TP_KERNELS_MATH_H
#define TP_KERNELS_MATH_H
#include <stdint.h>

#ifdef __CUDACC__
#define TP_MATH static __host__ __device__ inline
#else
#define TP_MATH static inline __attribute__((always_inline))
#endif

typedef union tp_float_bits {
    float f;
    int32_t i;
} tp_float_bits;

/* 2^n for -126 <= n <= 127 */
TP_MATH float tp_exp2i(int32_t n)
{
    tp_float_bits b;
    b.i = (int32_t)((uint32_t)(n + 127) << 23);
    return b.f;
}

/* e^x: x = n ln 2 + r, |r| <= ln 2 / 2, then a degree-6 polynomial (Cephes expf). Below -87.33 gives 0 and
 * above 88.72 infinity; NaN stays NaN. */
TP_MATH float tp_expf(float x)
{
    const float hi = 88.72283f, lo = -87.33654f;
    const float c = x > hi ? hi : (x < lo ? lo : x);
    const float shifted = c * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds to the nearest integer */
    const float n = shifted - 12582912.0f;
    tp_float_bits bits;
    bits.f = shifted;
    const int32_t k = bits.i - 0x4b400000;
    const float r = (c - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = (p * r) * r + r + 1.0f;
    const int32_t half = k / 2;
    const float y = p * tp_exp2i(half) * tp_exp2i(k - half);
    const float infinity = 3.4028235e38f * 2.0f;
    return x != x ? x : (x > hi ? infinity : (x < lo ? 0.0f : y));
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

/* ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|); the last term by its series where e^-|x| is small. */
TP_MATH float tp_softplusf(float x)
{
    const float e = tp_expf(x < 0.0f ? x : -x);
    const float l = e < 1e-4f ? e - 0.5f * e * e : tp_logf(1.0f + e);
    return (x > 0.0f ? x : 0.0f) + l;
}

/* erf x, Abramowitz & Stegun 7.1.26 refined: 1 - (a1 t + ... + a5 t^5) e^-x^2, t = 1 / (1 + p x); |error|
 * < 1.5e-7, and the Maclaurin series where |x| < 0.5, which keeps small values accurate. */
TP_MATH float tp_erff(float x)
{
    const float a = x < 0.0f ? -x : x;
    const float z = x * x;
    float s = -7.5757576e-4f;  /* -1/1320 */
    s = s * z + 4.6296296e-3f; /*  1/216 */
    s = s * z - 2.3809524e-2f; /* -1/42 */
    s = s * z + 1.0e-1f;       /*  1/10 */
    s = s * z - 3.3333333e-1f; /* -1/3 */
    const float small = 1.12837917f * (s * z * x + x);
    const float t = 1.0f / (1.0f + 0.3275911f * a);
    float p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    const float large = 1.0f - p * t * tp_expf(-z);
    return a < 0.5f ? small : (x < 0.0f ? -large : large);
}

#endif
