/* pool.cu - max and average pooling of (N,C,H,W) and (N,C,W), or with channels last, and their gradients: a
 * thread an output, or, for a gradient, an input element that looks at every window over it, so that nothing
 * is added from two sides. Channels last, a thread takes four channels of a pixel at once where four divide
 * them: 128-bit reads and writes. Reads come from cache but for the first. */
#include "kernels/libraries.cuh"
#include "kernels/pack.cuh"
#include "kernels/pool/pool.h"

/* Sample, first channel, row and column of pack `at` of images of h x w. */
struct spot {
    int64_t n, c, i, j;
};

template <int V> __device__ static spot spot_at(const tp_pool_dims &d, int64_t at, int64_t h, int64_t w)
{
    const int64_t packs = d.c / V, n = at / (packs * h * w), rest = at - n * packs * h * w,
                  c = d.last ? rest % packs : rest / (h * w), p = d.last ? rest / packs : rest - c * h * w;
    return {n, c * V, p / w, p % w};
}

/* y = the largest element of its window; NaN wins, and padding never does. */
template <typename T, int V> __global__ void max_pool_windows(T *y, const T *x, tp_pool_dims d)
{
    TP_GRID_LOOP (at, d.n * d.c / V * d.oh * d.ow) {
        const spot o = spot_at<V>(d, at, d.oh, d.ow);
        const tp_window v = tp_window_at(&d, o.i, o.j);
        float most[V];
        for (float &m : most)
            m = -INFINITY;
        for (int64_t r = v.top; r < v.bottom; r++)
            for (int64_t s = v.left; s < v.right; s++) {
                float here[V];
                tp_load_pack(here, x + tp_image_at(d.x, o.n, o.c, r, s));
                for (int k = 0; k < V; k++)
                    most[k] = tp_max_of()(most[k], here[k]);
            }
        tp_store_pack(y + at * V, most);
    }
}

