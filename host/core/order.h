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

/* The halves of the range that holds n. */
typedef struct tp_order {
    uint32_t low_bits;
    uint64_t low_mask, high_mask;
} tp_order;

TP_HD tp_order tp_order_of(int64_t n)
{
    uint32_t bits = 2;
    tp_order o;
    while (((uint64_t)1 << bits) < (uint64_t)n)
        bits++;
    o.low_bits = bits / 2;
    o.low_mask = ((uint64_t)1 << o.low_bits) - 1;
    o.high_mask = ((uint64_t)1 << (bits - o.low_bits)) - 1;
    return o;
}

/* One step along the cycle of x. */
TP_HD uint64_t tp_order_walk(tp_order o, uint64_t seed, uint32_t purpose, uint64_t epoch, uint64_t x)
{
    uint64_t low = x & o.low_mask, high = x >> o.low_bits;
    for (uint32_t round = 0; round < TP_ORDER_ROUNDS; round += 2) {
        low ^= tp_rng_draw(seed, purpose, high | (uint64_t)round << 32, epoch).v[0] & o.low_mask;
        high ^= tp_rng_draw(seed, purpose, low | (uint64_t)(round + 1) << 32, epoch).v[0] & o.high_mask;
    }
    return high << o.low_bits | low;
}

/* Where position i of [0, n) goes in the permutation of (seed, purpose, epoch); 1 <= n <= 2^62, epoch < 2^62.
 */
TP_HD int64_t tp_order_permute(uint64_t seed, uint32_t purpose, uint64_t epoch, int64_t n, int64_t i)
{
    const tp_order o = tp_order_of(n);
    uint64_t x = (uint64_t)i;
    do
        x = tp_order_walk(o, seed, purpose, epoch, x);
    while (x >= (uint64_t)n);
    return (int64_t)x;
}

/* The sample at position i of an epoch over n samples. */
TP_HD int64_t tp_order_at(uint64_t seed, uint64_t epoch, int64_t n, int64_t i)
{
    return tp_order_permute(seed, TP_RNG_ORDER, epoch, n, i);
}

#endif
