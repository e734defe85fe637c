/* conv.cu - convolution and its two gradients, 1-D and 2-D, with stride, padding, dilation and groups,
 * channels first or last. Without groups as a product of matrices that are never written down (own_tile, see
 * tile.cuh): pixels by filters for the output, pixels by channels for the input gradient (the other way round
 * where channels come first, so that neighbours in a row are neighbours in memory), and filters by taps for
 * the weight gradient, whose long sum over pixels is cut into parts. With groups (own) a thread makes an
 * output, and a block a weight of the weight gradient. */
#include "kernels/conv/conv.h"
#include "kernels/conv/few_channels.cuh"
#include "kernels/libraries.cuh"
#include "kernels/linear/activation.h"
#include "kernels/linear/tile.cuh"

/* ---- what the matrices hold ---- */

/* Pixel p of images of h x w. */
struct pixel {
    int64_t n, i, j;
};

__device__ static pixel pixel_at(int64_t p, int64_t h, int64_t w)
{
    const int64_t n = p / (h * w), rest = p - n * h * w, i = rest / w;
    return {n, i, rest - i * w};
}

/* Filter i, a row of taps. */
template <typename T> struct weight_rows {
    const T *w;
    int64_t taps;
    int along_k;
    __device__ float operator()(int64_t i, int64_t k, int64_t z) const
    {
        (void)z;
        return tp_load(w, i * taps + k);
    }
};

/* x under tap k of output pixel j, zero in the padding */
template <typename T> struct input_pixels {
    const T *x;
    tp_conv_dims d;
    int along_k;
    __device__ float operator()(int64_t j, int64_t k, int64_t z) const
    {
        (void)z;
        const pixel p = pixel_at(j, d.oh, d.ow);
        const tp_conv_tap t = tp_conv_tap_at(&d, d.c, k);
        const int64_t row = p.i * d.stride[0] - d.pad[0] + t.r * d.dilation[0],
                      col = p.j * d.stride[1] - d.pad[1] + t.s * d.dilation[1];
        return row >= 0 && row < d.h && col >= 0 && col < d.w
                   ? tp_load(x, tp_image_at(d.x, p.n, t.c, row, col))
                   : 0.0f;
    }
};

/* The same with the roles exchanged: rows are taps, k are pixels. */
template <typename T> struct input_taps {
    input_pixels<T> of;
    int along_k;
    __device__ float operator()(int64_t j, int64_t k, int64_t z) const
    {
        return of(k, j, z);
    }
};

/* dy of filter m at pixel k */
template <typename T> struct output_rows {
    const T *dy;
    tp_conv_dims d;
    int along_k;
    __device__ float operator()(int64_t m, int64_t k, int64_t z) const
    {
        (void)z;
        const pixel p = pixel_at(k, d.oh, d.ow);
        return tp_load(dy, tp_image_at(d.y, p.n, m, p.i, p.j));
    }
};

/* w of channel i under k, a tap over the filters */
template <typename T> struct weight_channels {
    const T *w;
    tp_conv_dims d;
    int along_k;
    __device__ float operator()(int64_t i, int64_t k, int64_t z) const
    {
        (void)z;
        const tp_conv_tap t = tp_conv_tap_at(&d, d.m, k);
        return tp_load(w, tp_image_at(d.f, t.c, i, t.r, t.s));
    }
};

/* dy where tap k over the filters lies on input pixel j, zero where it lies on none */
template <typename T> struct output_under_tap {
    const T *dy;
    tp_conv_dims d;
    int along_k;
    __device__ float at(pixel p, tp_conv_tap t) const
    {
        const int64_t i = p.i + d.pad[0] - t.r * d.dilation[0], o = p.j + d.pad[1] - t.s * d.dilation[1];
        if (i < 0 || o < 0 || i % d.stride[0] != 0 || o % d.stride[1] != 0 || i / d.stride[0] >= d.oh ||
            o / d.stride[1] >= d.ow)
            return 0.0f;
        return tp_load(dy, tp_image_at(d.y, p.n, t.c, i / d.stride[0], o / d.stride[1]));
    }
    __device__ float operator()(int64_t j, int64_t k, int64_t z) const
    {
        (void)z;
        return at(pixel_at(j, d.h, d.w), tp_conv_tap_at(&d, d.m, k));
    }
};

