/* pool.cu - max and average pooling of (N,C,H,W) and (N,C,W), or with channels last, and their gradients: a
 * thread an output, or, for a gradient, an input element that looks at every window over it, so that nothing
 * is added from two sides. Channels last, a thread takes four channels of a pixel at once where four divide
 * them: 128-bit reads and writes. Reads come from cache but for the first. */
#include "kernels/libraries.cuh"
#include "kernels/pool/pool.h"

/* V elements that lie side by side. */
template <int V> struct alignas(4 * V) pack {
    float v[V];
};

template <int V> __device__ static pack<V> load(const float *from)
{
    return *reinterpret_cast<const pack<V> *>(from);
}

template <int V> __device__ static void store(float *to, const pack<V> &p)
{
    *reinterpret_cast<pack<V> *>(to) = p;
}

template <int V> __device__ static pack<V> filled(float v)
{
    pack<V> p;
    for (float &e : p.v)
        e = v;
    return p;
}

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
template <int V> __global__ void max_pool_windows(float *y, const float *x, tp_pool_dims d)
{
    TP_GRID_LOOP (at, d.n * d.c / V * d.oh * d.ow) {
        const spot o = spot_at<V>(d, at, d.oh, d.ow);
        const tp_window v = tp_window_at(&d, o.i, o.j);
        pack<V> most = filled<V>(-INFINITY);
        for (int64_t r = v.top; r < v.bottom; r++)
            for (int64_t s = v.left; s < v.right; s++) {
                const pack<V> here = load<V>(x + tp_image_at(d.x, o.n, o.c, r, s));
                for (int k = 0; k < V; k++)
                    most.v[k] = tp_max_of()(most.v[k], here.v[k]);
            }
        store<V>(y + at * V, most);
    }
}

