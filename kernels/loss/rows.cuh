/* rows.cuh - a team of threads for each row: a warp where rows are short, a block where they are long. Sums
 * and maxima over a row are the same for every order of the threads. */
#ifndef TP_KERNELS_ROWS_CUH
#define TP_KERNELS_ROWS_CUH
#include "kernels/cuda.cuh"

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

#endif
