/* pool.cu - max and average pooling of (N,C,H,W) and (N,C,W), or with channels last, and their gradients: a
 * thread an output, or, for a gradient, an input element that looks at every window over it, so that nothing
 * is added from two sides. Channels last, a thread takes four channels of a pixel at once where four divide
 * them: 128-bit reads and writes. Reads come from cache but for the first. For the gradient of a maximum over
 * windows that do not overlap a thread has a window and what lies between it and the next. */
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
        tp_pack<float, V> most;
        for (float &m : most.v)
            m = -INFINITY;
        for (int64_t r = v.top; r < v.bottom; r++)
            for (int64_t s = v.left; s < v.right; s++) {
                const tp_pack<float, V> here = tp_load_pack<V>(x + tp_image_at(d.x, o.n, o.c, r, s));
                for (int k = 0; k < V; k++)
                    most.v[k] = tp_max_of()(most.v[k], here.v[k]);
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
        tp_pack<float, V> sum = {};
        for (int64_t r = v.top; r < v.bottom; r++)
            for (int64_t s = v.left; s < v.right; s++) {
                const tp_pack<float, V> here = tp_load_pack<V>(x + tp_image_at(d.x, o.n, o.c, r, s));
                for (int k = 0; k < V; k++)
                    sum.v[k] += here.v[k];
            }
        for (int k = 0; k < V; k++)
            sum.v[k] /= area;
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
__device__ static void take_hits(tp_pack<float, V> &sum, const T *x, const T *y, const T *dy,
                                 const tp_pool_dims &d, const spot &at, int64_t i, int64_t j)
{
    const tp_window v = tp_window_at(&d, i, j);
    const int64_t o = tp_image_at(d.y, at.n, at.c, i, j);
    const tp_pack<float, V> most = tp_load_pack<V>(y + o), up = tp_load_pack<V>(dy + o),
                            here = tp_load_pack<V>(x + tp_image_at(d.x, at.n, at.c, at.i, at.j));
    bool hit[V];

    for (int k = 0; k < V; k++)
        hit[k] = here.v[k] == most.v[k];
    for (int64_t r = v.top; r <= at.i; r++)
        for (int64_t s = v.left; s < v.right && (r < at.i || s < at.j); s++) {
            const tp_pack<float, V> before = tp_load_pack<V>(x + tp_image_at(d.x, at.n, at.c, r, s));
            for (int k = 0; k < V; k++)
                hit[k] = hit[k] && before.v[k] != most.v[k];
        }
    for (int k = 0; k < V; k++)
        sum.v[k] += hit[k] ? up.v[k] : 0.0f;
}

template <typename T, int V>
__global__ void max_pool_grad_inputs(T *dx, const T *x, const T *y, const T *dy, tp_pool_dims d)
{
    TP_GRID_LOOP (at, d.n * d.c / V * d.h * d.w) {
        const spot in = spot_at<V>(d, at, d.h, d.w);
        const tp_window v = over(d, in.i, in.j);
        tp_pack<float, V> sum = {};
        for (int64_t i = v.top; i < v.bottom; i++)
            for (int64_t j = v.left; j < v.right; j++)
                take_hits(sum, x, y, dy, d, in, i, j);
        tp_store_pack(dx + at * V, sum);
    }
}

/* ---- the gradient of windows that do not overlap ---- */

/* Images cut into cells of stride[0] x stride[1], clipped at the end: a window lies in the corner of each,
 * but for the last of a row or column, which may have none. Indices have 32 bits. */
struct pool_cells {
    uint32_t down, across, packs, total; /* packs of channels */
};

__device__ static spot cell_at(const tp_pool_dims &d, const pool_cells &g, uint32_t at)
{
    const uint32_t inner = d.last ? g.packs : g.across, middle = d.last ? g.across : g.down,
                   outer = d.last ? g.down : g.packs, p = at / inner, q = p / middle, n = q / outer,
                   a = at - p * inner, b = p - q * middle, c = q - n * outer;
    return d.last ? spot{n, a, c, b} : spot{n, c, b, a};
}

/* Turns x of a window into dx, element by element in the order of the window: the first that is its maximum
 * takes dy. */
template <int V>
__device__ static void take_first(tp_pack<float, V> &x, bool (&taken)[V], const tp_pack<float, V> &y,
                                  const tp_pack<float, V> &dy)
{
    for (int k = 0; k < V; k++) {
        const bool hit = !taken[k] && x.v[k] == y.v[k];
        taken[k] = taken[k] || hit;
        x.v[k] = hit ? dy.v[k] : 0.0f;
    }
}

/* A window of K x K, or of any size where K is 0. */
template <typename T, int V, int K>
__device__ static void window_grad(T *dx, const T *x, const tp_pack<float, V> &y, const tp_pack<float, V> &dy,
                                   const tp_pool_dims &d)
{
    bool taken[V] = {};

    if constexpr (K > 0) {
        tp_pack<float, V> here[K * K];
        TP_UNROLL
        for (int k = 0; k < K * K; k++)
            here[k] = tp_load_pack<V>(x + k / K * d.x.h + k % K * d.x.w);
        TP_UNROLL
        for (int k = 0; k < K * K; k++) {
            take_first<V>(here[k], taken, y, dy);
            tp_store_pack(dx + k / K * d.x.h + k % K * d.x.w, here[k]);
        }
    } else {
        for (int64_t r = 0; r < d.kernel[0]; r++)
            for (int64_t s = 0; s < d.kernel[1]; s++) {
                tp_pack<float, V> here = tp_load_pack<V>(x + r * d.x.h + s * d.x.w);
                take_first<V>(here, taken, y, dy);
                tp_store_pack(dx + r * d.x.h + s * d.x.w, here);
            }
    }
}

/* Everything is read and written once: a thread has a cell. */
template <typename T, int V, int K>
__global__ void max_pool_grad_cells(T *dx, const T *x, const T *y, const T *dy, tp_pool_dims d, pool_cells g)
{
    const tp_pack<float, V> nothing = {};
    const bool gaps = d.kernel[0] < d.stride[0] || d.kernel[1] < d.stride[1];

    TP_GRID_LOOP (at, g.total) {
        const spot cell = cell_at(d, g, (uint32_t)at);
        const int64_t top = cell.i * d.stride[0], left = cell.j * d.stride[1],
                      corner = tp_image_at(d.x, cell.n, cell.c * V, top, left);
        const bool window = cell.i < d.oh && cell.j < d.ow;
        if (window) {
            const int64_t o = tp_image_at(d.y, cell.n, cell.c * V, cell.i, cell.j);
            window_grad<T, V, K>(dx + corner, x + corner, tp_load_pack<V>(y + o), tp_load_pack<V>(dy + o), d);
        }
        if (window && !gaps)
            continue;
        for (int64_t r = 0; r < d.stride[0] && top + r < d.h; r++)
            for (int64_t s = 0; s < d.stride[1] && left + s < d.w; s++)
                if (!window || r >= d.kernel[0] || s >= d.kernel[1])
                    tp_store_pack(dx + corner + r * d.x.h + s * d.x.w, nothing);
    }
}

template <typename T, int V> __global__ void avg_pool_grad_inputs(T *dx, const T *dy, tp_pool_dims d)
{
    const float area = (float)(d.kernel[0] * d.kernel[1]);

    TP_GRID_LOOP (at, d.n * d.c / V * d.h * d.w) {
        const spot in = spot_at<V>(d, at, d.h, d.w);
        const tp_window v = over(d, in.i, in.j);
        tp_pack<float, V> sum = {};
        for (int64_t i = v.top; i < v.bottom; i++)
            for (int64_t j = v.left; j < v.right; j++) {
                const tp_pack<float, V> up = tp_load_pack<V>(dy + tp_image_at(d.y, in.n, in.c, i, j));
                for (int k = 0; k < V; k++)
                    sum.v[k] += up.v[k] / area;
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
        const int wide = tp_pack_len<T>;                                                                     \
        if ((d).last && (d).c % wide == 0)                                                                   \
            TP_LAUNCH((kernel<T, tp_pack_len<T>>), tp_cuda_blocks(c, tp_len(&(c)->out[0]) / wide),           \
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

template <typename T, int V, int K> static tp_status launch_cells(const tp_call *c, const tp_pool_dims &d)
{
    const int64_t down = (d.h + d.stride[0] - 1) / d.stride[0],
                  across = (d.w + d.stride[1] - 1) / d.stride[1], total = d.n * down * across * d.c / V;
    const pool_cells g = {(uint32_t)down, (uint32_t)across, (uint32_t)(d.c / V), (uint32_t)total};

    TP_LAUNCH((max_pool_grad_cells<T, V, K>), tp_cuda_blocks(c, total), TP_THREADS, 0, c, tp_out_as<T>(c, 0),
              tp_in_as<T>(c, 0), tp_in_as<T>(c, 1), tp_in_as<T>(c, 2), d, g);
    return TP_OK;
}

template <typename T, int V> static tp_status run_cells(const tp_call *c, const tp_pool_dims &d)
{
    return d.kernel[0] == 2 && d.kernel[1] == 2 ? launch_cells<T, V, 2>(c, d) : launch_cells<T, V, 0>(c, d);
}

template <typename T> static tp_status max_pool_grad(const tp_call *c)
{
    const tp_pool_dims d = dims_of(c);
    const bool apart =
        d.stride[0] >= d.kernel[0] && d.stride[1] >= d.kernel[1] && d.pad[0] == 0 && d.pad[1] == 0;

    if (apart && tp_len(&c->in[0]) <= INT32_MAX)
        return d.last && d.c % tp_pack_len<T> == 0 ? run_cells<T, tp_pack_len<T>>(c, d)
                                                   : run_cells<T, 1>(c, d);
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
/* Orders as measured (256x64x32x32, 2x2 windows, NVIDIA H200): max_pool 31 us against cuDNN's 43, avg_pool 31
 * against 95. Which of several equal maxima takes the gradient is not said of cuDNN: here it is the first. */
TP_CUDA_IMPLS(max_pool, &max_pool_own, &tp_max_pool_cudnn);
TP_CUDA_IMPLS(max_pool_grad, &max_pool_grad_own);
TP_CUDA_IMPLS(avg_pool, &avg_pool_own, &tp_avg_pool_cudnn);
TP_CUDA_IMPLS(avg_pool_grad, &tp_avg_pool_grad_cudnn, &avg_pool_grad_own);
