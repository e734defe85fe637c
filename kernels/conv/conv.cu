/* conv.cu - convolution and its two gradients, 1-D and 2-D, with stride, padding, dilation and groups.
 *   own_tile: without groups, as a product of matrices that are never written down (tile.cuh): filters by
 * pixels for the output and the input gradient, filters by (channel, tap) for the weight gradient, whose long
 * sum over pixels is cut into parts own:      everything; a thread an output, or a block a weight for the
 * weight gradient */
#include "kernels/conv/conv.h"
#include "kernels/libraries.cuh"
#include "kernels/linear/activation.h"
#include "kernels/linear/tile.cuh"

/* ---- what the matrices hold ---- */

/* w(M, C*KH*KW), the taps along k */
struct weight_rows {
    const float *w;
    int64_t taps;
    int along_k;
    __device__ float operator()(int64_t i, int64_t k, int64_t z) const
    {
        (void)z;
        return w[i * taps + k];
    }
};

/* x under tap k = (c, r, s) of output pixel j = (n, i, o), zero in the padding */
struct input_pixels {
    const float *x;
    tp_conv_dims d;
    int along_k;
    __device__ float operator()(int64_t j, int64_t k, int64_t z) const
    {
        (void)z;
        const int64_t n = j / (d.oh * d.ow), p = j - n * d.oh * d.ow, i = p / d.ow, o = p - i * d.ow;
        const int64_t c = k / (d.kh * d.kw), t = k - c * d.kh * d.kw, r = t / d.kw, s = t - r * d.kw;
        const int64_t row = i * d.stride[0] - d.pad[0] + r * d.dilation[0],
                      col = o * d.stride[1] - d.pad[1] + s * d.dilation[1];
        return row >= 0 && row < d.h && col >= 0 && col < d.w ? x[((n * d.c + c) * d.h + row) * d.w + col]
                                                              : 0.0f;
    }
};

/* The same with the roles exchanged: rows are taps, k are pixels. */
struct input_taps {
    input_pixels of;
    int along_k;
    __device__ float operator()(int64_t j, int64_t k, int64_t z) const
    {
        return of(k, j, z);
    }
};

/* dy of filter m at pixel k = (n, i, o) */
struct output_rows {
    const float *dy;
    int64_t filters, pixels; /* OH * OW */
    int along_k;
    __device__ float operator()(int64_t m, int64_t k, int64_t z) const
    {
        (void)z;
        const int64_t n = k / pixels;
        return dy[(n * filters + m) * pixels + k - n * pixels];
    }
};

/* w of channel i under k = (m, r, s) */
struct weight_channels {
    const float *w;
    int64_t channels, taps; /* KH * KW */
    int along_k;
    __device__ float operator()(int64_t i, int64_t k, int64_t z) const
    {
        (void)z;
        const int64_t m = k / taps;
        return w[(m * channels + i) * taps + k - m * taps];
    }
};

/* dy of filter m where its tap (r, s) lies on input pixel j = (n, row, col), k = (m, r, s) */
struct output_under_tap {
    const float *dy;
    tp_conv_dims d;
    int along_k;
    __device__ float operator()(int64_t j, int64_t k, int64_t z) const
    {
        (void)z;
        const int64_t n = j / (d.h * d.w), p = j - n * d.h * d.w, row = p / d.w, col = p - row * d.w;
        const int64_t m = k / (d.kh * d.kw), t = k - m * d.kh * d.kw, r = t / d.kw, s = t - r * d.kw;
        const int64_t i = row + d.pad[0] - r * d.dilation[0], o = col + d.pad[1] - s * d.dilation[1];
        if (i < 0 || o < 0 || i % d.stride[0] != 0 || o % d.stride[1] != 0 || i / d.stride[0] >= d.oh ||
            o / d.stride[1] >= d.ow)
            return 0.0f;
        return dy[((n * d.m + m) * d.oh + i / d.stride[0]) * d.ow + o / d.stride[1]];
    }
};

/* Row i of pixel j = (n, p) goes to (n, i, p). */
struct image_store {
    static const bool SUMS = false;
    float *y;
    const float *bias;
    int64_t planes, pixels;
    tp_activation act;
    __device__ void operator()(int64_t i, int64_t j, int64_t z, float v) const
    {
        (void)z;
        const int64_t n = j / pixels;
        y[(n * planes + i) * pixels + j - n * pixels] =
            tp_activate_f32(bias != nullptr ? v + bias[i] : v, act);
    }
};

