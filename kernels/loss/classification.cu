/* classification.cu - softmax_cross_entropy and bce_with_logits, a value for each row, and their gradients: a
 * team of threads a row (rows.cuh). The gradient computes the softmax again and stores none. */
#include "kernels/loss/rows.cuh"
#include "kernels/math.h"

enum { IN_X, IN_TARGET, IN_CLASS_WEIGHT, IN_DL };

struct target {
    const void *data;
    tp_dtype dtype;
    const float *class_weight; /* or NULL */
    float keep, spread;        /* 1 - smoothing, smoothing / C */
};

/* q_c w_c: how much class k of row i counts. */
__device__ static float share_of(const target &t, int64_t label, int64_t i, int64_t k, int64_t classes)
{
    const float q = label >= 0 ? (float)(label == k) : static_cast<const float *>(t.data)[i * classes + k];
    return (t.keep * q + t.spread) * (t.class_weight != nullptr ? t.class_weight[k] : 1.0f);
}

/* The class of row i, -1 for soft targets; a class that is not there stays one that no column equals. */
__device__ static int64_t label_of(const target &t, int64_t i, int64_t classes)
{
    if (t.dtype == TP_F32)
        return -1;
    const int64_t label = tp_load_int(t.data, t.dtype, i);
    return label >= 0 ? label : classes;
}

/* x - log(sum e^x) is x[k] - *most - result */
template <bool BLOCK> __device__ static float log_sum_exp(const float *x, int64_t cols, float *most)
{
    float m = -INFINITY, sum = 0.0f;
    TP_TEAM_COLUMNS (k, cols) {
        m = tp_max_of()(m, x[k]);
    }
    m = tp_row_team<BLOCK>::max(m);
    TP_TEAM_COLUMNS (k, cols) {
        sum += tp_expf(x[k] - m);
    }
    *most = m;
    return tp_logf(tp_row_team<BLOCK>::sum(sum));
}

template <bool BLOCK>
__global__ void softmax_cross_entropy_rows(float *loss, const float *x, target t, int64_t rows, int64_t cols)
{
    TP_TEAM_ROWS (i, rows) {
        const float *row = x + i * cols;
        const int64_t label = label_of(t, i, cols);
        float most, sum = 0.0f;
        const float log_sum = log_sum_exp<BLOCK>(row, cols, &most);
        TP_TEAM_COLUMNS (k, cols) {
            sum += share_of(t, label, i, k, cols) * (most - row[k] + log_sum);
        }
        sum = tp_row_team<BLOCK>::sum(sum);
        if (tp_row_team<BLOCK>::lane() == 0)
            loss[i] = sum;
    }
}

/* dx = dl (softmax(x) sum_c q_c w_c - q w) */
template <bool BLOCK>
__global__ void softmax_cross_entropy_grad_rows(float *dx, const float *x, target t, const float *dl,
                                                int64_t rows, int64_t cols)
{
    TP_TEAM_ROWS (i, rows) {
        const float *row = x + i * cols;
        const int64_t label = label_of(t, i, cols);
        float most, total = 0.0f;
        const float log_sum = log_sum_exp<BLOCK>(row, cols, &most);
        TP_TEAM_COLUMNS (k, cols) {
            total += share_of(t, label, i, k, cols);
        }
        total = tp_row_team<BLOCK>::sum(total);
        TP_TEAM_COLUMNS (k, cols) {
            dx[i * cols + k] =
                dl[i] * (tp_expf(row[k] - most - log_sum) * total - share_of(t, label, i, k, cols));
        }
    }
}

template <bool BLOCK>
__global__ void bce_with_logits_rows(float *loss, const float *x, const float *t, int64_t rows, int64_t cols)
{
    TP_TEAM_ROWS (i, rows) {
        float sum = 0.0f;
        TP_TEAM_COLUMNS (k, cols) {
            const float v = x[i * cols + k];
            sum += tp_softplusf(v) - v * t[i * cols + k];
        }
        sum = tp_row_team<BLOCK>::sum(sum);
        if (tp_row_team<BLOCK>::lane() == 0)
            loss[i] = sum / (float)cols;
    }
}

