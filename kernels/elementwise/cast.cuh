/* cast.cuh - bfloat16 of float32, for what rounds the inputs of another op. */
#ifndef TP_KERNELS_CAST_CUH
#define TP_KERNELS_CAST_CUH
#include "kernels/cuda.cuh"

/* y(n) = x(n), each rounded to the nearest, ties to even; both lie at multiples of 16 bytes. */
tp_status tp_cuda_narrow(const tp_call *c, uint16_t *y, const float *x, int64_t n);

#endif
