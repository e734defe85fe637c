/* float16.h - floats of 16 bits: IEEE 754's binary16, and bfloat16, the upper half of a float32 (8 bits of
 * exponent, 8 of mantissa with the implicit one). */
#ifndef TP_CORE_FLOAT16_H
#define TP_CORE_FLOAT16_H
#include "host/core/hd.h"
#include <stdint.h>
#include <string.h>

TP_HD float tp_f16_to_f32(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 0x1fu, mantissa = h & 0x3ffu;
    uint32_t bits;
    float f;

    if (exponent == 0) { /* zero or subnormal: mantissa * 2^-24 */
        f = (float)mantissa * 0x1p-24f;
        memcpy(&bits, &f, 4);
        bits |= sign;
    } else
        bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13;
    memcpy(&f, &bits, 4);
    return f;
}

TP_HD float tp_bf16_to_f32(uint16_t v)
{
    const uint32_t bits = (uint32_t)v << 16;
    float f;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

/* Nearest, ties to even; NaN stays NaN. */
TP_HD uint16_t tp_bf16_from_f32(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof(bits));
    return (uint16_t)((v != v ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

#endif