/* Channel c of pixel p, each row and column of a product being one of them. */
template <typename T> struct image_store {
    static const bool SUMS = false;
    T *y;
    const float *bias;
    int64_t channels, pixels; /* of an image */
    int last;
    tp_activation act;
    __device__ void operator()(int64_t i, int64_t j, int64_t z, float v) const
    {
        (void)z;
        const int64_t p = last ? i : j, c = last ? j : i, n = p / pixels;
        tp_store(y, last ? p * channels + c : (n * channels + c) * pixels + p - n * pixels,
                 tp_activate_f32(bias != nullptr ? v + bias[c] : v, act));
    }
};

template <typename T> struct weight_store {
    static const bool SUMS = false;
    T *dw;
    int64_t taps;
    __device__ void operator()(int64_t i, int64_t j, int64_t z, float v) const
    {
        (void)z;
        tp_store(dw, i * taps + j, v);
    }
};

/* ---- own_tile ---- */

static tp_conv_dims forward_dims(const tp_call *c)
{
    return tp_conv_dims_of(c->in[0].shape, c->in[1].shape, *static_cast<const tp_conv_attr *>(c->attr));
}

static tp_conv_dims input_grad_dims(const tp_call *c)
{
    const tp_conv_grad_attr *a = static_cast<const tp_conv_grad_attr *>(c->attr);
    return tp_conv_dims_of(a->shape, c->in[0].shape, a->conv);
}

static tp_conv_dims weight_grad_dims(const tp_call *c)
{
    const tp_conv_grad_attr *a = static_cast<const tp_conv_grad_attr *>(c->attr);
    return tp_conv_dims_of(c->in[0].shape, a->shape, a->conv);
}

static tp_tile_shape with_parts(tp_tile_shape s)
{
    s.parts = s.rows * s.cols > 0 ? tp_tile_parts(s.rows, s.cols, s.depth, 1) : 1;
    return s;
}

/* Channels by pixels, or pixels by channels. */
static tp_tile_shape image_shape(tp_conv_dims d, int64_t channels, int64_t pixels, int64_t depth)
{
    return with_parts({d.last ? pixels : channels, d.last ? channels : pixels, depth, 1, 1});
}

static tp_tile_shape forward_shape(tp_conv_dims d)
{
    return image_shape(d, d.m, d.n * d.oh * d.ow, d.c * d.kh * d.kw);
}

static tp_tile_shape input_grad_shape(tp_conv_dims d)
{
    return image_shape(d, d.c, d.n * d.h * d.w, d.m * d.kh * d.kw);
}

static tp_tile_shape weight_grad_shape(tp_conv_dims d)
{
    return with_parts({d.m, d.c * d.kh * d.kw, d.n * d.oh * d.ow, 1, 1});
}

static tp_status tile_prepare(tp_call *c, size_t *scratch, tp_conv_dims d, tp_tile_shape s)
{
    TP_TRY(tp_accept_stored(c, scratch));
    TP_CHECK(d.groups == 1, TP_EUNSUP, "%lld groups", (long long)d.groups);
    *scratch = tp_tile_scratch(&s, 0);
    return TP_OK;
}

static tp_status conv_tile_prepare(tp_call *c, size_t *scratch)
{
    const tp_conv_dims d = forward_dims(c);
    return tile_prepare(c, scratch, d, forward_shape(d));
}

static tp_status conv_input_grad_tile_prepare(tp_call *c, size_t *scratch)
{
    const tp_conv_dims d = input_grad_dims(c);
    return tile_prepare(c, scratch, d, input_grad_shape(d));
}

static tp_status conv_weight_grad_tile_prepare(tp_call *c, size_t *scratch)
{
    const tp_conv_dims d = weight_grad_dims(c);
    return tile_prepare(c, scratch, d, weight_grad_shape(d));
}

static const float *bias_of(const tp_call *c)
{
    return c->n_in > 2 && c->in[2].dtype != TP_DTYPE_NONE ? tp_in_f32(c, 2) : nullptr;
}

template <typename T> static tp_status conv_tile(const tp_call *c)
{
    const tp_conv_dims d = forward_dims(c);
    const weight_rows<T> w = {tp_in_as<T>(c, 1), d.c * d.kh * d.kw, 1};
    const input_pixels<T> x = {tp_in_as<T>(c, 0), d, d.last};
    const image_store<T> y = {
        tp_out_as<T>(c, 0), bias_of(c), d.m,
        d.oh * d.ow,        d.last,     static_cast<const tp_conv_attr *>(c->attr)->act};
    return d.last ? tp_tile_run(c, x, w, y, forward_shape(d)) : tp_tile_run(c, w, x, y, forward_shape(d));
}

