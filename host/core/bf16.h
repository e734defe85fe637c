/* bf16.h - bfloat16 as 16 bits: the upper half of a float32 (8 bits of exponent, 8 of mantissa with the
 * implicit one). */
#ifndef TP_CORE_BF16_H
#define TP_CORE_BF16_H
#include "host/core/hd.h"
#include <stdint.h>
#include <string.h>

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
