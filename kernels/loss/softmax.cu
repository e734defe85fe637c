/* softmax.cu - softmax and log_softmax over the last dimension and their gradients: a team of threads a row
 * (rows.cuh). Rows of up to 8192 columns are read once and written once. */
#include "kernels/loss/softmax.cuh"

template <typename R> __global__ void softmax_rows(float *y, const float *x, int64_t rows, int cols)
{
    TP_ROWS (R, i, rows) {
        const float *row = x + i * cols;
        R v;
        const float most = tp_row_max(v, row, cols), scale = 1.0f / tp_row_exp_sum<true>(v, row, cols, most);
        TP_PIECES (R, first, cols) {
            tp_row_exp_again(v, row, first, cols, most);
            TP_ELEMENTS (R, j, e)
                v.v[j][e] *= scale;
            v.store(y + i * cols, first, cols);
        }
    }
}

template <typename R> __global__ void log_softmax_rows(float *y, const float *x, int64_t rows, int cols)
{
    TP_ROWS (R, i, rows) {
        const float *row = x + i * cols;
        R v;
        const float most = tp_row_max(v, row, cols),
                    log_sum = tp_logf(tp_row_exp_sum<false>(v, row, cols, most));
        TP_PIECES (R, first, cols) {
            v.load_again(row, first, cols, 0.0f);
            TP_ELEMENTS (R, j, e)
                v.v[j][e] = v.v[j][e] - most - log_sum;
            v.store(y + i * cols, first, cols);
        }
    }
}

/* dx = y (dy - <y, dy>) */
template <typename R>
__global__ void softmax_grad_rows(float *dx, const float *y, const float *dy, int64_t rows, int cols)
{
    TP_ROWS (R, i, rows) {
        R p, g;
        typename R::total dot = 0;
        TP_PIECES (R, first, cols) {
            float part = 0.0f;
            p.load(y + i * cols, first, cols, 0.0f);
            g.load(dy + i * cols, first, cols, 0.0f);
            TP_ELEMENTS (R, j, e)
                part = fmaf(p.v[j][e], g.v[j][e], part);
            dot += part;
        }
        const float less = (float)R::team::sum(dot);
        TP_PIECES (R, first, cols) {
            p.load_again(y + i * cols, first, cols, 0.0f);
            g.load_again(dy + i * cols, first, cols, 0.0f);
            TP_ELEMENTS (R, j, e)
                p.v[j][e] *= g.v[j][e] - less;
            p.store(dx + i * cols, first, cols);
        }
    }
}

/* dx = dy - e^y sum(dy) */
template <typename R>
__global__ void log_softmax_grad_rows(float *dx, const float *y, const float *dy, int64_t rows, int cols)
{
    TP_ROWS (R, i, rows) {
        R l, g;
        typename R::total sum = 0;
        TP_PIECES (R, first, cols) {
            float part = 0.0f;
            g.load(dy + i * cols, first, cols, 0.0f);
            l.load(y + i * cols, first, cols, 0.0f);
            TP_ELEMENTS (R, j, e)
                part += g.v[j][e];
            sum += part;
        }
        const float all = (float)R::team::sum(sum);
        TP_PIECES (R, first, cols) {
            g.load_again(dy + i * cols, first, cols, 0.0f);
            l.load_again(y + i * cols, first, cols, 0.0f);
            TP_ELEMENTS (R, j, e)
                g.v[j][e] = fmaf(-tp_expf(l.v[j][e]), all, g.v[j][e]);
            g.store(dx + i * cols, first, cols);
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
    TP_LAUNCH_HELD_ROWS(softmax_rows, rows_of(c), columns_of(c), columns_of(c) % 4 == 0, c, tp_out_f32(c, 0),
                        tp_in_f32(c, 0), rows_of(c), (int)columns_of(c));
    return TP_OK;
}

static tp_status log_softmax_run(const tp_call *c)
{
    TP_LAUNCH_HELD_ROWS(log_softmax_rows, rows_of(c), columns_of(c), columns_of(c) % 4 == 0, c,
                        tp_out_f32(c, 0), tp_in_f32(c, 0), rows_of(c), (int)columns_of(c));
    return TP_OK;
}

static tp_status softmax_grad_run(const tp_call *c)
{
    TP_LAUNCH_HELD_ROWS(softmax_grad_rows, rows_of(c), columns_of(c), columns_of(c) % 4 == 0, c,
                        tp_out_f32(c, 0), tp_in_f32(c, 0), tp_in_f32(c, 1), rows_of(c), (int)columns_of(c));
    return TP_OK;
}

static tp_status log_softmax_grad_run(const tp_call *c)
{
    TP_LAUNCH_HELD_ROWS(log_softmax_grad_rows, rows_of(c), columns_of(c), columns_of(c) % 4 == 0, c,
                        tp_out_f32(c, 0), tp_in_f32(c, 0), tp_in_f32(c, 1), rows_of(c), (int)columns_of(c));
    return TP_OK;
}

static const tp_impl softmax_own = {"own", tp_accept_rows, softmax_run, nullptr, 0};
static const tp_impl softmax_grad_own = {"own", tp_accept_rows, softmax_grad_run, nullptr, 0};
static const tp_impl log_softmax_own = {"own", tp_accept_rows, log_softmax_run, nullptr, 0};
static const tp_impl log_softmax_grad_own = {"own", tp_accept_rows, log_softmax_grad_run, nullptr, 0};
TP_CUDA_IMPLS(softmax, &softmax_own);
TP_CUDA_IMPLS(softmax_grad, &softmax_grad_own);
TP_CUDA_IMPLS(log_softmax, &log_softmax_own);
TP_CUDA_IMPLS(log_softmax_grad, &log_softmax_grad_own);
