/* rng.h - the counter-based generator behind every random choice: Philox4x32-10 (Salmon et al., "Parallel
 * random numbers: as easy as 1, 2, 3", SC'11; Random123). There is no state: a number is a function of (seed,
 * purpose, epoch or step, sample or element), so nothing has to be saved for an exact resume. */
#ifndef TP_CORE_RNG_H
#define TP_CORE_RNG_H
#include "host/core/hd.h"
#include <Random123/philox.h>
#include <stdint.h>

/* What a stream of numbers is for. A purpose is part of the key, so streams never overlap. */
enum {
    TP_RNG_INIT = 1, /* first weights; counter: (element, parameter) */
    TP_RNG_ORDER,    /* order of samples; counter: (round, epoch) */
    TP_RNG_SPLIT,    /* split by fraction */
    TP_RNG_AUGMENT,  /* crop and flip; counter: (sample, epoch) */
    TP_RNG_OP = 16   /* random ops of a graph: purpose TP_RNG_OP + stream; counter: (element / 4, step) */
};

typedef struct tp_rng4 {
    uint32_t v[4];
} tp_rng4;

/* Four 32-bit numbers for seed, purpose and a counter (lo: 64 bits, hi: 64 bits, the purpose XORed into its
 * top word). */
TP_HD tp_rng4 tp_rng_draw(uint64_t seed, uint32_t purpose, uint64_t lo, uint64_t hi)
{
    const philox4x32_ctr_t c = {
        {(uint32_t)lo, (uint32_t)(lo >> 32), (uint32_t)hi, (uint32_t)(hi >> 32) ^ purpose}};
    const philox4x32_key_t k = {{(uint32_t)seed, (uint32_t)(seed >> 32)}};
    const philox4x32_ctr_t r = philox4x32(c, k);
    const tp_rng4 four = {{r.v[0], r.v[1], r.v[2], r.v[3]}};
    return four;
}

/* Uniform in [0, 1) with 24 bits. */
TP_HD float tp_rng_uniform(uint32_t bits)
{
    return (float)(bits >> 8) * 0x1p-24f;
}

#endif