struct weight_store {
    static const bool SUMS = false;
    float *dw;
    int64_t taps;
    __device__ void operator()(int64_t i, int64_t j, int64_t z, float v) const
    {
        (void)z;
        dw[i * taps + j] = v;
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

static tp_tile_shape forward_shape(tp_conv_dims d)
{
    return with_parts({d.m, d.n * d.oh * d.ow, d.c * d.kh * d.kw, 1, 1});
}

static tp_tile_shape input_grad_shape(tp_conv_dims d)
{
    return with_parts({d.c, d.n * d.h * d.w, d.m * d.kh * d.kw, 1, 1});
}

static tp_tile_shape weight_grad_shape(tp_conv_dims d)
{
    return with_parts({d.m, d.c * d.kh * d.kw, d.n * d.oh * d.ow, 1, 1});
}

static tp_status tile_prepare(tp_call *c, size_t *scratch, tp_conv_dims d, tp_tile_shape s)
{
    TP_TRY(tp_accept_f32(c, scratch));
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

static tp_status conv_tile_run(const tp_call *c)
{
    const tp_conv_dims d = forward_dims(c);
    const weight_rows w = {tp_in_f32(c, 1), d.c * d.kh * d.kw, 1};
    const input_pixels x = {tp_in_f32(c, 0), d, 0};
    const image_store y = {tp_out_f32(c, 0), bias_of(c), d.m, d.oh * d.ow,
                           static_cast<const tp_conv_attr *>(c->attr)->act};
    return tp_tile_run(c, w, x, y, forward_shape(d));
}

static tp_status conv_input_grad_tile_run(const tp_call *c)
{
    const tp_conv_dims d = input_grad_dims(c);
    const weight_channels w = {tp_in_f32(c, 0), d.c, d.kh * d.kw, 1};
    const output_under_tap dy = {tp_in_f32(c, 1), d, 0};
    const image_store dx = {tp_out_f32(c, 0), nullptr, d.c, d.h * d.w, TP_ACT_NONE};
    return tp_tile_run(c, w, dy, dx, input_grad_shape(d));
}

static tp_status conv_weight_grad_tile_run(const tp_call *c)
{
    const tp_conv_dims d = weight_grad_dims(c);
    const output_rows dy = {tp_in_f32(c, 1), d.m, d.oh * d.ow, 1};
    const input_taps x = {{tp_in_f32(c, 0), d, 0}, 1};
    const weight_store dw = {tp_out_f32(c, 0), d.c * d.kh * d.kw};
    return tp_tile_run(c, dy, x, dw, weight_grad_shape(d));
}

/* ---- own: any groups ---- */

__global__ void conv_direct(float *y, const float *x, const float *w, const float *bias, tp_conv_dims d,
                            tp_activation act)
{
    const int64_t channels = d.c / d.groups, filters = d.m / d.groups;

    TP_GRID_LOOP (at, d.n * d.m * d.oh * d.ow) {
        const int64_t o = at % d.ow, i = at / d.ow % d.oh, m = at / (d.ow * d.oh) % d.m,
                      n = at / (d.ow * d.oh * d.m);
        const float *from = x + (n * d.c + m / filters * channels) * d.h * d.w,
                    *tap = w + m * channels * d.kh * d.kw;
        float sum = 0.0f;
        for (int64_t c = 0; c < channels; c++)
            for (int64_t r = 0; r < d.kh; r++)
                for (int64_t s = 0; s < d.kw; s++) {
                    const int64_t row = i * d.stride[0] - d.pad[0] + r * d.dilation[0],
                                  col = o * d.stride[1] - d.pad[1] + s * d.dilation[1];
                    if (row >= 0 && row < d.h && col >= 0 && col < d.w)
                        sum = fmaf(from[(c * d.h + row) * d.w + col], tap[(c * d.kh + r) * d.kw + s], sum);
                }
        y[at] = tp_activate_f32(bias != nullptr ? sum + bias[m] : sum, act);
    }
}

__global__ void conv_input_grad_direct(float *dx, const float *w, const float *dy, tp_conv_dims d)
{
    const int64_t channels = d.c / d.groups, filters = d.m / d.groups;
    const output_under_tap under = {dy, d, 0};

    TP_GRID_LOOP (at, d.n * d.c * d.h * d.w) {
        const int64_t pixel = at % (d.h * d.w), c = at / (d.h * d.w) % d.c, n = at / (d.h * d.w * d.c);
        const int64_t first = c / channels * filters;
        float sum = 0.0f;
        for (int64_t m = first; m < first + filters; m++)
            for (int64_t t = 0; t < d.kh * d.kw; t++)
                sum = fmaf(w[(m * channels + c % channels) * d.kh * d.kw + t],
                           under(n * d.h * d.w + pixel, m * d.kh * d.kw + t, 0), sum);
        dx[at] = sum;
    }
}

/* A block a weight: threads share the pixels. */
__global__ void conv_weight_grad_direct(float *dw, const float *x, const float *dy, tp_conv_dims d)
{
    const int64_t channels = d.c / d.groups, filters = d.m / d.groups, taps = d.kh * d.kw,
                  pixels = d.oh * d.ow;
    const input_pixels under = {x, d, 0};

    for (int64_t at = blockIdx.x; at < d.m * channels * taps; at += gridDim.x) {
        const int64_t t = at % taps, m = at / (taps * channels),
                      c = m / filters * channels + at / taps % channels;
        float sum = 0.0f;
        for (int64_t k = threadIdx.x; k < d.n * pixels; k += blockDim.x)
            sum = fmaf(dy[(k / pixels * d.m + m) * pixels + k % pixels], under(k, c * taps + t, 0), sum);
        sum = tp_block_sum(sum);
        if (threadIdx.x == 0)
            dw[at] = sum;
    }
}

static tp_status conv_run(const tp_call *c)
{
    const tp_conv_dims d = forward_dims(c);
    TP_LAUNCH(conv_direct, tp_cuda_blocks(c, tp_len(&c->out[0])), TP_THREADS, 0, c, tp_out_f32(c, 0),
              tp_in_f32(c, 0), tp_in_f32(c, 1), bias_of(c), d,
              static_cast<const tp_conv_attr *>(c->attr)->act);
    return TP_OK;
}

static tp_status conv_input_grad_run(const tp_call *c)
{
    TP_LAUNCH(conv_input_grad_direct, tp_cuda_blocks(c, tp_len(&c->out[0])), TP_THREADS, 0, c,
              tp_out_f32(c, 0), tp_in_f32(c, 0), tp_in_f32(c, 1), input_grad_dims(c));
    return TP_OK;
}

static tp_status conv_weight_grad_run(const tp_call *c)
{
    TP_LAUNCH(conv_weight_grad_direct, tp_cuda_blocks(c, tp_len(&c->out[0]) * TP_THREADS), TP_THREADS, 0, c,
              tp_out_f32(c, 0), tp_in_f32(c, 0), tp_in_f32(c, 1), weight_grad_dims(c));
    return TP_OK;
}

static const tp_impl conv_own_tile = {"own_tile", conv_tile_prepare, conv_tile_run, nullptr, 0};
static const tp_impl conv_own = {"own", tp_accept_f32, conv_run, nullptr, 0};
static const tp_impl conv_input_grad_own_tile = {"own_tile", conv_input_grad_tile_prepare,
                                                 conv_input_grad_tile_run, nullptr, 0};
static const tp_impl conv_input_grad_own = {"own", tp_accept_f32, conv_input_grad_run, nullptr, 0};
static const tp_impl conv_weight_grad_own_tile = {"own_tile", conv_weight_grad_tile_prepare,
                                                  conv_weight_grad_tile_run, nullptr, 0};
static const tp_impl conv_weight_grad_own = {"own", tp_accept_f32, conv_weight_grad_run, nullptr, 0};
TP_CUDA_IMPLS(conv, &tp_conv_cudnn, &conv_own_tile, &conv_own);
TP_CUDA_IMPLS(conv_input_grad, &tp_conv_input_grad_cudnn, &conv_input_grad_own_tile, &conv_input_grad_own);
TP_CUDA_IMPLS(conv_weight_grad, &tp_conv_weight_grad_cudnn, &conv_weight_grad_own_tile,
              &conv_weight_grad_own);