__global__ void bce_with_logits_grad_map(float *dx, const float *x, const float *t, const float *dl,
                                         int64_t n, int64_t cols)
{
    TP_GRID_LOOP (i, n) {
        dx[i] = dl[i / cols] * (tp_sigmoidf(x[i]) - t[i]) / (float)cols;
    }
}

static target target_of(const tp_call *c)
{
    const tp_xent_attr *a = static_cast<const tp_xent_attr *>(c->attr);
    const int weighted = c->n_in > IN_CLASS_WEIGHT && c->in[IN_CLASS_WEIGHT].dtype != TP_DTYPE_NONE;
    return {c->in[IN_TARGET].data, c->in[IN_TARGET].dtype, weighted ? tp_in_f32(c, IN_CLASS_WEIGHT) : nullptr,
            (float)(1.0 - a->smoothing), (float)(a->smoothing / (double)c->in[IN_X].shape.d[1])};
}

static tp_status softmax_cross_entropy_run(const tp_call *c)
{
    const int64_t rows = c->in[IN_X].shape.d[0], cols = c->in[IN_X].shape.d[1];
    TP_LAUNCH_ROWS(softmax_cross_entropy_rows, rows, cols, c, tp_out_f32(c, 0), tp_in_f32(c, IN_X),
                   target_of(c), rows, cols);
    return TP_OK;
}

static tp_status softmax_cross_entropy_grad_run(const tp_call *c)
{
    const int64_t rows = c->in[IN_X].shape.d[0], cols = c->in[IN_X].shape.d[1];
    TP_LAUNCH_ROWS(softmax_cross_entropy_grad_rows, rows, cols, c, tp_out_f32(c, 0), tp_in_f32(c, IN_X),
                   target_of(c), tp_in_f32(c, IN_DL), rows, cols);
    return TP_OK;
}

static tp_status bce_with_logits_run(const tp_call *c)
{
    const int64_t rows = c->in[0].shape.d[0], cols = c->in[0].shape.d[1];
    TP_LAUNCH_ROWS(bce_with_logits_rows, rows, cols, c, tp_out_f32(c, 0), tp_in_f32(c, 0), tp_in_f32(c, 1),
                   rows, cols);
    return TP_OK;
}

static tp_status bce_with_logits_grad_run(const tp_call *c)
{
    const int64_t n = tp_len(&c->out[0]);
    TP_LAUNCH(bce_with_logits_grad_map, tp_cuda_blocks(c, n), TP_THREADS, 0, c, tp_out_f32(c, 0),
              tp_in_f32(c, 0), tp_in_f32(c, 1), tp_in_f32(c, 2), n, c->in[0].shape.d[1]);
    return TP_OK;
}

static const tp_impl softmax_cross_entropy_own = {"own", tp_accept_f32, softmax_cross_entropy_run, nullptr,
                                                  0};
static const tp_impl softmax_cross_entropy_grad_own = {"own", tp_accept_f32, softmax_cross_entropy_grad_run,
                                                       nullptr, 0};
static const tp_impl bce_with_logits_own = {"own", tp_accept_f32, bce_with_logits_run, nullptr, 0};
static const tp_impl bce_with_logits_grad_own = {"own", tp_accept_f32, bce_with_logits_grad_run, nullptr, 0};
TP_CUDA_IMPLS(softmax_cross_entropy, &softmax_cross_entropy_own);
TP_CUDA_IMPLS(softmax_cross_entropy_grad, &softmax_cross_entropy_grad_own);
TP_CUDA_IMPLS(bce_with_logits, &bce_with_logits_own);
TP_CUDA_IMPLS(bce_with_logits_grad, &bce_with_logits_grad_own);
