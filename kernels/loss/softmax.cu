/* softmax.cu - softmax and log_softmax over the last dimension and their gradients: a team of threads a row
 * (rows.cuh), which reads the row two or three times, from cache but for the first, and writes it once. */
#include "kernels/loss/rows.cuh"
#include "kernels/math.h"

template <bool BLOCK> __device__ static float row_max(const float *x, int64_t cols)
{
    float most = -INFINITY;
    TP_TEAM_COLUMNS (k, cols) {
        most = tp_max_of()(most, x[k]);
    }
    return tp_row_team<BLOCK>::max(most);
}

template <bool BLOCK> __device__ static float row_exp_sum(const float *x, int64_t cols, float most)
{
    float sum = 0.0f;
    TP_TEAM_COLUMNS (k, cols) {
        sum += tp_expf(x[k] - most);
    }
    return tp_row_team<BLOCK>::sum(sum);
}

template <bool BLOCK> __global__ void softmax_rows(float *y, const float *x, int64_t rows, int64_t cols)
{
    TP_TEAM_ROWS (i, rows) {
        const float *row = x + i * cols;
        const float most = row_max<BLOCK>(row, cols), sum = row_exp_sum<BLOCK>(row, cols, most);
        TP_TEAM_COLUMNS (k, cols) {
            y[i * cols + k] = tp_expf(row[k] - most) / sum;
        }
    }
}

template <bool BLOCK> __global__ void log_softmax_rows(float *y, const float *x, int64_t rows, int64_t cols)
{
    TP_TEAM_ROWS (i, rows) {
        const float *row = x + i * cols;
        const float most = row_max<BLOCK>(row, cols), log_sum = tp_logf(row_exp_sum<BLOCK>(row, cols, most));
        TP_TEAM_COLUMNS (k, cols) {
            y[i * cols + k] = row[k] - most - log_sum;
        }
    }
}

/* dx = y (dy - <y, dy>) */
template <bool BLOCK>
__global__ void softmax_grad_rows(float *dx, const float *y, const float *dy, int64_t rows, int64_t cols)
{
    TP_TEAM_ROWS (i, rows) {
        float dot = 0.0f;
        TP_TEAM_COLUMNS (k, cols) {
            dot += y[i * cols + k] * dy[i * cols + k];
        }
        dot = tp_row_team<BLOCK>::sum(dot);
        TP_TEAM_COLUMNS (k, cols) {
            dx[i * cols + k] = y[i * cols + k] * (dy[i * cols + k] - dot);
        }
    }
}

/* dx = dy - e^y sum(dy) */
template <bool BLOCK>
__global__ void log_softmax_grad_rows(float *dx, const float *y, const float *dy, int64_t rows, int64_t cols)
{
    TP_TEAM_ROWS (i, rows) {
        float sum = 0.0f;
        TP_TEAM_COLUMNS (k, cols) {
            sum += dy[i * cols + k];
        }
        sum = tp_row_team<BLOCK>::sum(sum);
        TP_TEAM_COLUMNS (k, cols) {
            dx[i * cols + k] = dy[i * cols + k] - tp_expf(y[i * cols + k]) * sum;
        }
    }
}

static int64_t columns_of(const tp_call *c)
{
    return c->in[0].shape.d[c->in[0].shape.nd - 1];
}

static int64_t rows_of(const tp_call *c)
{
    return tp_len(&c->in[0]) / columns_of(c);
}

static tp_status softmax_run(const tp_call *c)
{
    TP_LAUNCH_ROWS(softmax_rows, rows_of(c), columns_of(c), c, tp_out_f32(c, 0), tp_in_f32(c, 0), rows_of(c),
                   columns_of(c));
    return TP_OK;
}

static tp_status log_softmax_run(const tp_call *c)
{
    TP_LAUNCH_ROWS(log_softmax_rows, rows_of(c), columns_of(c), c, tp_out_f32(c, 0), tp_in_f32(c, 0),
                   rows_of(c), columns_of(c));
    return TP_OK;
}

static tp_status softmax_grad_run(const tp_call *c)
{
    TP_LAUNCH_ROWS(softmax_grad_rows, rows_of(c), columns_of(c), c, tp_out_f32(c, 0), tp_in_f32(c, 0),
                   tp_in_f32(c, 1), rows_of(c), columns_of(c));
    return TP_OK;
}

static tp_status log_softmax_grad_run(const tp_call *c)
{
    TP_LAUNCH_ROWS(log_softmax_grad_rows, rows_of(c), columns_of(c), c, tp_out_f32(c, 0), tp_in_f32(c, 0),
                   tp_in_f32(c, 1), rows_of(c), columns_of(c));
    return TP_OK;
}

static const tp_impl softmax_own = {"own", tp_accept_f32, softmax_run, nullptr, 0};
static const tp_impl softmax_grad_own = {"own", tp_accept_f32, softmax_grad_run, nullptr, 0};
static const tp_impl log_softmax_own = {"own", tp_accept_f32, log_softmax_run, nullptr, 0};
static const tp_impl log_softmax_grad_own = {"own", tp_accept_f32, log_softmax_grad_run, nullptr, 0};
TP_CUDA_IMPLS(softmax, &softmax_own);
TP_CUDA_IMPLS(softmax_grad, &softmax_grad_own);
TP_CUDA_IMPLS(log_softmax, &log_softmax_own);
TP_CUDA_IMPLS(log_softmax_grad, &log_softmax_grad_own);
