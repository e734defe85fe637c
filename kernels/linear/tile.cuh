/* tile.cuh - the product of two matrices that are given element by element: y(i,j) = sum over k of a(i,k)
 * b(k,j), in float32 with fused multiply-adds, k in order. A block of 256 threads makes a tile of SIZE x SIZE
 * outputs from tiles of SIZE x DEPTH and DEPTH x SIZE in shared memory; a thread makes SIZE/16 x SIZE/16 of
 * them in registers.
 *
 * Long sums with few outputs are cut into parts over k: the number of parts depends on the shape alone, each
 * writes its own plane, and whoever stores the result adds the planes in order.
 *
 * A factor is a struct with
 *     float operator()(int64_t i, int64_t k, int64_t z) const    one element, z the matrix of a batch; in
 * bounds int along_k                                                1: neighbours in k are neighbours in
 * memory
 * and a store one with
 *     void operator()(int64_t i, int64_t j, int64_t z, float v) const    takes an output
 *     SUMS                                                               true: and
 *     void sum(int64_t i, int64_t z, float v) const                      the sum of a(i,k) over k */
#ifndef TP_KERNELS_TILE_CUH
#define TP_KERNELS_TILE_CUH
#include "kernels/cuda.cuh"

#define TP_TILE_DEPTH 16
#define TP_TILE_SIDE  16 /* threads along each side */

typedef struct tp_tile_shape {
    int64_t rows, cols, depth, batches, parts; /* M, N, K */
} tp_tile_shape;

/* Parts over k for a product that would fill only few blocks. */
static inline int64_t tp_tile_parts(int64_t rows, int64_t cols, int64_t depth, int64_t batches)
{
    const int64_t tiles = (rows + 63) / 64 * ((cols + 63) / 64) * batches,
                  wanted = tiles < 128 ? 128 / tiles : 1;
    const int64_t most = depth / 256 > 1 ? depth / 256 : 1;
    return wanted < most ? wanted : most;
}

/* Planes of parts, and where there are sums of a row of them behind. */
static inline size_t tp_tile_scratch(const tp_tile_shape *s, int sums)
{
    return s->parts > 1 ? (size_t)(s->parts * s->batches * s->rows * (s->cols + sums)) * sizeof(float) : 0;
}

/* SIZE x DEPTH elements of a factor into tile[k][i], zeros outside; thread t of 256. */
template <int SIZE, typename A>
__device__ inline void tp_tile_load(float (&tile)[TP_TILE_DEPTH][SIZE + 1], const A &a, int64_t first,
                                    int64_t limit, int64_t k0, int64_t k_end, int64_t z, int bf16)
{
    for (int t = threadIdx.x; t < SIZE * TP_TILE_DEPTH; t += 256) {
        const int i = a.along_k ? t / TP_TILE_DEPTH : t % SIZE, k = a.along_k ? t % TP_TILE_DEPTH : t / SIZE;
        const float v = first + i < limit && k0 + k < k_end ? a(first + i, k0 + k, z) : 0.0f;
        tile[k][i] = bf16 ? tp_bf16_to_f32(tp_bf16_from_f32(v)) : v;
    }
}

template <typename S>
__device__ inline void tp_tile_store_sum(const S &store, const tp_tile_shape &s, float *planes, int64_t part,
                                         int64_t z, int64_t i, float v)
{
    if constexpr (S::SUMS) {
        if (s.parts > 1)
            planes[(s.parts * s.cols + part) * s.batches * s.rows + z * s.rows + i] = v;
        else
            store.sum(i, z, v);
    }
}

/* store(i, j, z, v) gets every output. a is asked for (i,k), b for (j,k). blockIdx: tiles along j, along i,
 * and z = batch * parts + part. */
