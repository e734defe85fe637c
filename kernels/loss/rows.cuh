/* rows.cuh - a team of threads for each row: a warp where rows are short, a block where they are long. Sums
 * and maxima over a row are the same for every order of the threads. */
#ifndef TP_KERNELS_ROWS_CUH
#define TP_KERNELS_ROWS_CUH
#include "kernels/cuda.cuh"
#include <type_traits>

/* Columns up to which a warp does a row. */
#define TP_SHORT_ROW 1024

template <bool BLOCK> struct tp_row_team {
    __device__ static int64_t first()
    {
        return BLOCK ? blockIdx.x : (int64_t)blockIdx.x * (blockDim.x / TP_WARP) + threadIdx.x / TP_WARP;
    }
    __device__ static int64_t step()
    {
        return BLOCK ? gridDim.x : (int64_t)gridDim.x * (blockDim.x / TP_WARP);
    }
    __device__ static int64_t lane()
    {
        return BLOCK ? threadIdx.x : threadIdx.x % TP_WARP;
    }
    __device__ static int64_t width()
    {
        return BLOCK ? blockDim.x : TP_WARP;
    }
    template <typename T> __device__ static T sum(T v)
    {
        return BLOCK ? tp_block_sum(v) : tp_warp_reduce(v, tp_sum_of());
    }
    template <typename T> __device__ static T max(T v)
    {
        return BLOCK ? tp_block_max(v) : tp_warp_reduce(v, tp_max_of());
    }
};

/* Rows of a team, and the columns of one of its threads. */
#define TP_TEAM_ROWS(i, rows)                                                                                \
    for (int64_t i = tp_row_team<BLOCK>::first(); i < (rows); i += tp_row_team<BLOCK>::step())
#define TP_TEAM_COLUMNS(k, cols)                                                                             \
    for (int64_t k = tp_row_team<BLOCK>::lane(); k < (cols); k += tp_row_team<BLOCK>::width())

static inline unsigned tp_team_blocks(const tp_call *c, int64_t rows, int64_t cols)
{
    return tp_cuda_blocks(c, rows * (cols > TP_SHORT_ROW ? TP_THREADS : TP_WARP));
}

/* Launches kernel<BLOCK, ...> for rows of so many columns. kernel is a template of one bool. */
#define TP_LAUNCH_ROWS(kernel, rows, cols, c, ...)                                                           \
    do {                                                                                                     \
        if ((cols) > TP_SHORT_ROW)                                                                           \
            TP_LAUNCH(kernel<true>, tp_team_blocks((c), (rows), (cols)), TP_THREADS, 0, (c), __VA_ARGS__);   \
        else                                                                                                 \
            TP_LAUNCH(kernel<false>, tp_team_blocks((c), (rows), (cols)), TP_THREADS, 0, (c), __VA_ARGS__);  \
    } while (0)

/* ---- rows that stay in registers ---- */

/* A loop of n known at compile time, unrolled: what it indexes stays in registers. */
#define TP_UNROLLED(j, n) TP_UNROLL for (int j = 0; j < (n); j++)

/* W neighbours, `at` a multiple of W. An index of vectors, not of floats: nvcc then keeps a store whole. */
template <int W> __device__ inline void tp_load_vector(float *v, const float *row, int at)
{
    if constexpr (W == 4) {
        const float4 q = reinterpret_cast<const float4 *>(row)[(unsigned)at / 4];
        v[0] = q.x, v[1] = q.y, v[2] = q.z, v[3] = q.w;
    } else
        v[0] = row[at];
}

template <int W> __device__ inline void tp_store_vector(float *row, int at, const float *v)
{
    if constexpr (W == 4)
        reinterpret_cast<float4 *>(row)[(unsigned)at / 4] = make_float4(v[0], v[1], v[2], v[3]);
    else
        row[at] = v[0];
}

/* What a thread of a team holds of a row: V vectors of W neighbouring columns, the vectors of the team side
 * by side. W is 4 where rows are a multiple of 4 long, hence start on 16 bytes. A HELD row is one piece, read
 * once; others are several, read again (from cache) in every pass. */
template <bool BLOCK, int W, int V, bool HELD> struct tp_row {
    typedef tp_row_team<BLOCK> team;
    typedef std::conditional_t<HELD, float, double>
        total; /* for sums: a thread of a held row adds 32 values */
    enum { vectors = V, width = W, held = HELD, piece = (BLOCK ? TP_THREADS : TP_WARP) * V * W };
    float v[V][W];

    __device__ static int column(int j, int first)
    {
        return first + (j * (BLOCK ? TP_THREADS : TP_WARP) + (int)team::lane()) * W;
    }
    /* Columns beyond the row are `absent`. */
    __device__ void load(const float *row, int first, int cols, float absent)
    {
        TP_UNROLLED (j, V) {
            TP_UNROLLED (e, W)
                v[j][e] = absent;
            if (column(j, first) < cols)
                tp_load_vector<W>(v[j], row, column(j, first));
        }
    }
    __device__ void load_again(const float *row, int first, int cols, float absent)
    {
        if (!HELD)
            load(row, first, cols, absent);
    }
    __device__ void store(float *row, int first, int cols) const
    {
        TP_UNROLLED (j, V) {
            if (column(j, first) < cols)
                tp_store_vector<W>(row, column(j, first), v[j]);
        }
    }
};

