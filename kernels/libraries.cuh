/* libraries.cuh - cuBLASLt and cuDNN, opened at run time when a plan first asks for them: the module links
 * neither and works with neither. A library that is missing makes its implementations decline. */
#ifndef TP_KERNELS_LIBRARIES_CUH
#define TP_KERNELS_LIBRARIES_CUH
#include "kernels/cuda.cuh"

#ifndef TP_EMULATED /* tests/emu/libraries_emu.h then declares what of them is used */
#include <cublasLt.h>
#include <cudnn.h>
#define TP_CUBLASLT_SONAME "libcublasLt.so.13"
#define TP_CUDNN_SONAME    "libcudnn.so.9"
#endif

#define TP_CUBLASLT_FUNCTIONS(X)                                                                             \
    X(cublasLtCreate)                                                                                        \
    X(cublasLtDestroy)                                                                                       \
    X(cublasLtGetVersion)                                                                                    \
    X(cublasLtGetStatusString)                                                                               \
    X(cublasLtMatmulDescCreate)                                                                              \
    X(cublasLtMatmulDescDestroy)                                                                             \
    X(cublasLtMatmulDescSetAttribute)                                                                        \
    X(cublasLtMatrixLayoutCreate)                                                                            \
    X(cublasLtMatrixLayoutDestroy)                                                                           \
    X(cublasLtMatrixLayoutSetAttribute)                                                                      \
    X(cublasLtMatmulPreferenceCreate)                                                                        \
    X(cublasLtMatmulPreferenceDestroy)                                                                       \
    X(cublasLtMatmulPreferenceSetAttribute)                                                                  \
    X(cublasLtMatmulAlgoGetHeuristic)                                                                        \
    X(cublasLtMatmulAlgoCheck)                                                                               \
    X(cublasLtMatmul)

#define TP_CUDNN_FUNCTIONS(X)                                                                                \
    X(cudnnGetVersion)                                                                                       \
    X(cudnnGetErrorString)                                                                                   \
    X(cudnnCreate)                                                                                           \
    X(cudnnDestroy)                                                                                          \
    X(cudnnSetStream)                                                                                        \
    X(cudnnCreateTensorDescriptor)                                                                           \
    X(cudnnDestroyTensorDescriptor)                                                                          \
    X(cudnnSetTensor4dDescriptor)                                                                            \
    X(cudnnCreateFilterDescriptor)                                                                           \
    X(cudnnDestroyFilterDescriptor)                                                                          \
    X(cudnnSetFilter4dDescriptor)                                                                            \
    X(cudnnCreateConvolutionDescriptor)                                                                      \
    X(cudnnDestroyConvolutionDescriptor)                                                                     \
    X(cudnnSetConvolution2dDescriptor)                                                                       \
    X(cudnnSetConvolutionGroupCount)                                                                         \
    X(cudnnSetConvolutionMathType)                                                                           \
    X(cudnnGetConvolutionForwardAlgorithm_v7)                                                                \
    X(cudnnGetConvolutionBackwardDataAlgorithm_v7)                                                           \
    X(cudnnGetConvolutionBackwardFilterAlgorithm_v7)                                                         \
    X(cudnnConvolutionForward)                                                                               \
    X(cudnnConvolutionBackwardData)                                                                          \
    X(cudnnConvolutionBackwardFilter)                                                                        \
    X(cudnnCreatePoolingDescriptor)                                                                          \
    X(cudnnDestroyPoolingDescriptor)                                                                         \
    X(cudnnSetPooling2dDescriptor)                                                                           \
    X(cudnnPoolingForward)                                                                                   \
    X(cudnnPoolingBackward)                                                                                  \
    X(cudnnBatchNormalizationForwardTraining)                                                                \
    X(cudnnBatchNormalizationForwardInference)                                                               \
    X(cudnnBatchNormalizationBackward)

#define TP_LIBRARY_FUNCTION(name) decltype(&::name) name;
struct tp_cublaslt {
    cublasLtHandle_t handle;
    TP_CUBLASLT_FUNCTIONS(TP_LIBRARY_FUNCTION)
};
struct tp_cudnn {
    cudnnHandle_t handle;
    TP_CUDNN_FUNCTIONS(TP_LIBRARY_FUNCTION)
};
#undef TP_LIBRARY_FUNCTION

/* The libraries of one device: their handles belong to the GPU that is current when they are made. All zero
 * at first; each is opened when it is first asked for. */
template <typename L> struct tp_opened {
    L library;
    char why[96];
    int tried, works;
};
struct tp_libraries {
    tp_opened<tp_cublaslt> cublaslt;
    tp_opened<tp_cudnn> cudnn;
};
void tp_libraries_close(tp_libraries *l);

/* For a plan that is compiled: the library of its device, whose GPU is current from then on. TP_EUNSUP with
 * the reason when it cannot be used. */
tp_status tp_cublaslt_get(const tp_call *c, const tp_cublaslt **out);
tp_status tp_cudnn_get(const tp_call *c, const tp_cudnn **out);

/* Their versions, or why they are not used. */
void tp_libraries_describe(tp_libraries *l, char *cublaslt, size_t cublaslt_size, char *cudnn,
                           size_t cudnn_size);

/* ---- choices that are kept between runs ---- */

/* An algorithm that a library chose, as the bytes it is made of, under a line of text that says for what:
 * GPU, driver, version of the library, product. One file for a user, $XDG_CACHE_HOME/temper/algorithms or
 * ~/.cache/temper/algorithms; a file that cannot be read or written changes nothing but that a choice is made
 * again. What was kept last under a text counts. */
#define TP_CHOICE_BYTES 64
int tp_choice_find(const char *key, unsigned char *choice);
void tp_choice_keep(const char *key, const unsigned char *choice);

/* ---- implementations made of them, for the lists of linear.cu, conv.cu, pool.cu and norm.cu ---- */

extern const tp_impl tp_matmul_cublaslt, tp_gemm_cublaslt, tp_gemm_input_grad_cublaslt,
    tp_gemm_input_grad_cublaslt_drelu, tp_gemm_weight_grad_cublaslt, tp_gemm_weight_grad_cublaslt_sum;
extern const tp_impl tp_conv_cudnn, tp_conv_input_grad_cudnn, tp_conv_weight_grad_cudnn;
extern const tp_impl tp_max_pool_cudnn, tp_avg_pool_cudnn, tp_avg_pool_grad_cudnn;
extern const tp_impl tp_batch_norm_cudnn, tp_batch_norm_grad_cudnn, tp_batch_norm_eval_cudnn;

#endif