template <int SIZE, typename A, typename B, typename S>
__global__ void tile_product(A a, B b, S store, tp_tile_shape s, float *planes, int bf16)
{
    TP_SHARED(float, ta, [TP_TILE_DEPTH][SIZE + 1]);
    TP_SHARED(float, tb, [TP_TILE_DEPTH][SIZE + 1]);
    const int EACH = SIZE / TP_TILE_SIDE;
    const int tx = threadIdx.x % TP_TILE_SIDE, ty = threadIdx.x / TP_TILE_SIDE;
    const int64_t steps = (s.depth + TP_TILE_DEPTH - 1) / TP_TILE_DEPTH,
                  part_len = (steps + s.parts - 1) / s.parts * TP_TILE_DEPTH;

    for (int64_t zp = blockIdx.z; zp < s.batches * s.parts; zp += gridDim.z)
        for (int64_t top = (int64_t)blockIdx.y * SIZE; top < s.rows; top += (int64_t)gridDim.y * SIZE) {
            const int64_t z = zp / s.parts, part = zp - z * s.parts, left = (int64_t)blockIdx.x * SIZE;
            const int64_t k_first = part * part_len,
                          k_end = k_first + part_len < s.depth ? k_first + part_len : s.depth;
            const int sums = S::SUMS && left == 0 && threadIdx.x < SIZE;
            float sum[SIZE / TP_TILE_SIDE][SIZE / TP_TILE_SIDE] = {{0.0f}}, row_sum = 0.0f;
            for (int64_t k0 = k_first; k0 < k_end; k0 += TP_TILE_DEPTH) {
                tp_tile_load<SIZE>(ta, a, top, s.rows, k0, k_end, z, bf16);
                tp_tile_load<SIZE>(tb, b, left, s.cols, k0, k_end, z, bf16);
                __syncthreads();
                for (int k = 0; k < TP_TILE_DEPTH; k++)
                    for (int r = 0; r < EACH; r++)
                        for (int c = 0; c < EACH; c++)
                            sum[r][c] =
                                fmaf(ta[k][ty + r * TP_TILE_SIDE], tb[k][tx + c * TP_TILE_SIDE], sum[r][c]);
                for (int k = 0; sums && k < TP_TILE_DEPTH; k++)
                    row_sum += ta[k][threadIdx.x];
                __syncthreads();
            }
            if (sums && top + threadIdx.x < s.rows)
                tp_tile_store_sum(store, s, planes, part, z, top + threadIdx.x, row_sum);
            for (int r = 0; r < EACH; r++)
                for (int c = 0; c < EACH; c++) {
                    const int64_t i = top + ty + r * TP_TILE_SIDE, j = left + tx + c * TP_TILE_SIDE;
                    if (i >= s.rows || j >= s.cols)
                        continue;
                    if (s.parts > 1)
                        planes[((part * s.batches + z) * s.rows + i) * s.cols + j] = sum[r][c];
                    else
                        store(i, j, z, sum[r][c]);
                }
        }
}

template <typename S> __global__ void tile_add_parts(S store, tp_tile_shape s, const float *planes)
{
    const int64_t n = s.batches * s.rows * s.cols;
    TP_GRID_LOOP (at, n) {
        float sum = planes[at];
        for (int64_t p = 1; p < s.parts; p++)
            sum += planes[p * n + at];
        const int64_t z = at / (s.rows * s.cols), rest = at - z * s.rows * s.cols;
        store(rest / s.cols, rest % s.cols, z, sum);
    }
    if constexpr (S::SUMS) {
        const int64_t rows = s.batches * s.rows;
        TP_GRID_LOOP (at, rows) {
            const float *from = planes + s.parts * n + at;
            float sum = from[0];
            for (int64_t p = 1; p < s.parts; p++)
                sum += from[p * rows];
            store.sum(at % s.rows, at / s.rows, sum);
        }
    }
}

template <int SIZE, typename A, typename B, typename S>
static tp_status tp_tile_launch(const tp_call *c, A a, B b, S store, tp_tile_shape s)
{
    const int64_t tiles = (s.rows + SIZE - 1) / SIZE, depth = s.batches * s.parts;
    const dim3 grid((unsigned)((s.cols + SIZE - 1) / SIZE), (unsigned)(tiles < 65535 ? tiles : 65535),
                    (unsigned)(depth < 65535 ? depth : 65535));

    TP_LAUNCH((tile_product<SIZE, A, B, S>), grid, 256, 0, c, a, b, store, s,
              static_cast<float *>(c->scratch), (int)(c->precision == TP_PRECISION_BF16));
    if (s.parts > 1)
        TP_LAUNCH(tile_add_parts<S>, tp_cuda_blocks(c, s.batches * s.rows * s.cols), TP_THREADS, 0, c, store,
                  s, static_cast<const float *>(c->scratch));
    return TP_OK;
}

/* Large tiles where there are enough of them; scratch holds tp_tile_scratch bytes. */
template <typename A, typename B, typename S>
static tp_status tp_tile_run(const tp_call *c, A a, B b, S store, tp_tile_shape s)
{
    if (s.rows * s.cols * s.batches == 0)
        return TP_OK;
    if (s.rows >= 128 && s.cols >= 128 && (s.rows / 128) * (s.cols / 128) * s.batches >= 64)
        return tp_tile_launch<128>(c, a, b, store, s);
    return tp_tile_launch<64>(c, a, b, store, s);
}

#endif