static tp_status conv_tile_run(const tp_call *c)
{
    return TP_AS_STORED(conv_tile, c);
}

template <typename T> static tp_status conv_input_grad_tile(const tp_call *c)
{
    const tp_conv_dims d = input_grad_dims(c);
    const weight_channels<T> w = {tp_in_as<T>(c, 0), d, !d.last};
    const output_under_tap<T> dy = {tp_in_as<T>(c, 1), d, d.last};
    const image_store<T> dx = {tp_out_as<T>(c, 0), nullptr, d.c, d.h * d.w, d.last, TP_ACT_NONE};
    return d.last ? tp_tile_run(c, dy, w, dx, input_grad_shape(d))
                  : tp_tile_run(c, w, dy, dx, input_grad_shape(d));
}

static tp_status conv_input_grad_tile_run(const tp_call *c)
{
    return TP_AS_STORED(conv_input_grad_tile, c);
}

template <typename T> static tp_status conv_weight_grad_tile(const tp_call *c)
{
    const tp_conv_dims d = weight_grad_dims(c);
    const output_rows<T> dy = {tp_in_as<T>(c, 1), d, !d.last};
    const input_taps<T> x = {{tp_in_as<T>(c, 0), d, d.last}, !d.last};
    const weight_store<T> dw = {tp_out_as<T>(c, 0), d.c * d.kh * d.kw};
    return tp_tile_run(c, dy, x, dw, weight_grad_shape(d));
}

static tp_status conv_weight_grad_tile_run(const tp_call *c)
{
    return TP_AS_STORED(conv_weight_grad_tile, c);
}

/* ---- own: any groups ---- */

/* Channel and pixel of element `at` of images as they lie in memory. */
struct place {
    pixel p;
    int64_t c;
};

__device__ static place place_at(int64_t at, int64_t channels, int64_t h, int64_t w, int last)
{
    const int64_t image = at / (h * w * channels), rest = at - image * h * w * channels;
    const int64_t c = last ? rest % channels : rest / (h * w), p = last ? rest / channels : rest - c * h * w;
    return {{image, p / w, p % w}, c};
}

template <typename T>
__global__ void conv_direct(T *y, const T *x, const T *w, const float *bias, tp_conv_dims d,
                            tp_activation act)
{
    const int64_t channels = d.c / d.groups, filters = d.m / d.groups;

    TP_GRID_LOOP (at, d.n * d.m * d.oh * d.ow) {
        const place o = place_at(at, d.m, d.oh, d.ow, d.last);
        float sum = 0.0f;
        for (int64_t c = 0; c < channels; c++)
            for (int64_t r = 0; r < d.kh; r++)
                for (int64_t s = 0; s < d.kw; s++) {
                    const int64_t row = o.p.i * d.stride[0] - d.pad[0] + r * d.dilation[0],
                                  col = o.p.j * d.stride[1] - d.pad[1] + s * d.dilation[1];
                    if (row >= 0 && row < d.h && col >= 0 && col < d.w)
                        sum =
                            fmaf(tp_load(x, tp_image_at(d.x, o.p.n, o.c / filters * channels + c, row, col)),
                                 tp_load(w, tp_image_at(d.f, o.c, c, r, s)), sum);
                }
        tp_store(y, at, tp_activate_f32(bias != nullptr ? sum + bias[o.c] : sum, act));
    }
}

template <typename T> __global__ void conv_input_grad_direct(T *dx, const T *w, const T *dy, tp_conv_dims d)
{
    const int64_t channels = d.c / d.groups, filters = d.m / d.groups;
    const output_under_tap<T> under = {dy, d, 0};

    TP_GRID_LOOP (at, d.n * d.c * d.h * d.w) {
        const place x = place_at(at, d.c, d.h, d.w, d.last);
        const int64_t first = x.c / channels * filters;
        float sum = 0.0f;
        for (int64_t m = first; m < first + filters; m++)
            for (int64_t r = 0; r < d.kh; r++)
                for (int64_t s = 0; s < d.kw; s++)
                    sum = fmaf(tp_load(w, tp_image_at(d.f, m, x.c % channels, r, s)),
                               under.at(x.p, {m, r, s}), sum);
        tp_store(dx, at, sum);
    }
}

