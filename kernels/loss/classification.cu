/* classification.cu - softmax_cross_entropy and bce_with_logits, a value for each row, and their gradients: a
 * team of threads a row (rows.cuh). The gradient computes the softmax again and stores none; rows of logits
 * of up to 8192 classes are read once. */
#include "kernels/loss/softmax.cuh"

enum { IN_X, IN_TARGET, IN_CLASS_WEIGHT, IN_DL };

struct target {
    const void *data;
    tp_dtype dtype;
    const float *class_weight; /* or NULL */
    float keep, spread;        /* 1 - smoothing, smoothing / C */
};

/* The class of row i, -1 for soft targets; a class that is not there stays one that no column equals. */
__device__ static int label_of(const target &t, int64_t i, int classes)
{
    if (t.dtype == TP_F32)
        return -1;
    const int64_t label = tp_load_int(t.data, t.dtype, i);
    return label >= 0 && label < classes ? (int)label : classes;
}

/* q_c w_c: how much class k of row i counts. */
__device__ static float share_of(const target &t, int label, int64_t i, int k, int classes)
{
    const float q = label >= 0 ? (float)(label == k) : static_cast<const float *>(t.data)[i * classes + k];
    return (t.keep * q + t.spread) * (t.class_weight != nullptr ? t.class_weight[k] : 1.0f);
}

/* Whether a row counts its label alone. */
__device__ static bool is_hard(const target &t, int label)
{
    return label >= 0 && t.spread == 0.0f;
}

/* sum_c q_c w_c */
template <typename R> __device__ static float share_sum(const target &t, int label, int64_t i, int cols)
{
    typename R::total sum = 0;
    if (is_hard(t, label))
        return label < cols ? share_of(t, label, i, label, cols) : 0.0f;
    TP_PIECES (R, first, cols) {
        float part = 0.0f;
        TP_ELEMENTS (R, j, e) {
            const int k = R::column(j, first) + e;
            part += k < cols ? share_of(t, label, i, k, cols) : 0.0f;
        }
        sum += part;
    }
    return (float)R::team::sum(sum);
}

/* sum_c q_c w_c (top - x_c), top = log(sum e^x) */
template <typename R>
__device__ static float soft_loss(R &x, const target &t, int label, int64_t i, const float *row, int cols,
                                  float most, float log_sum)
{
    typename R::total sum = 0;
    TP_PIECES (R, first, cols) {
        float part = 0.0f;
        x.load_again(row, first, cols, 0.0f);
        TP_ELEMENTS (R, j, e) {
            const int k = R::column(j, first) + e;
            if (k < cols)
                part = fmaf(share_of(t, label, i, k, cols), most - x.v[j][e] + log_sum, part);
        }
        sum += part;
    }
    return (float)R::team::sum(sum);
}

template <typename R>
__global__ void softmax_cross_entropy_rows(float *loss, const float *x, target t, int64_t rows, int cols)
{
    TP_ROWS (R, i, rows) {
        const float *row = x + i * cols;
        const int label = label_of(t, i, cols);
        const bool hard = is_hard(t, label), known = label < cols;
        R v;
        const float picked = hard && known ? row[label] : 0.0f, most = tp_row_max(v, row, cols),
                    log_sum = tp_logf(tp_row_exp_sum<false>(v, row, cols, most));
        const float l = hard ? (known ? share_of(t, label, i, label, cols) : 0.0f) * (most - picked + log_sum)
                             : soft_loss(v, t, label, i, row, cols, most, log_sum);
        if (R::team::lane() == 0)
            loss[i] = l;
    }
}

/* dx = dl (softmax(x) sum_c q_c w_c - q w) */
template <typename R>
__global__ void softmax_cross_entropy_grad_rows(float *dx, const float *x, target t, const float *dl,
                                                int64_t rows, int cols)
{
    TP_ROWS (R, i, rows) {
        const float *row = x + i * cols, slope = dl[i];
        const int label = label_of(t, i, cols);
        R v;
        const float total = share_sum<R>(t, label, i, cols), most = tp_row_max(v, row, cols),
                    scale = total / tp_row_exp_sum<true>(v, row, cols, most);
        TP_PIECES (R, first, cols) {
            tp_row_exp_again(v, row, first, cols, most);
            if (is_hard(t, label)) { /* total is the label's share */
                TP_ELEMENTS (R, j, e)
                    v.v[j][e] =
                        slope * fmaf(v.v[j][e], scale, R::column(j, first) + e == label ? -total : 0.0f);
            } else
                TP_ELEMENTS (R, j, e) {
                    const int k = R::column(j, first) + e;
                    if (k < cols)
                        v.v[j][e] = slope * fmaf(v.v[j][e], scale, -share_of(t, label, i, k, cols));
                }
            v.store(dx + i * cols, first, cols);
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
    TP_LAUNCH_HELD_ROWS(softmax_cross_entropy_rows, rows, cols, cols % 4 == 0, c, tp_out_f32(c, 0),
                        tp_in_f32(c, IN_X), target_of(c), rows, (int)cols);
    return TP_OK;
}

static tp_status softmax_cross_entropy_grad_run(const tp_call *c)
{
    const int64_t rows = c->in[IN_X].shape.d[0], cols = c->in[IN_X].shape.d[1];
    TP_LAUNCH_HELD_ROWS(softmax_cross_entropy_grad_rows, rows, cols, cols % 4 == 0, c, tp_out_f32(c, 0),
                        tp_in_f32(c, IN_X), target_of(c), tp_in_f32(c, IN_DL), rows, (int)cols);
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

static const tp_impl softmax_cross_entropy_own = {"own", tp_accept_rows, softmax_cross_entropy_run, nullptr,
                                                  0};
static const tp_impl softmax_cross_entropy_grad_own = {"own", tp_accept_rows, softmax_cross_entropy_grad_run,
                                                       nullptr, 0};
static const tp_impl bce_with_logits_own = {"own", tp_accept_f32, bce_with_logits_run, nullptr, 0};
static const tp_impl bce_with_logits_grad_own = {"own", tp_accept_f32, bce_with_logits_grad_run, nullptr, 0};
TP_CUDA_IMPLS(softmax_cross_entropy, &softmax_cross_entropy_own);
TP_CUDA_IMPLS(softmax_cross_entropy_grad, &softmax_cross_entropy_grad_own);
TP_CUDA_IMPLS(bce_with_logits, &bce_with_logits_own);
TP_CUDA_IMPLS(bce_with_logits_grad, &bce_with_logits_grad_own);
