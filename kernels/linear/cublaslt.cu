/* cublaslt.cu - matmul and gemm through cuBLASLt: y(M,N) = act(op(a) op(b) + c). cuBLASLt's matrices lie by
 * columns and ours by rows, so it is asked for y^T(N,M) = op(b)^T op(a)^T, for which nothing has to move.
 * Bias, relu and the gradient of the bias are epilogues; tanh, sigmoid and the gradients of activations
 * follow in place. The gradient of relu is an epilogue in cublaslt_drelu, which reads a mask of bits instead
 * of y. The algorithm is the first of the library's heuristic, chosen when the plan is compiled; its
 * workspace comes from the arena. In bf16 the factors are first rounded into scratch. */
#include "host/core/mem.h"
#include "kernels/elementwise/cast.cuh"
#include "kernels/libraries.cuh"
#include "kernels/linear/activation.h"
#include "kernels/reduce/reduce.cuh"
#include <cstdio>
#include <cstring>

/* What an algorithm may ask for (NVIDIA recommends 32 MiB on Hopper). */
#define WORKSPACE ((size_t)32 << 20)

/* What the product is for: y, the gradient of what gave a factor (with the mask of relu), or that of a
 * weight, where the sums of a over k are wanted too: the gradient of a bias. */
enum purpose { FORWARD, INPUT_GRAD, INPUT_GRAD_MASKED, WEIGHT_GRAD };

struct product {
    int64_t rows, cols, depth, batches; /* M, N, K */
    int64_t a_step, b_step;             /* elements from one matrix of a batch to the next */
    int trans_a, trans_b, has_bias;
    purpose what;
    tp_activation act;
};

struct linear_state {
    const tp_cublaslt *lib;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, y;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulAlgo_t algo;
    size_t workspace, mask_offset, a_offset,
        b_offset; /* in scratch; offsets of the mask and the rounded factors */
    int bf16;
    product p;
};

static tp_status check(const tp_cublaslt *lib, cublasStatus_t st, tp_status code, const char *what)
{
    if (st == CUBLAS_STATUS_SUCCESS)
        return TP_OK;
    TP_TRY(tp_cuda_check_alive(what));
    TP_FAIL(code, "cublaslt: %s: %s", what, lib->cublasLtGetStatusString(st));
}

#define BLAS(call) TP_TRY(check(lib, lib->call, TP_EUNSUP, #call))

/* Elements between matrices: all of one shape, or one for the whole batch. */
static tp_status batch_step(tp_shape x, tp_shape y, int64_t *step)
{
    int64_t own = 1, all = 1;

    for (int i = 0; i < x.nd - 2; i++)
        own *= x.d[i];
    for (int i = 0; i < y.nd - 2; i++)
        all *= y.d[i];
    TP_CHECK(own == all || own == 1, TP_EUNSUP, "batches of %lld and %lld matrices are broadcast",
             (long long)own, (long long)all);
    *step = own == 1 ? 0 : x.d[x.nd - 2] * x.d[x.nd - 1];
    return TP_OK;
}

static tp_status describe(product *p, const tp_call *c, int trans_a, int trans_b, tp_activation act,
                          purpose what)
{
    const tp_shape a = c->in[0].shape, b = c->in[1].shape, y = c->out[0].shape;

    p->rows = y.d[y.nd - 2];
    p->cols = y.d[y.nd - 1];
    p->depth = a.d[a.nd - (trans_a ? 2 : 1)];
    TP_CHECK(tp_len(&c->out[0]) > 0 && p->depth > 0, TP_EUNSUP, "a matrix is empty");
    p->batches = tp_len(&c->out[0]) / (p->rows * p->cols);
    TP_TRY(batch_step(a, y, &p->a_step));
    TP_TRY(batch_step(b, y, &p->b_step));
    p->trans_a = trans_a;
    p->trans_b = trans_b;
    p->has_bias = what == FORWARD && c->n_in > 2 && c->in[2].dtype != TP_DTYPE_NONE;
    p->what = what;
    p->act = act;
    return TP_OK;
}