/* A block a weight: threads share the pixels. */
template <typename T> __global__ void conv_weight_grad_direct(T *dw, const T *x, const T *dy, tp_conv_dims d)
{
    const int64_t channels = d.c / d.groups, filters = d.m / d.groups, taps = channels * d.kh * d.kw;

    for (int64_t at = blockIdx.x; at < d.m * taps; at += gridDim.x) {
        const int64_t m = at / taps;
        const tp_conv_tap t = tp_conv_tap_at(&d, channels, at - m * taps);
        float sum = 0.0f;
        for (int64_t k = threadIdx.x; k < d.n * d.oh * d.ow; k += blockDim.x) {
            const pixel p = pixel_at(k, d.oh, d.ow);
            const int64_t row = p.i * d.stride[0] - d.pad[0] + t.r * d.dilation[0],
                          col = p.j * d.stride[1] - d.pad[1] + t.s * d.dilation[1];
            const float v = row >= 0 && row < d.h && col >= 0 && col < d.w
                                ? tp_load(x, tp_image_at(d.x, p.n, m / filters * channels + t.c, row, col))
                                : 0.0f;
            sum = fmaf(tp_load(dy, tp_image_at(d.y, p.n, m, p.i, p.j)), v, sum);
        }
        sum = tp_block_sum(sum);
        if (threadIdx.x == 0)
            tp_store(dw, at, sum);
    }
}

template <typename T> static tp_status conv_each(const tp_call *c)
{
    const tp_conv_dims d = forward_dims(c);
    TP_LAUNCH(conv_direct<T>, tp_cuda_blocks(c, tp_len(&c->out[0])), TP_THREADS, 0, c, tp_out_as<T>(c, 0),
              tp_in_as<T>(c, 0), tp_in_as<T>(c, 1), bias_of(c), d,
              static_cast<const tp_conv_attr *>(c->attr)->act);
    return TP_OK;
}

template <typename T> static tp_status conv_input_grad_each(const tp_call *c)
{
    TP_LAUNCH(conv_input_grad_direct<T>, tp_cuda_blocks(c, tp_len(&c->out[0])), TP_THREADS, 0, c,
              tp_out_as<T>(c, 0), tp_in_as<T>(c, 0), tp_in_as<T>(c, 1), input_grad_dims(c));
    return TP_OK;
}

template <typename T> static tp_status conv_weight_grad_each(const tp_call *c)
{
    TP_LAUNCH(conv_weight_grad_direct<T>, tp_cuda_blocks(c, tp_len(&c->out[0]) * TP_THREADS), TP_THREADS, 0,
              c, tp_out_as<T>(c, 0), tp_in_as<T>(c, 0), tp_in_as<T>(c, 1), weight_grad_dims(c));
    return TP_OK;
}

static tp_status conv_run(const tp_call *c)
{
    return TP_AS_STORED(conv_each, c);
}

static tp_status conv_input_grad_run(const tp_call *c)
{
    return TP_AS_STORED(conv_input_grad_each, c);
}

static tp_status conv_weight_grad_run(const tp_call *c)
{
    return TP_AS_STORED(conv_weight_grad_each, c);
}

static const tp_impl conv_own_tile = {"own_tile", conv_tile_prepare, conv_tile_run, nullptr, 0};
static const tp_impl conv_own = {"own", tp_accept_stored, conv_run, nullptr, 0};
static const tp_impl conv_input_grad_own_tile = {"own_tile", conv_input_grad_tile_prepare,
                                                 conv_input_grad_tile_run, nullptr, 0};
static const tp_impl conv_input_grad_own = {"own", tp_accept_stored, conv_input_grad_run, nullptr, 0};
static const tp_impl conv_weight_grad_own_tile = {"own_tile", conv_weight_grad_tile_prepare,
                                                  conv_weight_grad_tile_run, nullptr, 0};
static const tp_impl conv_weight_grad_own = {"own", tp_accept_stored, conv_weight_grad_run, nullptr, 0};
TP_CUDA_IMPLS(conv, &tp_conv_few, &tp_conv_cudnn, &conv_own_tile, &conv_own);
TP_CUDA_IMPLS(conv_input_grad, &tp_conv_input_grad_cudnn, &conv_input_grad_own_tile, &conv_input_grad_own);
TP_CUDA_IMPLS(conv_weight_grad, &tp_conv_weight_grad_few, &tp_conv_weight_grad_cudnn,
              &conv_weight_grad_own_tile, &conv_weight_grad_own);