/* The rows of R's team, the first columns of a row's pieces, and the elements (j, e) of a piece. */
#define TP_ROWS(R, i, rows)       for (int64_t i = R::team::first(); i < (rows); i += R::team::step())
#define TP_PIECES(R, first, cols) for (int first = 0; first < (R::held ? 1 : (cols)); first += R::piece)
#define TP_ELEMENTS(R, j, e)                                                                                 \
    TP_UNROLLED (j, R::vectors)                                                                              \
        TP_UNROLLED (e, R::width)

/* Rows by warps: 1 to 8 vectors a lane; by blocks: up to 8192 columns held, longer ones in pieces. */
typedef tp_row<false, 4, 1, true> tp_row_128;
typedef tp_row<false, 4, 2, true> tp_row_256;
typedef tp_row<false, 4, 4, true> tp_row_512;
typedef tp_row<false, 4, 8, true> tp_row_1024;
typedef tp_row<true, 4, 2, true> tp_row_2048;
typedef tp_row<true, 4, 4, true> tp_row_4096;
typedef tp_row<true, 4, 8, true> tp_row_8192;
typedef tp_row<true, 4, 4, false> tp_row_long;
typedef tp_row<false, 1, 1, true> tp_row_odd_32;
typedef tp_row<false, 1, 8, true> tp_row_odd_256;
typedef tp_row<false, 1, 32, true> tp_row_odd_1024;
typedef tp_row<true, 1, 32, true> tp_row_odd_8192;
typedef tp_row<true, 1, 16, false> tp_row_odd_long;

/* prepare: float32, and columns that 32 bits count. */
static inline tp_status tp_accept_rows(tp_call *c, size_t *scratch)
{
    const tp_shape s = c->in[0].shape;
    TP_TRY(tp_accept_f32(c, scratch));
    TP_CHECK(s.d[s.nd - 1] <= 1 << 30, TP_EUNSUP, "rows of %lld columns, at most 2^30",
             (long long)s.d[s.nd - 1]);
    return TP_OK;
}

/* Blocks for rows of so many columns: one row a team, so that the device balances the load. */
static inline unsigned tp_held_row_blocks(int64_t rows, int64_t cols)
{
    const int64_t teams = cols > TP_SHORT_ROW ? 1 : TP_THREADS / TP_WARP, blocks = (rows + teams - 1) / teams;
    return (unsigned)(blocks < 1 ? 1 : (blocks < 1 << 30 ? blocks : 1 << 30));
}

/* Launches kernel<R, ...> for rows of so many columns in vectors of 4 if `even`. kernel is a template of one
 * tp_row. */
#define TP_LAUNCH_HELD_ROWS(kernel, rows, cols, even, c, ...)                                                \
    do {                                                                                                     \
        const unsigned blocks_ = tp_held_row_blocks((rows), (cols));                                         \
        const int64_t cols_ = (cols);                                                                        \
        if ((even) && cols_ <= 128)                                                                          \
            TP_LAUNCH(kernel<tp_row_128>, blocks_, TP_THREADS, 0, (c), __VA_ARGS__);                         \
        else if ((even) && cols_ <= 256)                                                                     \
            TP_LAUNCH(kernel<tp_row_256>, blocks_, TP_THREADS, 0, (c), __VA_ARGS__);                         \
        else if ((even) && cols_ <= 512)                                                                     \
            TP_LAUNCH(kernel<tp_row_512>, blocks_, TP_THREADS, 0, (c), __VA_ARGS__);                         \
        else if ((even) && cols_ <= 1024)                                                                    \
            TP_LAUNCH(kernel<tp_row_1024>, blocks_, TP_THREADS, 0, (c), __VA_ARGS__);                        \
        else if ((even) && cols_ <= 2048)                                                                    \
            TP_LAUNCH(kernel<tp_row_2048>, blocks_, TP_THREADS, 0, (c), __VA_ARGS__);                        \
        else if ((even) && cols_ <= 4096)                                                                    \
            TP_LAUNCH(kernel<tp_row_4096>, blocks_, TP_THREADS, 0, (c), __VA_ARGS__);                        \
        else if ((even) && cols_ <= 8192)                                                                    \
            TP_LAUNCH(kernel<tp_row_8192>, blocks_, TP_THREADS, 0, (c), __VA_ARGS__);                        \
        else if (even)                                                                                       \
            TP_LAUNCH(kernel<tp_row_long>, blocks_, TP_THREADS, 0, (c), __VA_ARGS__);                        \
        else if (cols_ <= 32)                                                                                \
            TP_LAUNCH(kernel<tp_row_odd_32>, blocks_, TP_THREADS, 0, (c), __VA_ARGS__);                      \
        else if (cols_ <= 256)                                                                               \
            TP_LAUNCH(kernel<tp_row_odd_256>, blocks_, TP_THREADS, 0, (c), __VA_ARGS__);                     \
        else if (cols_ <= 1024)                                                                              \
            TP_LAUNCH(kernel<tp_row_odd_1024>, blocks_, TP_THREADS, 0, (c), __VA_ARGS__);                    \
        else if (cols_ <= 8192)                                                                              \
            TP_LAUNCH(kernel<tp_row_odd_8192>, blocks_, TP_THREADS, 0, (c), __VA_ARGS__);                    \
        else                                                                                                 \
            TP_LAUNCH(kernel<tp_row_odd_long>, blocks_, TP_THREADS, 0, (c), __VA_ARGS__);                    \
    } while (0)

#endif
