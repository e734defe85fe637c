/* libraries_emu.cc - plain loops behind libraries_emu.h. */
#include "tests/emu/libraries_emu.h"
#include "host/core/float16.h"
#include <cstdio>
#include <dlfcn.h>
#include <vector>

const char *emu_library_file()
{
    Dl_info info;
    if (getenv("TEMPER_EMU_NO_LIBRARIES") != nullptr)
        return "libemulated_away.so";
    return dladdr(reinterpret_cast<const void *>(&emu_library_file), &info) != 0 ? info.dli_fname : "";
}

/* Every call but those that ask for a version or a text counts, and may have to fail, as one of the runtime
 * (emu.cc); what is given back is given back all the same. */
#define BLAS_CALL()                                                                                          \
    do {                                                                                                     \
        if (emu::library_fails(__func__))                                                                    \
            return CUBLAS_STATUS_EXECUTION_FAILED;                                                           \
    } while (0)
#define DNN_CALL()                                                                                           \
    do {                                                                                                     \
        if (emu::library_fails(__func__))                                                                    \
            return CUDNN_STATUS_EXECUTION_FAILED;                                                            \
    } while (0)

/* ---- cuBLASLt ---- */

struct emu_blas {
    int device;
};
struct emu_matmul {
    cublasComputeType_t compute;
    cublasOperation_t trans_a, trans_b;
    cublasLtEpilogue_t epilogue;
    float *bias;
    const uint32_t *mask;
    int64_t mask_ld;
};
struct emu_layout {
    cudaDataType type;
    int64_t rows, cols, ld, count, step;
};
struct emu_preference {
    size_t most;
};

static const size_t WORKSPACE = 4096;

size_t cublasLtGetVersion(void)
{
    return 130000;
}
const char *cublasLtGetStatusString(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_NOT_SUPPORTED      ? "not supported"
           : status == CUBLAS_STATUS_EXECUTION_FAILED ? "execution failed"
                                                      : "invalid value";
}
cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    BLAS_CALL();
    *handle = new emu_blas{emu::device()};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute, cudaDataType)
{
    BLAS_CALL();
    *desc = new emu_matmul{compute, CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, nullptr, nullptr, 0};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    delete desc;
    BLAS_CALL();
    return CUBLAS_STATUS_SUCCESS;
}

