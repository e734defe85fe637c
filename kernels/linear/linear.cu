/* linear.cu - matmul and gemm by tiles (tile.cuh): y = act(op(a) op(b) + c). Bias, activation and the
 * activation's gradient are applied as a tile is stored, and the bias's gradient is summed from the tiles of
 * dy. */
#include "kernels/libraries.cuh"
#include "kernels/linear/activation.h"
#include "kernels/linear/tile.cuh"

/* Which matrix of a factor belongs to a matrix of the result: batch dimensions are broadcast. */
struct batch_map {
    int nd;
    int64_t d[TP_MAX_DIMS],
        step[TP_MAX_DIMS]; /* of the result; elements of the factor, 0 where it is broadcast */
};

__device__ static int64_t matrix_at(const batch_map &m, int64_t z)
{
    int64_t at = 0;
    for (int i = m.nd - 1; i >= 0; i--) {
        at += z % m.d[i] * m.step[i];
        z /= m.d[i];
    }
    return at;
}

/* Element (i, k) lies at i * row_step + k * k_step of its matrix. */
struct factor {
    const float *data;
    int64_t row_step, k_step;
    int along_k;
    batch_map map;
    __device__ float operator()(int64_t i, int64_t k, int64_t z) const
    {
        return data[matrix_at(map, z) + i * row_step + k * k_step];
    }
};

struct dense_store {
    static const bool SUMS = false;
    float *y;
    const float *bias;
    int64_t rows, cols;
    tp_activation act;
    __device__ void operator()(int64_t i, int64_t j, int64_t z, float v) const
    {
        y[(z * rows + i) * cols + j] = tp_activate_f32(bias != nullptr ? v + bias[j] : v, act);
    }
};

/* Through the activation that gave y. */
struct input_grad_store {
    static const bool SUMS = false;
    float *dz;
    const float *y;
    int64_t cols;
    tp_activation act;
    __device__ void operator()(int64_t i, int64_t j, int64_t z, float v) const
    {
        (void)z;
        dz[i * cols + j] = tp_activate_grad_f32(y[i * cols + j], v, act);
    }
};

/* What belongs to the weight and the bias of a dense layer. */
struct weight_grad_store {
    static const bool SUMS = true;
    float *dw, *db;
    int64_t cols;
    __device__ void operator()(int64_t i, int64_t j, int64_t z, float v) const
    {
        (void)z;
        dw[i * cols + j] = v;
    }
    __device__ void sum(int64_t i, int64_t z, float v) const
    {
        (void)z;
        db[i] = v;
    }
};

static batch_map map_of(tp_shape x, tp_shape y)
{
    batch_map m = {};
    int64_t step = x.d[x.nd - 2] * x.d[x.nd - 1];

    m.nd = y.nd - 2;
    for (int i = y.nd - 3, k = x.nd - 3; i >= 0; i--, k--) {
        m.d[i] = y.d[i];
        m.step[i] = k >= 0 && x.d[k] > 1 ? step : 0;
        step *= k >= 0 ? x.d[k] : 1;
    }
    return m;
}

/* across: 0 when k runs along a row of the matrix as it is stored. */
static factor factor_of(const tp_tensor *x, tp_shape y, int across)
{
    const int64_t width = x->shape.d[x->shape.nd - 1];
    factor f = {};

    f.data = static_cast<const float *>(x->data);
    f.row_step = across ? 1 : width;
    f.k_step = across ? width : 1;
    f.along_k = !across;
    f.map = map_of(x->shape, y);
    return f;
}

static tp_tile_shape shape_of(const tp_call *c, int trans_a)
{
    const tp_shape a = c->in[0].shape, y = c->out[0].shape;
    tp_tile_shape s = {y.d[y.nd - 2], y.d[y.nd - 1], a.d[a.nd - (trans_a ? 2 : 1)], 1, 1};

    for (int i = 0; i < y.nd - 2; i++)
        s.batches *= y.d[i];
    if (s.rows * s.cols * s.batches > 0)
        s.parts = tp_tile_parts(s.rows, s.cols, s.depth, s.batches);
    return s;
}

