/* sort.cuh - ids sorted with their positions: a stable radix sort by digits of 9 bits, over as many digits as
 * the number of rows needs (150000 rows: two). A pass is two launches: every block counts the digits of its
 * stretch of keys; then every block adds up the counts before its own and moves its keys, tile after tile. Up
 * to a tile of keys one block does all passes in one launch. Each pass reads the keys twice and writes them
 * once, 8 bytes a key. Integers only: the result does not depend on how the keys are cut. */
#ifndef TP_KERNELS_SORT_CUH
#define TP_KERNELS_SORT_CUH
#include "kernels/cuda.cuh"

#define SORT_BITS      9
#define SORT_BINS      (1 << SORT_BITS) /* and threads of a block: one for each bin */
#define SORT_WARPS     (SORT_BINS / TP_WARP)
#define SORT_EACH      4 /* keys of a thread */
#define SORT_TILE      (SORT_BINS * SORT_EACH)
#define SORT_STRETCHES 128 /* at most: every block reads the counts of all */

/* Ids as they are given. */
struct sort_ids {
    const void *data;
    tp_dtype dtype;
    int64_t n_rows;
};

__host__ __device__ static inline int64_t clamp_id(int64_t id, int64_t n_rows)
{
    return id >= 0 && id < n_rows ? id : 0;
}

/* A key: the id above, its position below. */
__host__ __device__ static inline uint32_t key_id(uint64_t key)
{
    return (uint32_t)(key >> 32);
}
__host__ __device__ static inline uint32_t key_position(uint64_t key)
{
    return (uint32_t)key;
}

__device__ static uint32_t digit_of(uint64_t key, int shift)
{
    return key_id(key) >> shift & (SORT_BINS - 1);
}

/* Sum of v over the threads before this one in a block of SORT_BINS; *total over all. */
__device__ static uint32_t scan_block(uint32_t v, uint32_t *total)
{
    TP_SHARED(uint32_t, part, [SORT_WARPS]);
    const unsigned lane = threadIdx.x % TP_WARP, warp = threadIdx.x / TP_WARP;
    uint32_t upto = v, before = 0, all = 0;

    for (unsigned k = 1; k < TP_WARP; k *= 2) {
        const uint32_t left = __shfl_up_sync(TP_ALL_LANE, upto, k);
        upto += lane >= k ? left : 0;
    }
    __syncthreads(); /* of an earlier call nobody reads any more */
    if (lane == TP_WARP - 1)
        part[warp] = upto;
    __syncthreads();
    for (unsigned k = 0; k < SORT_WARPS; k++) {
        before += k < warp ? part[k] : 0;
        all += part[k];
    }
    *total = all;
    return before + upto - v;
}

/* How many keys of [lo, hi) fall into this thread's bin. */
__device__ static uint32_t count_digits(const uint64_t *keys, uint32_t lo, uint32_t hi, int shift)
{
    TP_SHARED(uint32_t, bins, [SORT_BINS]);

    bins[threadIdx.x] = 0;
    __syncthreads();
    for (uint32_t i = lo + threadIdx.x; i < hi; i += SORT_BINS)
        atomicAdd(&bins[digit_of(keys[i], shift)], 1u);
    __syncthreads();
    return bins[threadIdx.x];
}

/* How many keys of this warp so far, and of lower lanes now, have this lane's digit; count[bin] are the
 * warp's own. Lanes of equal digits find each other bit by bit. */
__device__ static uint32_t rank_in_warp(uint32_t *count, uint32_t digit, bool there)
{
    const uint32_t below = (1u << threadIdx.x % TP_WARP) - 1;
    uint32_t peers = __ballot_sync(TP_ALL_LANE, there);

    for (int b = 0; b < SORT_BITS; b++) {
        const uint32_t set = __ballot_sync(TP_ALL_LANE, digit >> b & 1);
        peers &= (digit >> b & 1) != 0 ? set : ~set;
    }
    const uint32_t before = there ? count[digit] : 0;
    __syncwarp();
    if (there && (peers & below) == 0)
        count[digit] = before + (uint32_t)__popc(peers);
    __syncwarp();
    return before + (uint32_t)__popc(peers & below);
}

/* Moves the keys of [lo, hi), at most a tile, in their order: those of this thread's bin go to `next` and on;
 * returns where the bin goes on after them. A warp has SORT_EACH * 32 keys in a row. */
__device__ static uint32_t scatter_tile(uint64_t *out, const uint64_t *keys, uint32_t lo, uint32_t hi,
                                        int shift, uint32_t next)
{
    TP_SHARED(uint32_t, count, [SORT_WARPS][SORT_BINS]);
    const unsigned warp = threadIdx.x / TP_WARP;
    const uint32_t first = lo + warp * SORT_EACH * TP_WARP + threadIdx.x % TP_WARP;
    uint64_t key[SORT_EACH];
    uint32_t rank[SORT_EACH];

    for (unsigned k = 0; k < SORT_EACH; k++)
        key[k] = first + k * TP_WARP < hi ? keys[first + k * TP_WARP] : 0;
    __syncthreads(); /* of the tile before nobody reads any more */
    for (unsigned w = 0; w < SORT_WARPS; w++)
        count[w][threadIdx.x] = 0;
    __syncthreads();
    for (unsigned k = 0; k < SORT_EACH; k++)
        rank[k] = rank_in_warp(count[warp], digit_of(key[k], shift), first + k * TP_WARP < hi);
    __syncthreads();
    for (unsigned w = 0; w < SORT_WARPS; w++) { /* counts become the places of each warp's first keys */
        const uint32_t here = count[w][threadIdx.x];
        count[w][threadIdx.x] = next;
        next += here;
    }
    __syncthreads();
    for (unsigned k = 0; k < SORT_EACH; k++)
        if (first + k * TP_WARP < hi)
            out[count[warp][digit_of(key[k], shift)] + rank[k]] = key[k];
    return next;
}

