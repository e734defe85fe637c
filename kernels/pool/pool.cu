/* pool.cu - max and average pooling of (N,C,H,W) and (N,C,W), and their gradients: a thread an output, or,
 * for a gradient, an input element that looks at every window over it, so that nothing is added from two
 * sides. Reads come from cache but for the first. */
#include "kernels/cuda.cuh"
#include "kernels/pool/pool.h"

/* y = the largest element of its window; NaN wins, and padding never does. */
__global__ void max_pool_windows(float *y, const float *x, tp_pool_dims d)
{
    TP_GRID_LOOP (at, d.planes * d.oh * d.ow) {
        const int64_t p = at / (d.oh * d.ow), rest = at - p * d.oh * d.ow, i = rest / d.ow;
        const tp_window v = tp_window_at(&d, i, rest - i * d.ow);
        float most = -INFINITY;
        for (int64_t r = v.top; r < v.bottom; r++)
            for (int64_t s = v.left; s < v.right; s++)
                most = tp_max_of()(most, x[(p * d.h + r) * d.w + s]);
        y[at] = most;
    }
}

__global__ void avg_pool_windows(float *y, const float *x, tp_pool_dims d)
{
    const float area = (float)(d.kernel[0] * d.kernel[1]);

    TP_GRID_LOOP (at, d.planes * d.oh * d.ow) {
        const int64_t p = at / (d.oh * d.ow), rest = at - p * d.oh * d.ow, i = rest / d.ow;
        const tp_window v = tp_window_at(&d, i, rest - i * d.ow);
        float sum = 0.0f;
        for (int64_t r = v.top; r < v.bottom; r++)
            for (int64_t s = v.left; s < v.right; s++)
                sum += x[(p * d.h + r) * d.w + s];
        y[at] = sum / area;
    }
}

/* Windows [first, last) of one dimension that hold position `at`. */
__device__ static void windows_over(int64_t at, int64_t kernel, int64_t stride, int64_t pad, int64_t count,
                                    int64_t *first, int64_t *last)
{
    const int64_t from = at + pad - kernel + 1;
    *first = from > 0 ? (from + stride - 1) / stride : 0;
    *last = (at + pad) / stride + 1 < count ? (at + pad) / stride + 1 : count;
}

/* 1 if (row, col) is the first element of window (i, j), row by row, that equals its maximum. */
__device__ static bool is_hit(const float *plane, float most, const tp_pool_dims &d, int64_t i, int64_t j,
                              int64_t row, int64_t col)
{
    const tp_window v = tp_window_at(&d, i, j);
    for (int64_t r = v.top; r <= row; r++)
        for (int64_t s = v.left; s < v.right && (r < row || s < col); s++)
            if (plane[r * d.w + s] == most)
                return false;
    return plane[row * d.w + col] == most;
}

__global__ void max_pool_grad_inputs(float *dx, const float *x, const float *y, const float *dy,
                                     tp_pool_dims d)
{
    TP_GRID_LOOP (at, d.planes * d.h * d.w) {
        const int64_t p = at / (d.h * d.w), rest = at - p * d.h * d.w, row = rest / d.w,
                      col = rest - row * d.w;
        int64_t top, bottom, left, right;
        float sum = 0.0f;
        windows_over(row, d.kernel[0], d.stride[0], d.pad[0], d.oh, &top, &bottom);
        windows_over(col, d.kernel[1], d.stride[1], d.pad[1], d.ow, &left, &right);
        for (int64_t i = top; i < bottom; i++)
            for (int64_t j = left; j < right; j++) {
                const int64_t o = (p * d.oh + i) * d.ow + j;
                if (is_hit(x + p * d.h * d.w, y[o], d, i, j, row, col))
                    sum += dy[o];
            }
        dx[at] = sum;
    }
}

__global__ void avg_pool_grad_inputs(float *dx, const float *dy, tp_pool_dims d)
{
    const float area = (float)(d.kernel[0] * d.kernel[1]);

    TP_GRID_LOOP (at, d.planes * d.h * d.w) {
        const int64_t p = at / (d.h * d.w), rest = at - p * d.h * d.w, row = rest / d.w,
                      col = rest - row * d.w;
        int64_t top, bottom, left, right;
        float sum = 0.0f;
        windows_over(row, d.kernel[0], d.stride[0], d.pad[0], d.oh, &top, &bottom);
        windows_over(col, d.kernel[1], d.stride[1], d.pad[1], d.ow, &left, &right);
        for (int64_t i = top; i < bottom; i++)
            for (int64_t j = left; j < right; j++)
                sum += dy[(p * d.oh + i) * d.ow + j] / area;
        dx[at] = sum;
    }
}

static tp_pool_dims dims_of(const tp_call *c)
{
    return tp_pool_dims_of(c->in[0].shape, static_cast<const tp_pool_attr *>(c->attr));
}

static tp_status max_pool_run(const tp_call *c)
{
    TP_LAUNCH(max_pool_windows, tp_cuda_blocks(c, tp_len(&c->out[0])), TP_THREADS, 0, c, tp_out_f32(c, 0),
              tp_in_f32(c, 0), dims_of(c));
    return TP_OK;
}

static tp_status avg_pool_run(const tp_call *c)
{
    TP_LAUNCH(avg_pool_windows, tp_cuda_blocks(c, tp_len(&c->out[0])), TP_THREADS, 0, c, tp_out_f32(c, 0),
              tp_in_f32(c, 0), dims_of(c));
    return TP_OK;
}

static tp_status max_pool_grad_run(const tp_call *c)
{
    TP_LAUNCH(max_pool_grad_inputs, tp_cuda_blocks(c, tp_len(&c->out[0])), TP_THREADS, 0, c, tp_out_f32(c, 0),
              tp_in_f32(c, 0), tp_in_f32(c, 1), tp_in_f32(c, 2), dims_of(c));
    return TP_OK;
}

static tp_status avg_pool_grad_run(const tp_call *c)
{
    const tp_pool_grad_attr *a = static_cast<const tp_pool_grad_attr *>(c->attr);
    TP_LAUNCH(avg_pool_grad_inputs, tp_cuda_blocks(c, tp_len(&c->out[0])), TP_THREADS, 0, c, tp_out_f32(c, 0),
              tp_in_f32(c, 0), tp_pool_dims_of(a->shape, &a->pool));
    return TP_OK;
}

static const tp_impl max_pool_own = {"own", tp_accept_f32, max_pool_run, nullptr, 0};
static const tp_impl max_pool_grad_own = {"own", tp_accept_f32, max_pool_grad_run, nullptr, 0};
static const tp_impl avg_pool_own = {"own", tp_accept_f32, avg_pool_run, nullptr, 0};
static const tp_impl avg_pool_grad_own = {"own", tp_accept_f32, avg_pool_grad_run, nullptr, 0};
TP_CUDA_IMPLS(max_pool, &max_pool_own);
TP_CUDA_IMPLS(max_pool_grad, &max_pool_grad_own);
TP_CUDA_IMPLS(avg_pool, &avg_pool_own);
TP_CUDA_IMPLS(avg_pool_grad, &avg_pool_grad_own);