/* A row-major (rows, cols) matrix is a column-major (cols, rows) one. */
static tp_status layout(const tp_cublaslt *lib, cublasLtMatrixLayout_t *out, cudaDataType type, int64_t rows,
                        int64_t cols, int64_t batches, int64_t step)
{
    const int32_t count = (int32_t)batches;

    BLAS(cublasLtMatrixLayoutCreate(out, type, (uint64_t)cols, (uint64_t)rows, cols));
    BLAS(cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof(count)));
    BLAS(cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &step,
                                          sizeof(step)));
    return TP_OK;
}

/* Bits from one row of the mask to the next: a multiple of 128, as the library asks. */
static int64_t mask_width(const product *p)
{
    return (p->cols + 127) / 128 * 128;
}

static cublasLtEpilogue_t epilogue_of(const product *p)
{
    if (p->what == WEIGHT_GRAD)
        return CUBLASLT_EPILOGUE_BGRADB;
    if (p->what != FORWARD)
        return p->what == INPUT_GRAD_MASKED ? CUBLASLT_EPILOGUE_DRELU : CUBLASLT_EPILOGUE_DEFAULT;
    if (p->act == TP_ACT_RELU)
        return p->has_bias ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_RELU;
    return p->has_bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
}

static tp_status set_desc(linear_state *s, tp_precision precision)
{
    const tp_cublaslt *lib = s->lib;
    const product *p = &s->p;
    const cublasOperation_t first = p->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N,
                            second = p->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasLtEpilogue_t epilogue = epilogue_of(p);
    const int64_t width = mask_width(p);

    BLAS(cublasLtMatmulDescCreate(
        &s->desc, precision == TP_PRECISION_TF32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F,
        CUDA_R_32F));
    BLAS(cublasLtMatmulDescSetAttribute(s->desc, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof(first)));
    BLAS(cublasLtMatmulDescSetAttribute(s->desc, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof(second)));
    BLAS(cublasLtMatmulDescSetAttribute(s->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof(epilogue)));
    if (p->what == INPUT_GRAD_MASKED)
        BLAS(cublasLtMatmulDescSetAttribute(s->desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &width,
                                            sizeof(width)));
    return TP_OK;
}

/* What an algorithm is kept under. */
static void choice_key(char *key, size_t size, const linear_state *s, const char *device,
                       tp_precision precision)
{
    const product *p = &s->p;
    snprintf(key, size,
             "cublaslt %zu, %s, precision %d, %lldx%lldx%lld, batches %lld by %lld and %lld, trans %d%d, "
             "bias %d, act %d, for %d",
             s->lib->cublasLtGetVersion(), device, (int)precision, (long long)p->rows, (long long)p->cols,
             (long long)p->depth, (long long)p->batches, (long long)p->a_step, (long long)p->b_step,
             p->trans_a, p->trans_b, p->has_bias, (int)p->act, (int)p->what);
}

/* The algorithm that was chosen before, if the library still takes it. */
static int take_kept(linear_state *s, const char *key)
{
    static_assert(sizeof(cublasLtMatmulAlgo_t) == TP_CHOICE_BYTES, "an algorithm is kept as 64 bytes");
    const tp_cublaslt *lib = s->lib;
    unsigned char bytes[TP_CHOICE_BYTES];
    cublasLtMatmulHeuristicResult_t result;

    if (!tp_choice_find(key, bytes))
        return 0;
    memcpy(&s->algo, bytes, sizeof(s->algo));
    if (lib->cublasLtMatmulAlgoCheck(lib->handle, s->desc, s->b, s->a, s->y, s->y, &s->algo, &result) !=
            CUBLAS_STATUS_SUCCESS ||
        result.workspaceSize > WORKSPACE)
        return 0;
    s->workspace = result.workspaceSize;
    return 1;
}