template <typename T, int V> __global__ void avg_pool_windows(T *y, const T *x, tp_pool_dims d)
{
    const float area = (float)(d.kernel[0] * d.kernel[1]);

    TP_GRID_LOOP (at, d.n * d.c / V * d.oh * d.ow) {
        const spot o = spot_at<V>(d, at, d.oh, d.ow);
        const tp_window v = tp_window_at(&d, o.i, o.j);
        float sum[V] = {};
        for (int64_t r = v.top; r < v.bottom; r++)
            for (int64_t s = v.left; s < v.right; s++) {
                float here[V];
                tp_load_pack(here, x + tp_image_at(d.x, o.n, o.c, r, s));
                for (int k = 0; k < V; k++)
                    sum[k] += here[k];
            }
        for (int k = 0; k < V; k++)
            sum[k] /= area;
        tp_store_pack(y + at * V, sum);
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

/* Windows [top, bottom) x [left, right) over pixel (i, j). */
__device__ static tp_window over(const tp_pool_dims &d, int64_t i, int64_t j)
{
    tp_window v;
    windows_over(i, d.kernel[0], d.stride[0], d.pad[0], d.oh, &v.top, &v.bottom);
    windows_over(j, d.kernel[1], d.stride[1], d.pad[1], d.ow, &v.left, &v.right);
    return v;
}

/* Adds dy of window (i, j) to sum where pixel `at` is the first of the window, row by row, that is its
 * maximum. */
template <typename T, int V>
__device__ static void take_hits(float (&sum)[V], const T *x, const T *y, const T *dy, const tp_pool_dims &d,
                                 const spot &at, int64_t i, int64_t j)
{
    const tp_window v = tp_window_at(&d, i, j);
    const int64_t o = tp_image_at(d.y, at.n, at.c, i, j);
    float most[V], here[V], up[V];
    bool hit[V];

    tp_load_pack(most, y + o);
    tp_load_pack(here, x + tp_image_at(d.x, at.n, at.c, at.i, at.j));
    tp_load_pack(up, dy + o);
    for (int k = 0; k < V; k++)
        hit[k] = here[k] == most[k];
    for (int64_t r = v.top; r <= at.i; r++)
        for (int64_t s = v.left; s < v.right && (r < at.i || s < at.j); s++) {
            float before[V];
            tp_load_pack(before, x + tp_image_at(d.x, at.n, at.c, r, s));
            for (int k = 0; k < V; k++)
                hit[k] = hit[k] && before[k] != most[k];
        }
    for (int k = 0; k < V; k++)
        sum[k] += hit[k] ? up[k] : 0.0f;
}

template <typename T, int V>
__global__ void max_pool_grad_inputs(T *dx, const T *x, const T *y, const T *dy, tp_pool_dims d)
{
    TP_GRID_LOOP (at, d.n * d.c / V * d.h * d.w) {
        const spot in = spot_at<V>(d, at, d.h, d.w);
        const tp_window v = over(d, in.i, in.j);
        float sum[V] = {};
        for (int64_t i = v.top; i < v.bottom; i++)
            for (int64_t j = v.left; j < v.right; j++)
                take_hits(sum, x, y, dy, d, in, i, j);
        tp_store_pack(dx + at * V, sum);
    }
}

template <typename T, int V> __global__ void avg_pool_grad_inputs(T *dx, const T *dy, tp_pool_dims d)
{
    const float area = (float)(d.kernel[0] * d.kernel[1]);

    TP_GRID_LOOP (at, d.n * d.c / V * d.h * d.w) {
        const spot in = spot_at<V>(d, at, d.h, d.w);
        const tp_window v = over(d, in.i, in.j);
        float sum[V] = {};
        for (int64_t i = v.top; i < v.bottom; i++)
            for (int64_t j = v.left; j < v.right; j++) {
                float up[V];
                tp_load_pack(up, dy + tp_image_at(d.y, in.n, in.c, i, j));
                for (int k = 0; k < V; k++)
                    sum[k] += up[k] / area;
            }
        tp_store_pack(dx + at * V, sum);
    }
}

static tp_pool_dims dims_of(const tp_call *c)
{
    return tp_pool_dims_of(c->in[0].shape, static_cast<const tp_pool_attr *>(c->attr));
}

/* As many channels at once as 16 bytes hold, or one element. */
#define LAUNCH(kernel, T, c, d, ...)                                                                         \
    do {                                                                                                     \
        const int wide = tp_wide<T>::N;                                                                      \
        if ((d).last && (d).c % wide == 0)                                                                   \
            TP_LAUNCH((kernel<T, tp_wide<T>::N>), tp_cuda_blocks(c, tp_len(&(c)->out[0]) / wide),            \
                      TP_THREADS, 0, c, __VA_ARGS__, d);                                                     \
        else                                                                                                 \
            TP_LAUNCH((kernel<T, 1>), tp_cuda_blocks(c, tp_len(&(c)->out[0])), TP_THREADS, 0, c,             \
                      __VA_ARGS__, d);                                                                       \
    } while (0)

template <typename T> static tp_status max_pool(const tp_call *c)
{
    const tp_pool_dims d = dims_of(c);
    LAUNCH(max_pool_windows, T, c, d, tp_out_as<T>(c, 0), tp_in_as<T>(c, 0));
    return TP_OK;
}

template <typename T> static tp_status avg_pool(const tp_call *c)
{
    const tp_pool_dims d = dims_of(c);
    LAUNCH(avg_pool_windows, T, c, d, tp_out_as<T>(c, 0), tp_in_as<T>(c, 0));
    return TP_OK;
}

template <typename T> static tp_status max_pool_grad(const tp_call *c)
{
    const tp_pool_dims d = dims_of(c);
    LAUNCH(max_pool_grad_inputs, T, c, d, tp_out_as<T>(c, 0), tp_in_as<T>(c, 0), tp_in_as<T>(c, 1),
           tp_in_as<T>(c, 2));
    return TP_OK;
}

template <typename T> static tp_status avg_pool_grad(const tp_call *c)
{
    const tp_pool_grad_attr *a = static_cast<const tp_pool_grad_attr *>(c->attr);
    const tp_pool_dims d = tp_pool_dims_of(a->shape, &a->pool);
    LAUNCH(avg_pool_grad_inputs, T, c, d, tp_out_as<T>(c, 0), tp_in_as<T>(c, 0));
    return TP_OK;
}

#define STORED(name)                                                                                         \
    static tp_status name##_run(const tp_call *c)                                                            \
    {                                                                                                        \
        return TP_AS_STORED(name, c);                                                                        \
    }                                                                                                        \
    static const tp_impl name##_own = {"own", tp_accept_stored, name##_run, nullptr, 0};
STORED(max_pool)
STORED(max_pool_grad)
STORED(avg_pool)
STORED(avg_pool_grad)
TP_CUDA_IMPLS(max_pool, &tp_max_pool_cudnn, &max_pool_own);
/* Which of several equal maxima takes the gradient is not said of the library: here it is the first. */
TP_CUDA_IMPLS(max_pool_grad, &max_pool_grad_own);
TP_CUDA_IMPLS(avg_pool, &tp_avg_pool_cudnn, &avg_pool_own);
TP_CUDA_IMPLS(avg_pool_grad, &tp_avg_pool_grad_cudnn, &avg_pool_grad_own);