__device__ static void make_keys(uint64_t *keys, const sort_ids &ids, uint32_t lo, uint32_t hi)
{
    for (uint32_t i = lo + threadIdx.x; i < hi; i += SORT_BINS)
        keys[i] = (uint64_t)clamp_id(tp_load_int(ids.data, ids.dtype, i), ids.n_rows) << 32 | i;
    __syncthreads();
}

/* count[stretch][bin]; the first pass makes the keys. */
__global__ void sort_count(uint32_t *count, uint64_t *keys, sort_ids ids, uint32_t n, uint32_t stretch,
                           int shift)
{
    const uint32_t lo = blockIdx.x * stretch, hi = n - lo < stretch ? n : lo + stretch;

    if (shift == 0)
        make_keys(keys, ids, lo, hi);
    count[blockIdx.x * SORT_BINS + threadIdx.x] = count_digits(keys, lo, hi, shift);
}

/* Where the keys of this thread's bin begin that are of this block's stretch. */
__device__ static uint32_t first_place(const uint32_t *count)
{
    const unsigned at_once = 8;
    uint32_t before = 0, total = 0, all;

    for (unsigned b = 0; b < gridDim.x; b += at_once) {
        uint32_t c[at_once];
        for (unsigned k = 0; k < at_once; k++)
            c[k] = b + k < gridDim.x ? count[(b + k) * SORT_BINS + threadIdx.x] : 0;
        for (unsigned k = 0; k < at_once; k++) {
            before += b + k < blockIdx.x ? c[k] : 0;
            total += c[k];
        }
    }
    return before + scan_block(total, &all);
}

__global__ void sort_scatter(uint64_t *out, const uint64_t *keys, const uint32_t *count, uint32_t n,
                             uint32_t stretch, int shift)
{
    const uint32_t lo = blockIdx.x * stretch, hi = n - lo < stretch ? n : lo + stretch;
    uint32_t next = first_place(count);

    for (uint32_t tile = lo; tile < hi; tile += SORT_TILE)
        next = scatter_tile(out, keys, tile, hi - tile < SORT_TILE ? hi : tile + SORT_TILE, shift, next);
}

/* All passes for at most a tile of keys: one block. */
__global__ void sort_small(uint64_t *keys, uint64_t *other, sort_ids ids, uint32_t n, int passes)
{
    make_keys(keys, ids, 0, n);
    for (int pass = 0; pass < passes; pass++) {
        uint32_t all;
        const uint32_t first = scan_block(count_digits(keys, 0, n, pass * SORT_BITS), &all);
        scatter_tile(other, keys, 0, n, pass * SORT_BITS, first);
        __syncthreads();
        uint64_t *swap = keys;
        keys = other;
        other = swap;
    }
}

static inline int sort_passes(int64_t n_rows)
{
    int passes = 1;
    while (passes * SORT_BITS < 32 && (n_rows - 1) >> (passes * SORT_BITS) > 0)
        passes++;
    return passes;
}

/* Keys of a stretch: whole tiles. */
static inline uint32_t sort_stretch(uint32_t n)
{
    const uint32_t tiles = (n + SORT_TILE - 1) / SORT_TILE;
    return (tiles + SORT_STRETCHES - 1) / SORT_STRETCHES * SORT_TILE;
}

/* Keys, twice, and counts. */
static inline size_t sort_bytes(int64_t n)
{
    return 2 * (size_t)n * sizeof(uint64_t) + SORT_STRETCHES * SORT_BINS * sizeof(uint32_t);
}

/* *sorted: where in `scratch` the keys lie in order. 0 < n < 2^31, n_rows <= 2^32. */
static inline tp_status sort_run(const tp_call *c, sort_ids ids, uint32_t n, void *scratch,
                                 const uint64_t **sorted)
{
    const int passes = sort_passes(ids.n_rows);
    const uint32_t stretch = sort_stretch(n), blocks = (n + stretch - 1) / stretch;
    uint64_t *keys = static_cast<uint64_t *>(scratch), *other = keys + n;
    uint32_t *count = reinterpret_cast<uint32_t *>(other + n);

    if (n <= SORT_TILE) {
        TP_LAUNCH(sort_small, 1, SORT_BINS, 0, c, keys, other, ids, n, passes);
        *sorted = passes % 2 == 0 ? keys : other;
        return TP_OK;
    }
    for (int pass = 0; pass < passes; pass++) {
        TP_LAUNCH(sort_count, blocks, SORT_BINS, 0, c, count, keys, ids, n, stretch, pass * SORT_BITS);
        TP_LAUNCH(sort_scatter, blocks, SORT_BINS, 0, c, other, keys, count, n, stretch, pass * SORT_BITS);
        uint64_t *swap = keys;
        keys = other;
        other = swap;
    }
    *sorted = keys;
    return TP_OK;
}

#endif
