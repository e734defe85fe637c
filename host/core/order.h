/* order.h - the order of samples as a function of (seed, epoch): nothing to save, and any position can be
 * asked for alone. A Feistel network whose round function is Philox permutes [0, 2^k), the smallest such
 * range that holds n; walking along its cycle until the value is below n makes it a permutation of [0, n)
 * (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). Fewer than two walks a position on
 * average. */
#ifndef TP_CORE_ORDER_H
#define TP_CORE_ORDER_H
#include "host/core/rng.h"

/* Even, so that both halves are mixed equally often; small ranges have halves of one bit and need more
 * than 4. */
#define TP_ORDER_ROUNDS 8

/* Where position i of [0, n) goes in the permutation of (seed, purpose, epoch); 1 <= n <= 2^62, epoch < 2^62.
 */
TP_HD int64_t tp_order_permute(uint64_t seed, uint32_t purpose, uint64_t epoch, int64_t n, int64_t i)
{
    uint32_t bits = 2;
    while (((uint64_t)1 << bits) < (uint64_t)n)
        bits++;
    const uint32_t low_bits = bits / 2;
    const uint64_t low_mask = ((uint64_t)1 << low_bits) - 1,
                   high_mask = ((uint64_t)1 << (bits - low_bits)) - 1;
    uint64_t x = (uint64_t)i;
    do {
        uint64_t low = x & low_mask, high = x >> low_bits;
        for (uint32_t round = 0; round < TP_ORDER_ROUNDS; round += 2) {
            low ^= tp_rng_draw(seed, purpose, high | (uint64_t)round << 32, epoch).v[0] & low_mask;
            high ^= tp_rng_draw(seed, purpose, low | (uint64_t)(round + 1) << 32, epoch).v[0] & high_mask;
        }
        x = high << low_bits | low;
    } while (x >= (uint64_t)n);
    return (int64_t)x;
}

/* The sample at position i of an epoch over n samples. */
TP_HD int64_t tp_order_at(uint64_t seed, uint64_t epoch, int64_t n, int64_t i)
{
    return tp_order_permute(seed, TP_RNG_ORDER, epoch, n, i);
}

#endif