static tp_status linear_prepare(tp_call *c, size_t *scratch, int trans_a, int sums)
{
    const tp_tile_shape s = shape_of(c, trans_a);

    TP_TRY(tp_accept_f32(c, scratch));
    *scratch = tp_tile_scratch(&s, sums);
    return TP_OK;
}

static tp_status linear_run(const tp_call *c, int trans_a, int trans_b, tp_activation act)
{
    const tp_tile_shape s = shape_of(c, trans_a);
    const int has_bias = c->n_in > 2 && c->in[2].dtype != TP_DTYPE_NONE;
    const dense_store store = {tp_out_f32(c, 0), has_bias ? tp_in_f32(c, 2) : nullptr, s.rows, s.cols, act};

    return tp_tile_run(c, factor_of(&c->in[0], c->out[0].shape, trans_a),
                       factor_of(&c->in[1], c->out[0].shape, !trans_b), store, s);
}

static tp_status matmul_prepare(tp_call *c, size_t *scratch)
{
    return linear_prepare(c, scratch, static_cast<const tp_matmul_attr *>(c->attr)->trans_a, 0);
}

static tp_status gemm_prepare(tp_call *c, size_t *scratch)
{
    return linear_prepare(c, scratch, static_cast<const tp_gemm_attr *>(c->attr)->trans_a, 0);
}

static tp_status weight_grad_prepare(tp_call *c, size_t *scratch)
{
    TP_CHECK(c->in[1].shape.d[1] > 0, TP_EUNSUP, "x has no columns");
    return linear_prepare(c, scratch, 1, 1);
}

static tp_status weight_grad_run(const tp_call *c)
{
    const tp_tile_shape s = shape_of(c, 1);
    const weight_grad_store store = {tp_out_f32(c, 0), tp_out_f32(c, 1), s.cols};

    return tp_tile_run(c, factor_of(&c->in[0], c->out[0].shape, 1), factor_of(&c->in[1], c->out[0].shape, 1),
                       store, s);
}

static tp_status input_grad_run(const tp_call *c)
{
    const tp_gemm_attr *a = static_cast<const tp_gemm_attr *>(c->attr);
    const tp_tile_shape s = shape_of(c, a->trans_a);
    const input_grad_store store = {tp_out_f32(c, 0), tp_in_f32(c, 2), s.cols, a->act};

    return tp_tile_run(c, factor_of(&c->in[0], c->out[0].shape, a->trans_a),
                       factor_of(&c->in[1], c->out[0].shape, !a->trans_b), store, s);
}

static tp_status matmul_run(const tp_call *c)
{
    const tp_matmul_attr *a = static_cast<const tp_matmul_attr *>(c->attr);
    return linear_run(c, a->trans_a, a->trans_b, TP_ACT_NONE);
}

static tp_status gemm_run(const tp_call *c)
{
    const tp_gemm_attr *a = static_cast<const tp_gemm_attr *>(c->attr);
    return linear_run(c, a->trans_a, a->trans_b, a->act);
}

static const tp_impl matmul_own = {"own", matmul_prepare, matmul_run, nullptr, 0};
static const tp_impl gemm_own = {"own", gemm_prepare, gemm_run, nullptr, 0};
static const tp_impl input_grad_own = {"own", gemm_prepare, input_grad_run, nullptr, 0};
static const tp_impl weight_grad_own = {"own", weight_grad_prepare, weight_grad_run, nullptr, 0};
TP_CUDA_IMPLS(matmul, &tp_matmul_cublaslt, &matmul_own);
TP_CUDA_IMPLS(gemm, &tp_gemm_cublaslt, &gemm_own);
TP_CUDA_IMPLS(gemm_input_grad, &tp_gemm_input_grad_cublaslt, &tp_gemm_input_grad_cublaslt_drelu,
              &input_grad_own);
TP_CUDA_IMPLS(gemm_weight_grad, &tp_gemm_weight_grad_cublaslt, &tp_gemm_weight_grad_cublaslt_sum,
              &weight_grad_own);
