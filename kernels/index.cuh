/* index.cuh - from the flat index of an output to places in its inputs, in 32-bit arithmetic: a division by a
 * number that the host knows is a multiplication and a shift (Granlund & Montgomery 1994). What has more
 * places than 32 bits count is cut on the host. */
#ifndef TP_KERNELS_INDEX_CUH
#define TP_KERNELS_INDEX_CUH
#include "kernels/cuda.cuh"
#include "kernels/elementwise/walk.h"

#define TP_INDEX_LIMIT ((int64_t)1 << 31)
/* Places of a piece that the host cuts. The emulation takes few, so that tests meet several pieces. */
#ifndef TP_PIECE_LIMIT
#define TP_PIECE_LIMIT TP_INDEX_LIMIT
#endif

/* Blocks that take `tile` of n things each; at least one. */
static inline unsigned tp_tiles(int64_t n, int64_t tile)
{
    return (unsigned)(n > tile ? (n + tile - 1) / tile : 1);
}

/* n / d = n mul >> shift for n < 2^31 and 1 <= d < 2^31: mul is 2^shift / d rounded up, shift = 31 +
 * ceil(log2 d), so the excess n (mul - 2^shift / d) / 2^shift is below 1 / d. */
struct tp_divisor {
    uint32_t d, mul, shift;
};

static inline tp_divisor tp_divisor_of(int64_t d)
{
    uint32_t shift = 31;

    while (((int64_t)1 << (shift - 31)) < d)
        shift++;
    return {(uint32_t)d, (uint32_t)((((uint64_t)1 << shift) + (uint64_t)d - 1) / (uint64_t)d), shift};
}

__device__ inline uint32_t tp_divide(uint32_t n, const tp_divisor &by)
{
    return (uint32_t)((uint64_t)n * by.mul >> by.shift);
}

/* A walk as a kernel takes it: dimensions outermost first, of `total` places together. */
template <int ARGS> struct tp_places {
    int nd;
    uint32_t total;
    tp_divisor d[TP_MAX_DIMS];
    int64_t stride[ARGS][TP_MAX_DIMS];
};

static inline int64_t tp_walk_total(const tp_walk *w)
{
    int64_t n = 1;
    for (int k = 0; k < w->nd; k++)
        n *= w->d[k];
    return n;
}

template <int ARGS> static tp_places<ARGS> tp_places_of(const tp_walk *w)
{
    tp_places<ARGS> p = {};

    p.nd = w->nd;
    p.total = (uint32_t)tp_walk_total(w);
    for (int k = 0; k < w->nd; k++) {
        p.d[k] = tp_divisor_of(w->d[k]);
        for (int a = 0; a < ARGS; a++)
            p.stride[a][k] = w->stride[a][k];
    }
    return p;
}

/* at[a]: where place i lies in argument a. */
template <int ARGS> __device__ inline void tp_place(const tp_places<ARGS> &p, uint32_t i, int64_t (&at)[ARGS])
{
    for (int a = 0; a < ARGS; a++)
        at[a] = 0;
    /* Mostly no round or one. */
    TP_ROLLED
    for (int k = p.nd - 1; k > 0; k--) {
        const uint32_t outer = tp_divide(i, p.d[k]), here = i - outer * p.d[k].d;
        for (int a = 0; a < ARGS; a++)
            at[a] += here * p.stride[a][k];
        i = outer;
    }
    for (int a = 0; a < ARGS; a++)
        at[a] += i * p.stride[a][0];
}

/* Calls run(walk, first place, where it lies in each argument) for pieces of w under TP_PIECE_LIMIT: halves
 * of the outermost dimension. */
template <typename F>
static tp_status tp_walk_pieces(const tp_walk &w, int64_t first, const int64_t *at, F run)
{
    const int64_t total = tp_walk_total(&w);
    int k = 0;

    if (total < TP_PIECE_LIMIT)
        return run(w, first, at);
    while (w.d[k] == 1)
        k++;
    int64_t inner = total;
    for (int i = 0; i <= k; i++)
        inner /= w.d[i];
    tp_walk low = w, high = w;
    int64_t from[TP_WALK_ARGS] = {0};
    low.d[k] = w.d[k] / 2;
    high.d[k] = w.d[k] - low.d[k];
    for (int a = 0; a < w.n_args; a++)
        from[a] = at[a] + low.d[k] * w.stride[a][k];
    TP_TRY(tp_walk_pieces(low, first, at, run));
    return tp_walk_pieces(high, first + low.d[k] * inner, from, run);
}

#endif