static tp_status choose(linear_state *s, const char *device, tp_precision precision)
{
    const tp_cublaslt *lib = s->lib;
    const size_t most = WORKSPACE;
    cublasLtMatmulHeuristicResult_t best;
    unsigned char bytes[TP_CHOICE_BYTES];
    char key[320];
    int n = 0;

    choice_key(key, sizeof(key), s, device, precision);
    if (take_kept(s, key))
        return TP_OK;
    BLAS(cublasLtMatmulPreferenceCreate(&s->preference));
    BLAS(cublasLtMatmulPreferenceSetAttribute(s->preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most,
                                              sizeof(most)));
    BLAS(cublasLtMatmulAlgoGetHeuristic(lib->handle, s->desc, s->b, s->a, s->y, s->y, s->preference, 1, &best,
                                        &n));
    TP_CHECK(n > 0, TP_EUNSUP, "cublaslt: no algorithm for this product");
    s->algo = best.algo;
    s->workspace = best.workspaceSize;
    memcpy(bytes, &s->algo, sizeof(s->algo));
    tp_choice_keep(key, bytes);
    return TP_OK;
}

static tp_status create(linear_state *s, const char *device, tp_precision precision)
{
    const product *p = &s->p;
    const cudaDataType type = s->bf16 ? CUDA_R_16BF : CUDA_R_32F;

    TP_TRY(set_desc(s, precision));
    TP_TRY(layout(s->lib, &s->a, type, p->trans_a ? p->depth : p->rows, p->trans_a ? p->rows : p->depth,
                  p->batches, p->a_step));
    TP_TRY(layout(s->lib, &s->b, type, p->trans_b ? p->cols : p->depth, p->trans_b ? p->depth : p->cols,
                  p->batches, p->b_step));
    TP_TRY(layout(s->lib, &s->y, CUDA_R_32F, p->rows, p->cols, p->batches, p->rows * p->cols));
    return choose(s, device, precision);
}

static void linear_release(void *state)
{
    linear_state *s = static_cast<linear_state *>(state);

    if (s->preference != nullptr)
        (void)s->lib->cublasLtMatmulPreferenceDestroy(s->preference);
    for (cublasLtMatrixLayout_t l : {s->a, s->b, s->y})
        if (l != nullptr)
            (void)s->lib->cublasLtMatrixLayoutDestroy(l);
    if (s->desc != nullptr)
        (void)s->lib->cublasLtMatmulDescDestroy(s->desc);
    tp_free(s);
}

