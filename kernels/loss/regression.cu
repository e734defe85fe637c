/* regression.cu - mse, mae, huber and quantile loss, a value for each row, and their gradient. x and t are
 * read once; a team of threads a row (rows.cuh) for the loss, a grid loop for the gradient. */
#include "kernels/loss/regression.h"
#include "kernels/loss/rows.cuh"

template <bool BLOCK>
__global__ void regression_loss_rows(float *loss, const float *x, const float *t, int64_t rows, int64_t cols,
                                     tp_regression_attr a)
{
    TP_TEAM_ROWS (i, rows) {
        double sum = 0.0;
        TP_TEAM_COLUMNS (k, cols) {
            sum += tp_regression_value((double)x[i * cols + k] - (double)t[i * cols + k], &a);
        }
        sum = tp_row_team<BLOCK>::sum(sum);
        if (tp_row_team<BLOCK>::lane() == 0)
            loss[i] = (float)(sum / (double)cols);
    }
}

/* One column: a thread a row. */
__global__ void regression_loss_single(float *loss, const float *x, const float *t, int64_t rows,
                                       tp_regression_attr a)
{
    TP_GRID_LOOP (i, rows) {
        loss[i] = (float)tp_regression_value((double)x[i] - (double)t[i], &a);
    }
}

__global__ void regression_loss_grad_map(float *dx, const float *x, const float *t, const float *dl,
                                         int64_t n, int64_t cols, tp_regression_attr a)
{
    TP_GRID_LOOP (i, n) {
        dx[i] = (float)((double)dl[i / cols] / (double)cols *
                        tp_regression_slope((double)x[i] - (double)t[i], &a));
    }
}

static tp_status regression_loss_run(const tp_call *c)
{
    const tp_regression_attr *a = static_cast<const tp_regression_attr *>(c->attr);
    const int64_t rows = c->in[0].shape.d[0], cols = rows > 0 ? tp_len(&c->in[0]) / rows : 0;

    if (cols == 1) {
        TP_LAUNCH(regression_loss_single, tp_cuda_blocks(c, rows), TP_THREADS, 0, c, tp_out_f32(c, 0),
                  tp_in_f32(c, 0), tp_in_f32(c, 1), rows, *a);
        return TP_OK;
    }
    TP_LAUNCH_ROWS(regression_loss_rows, rows, cols, c, tp_out_f32(c, 0), tp_in_f32(c, 0), tp_in_f32(c, 1),
                   rows, cols, *a);
    return TP_OK;
}

static tp_status regression_loss_grad_run(const tp_call *c)
{
    const tp_regression_attr *a = static_cast<const tp_regression_attr *>(c->attr);
    const int64_t rows = c->in[0].shape.d[0], n = tp_len(&c->in[0]);

    TP_LAUNCH(regression_loss_grad_map, tp_cuda_blocks(c, n), TP_THREADS, 0, c, tp_out_f32(c, 0),
              tp_in_f32(c, 0), tp_in_f32(c, 1), tp_in_f32(c, 2), n, rows > 0 ? n / rows : 0, *a);
    return TP_OK;
}

static const tp_impl regression_loss_own = {"own", tp_accept_f32, regression_loss_run, nullptr, 0};
static const tp_impl regression_loss_grad_own = {"own", tp_accept_f32, regression_loss_grad_run, nullptr, 0};
TP_CUDA_IMPLS(regression_loss, &regression_loss_own);
TP_CUDA_IMPLS(regression_loss_grad, &regression_loss_grad_own);
