/* reduce.cuh - what reduce.cu does for other kernels. */
#ifndef TP_KERNELS_REDUCE_CUH
#define TP_KERNELS_REDUCE_CUH
#include "kernels/cuda.cuh"

/* y(cols) = the sum of the rows of x(rows,cols); scratch holds tp_cuda_sum_rows_scratch bytes. */
size_t tp_cuda_sum_rows_scratch(int64_t rows, int64_t cols);
tp_status tp_cuda_sum_rows(const tp_call *c, float *y, const float *x, int64_t rows, int64_t cols,
                           void *scratch);

#endif