static size_t aligned(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

static tp_status linear_prepare(tp_call *c, size_t *scratch, int trans_a, int trans_b, tp_activation act,
                                purpose what)
{
    const tp_cublaslt *lib = nullptr;
    linear_state *s = nullptr;
    product p;

    TP_TRY(tp_accept_f32(c, scratch));
    TP_TRY(tp_cublaslt_get(c, &lib));
    TP_TRY(describe(&p, c, trans_a, trans_b, act, what));
    TP_TRY(tp_alloc(&s, 1, sizeof(*s), "cuBLASLt matmul"));
    s->lib = lib;
    s->p = p;
    s->bf16 = c->precision == TP_PRECISION_BF16;
    const tp_status st = create(s, tp_queue_of(c)->device, c->precision);
    if (st != TP_OK) {
        linear_release(s);
        return st;
    }
    *scratch = s->workspace;
    if (what == INPUT_GRAD_MASKED) {
        s->mask_offset = aligned(*scratch);
        *scratch = s->mask_offset + (size_t)(s->p.rows * mask_width(&s->p) / 8);
    }
    if (s->bf16) {
        s->a_offset = aligned(*scratch);
        s->b_offset = aligned(s->a_offset + (size_t)tp_len(&c->in[0]) * sizeof(uint16_t));
        *scratch = s->b_offset + (size_t)tp_len(&c->in[1]) * sizeof(uint16_t);
    }
    c->state = s;
    return TP_OK;
}

__global__ void linear_activate(float *y, int64_t n, int sigmoid)
{
    TP_GRID_LOOP (i, n) {
        y[i] = sigmoid ? tp_sigmoidf(y[i]) : tp_tanhf(y[i]);
    }
}

static tp_status round_factor(const tp_call *c, int i, size_t offset, const void **out)
{
    uint16_t *y = reinterpret_cast<uint16_t *>(static_cast<char *>(c->scratch) + offset);

    *out = y;
    return tp_cuda_narrow(c, y, tp_in_f32(c, i), tp_len(&c->in[i]));
}

/* Bit j of row i: y(i,j) > 0. Rows of `width` bits, a multiple of 32: a warp makes a word. */
__global__ void linear_relu_mask(uint32_t *mask, const float *y, int64_t rows, int64_t cols, int64_t width)
{
    TP_GRID_LOOP (at, rows * width) {
        const int64_t i = at / width, j = at - i * width;
        const uint32_t word = __ballot_sync(TP_ALL_LANE, j < cols && y[i * cols + j] > 0.0f);
        if (threadIdx.x % TP_WARP == 0)
            mask[at / 32] = word;
    }
}

/* dz = act'(y) dz */
__global__ void linear_activate_grad(float *dz, const float *y, int64_t n, tp_activation act)
{
    TP_GRID_LOOP (i, n) {
        dz[i] = tp_activate_grad_f32(y[i], dz[i], act);
    }
}

static tp_status give_mask(const tp_call *c, const linear_state *s)
{
    const tp_cublaslt *lib = s->lib;
    const int64_t width = mask_width(&s->p);
    void *mask = static_cast<char *>(c->scratch) + s->mask_offset;

    TP_LAUNCH(linear_relu_mask, tp_cuda_blocks(c, s->p.rows * width), TP_THREADS, 0, c,
              static_cast<uint32_t *>(mask), tp_in_f32(c, 2), s->p.rows, s->p.cols, width);
    return check(lib,
                 lib->cublasLtMatmulDescSetAttribute(s->desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER,
                                                     &mask, sizeof(mask)),
                 TP_EDEVICE, "mask");
}

static tp_status linear_run(const tp_call *c)
{
    const linear_state *s = static_cast<const linear_state *>(c->state);
    const tp_cublaslt *lib = s->lib;
    const float one = 1.0f, zero = 0.0f;
    const void *a = c->in[0].data, *b = c->in[1].data,
               *bias = s->p.what == WEIGHT_GRAD ? c->out[1].data
                       : s->p.has_bias          ? c->in[2].data
                                                : nullptr;

    if (s->bf16) {
        TP_TRY(round_factor(c, 0, s->a_offset, &a));
        TP_TRY(round_factor(c, 1, s->b_offset, &b));
    }
    if (s->p.what == INPUT_GRAD_MASKED)
        TP_TRY(give_mask(c, s));
    if (bias != nullptr)
        TP_TRY(check(lib,
                     lib->cublasLtMatmulDescSetAttribute(s->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                                         sizeof(bias)),
                     TP_EDEVICE, "bias"));
    TP_TRY(check(lib,
                 lib->cublasLtMatmul(lib->handle, s->desc, &one, b, s->b, a, s->a, &zero, c->out[0].data,
                                     s->y, c->out[0].data, s->y, &s->algo, c->scratch, s->workspace,
                                     tp_queue_of(c)->stream),
                 TP_EDEVICE, "cublasLtMatmul"));
    if (s->p.what == INPUT_GRAD)
        TP_LAUNCH(linear_activate_grad, tp_cuda_blocks(c, tp_len(&c->out[0])), TP_THREADS, 0, c,
                  tp_out_f32(c, 0), tp_in_f32(c, 2), tp_len(&c->out[0]), s->p.act);
    else if (s->p.act == TP_ACT_TANH || s->p.act == TP_ACT_SIGMOID)
        TP_LAUNCH(linear_activate, tp_cuda_blocks(c, tp_len(&c->out[0])), TP_THREADS, 0, c, tp_out_f32(c, 0),
                  tp_len(&c->out[0]), s->p.act == TP_ACT_SIGMOID);
    return TP_OK;
}

static tp_status matmul_prepare(tp_call *c, size_t *scratch)
{
    const tp_matmul_attr *attr = static_cast<const tp_matmul_attr *>(c->attr);
    return linear_prepare(c, scratch, attr->trans_a, attr->trans_b, TP_ACT_NONE, FORWARD);
}

static tp_status gemm_prepare(tp_call *c, size_t *scratch)
{
    const tp_gemm_attr *attr = static_cast<const tp_gemm_attr *>(c->attr);
    return linear_prepare(c, scratch, attr->trans_a, attr->trans_b, attr->act, FORWARD);
}

static tp_status input_grad_prepare(tp_call *c, size_t *scratch)
{
    const tp_gemm_attr *attr = static_cast<const tp_gemm_attr *>(c->attr);
    return linear_prepare(c, scratch, attr->trans_a, attr->trans_b, attr->act, INPUT_GRAD);
}

static tp_status masked_prepare(tp_call *c, size_t *scratch)
{
    const tp_gemm_attr *attr = static_cast<const tp_gemm_attr *>(c->attr);
    TP_CHECK(attr->act == TP_ACT_RELU, TP_EUNSUP,
             "the library has an epilogue for the gradient of relu alone");
    return linear_prepare(c, scratch, attr->trans_a, attr->trans_b, attr->act, INPUT_GRAD_MASKED);
}

static tp_status weight_grad_prepare(tp_call *c, size_t *scratch)
{
    return linear_prepare(c, scratch, 1, 0, TP_ACT_NONE, WEIGHT_GRAD);
}

/* For products whose epilogue the library does not have: the sums follow, in the same scratch. */
static tp_status separate_prepare(tp_call *c, size_t *scratch)
{
    const tp_shape dy = c->in[0].shape;
    const size_t sums = tp_cuda_sum_rows_scratch(dy.d[0], dy.d[1]);

    TP_TRY(linear_prepare(c, scratch, 1, 0, TP_ACT_NONE, FORWARD));
    *scratch = *scratch > sums ? *scratch : sums;
    return TP_OK;
}

static tp_status separate_run(const tp_call *c)
{
    const tp_shape dy = c->in[0].shape;

    TP_TRY(linear_run(c));
    return tp_cuda_sum_rows(c, tp_out_f32(c, 1), tp_in_f32(c, 0), dy.d[0], dy.d[1], c->scratch);
}

const tp_impl tp_gemm_input_grad_cublaslt = {"cublaslt", input_grad_prepare, linear_run, linear_release,
                                             TP_IMPL_LIBRARY};
const tp_impl tp_gemm_input_grad_cublaslt_drelu = {"cublaslt_drelu", masked_prepare, linear_run,
                                                   linear_release, TP_IMPL_LIBRARY};
const tp_impl tp_gemm_weight_grad_cublaslt = {"cublaslt", weight_grad_prepare, linear_run, linear_release,
                                              TP_IMPL_LIBRARY};
const tp_impl tp_gemm_weight_grad_cublaslt_sum = {"cublaslt_sum", separate_prepare, separate_run,
                                                  linear_release, TP_IMPL_LIBRARY};
const tp_impl tp_matmul_cublaslt = {"cublaslt", matmul_prepare, linear_run, linear_release, TP_IMPL_LIBRARY};
const tp_impl tp_gemm_cublaslt = {"cublaslt", gemm_prepare, linear_run, linear_release, TP_IMPL_LIBRARY};
