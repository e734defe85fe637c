/* hd.h - TP_HD marks functions of headers that host code and GPU kernels share. */
#ifndef TP_CORE_HD_H
#define TP_CORE_HD_H

#ifdef __CUDACC__
#define TP_HD static __host__ __device__ inline
#else
#define TP_HD static inline
#endif

#endif