template <int V> __global__ void avg_pool_windows(float *y, const float *x, tp_pool_dims d)
{
    const float area = (float)(d.kernel[0] * d.kernel[1]);

    TP_GRID_LOOP (at, d.n * d.c / V * d.oh * d.ow) {
        const spot o = spot_at<V>(d, at, d.oh, d.ow);
        const tp_window v = tp_window_at(&d, o.i, o.j);
        pack<V> sum = filled<V>(0.0f);
        for (int64_t r = v.top; r < v.bottom; r++)
            for (int64_t s = v.left; s < v.right; s++) {
                const pack<V> here = load<V>(x + tp_image_at(d.x, o.n, o.c, r, s));
                for (int k = 0; k < V; k++)
                    sum.v[k] += here.v[k];
            }
        for (int k = 0; k < V; k++)
            sum.v[k] /= area;
        store<V>(y + at * V, sum);
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
template <int V>
__device__ static void take_hits(pack<V> &sum, const float *x, const float *y, const float *dy,
                                 const tp_pool_dims &d, const spot &at, int64_t i, int64_t j)
{
    const tp_window v = tp_window_at(&d, i, j);
    const int64_t o = tp_image_at(d.y, at.n, at.c, i, j);
    const pack<V> most = load<V>(y + o), here = load<V>(x + tp_image_at(d.x, at.n, at.c, at.i, at.j));
    bool hit[V];

    for (int k = 0; k < V; k++)
        hit[k] = here.v[k] == most.v[k];
    for (int64_t r = v.top; r <= at.i; r++)
        for (int64_t s = v.left; s < v.right && (r < at.i || s < at.j); s++) {
            const pack<V> before = load<V>(x + tp_image_at(d.x, at.n, at.c, r, s));
            for (int k = 0; k < V; k++)
                hit[k] = hit[k] && before.v[k] != most.v[k];
        }
    const pack<V> up = load<V>(dy + o);
    for (int k = 0; k < V; k++)
        sum.v[k] += hit[k] ? up.v[k] : 0.0f;
}

template <int V>
__global__ void max_pool_grad_inputs(float *dx, const float *x, const float *y, const float *dy,
                                     tp_pool_dims d)
{
    TP_GRID_LOOP (at, d.n * d.c / V * d.h * d.w) {
        const spot in = spot_at<V>(d, at, d.h, d.w);
        const tp_window v = over(d, in.i, in.j);
        pack<V> sum = filled<V>(0.0f);
        for (int64_t i = v.top; i < v.bottom; i++)
            for (int64_t j = v.left; j < v.right; j++)
                take_hits<V>(sum, x, y, dy, d, in, i, j);
        store<V>(dx + at * V, sum);
    }
}

template <int V> __global__ void avg_pool_grad_inputs(float *dx, const float *dy, tp_pool_dims d)
{
    const float area = (float)(d.kernel[0] * d.kernel[1]);

    TP_GRID_LOOP (at, d.n * d.c / V * d.h * d.w) {
        const spot in = spot_at<V>(d, at, d.h, d.w);
        const tp_window v = over(d, in.i, in.j);
        pack<V> sum = filled<V>(0.0f);
        for (int64_t i = v.top; i < v.bottom; i++)
            for (int64_t j = v.left; j < v.right; j++) {
                const pack<V> up = load<V>(dy + tp_image_at(d.y, in.n, in.c, i, j));
                for (int k = 0; k < V; k++)
                    sum.v[k] += up.v[k] / area;
            }
        store<V>(dx + at * V, sum);
    }
}

static tp_pool_dims dims_of(const tp_call *c)
{
    return tp_pool_dims_of(c->in[0].shape, static_cast<const tp_pool_attr *>(c->attr));
}

/* Four channels at once, or one element. */
#define LAUNCH(kernel, c, d, ...)                                                                            \
    do {                                                                                                     \
        if ((d).last && (d).c % 4 == 0)                                                                      \
            TP_LAUNCH(kernel<4>, tp_cuda_blocks(c, tp_len(&(c)->out[0]) / 4), TP_THREADS, 0, c, __VA_ARGS__, \
                      d);                                                                                    \
        else                                                                                                 \
            TP_LAUNCH(kernel<1>, tp_cuda_blocks(c, tp_len(&(c)->out[0])), TP_THREADS, 0, c, __VA_ARGS__, d); \
    } while (0)

static tp_status max_pool_run(const tp_call *c)
{
    const tp_pool_dims d = dims_of(c);
    LAUNCH(max_pool_windows, c, d, tp_out_f32(c, 0), tp_in_f32(c, 0));
    return TP_OK;
}

static tp_status avg_pool_run(const tp_call *c)
{
    const tp_pool_dims d = dims_of(c);
    LAUNCH(avg_pool_windows, c, d, tp_out_f32(c, 0), tp_in_f32(c, 0));
    return TP_OK;
}

static tp_status max_pool_grad_run(const tp_call *c)
{
    const tp_pool_dims d = dims_of(c);
    LAUNCH(max_pool_grad_inputs, c, d, tp_out_f32(c, 0), tp_in_f32(c, 0), tp_in_f32(c, 1), tp_in_f32(c, 2));
    return TP_OK;
}

static tp_status avg_pool_grad_run(const tp_call *c)
{
    const tp_pool_grad_attr *a = static_cast<const tp_pool_grad_attr *>(c->attr);
    const tp_pool_dims d = tp_pool_dims_of(a->shape, &a->pool);
    LAUNCH(avg_pool_grad_inputs, c, d, tp_out_f32(c, 0), tp_in_f32(c, 0));
    return TP_OK;
}

static const tp_impl max_pool_own = {"own", tp_accept_f32, max_pool_run, nullptr, 0};
static const tp_impl max_pool_grad_own = {"own", tp_accept_f32, max_pool_grad_run, nullptr, 0};
static const tp_impl avg_pool_own = {"own", tp_accept_f32, avg_pool_run, nullptr, 0};
static const tp_impl avg_pool_grad_own = {"own", tp_accept_f32, avg_pool_grad_run, nullptr, 0};
TP_CUDA_IMPLS(max_pool, &tp_max_pool_cudnn, &max_pool_own);
/* Which of several equal maxima takes the gradient is not said of the library: here it is the first. */
TP_CUDA_IMPLS(max_pool_grad, &max_pool_grad_own);
TP_CUDA_IMPLS(avg_pool, &tp_avg_pool_cudnn, &avg_pool_own);
TP_CUDA_IMPLS(avg_pool_grad, &tp_avg_pool_grad_cudnn, &avg_pool_grad_own);
