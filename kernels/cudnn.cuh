/* cudnn.cuh - what the implementations made of cuDNN share. */
#ifndef TP_KERNELS_CUDNN_CUH
#define TP_KERNELS_CUDNN_CUH
#include "kernels/libraries.cuh"
#include <climits>

static inline tp_status tp_cudnn_check(const tp_cudnn *lib, cudnnStatus_t st, tp_status code,
                                       const char *what)
{
    if (st == CUDNN_STATUS_SUCCESS)
        return TP_OK;
    TP_TRY(tp_cuda_check_alive(what));
    TP_FAIL(code, "cudnn: %s: %s", what, lib->cudnnGetErrorString(st));
}

/* For a `lib` at hand. While a plan is compiled: what the library does not take makes the implementation
 * decline. While it runs: the device has failed. */
#define TP_CUDNN_MAKE(call) TP_TRY(tp_cudnn_check(lib, lib->call, TP_EUNSUP, #call))
#define TP_CUDNN_RUN(call)  TP_TRY(tp_cudnn_check(lib, lib->call, TP_EDEVICE, #call))

/* What an output is made of: alpha result + beta output. */
static const float tp_cudnn_one = 1.0f, tp_cudnn_zero = 0.0f;

static inline cudnnTensorFormat_t tp_cudnn_format(int channels_last)
{
    return channels_last ? CUDNN_TENSOR_NHWC : CUDNN_TENSOR_NCHW;
}

/* How the images of a call are stored: input 0 tells. */
static inline cudnnDataType_t tp_cudnn_type(const tp_call *c)
{
    return c->in[0].dtype == TP_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
}

/* Images (n,c,h,w); TP_EUNSUP where a size does not fit into an int. */
static inline tp_status tp_cudnn_images(const tp_cudnn *lib, cudnnTensorDescriptor_t *out,
                                        cudnnDataType_t type, int channels_last, int64_t n, int64_t c,
                                        int64_t h, int64_t w)
{
    for (int64_t v : {n, c, h, w, n * c * h * w})
        TP_CHECK(v > 0 && v <= INT_MAX, TP_EUNSUP, "a size of %lld, cuDNN takes 1 to 2^31 - 1", (long long)v);
    TP_CUDNN_MAKE(cudnnCreateTensorDescriptor(out));
    TP_CUDNN_MAKE(cudnnSetTensor4dDescriptor(*out, tp_cudnn_format(channels_last), type, (int)n, (int)c,
                                             (int)h, (int)w));
    return TP_OK;
}

#endif