template <typename T> static cublasStatus_t put(T *to, const void *value, size_t bytes)
{
    if (bytes != sizeof(T))
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attr,
                                              const void *value, size_t bytes)
{
    BLAS_CALL();
    switch (attr) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return put(&desc->trans_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return put(&desc->trans_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return put(&desc->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return put(&desc->bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
        return put(&desc->mask, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
        return put(&desc->mask_ld, value, bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type, uint64_t rows,
                                          uint64_t cols, int64_t ld)
{
    BLAS_CALL();
    *layout = new emu_layout{type, (int64_t)rows, (int64_t)cols, ld, 1, 0};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    delete layout;
    BLAS_CALL();
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attr, const void *value,
                                                size_t bytes)
{
    BLAS_CALL();
    int32_t count = 0;
    if (attr == CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET)
        return put(&layout->step, value, bytes);
    const cublasStatus_t st = put(&count, value, bytes);
    layout->count = count;
    return st;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *pref)
{
    BLAS_CALL();
    *pref = new emu_preference{0};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t pref)
{
    delete pref;
    BLAS_CALL();
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t pref,
                                                    cublasLtMatmulPreferenceAttributes_t, const void *value,
                                                    size_t bytes)
{
    BLAS_CALL();
    return put(&pref->most, value, bytes);
}

/* D(M,N) = op(A)(M,K) op(B)(K,N), by columns. */
static bool fits(const emu_matmul *m, const emu_layout *a, const emu_layout *b, const emu_layout *d)
{
    const int64_t rows = m->trans_a == CUBLAS_OP_N ? a->rows : a->cols,
                  depth = m->trans_a == CUBLAS_OP_N ? a->cols : a->rows,
                  depth_b = m->trans_b == CUBLAS_OP_N ? b->rows : b->cols,
                  cols = m->trans_b == CUBLAS_OP_N ? b->cols : b->rows;
    return rows == d->rows && cols == d->cols && depth == depth_b && a->ld >= a->rows && b->ld >= b->rows &&
           d->ld >= d->rows && a->count == d->count && b->count == d->count && d->count > 0 &&
           a->type == b->type && d->type == CUDA_R_32F &&
           (m->epilogue != CUBLASLT_EPILOGUE_DRELU || (m->mask_ld % 128 == 0 && m->mask_ld >= d->rows));
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t pref, int wanted,
                                              cublasLtMatmulHeuristicResult_t *results, int *found)
{
    BLAS_CALL();
    emu::expect_device(handle->device, "a handle of cuBLASLt");
    *found = 0;
    if (!fits(desc, a, b, d) || wanted < 1)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (pref->most < WORKSPACE)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    memset(results, 0, sizeof(*results));
    results->algo.data[0] = 42;
    results->workspaceSize = WORKSPACE;
    *found = 1;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algo,
                                       cublasLtMatmulHeuristicResult_t *result)
{
    BLAS_CALL();
    emu::expect_device(handle->device, "a handle of cuBLASLt");
    if (algo->data[0] != 42 || !fits(desc, a, b, d))
        return CUBLAS_STATUS_INVALID_VALUE;
    memset(result, 0, sizeof(*result));
    result->algo = *algo;
    result->workspaceSize = WORKSPACE;
    return CUBLAS_STATUS_SUCCESS;
}

static float element(const emu_layout *l, const void *data, int64_t batch, int64_t row, int64_t col,
                     bool tf32)
{
    const int64_t at = batch * l->step + col * l->ld + row;
    if (l->type == CUDA_R_16BF)
        return emu::unpack<float>((uint64_t) static_cast<const uint16_t *>(data)[at] << 16);
    const float v = static_cast<const float *>(data)[at];
    const uint32_t bits = emu::unpack<uint32_t>(emu::pack(v));
    return tf32 && std::isfinite(v) ? emu::unpack<float>((bits + 0x1000u) & 0xffffe000u) : v;
}

static void multiply(const emu_matmul &m, const emu_layout &al, const emu_layout &bl, const emu_layout &dl,
                     const void *a, const void *b, float *d)
{
    const int64_t depth = m.trans_a == CUBLAS_OP_N ? al.cols : al.rows;
    const bool tf32 = m.compute == CUBLAS_COMPUTE_32F_FAST_TF32;

    for (int64_t batch = 0; batch < dl.count; batch++)
        for (int64_t col = 0; col < dl.cols; col++)
            for (int64_t row = 0; row < dl.rows; row++) {
                float sum = 0.0f;
                for (int64_t k = 0; k < depth; k++)
                    sum = fmaf(m.trans_a == CUBLAS_OP_N ? element(&al, a, batch, row, k, tf32)
                                                        : element(&al, a, batch, k, row, tf32),
                               m.trans_b == CUBLAS_OP_N ? element(&bl, b, batch, k, col, tf32)
                                                        : element(&bl, b, batch, col, k, tf32),
                               sum);
                if (m.epilogue & CUBLASLT_EPILOGUE_BIAS)
                    sum += m.bias[row];
                if (m.epilogue & CUBLASLT_EPILOGUE_RELU)
                    sum = sum > 0.0f || sum != sum ? sum : 0.0f;
                const int64_t bit = col * m.mask_ld + row;
                if (m.epilogue == CUBLASLT_EPILOGUE_DRELU && !(m.mask[bit / 32] >> bit % 32 & 1u))
                    sum = 0.0f;
                d[batch * dl.step + col * dl.ld + row] = sum;
            }
    for (int64_t col = 0; col < dl.cols && m.epilogue == CUBLASLT_EPILOGUE_BGRADB; col++) {
        float sum = 0.0f;
        for (int64_t k = 0; k < depth; k++)
            sum += m.trans_b == CUBLAS_OP_N ? element(&bl, b, 0, k, col, false)
                                            : element(&bl, b, 0, col, k, false);
        m.bias[col] = sum;
    }
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *,
                              cublasLtMatrixLayout_t, void *d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t *algo, void *workspace, size_t workspace_bytes,
                              cudaStream_t stream)
{
    BLAS_CALL();
    emu::expect_device(handle->device, "a handle of cuBLASLt");
    if (!fits(desc, a_layout, b_layout, d_layout) || algo == nullptr || algo->data[0] != 42 ||
        workspace_bytes < WORKSPACE || *static_cast<const float *>(alpha) != 1.0f ||
        *static_cast<const float *>(beta) != 0.0f ||
        ((desc->epilogue & (CUBLASLT_EPILOGUE_BIAS | CUBLASLT_EPILOGUE_BGRADB)) && desc->bias == nullptr) ||
        (desc->epilogue == CUBLASLT_EPILOGUE_DRELU && desc->mask == nullptr))
        return CUBLAS_STATUS_INVALID_VALUE;
    const emu_matmul m = *desc;
    const emu_layout al = *a_layout, bl = *b_layout, dl = *d_layout;
    emu::run_on_stream(stream, [=] {
        memset(workspace, 0xff, workspace_bytes);
        multiply(m, al, bl, dl, a, b, static_cast<float *>(d));
    });
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- cuDNN ---- */

struct emu_dnn {
    int device;
    cudaStream_t stream;
};
/* Channels first or last in memory. */
static int64_t image_at(bool last, int64_t channels, int64_t height, int64_t width, int64_t n, int64_t c,
                        int64_t i, int64_t j)
{
    return last ? ((n * height + i) * width + j) * channels + c
                : ((n * channels + c) * height + i) * width + j;
}
/* Numbers as they are stored. */
struct emu_numbers {
    cudnnDataType_t type;
    void *data;
    emu_numbers(cudnnDataType_t t, const void *d) : type(t), data(const_cast<void *>(d))
    {
    }
    double operator[](int64_t i) const
    {
        return type == CUDNN_DATA_FLOAT ? (double)static_cast<const float *>(data)[i]
                                        : (double)tp_bf16_to_f32(static_cast<const uint16_t *>(data)[i]);
    }
    void put(int64_t i, double v) const
    {
        if (type == CUDNN_DATA_FLOAT)
            static_cast<float *>(data)[i] = static_cast<float>(v);
        else
            static_cast<uint16_t *>(data)[i] = tp_bf16_from_f32(static_cast<float>(v));
    }
};
struct emu_tensor {
    int n, c, h, w;
    bool last;
    cudnnDataType_t type;
    int64_t at(int64_t sample, int64_t channel, int64_t i, int64_t j) const
    {
        return image_at(last, c, h, w, sample, channel, i, j);
    }
    int64_t size() const
    {
        return (int64_t)n * c * h * w;
    }
};
struct emu_filter {
    int k, c, h, w;
    bool last;
    cudnnDataType_t type;
    int64_t at(int64_t filter, int64_t channel, int64_t i, int64_t j) const
    {
        return image_at(last, c, h, w, filter, channel, i, j);
    }
};
struct emu_convolution {
    int pad[2], stride[2], dilation[2], groups;
    cudnnMathType_t math;
};

size_t cudnnGetVersion(void)
{
    return 91300;
}
const char *cudnnGetErrorString(cudnnStatus_t status)
{
    return status == CUDNN_STATUS_NOT_SUPPORTED      ? "not supported"
           : status == CUDNN_STATUS_EXECUTION_FAILED ? "execution failed"
                                                     : "bad parameter";
}
cudnnStatus_t cudnnCreate(cudnnHandle_t *handle)
{
    DNN_CALL();
    *handle = new emu_dnn{emu::device(), nullptr};
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle)
{
    delete handle;
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream)
{
    DNN_CALL();
    emu::expect_device(handle->device, "a handle of cuDNN");
    handle->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t *desc)
{
    DNN_CALL();
    *desc = new emu_tensor();
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroyTensorDescriptor(cudnnTensorDescriptor_t desc)
{
    delete desc;
    DNN_CALL();
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetTensor4dDescriptor(cudnnTensorDescriptor_t desc, cudnnTensorFormat_t format,
                                         cudnnDataType_t type, int n, int c, int h, int w)
{
    DNN_CALL();
    *desc = {n, c, h, w, format == CUDNN_TENSOR_NHWC, type};
    return n > 0 && c > 0 && h > 0 && w > 0 ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_BAD_PARAM;
}
cudnnStatus_t cudnnCreateFilterDescriptor(cudnnFilterDescriptor_t *desc)
{
    DNN_CALL();
    *desc = new emu_filter();
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroyFilterDescriptor(cudnnFilterDescriptor_t desc)
{
    delete desc;
    DNN_CALL();
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetFilter4dDescriptor(cudnnFilterDescriptor_t desc, cudnnDataType_t type,
                                         cudnnTensorFormat_t format, int k, int c, int h, int w)
{
    DNN_CALL();
    *desc = {k, c, h, w, format == CUDNN_TENSOR_NHWC, type};
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnCreateConvolutionDescriptor(cudnnConvolutionDescriptor_t *desc)
{
    DNN_CALL();
    *desc = new emu_convolution{{0, 0}, {1, 1}, {1, 1}, 1, CUDNN_DEFAULT_MATH};
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroyConvolutionDescriptor(cudnnConvolutionDescriptor_t desc)
{
    delete desc;
    DNN_CALL();
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetConvolution2dDescriptor(cudnnConvolutionDescriptor_t desc, int pad_h, int pad_w,
                                              int stride_h, int stride_w, int dilation_h, int dilation_w,
                                              cudnnConvolutionMode_t mode, cudnnDataType_t)
{
    DNN_CALL();
    *desc = {{pad_h, pad_w}, {stride_h, stride_w}, {dilation_h, dilation_w}, desc->groups, desc->math};
    return mode == CUDNN_CROSS_CORRELATION ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_NOT_SUPPORTED;
}
cudnnStatus_t cudnnSetConvolutionGroupCount(cudnnConvolutionDescriptor_t desc, int groups)
{
    DNN_CALL();
    desc->groups = groups;
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetConvolutionMathType(cudnnConvolutionDescriptor_t desc, cudnnMathType_t math)
{
    DNN_CALL();
    desc->math = math;
    return CUDNN_STATUS_SUCCESS;
}

static int out_size(int in, int kernel, int pad, int stride, int dilation)
{
    return (in + 2 * pad - dilation * (kernel - 1) - 1) / stride + 1;
}

static bool fits(const emu_tensor *x, const emu_filter *w, const emu_convolution *c, const emu_tensor *y)
{
    return x->type == w->type && w->type == y->type && x->last == w->last && w->last == y->last &&
           x->n == y->n && y->c == w->k && x->c == w->c * c->groups && w->k % c->groups == 0 &&
           y->h == out_size(x->h, w->h, c->pad[0], c->stride[0], c->dilation[0]) &&
           y->w == out_size(x->w, w->w, c->pad[1], c->stride[1], c->dilation[1]);
}

/* The fastest is not deterministic, so that whoever takes the first is found out; and bfloat16 is taken only
 * with tensor cores, without which the library is very slow. */
template <typename P>
static cudnnStatus_t offer(cudnnHandle_t handle, bool ok, const emu_tensor *x, const emu_convolution *conv,
                           int wanted, int *found, P *results)
{
    emu::expect_device(handle->device, "a handle of cuDNN");
    *found = 0;
    if (!ok || wanted < 2 || (x->type == CUDNN_DATA_BFLOAT16) != (conv->math == CUDNN_TENSOR_OP_MATH))
        return CUDNN_STATUS_BAD_PARAM;
    for (int i = 0; i < 2; i++) {
        memset(&results[i], 0, sizeof(results[i]));
        results[i].algo = static_cast<decltype(results[i].algo)>(i);
        results[i].memory = i == 0 ? 0 : WORKSPACE;
        results[i].determinism = i == 0 ? CUDNN_NON_DETERMINISTIC : CUDNN_DETERMINISTIC;
        results[i].mathType = conv->math;
    }
    *found = 2;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetConvolutionForwardAlgorithm_v7(cudnnHandle_t handle, cudnnTensorDescriptor_t x,
                                                     cudnnFilterDescriptor_t w,
                                                     cudnnConvolutionDescriptor_t conv,
                                                     cudnnTensorDescriptor_t y, int wanted, int *found,
                                                     cudnnConvolutionFwdAlgoPerf_t *results)
{
    DNN_CALL();
    return offer(handle, fits(x, w, conv, y), x, conv, wanted, found, results);
}
cudnnStatus_t cudnnGetConvolutionBackwardDataAlgorithm_v7(cudnnHandle_t handle, cudnnFilterDescriptor_t w,
                                                          cudnnTensorDescriptor_t dy,
                                                          cudnnConvolutionDescriptor_t conv,
                                                          cudnnTensorDescriptor_t dx, int wanted, int *found,
                                                          cudnnConvolutionBwdDataAlgoPerf_t *results)
{
    DNN_CALL();
    return offer(handle, fits(dx, w, conv, dy), dx, conv, wanted, found, results);
}
cudnnStatus_t cudnnGetConvolutionBackwardFilterAlgorithm_v7(cudnnHandle_t handle, cudnnTensorDescriptor_t x,
                                                            cudnnTensorDescriptor_t dy,
                                                            cudnnConvolutionDescriptor_t conv,
                                                            cudnnFilterDescriptor_t dw, int wanted,
                                                            int *found,
                                                            cudnnConvolutionBwdFilterAlgoPerf_t *results)
{
    DNN_CALL();
    return offer(handle, fits(x, dw, conv, dy), x, conv, wanted, found, results);
}

/* Calls f(x, w, y) with the flat positions of every product of the convolution. */
template <typename F>
static void visit(const emu_tensor &x, const emu_filter &w, const emu_convolution &c, const emu_tensor &y,
                  F f)
{
    for (int64_t n = 0; n < x.n; n++)
        for (int64_t k = 0; k < w.k; k++)
            for (int64_t i = 0; i < y.h; i++)
                for (int64_t j = 0; j < y.w; j++)
                    for (int64_t ch = 0; ch < w.c; ch++)
                        for (int64_t r = 0; r < w.h; r++)
                            for (int64_t s = 0; s < w.w; s++) {
                                const int64_t row = i * c.stride[0] - c.pad[0] + r * c.dilation[0],
                                              col = j * c.stride[1] - c.pad[1] + s * c.dilation[1],
                                              from = k / (w.k / c.groups) * w.c + ch;
                                if (row >= 0 && row < x.h && col >= 0 && col < x.w)
                                    f(x.at(n, from, row, col), w.at(k, ch, r, s), y.at(n, k, i, j));
                            }
}

/* Sums in double into n results. */
template <typename F>
static cudnnStatus_t run(cudnnHandle_t handle, bool ok, int algo, void *workspace, size_t bytes,
                         const void *alpha, const void *beta, emu_numbers out, int64_t n, F add)
{
    if (!ok || algo != 1 || bytes < WORKSPACE || *static_cast<const float *>(alpha) != 1.0f ||
        *static_cast<const float *>(beta) != 0.0f)
        return CUDNN_STATUS_BAD_PARAM;
    emu::run_on_stream(handle->stream, [=] {
        std::vector<double> sum(static_cast<size_t>(n), 0.0);
        memset(workspace, 0xff, bytes);
        add(sum.data());
        for (int64_t i = 0; i < n; i++)
            out.put(i, sum[static_cast<size_t>(i)]);
    });
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnConvolutionForward(cudnnHandle_t handle, const void *alpha, cudnnTensorDescriptor_t x_desc,
                                      const void *x, cudnnFilterDescriptor_t w_desc, const void *w,
                                      cudnnConvolutionDescriptor_t conv, cudnnConvolutionFwdAlgo_t algo,
                                      void *workspace, size_t workspace_bytes, const void *beta,
                                      cudnnTensorDescriptor_t y_desc, void *y)
{
    DNN_CALL();
    const emu_tensor xd = *x_desc, yd = *y_desc;
    const emu_filter wd = *w_desc;
    const emu_convolution c = *conv;
    const emu_numbers xs(xd.type, x), ws(wd.type, w);
    return run(handle, fits(&xd, &wd, &c, &yd), algo, workspace, workspace_bytes, alpha, beta, {yd.type, y},
               (int64_t)yd.n * yd.c * yd.h * yd.w, [=](double *sum) {
                   visit(xd, wd, c, yd, [=](int64_t i, int64_t k, int64_t o) { sum[o] += xs[i] * ws[k]; });
               });
}
cudnnStatus_t cudnnConvolutionBackwardData(cudnnHandle_t handle, const void *alpha,
                                           cudnnFilterDescriptor_t w_desc, const void *w,
                                           cudnnTensorDescriptor_t dy_desc, const void *dy,
                                           cudnnConvolutionDescriptor_t conv,
                                           cudnnConvolutionBwdDataAlgo_t algo, void *workspace,
                                           size_t workspace_bytes, const void *beta,
                                           cudnnTensorDescriptor_t dx_desc, void *dx)
{
    DNN_CALL();
    const emu_tensor xd = *dx_desc, yd = *dy_desc;
    const emu_filter wd = *w_desc;
    const emu_convolution c = *conv;
    const emu_numbers ds(yd.type, dy), ws(wd.type, w);
    return run(handle, fits(&xd, &wd, &c, &yd), algo, workspace, workspace_bytes, alpha, beta, {xd.type, dx},
               (int64_t)xd.n * xd.c * xd.h * xd.w, [=](double *sum) {
                   visit(xd, wd, c, yd, [=](int64_t i, int64_t k, int64_t o) { sum[i] += ds[o] * ws[k]; });
               });
}
cudnnStatus_t cudnnConvolutionBackwardFilter(cudnnHandle_t handle, const void *alpha,
                                             cudnnTensorDescriptor_t x_desc, const void *x,
                                             cudnnTensorDescriptor_t dy_desc, const void *dy,
                                             cudnnConvolutionDescriptor_t conv,
                                             cudnnConvolutionBwdFilterAlgo_t algo, void *workspace,
                                             size_t workspace_bytes, const void *beta,
                                             cudnnFilterDescriptor_t dw_desc, void *dw)
{
    DNN_CALL();
    const emu_tensor xd = *x_desc, yd = *dy_desc;
    const emu_filter wd = *dw_desc;
    const emu_convolution c = *conv;
    const emu_numbers ds(yd.type, dy), xs(xd.type, x);
    return run(handle, fits(&xd, &wd, &c, &yd), algo, workspace, workspace_bytes, alpha, beta, {wd.type, dw},
               (int64_t)wd.k * wd.c * wd.h * wd.w, [=](double *sum) {
                   visit(xd, wd, c, yd, [=](int64_t i, int64_t k, int64_t o) { sum[k] += ds[o] * xs[i]; });
               });
}

/* ---- cuDNN: pooling ---- */

struct emu_pooling {
    cudnnPoolingMode_t mode;
    int window[2], pad[2], stride[2];
};

cudnnStatus_t cudnnCreatePoolingDescriptor(cudnnPoolingDescriptor_t *desc)
{
    DNN_CALL();
    *desc = new emu_pooling();
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroyPoolingDescriptor(cudnnPoolingDescriptor_t desc)
{
    delete desc;
    DNN_CALL();
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetPooling2dDescriptor(cudnnPoolingDescriptor_t desc, cudnnPoolingMode_t mode,
                                          cudnnNanPropagation_t nan, int height, int width, int pad_h,
                                          int pad_w, int stride_h, int stride_w)
{
    DNN_CALL();
    *desc = {mode, {height, width}, {pad_h, pad_w}, {stride_h, stride_w}};
    return nan == CUDNN_PROPAGATE_NAN && mode != CUDNN_POOLING_MAX ? CUDNN_STATUS_SUCCESS
                                                                   : CUDNN_STATUS_BAD_PARAM;
}

static bool fits(const emu_tensor *x, const emu_pooling *p, const emu_tensor *y)
{
    return x->type == y->type && x->last == y->last && x->n == y->n && x->c == y->c &&
           y->h == out_size(x->h, p->window[0], p->pad[0], p->stride[0], 1) &&
           y->w == out_size(x->w, p->window[1], p->pad[1], p->stride[1], 1);
}

static bool plain(const void *alpha, const void *beta)
{
    return *static_cast<const float *>(alpha) == 1.0f && *static_cast<const float *>(beta) == 0.0f;
}

/* Calls f(position in y, position in x) for each element of each window, and end(position in y) after a
 * window. */
template <typename F, typename E>
static void each_window(const emu_tensor &x, const emu_pooling &p, const emu_tensor &y, F f, E end)
{
    for (int64_t n = 0; n < y.n; n++)
        for (int64_t c = 0; c < y.c; c++)
            for (int64_t i = 0; i < y.h; i++)
                for (int64_t j = 0; j < y.w; j++) {
                    for (int64_t r = i * p.stride[0] - p.pad[0], k = 0; k < p.window[0]; r++, k++)
                        for (int64_t s = j * p.stride[1] - p.pad[1], l = 0; l < p.window[1]; s++, l++)
                            if (r >= 0 && r < x.h && s >= 0 && s < x.w)
                                f(y.at(n, c, i, j), x.at(n, c, r, s));
                    end(y.at(n, c, i, j));
                }
}

cudnnStatus_t cudnnPoolingForward(cudnnHandle_t handle, cudnnPoolingDescriptor_t pool, const void *alpha,
                                  cudnnTensorDescriptor_t x_desc, const void *x, const void *beta,
                                  cudnnTensorDescriptor_t y_desc, void *y)
{
    DNN_CALL();
    if (!fits(x_desc, pool, y_desc) || !plain(alpha, beta))
        return CUDNN_STATUS_BAD_PARAM;
    const emu_tensor xd = *x_desc, yd = *y_desc;
    const emu_pooling p = *pool;
    const emu_numbers from(xd.type, x), to(yd.type, y);
    emu::run_on_stream(handle->stream, [=] {
        const bool most = p.mode == CUDNN_POOLING_MAX_DETERMINISTIC;
        double v = most ? (double)-INFINITY : 0.0;
        each_window(
            xd, p, yd,
            [&](int64_t, int64_t i) {
                const double here = from[i];
                v = !most ? v + here : (here > v || here != here ? here : v);
            },
            [&](int64_t o) {
                to.put(o, most ? v : v / (p.window[0] * p.window[1]));
                v = most ? (double)-INFINITY : 0.0;
            });
    });
    return CUDNN_STATUS_SUCCESS;
}

/* Of an average. */
cudnnStatus_t cudnnPoolingBackward(cudnnHandle_t handle, cudnnPoolingDescriptor_t pool, const void *alpha,
                                   cudnnTensorDescriptor_t y_desc, const void *y, cudnnTensorDescriptor_t,
                                   const void *dy, cudnnTensorDescriptor_t x_desc, const void *x,
                                   const void *beta, cudnnTensorDescriptor_t, void *dx)
{
    DNN_CALL();
    if (!fits(x_desc, pool, y_desc) || !plain(alpha, beta) || x == nullptr || y == nullptr ||
        pool->mode != CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING)
        return CUDNN_STATUS_BAD_PARAM;
    const emu_tensor xd = *x_desc, yd = *y_desc;
    const emu_pooling p = *pool;
    const emu_numbers from(yd.type, dy), to(xd.type, dx);
    emu::run_on_stream(handle->stream, [=] {
        std::vector<double> sum(static_cast<size_t>(xd.size()), 0.0);
        each_window(
            xd, p, yd,
            [&](int64_t o, int64_t i) {
                sum[static_cast<size_t>(i)] += from[o] / (p.window[0] * p.window[1]);
            },
            [](int64_t) {});
        for (size_t i = 0; i < sum.size(); i++)
            to.put(static_cast<int64_t>(i), sum[i]);
    });
    return CUDNN_STATUS_SUCCESS;
}

/* ---- cuDNN: batch norm ---- */

template <typename F> static void each_element(const emu_tensor &x, int64_t channel, F f)
{
    for (int64_t n = 0; n < x.n; n++)
        for (int64_t i = 0; i < x.h; i++)
            for (int64_t j = 0; j < x.w; j++)
                f(x.at(n, channel, i, j));
}

static bool fits(cudnnBatchNormMode_t mode, const void *alpha, const void *beta, const emu_tensor *x,
                 const emu_tensor *y, const emu_tensor *channels)
{
    return mode == CUDNN_BATCHNORM_SPATIAL && plain(alpha, beta) && x->last == y->last &&
           x->size() == y->size() && channels->c == x->c && channels->size() == x->c;
}

cudnnStatus_t cudnnBatchNormalizationForwardTraining(
    cudnnHandle_t handle, cudnnBatchNormMode_t mode, const void *alpha, const void *beta,
    cudnnTensorDescriptor_t x_desc, const void *x, cudnnTensorDescriptor_t y_desc, void *y,
    cudnnTensorDescriptor_t channels, const void *scale, const void *bias, double, void *running_mean,
    void *running_var, double epsilon, void *mean, void *rstd)
{
    DNN_CALL();
    if (!fits(mode, alpha, beta, x_desc, y_desc, channels) || running_mean != nullptr ||
        running_var != nullptr)
        return CUDNN_STATUS_BAD_PARAM;
    const emu_tensor d = *x_desc;
    const float *from = static_cast<const float *>(x), *gamma = static_cast<const float *>(scale),
                *shift = static_cast<const float *>(bias);
    float *to = static_cast<float *>(y), *means = static_cast<float *>(mean),
          *rstds = static_cast<float *>(rstd);
    emu::run_on_stream(handle->stream, [=] {
        for (int64_t c = 0; c < d.c; c++) {
            const double count = (double)(d.size() / d.c);
            double m = 0.0, squares = 0.0;
            each_element(d, c, [&](int64_t i) { m += (double)from[i] / count; });
            each_element(d, c, [&](int64_t i) { squares += ((double)from[i] - m) * ((double)from[i] - m); });
            const double r = 1.0 / std::sqrt(squares / count + epsilon);
            each_element(d, c, [&](int64_t i) {
                to[i] = static_cast<float>(((double)from[i] - m) * r * (double)gamma[c] + (double)shift[c]);
            });
            means[c] = static_cast<float>(m);
            rstds[c] = static_cast<float>(r);
        }
    });
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBatchNormalizationForwardInference(cudnnHandle_t handle, cudnnBatchNormMode_t mode,
                                                      const void *alpha, const void *beta,
                                                      cudnnTensorDescriptor_t x_desc, const void *x,
                                                      cudnnTensorDescriptor_t y_desc, void *y,
                                                      cudnnTensorDescriptor_t channels, const void *scale,
                                                      const void *bias, const void *mean, const void *var,
                                                      double epsilon)
{
    DNN_CALL();
    if (!fits(mode, alpha, beta, x_desc, y_desc, channels))
        return CUDNN_STATUS_BAD_PARAM;
    const emu_tensor d = *x_desc;
    const float *from = static_cast<const float *>(x), *gamma = static_cast<const float *>(scale),
                *shift = static_cast<const float *>(bias), *means = static_cast<const float *>(mean),
                *vars = static_cast<const float *>(var);
    float *to = static_cast<float *>(y);
    emu::run_on_stream(handle->stream, [=] {
        for (int64_t c = 0; c < d.c; c++)
            each_element(d, c, [&](int64_t i) {
                to[i] = static_cast<float>(((double)from[i] - (double)means[c]) /
                                               std::sqrt((double)vars[c] + epsilon) * (double)gamma[c] +
                                           (double)shift[c]);
            });
    });
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t
cudnnBatchNormalizationBackward(cudnnHandle_t handle, cudnnBatchNormMode_t mode, const void *alpha_data,
                                const void *beta_data, const void *alpha_param, const void *beta_param,
                                cudnnTensorDescriptor_t x_desc, const void *x,
                                cudnnTensorDescriptor_t dy_desc, const void *dy, cudnnTensorDescriptor_t,
                                void *dx, cudnnTensorDescriptor_t channels, const void *scale, void *dscale,
                                void *dbias, double, const void *mean, const void *rstd)
{
    DNN_CALL();
    if (!fits(mode, alpha_data, beta_data, x_desc, dy_desc, channels) || !plain(alpha_param, beta_param))
        return CUDNN_STATUS_BAD_PARAM;
    const emu_tensor d = *x_desc;
    const float *xs = static_cast<const float *>(x), *ds = static_cast<const float *>(dy),
                *gamma = static_cast<const float *>(scale), *means = static_cast<const float *>(mean),
                *rstds = static_cast<const float *>(rstd);
    float *to = static_cast<float *>(dx), *dgamma = static_cast<float *>(dscale),
          *dbeta = static_cast<float *>(dbias);
    emu::run_on_stream(handle->stream, [=] {
        for (int64_t c = 0; c < d.c; c++) {
            const double count = (double)(d.size() / d.c), m = (double)means[c], r = (double)rstds[c];
            double sum = 0.0, dot = 0.0;
            each_element(d, c, [&](int64_t i) {
                sum += (double)ds[i];
                dot += (double)ds[i] * ((double)xs[i] - m) * r;
            });
            each_element(d, c, [&](int64_t i) {
                const double xh = ((double)xs[i] - m) * r;
                to[i] = static_cast<float>((double)gamma[c] * r * ((double)ds[i] - (sum + xh * dot) / count));
            });
            dgamma[c] = static_cast<float>(dot);
            dbeta[c] = static_cast<float>(sum);
        }
    });
    return CUDNN_STATUS_SUCCESS;
}
