/* conv.h - the sizes of a convolution, for every implementation of it. */
#ifndef TP_KERNELS_CONV_H
#define TP_KERNELS_CONV_H
#include "kernels/image.h"

/* A convolution as 2-D: 1-D has one row. */
typedef struct tp_conv_dims {
    int64_t n, c, h, w, m, kh, kw, oh, ow;
    int64_t stride[2], pad[2], dilation[2], groups;
    tp_image_step x, f, y; /* of the input, the filters and the output */
    int last;              /* channels lie last in all three */
} tp_conv_dims;

/* Channel and place in the kernel of tap k of a filter over `channels` channels, in the order in which a
 * filter lies in memory. */
typedef struct tp_conv_tap {
    int64_t c, r, s;
} tp_conv_tap;

TP_HD tp_conv_tap tp_conv_tap_at(const tp_conv_dims *d, int64_t channels, int64_t k)
{
    const int64_t taps = d->kh * d->kw, c = d->last ? k % channels : k / taps,
                  t = d->last ? k / channels : k - c * taps;
    tp_conv_tap v;
    v.c = c;
    v.r = t / d->kw;
    v.s = t - v.r * d->kw;
    return v;
}

static inline int64_t tp_conv_or_one(int64_t v)
{
    return v != 0 ? v : 1;
}

static inline tp_conv_attr tp_conv_filled(tp_conv_attr a)
{
    for (int i = 0; i < 2; i++) {
        a.stride[i] = tp_conv_or_one(a.stride[i]);
        a.dilation[i] = tp_conv_or_one(a.dilation[i]);
    }
    a.groups = tp_conv_or_one(a.groups);
    return a;
}

static inline int64_t tp_conv_out_size(int64_t in, int64_t kernel, int64_t stride, int64_t pad,
                                       int64_t dilation)
{
    const int64_t span = in + 2 * pad - dilation * (kernel - 1) - 1;
    return span < 0 ? 0 : span / stride + 1;
}

static inline tp_conv_dims tp_conv_dims_of(tp_shape x, tp_shape w, tp_conv_attr attr)
{
    const tp_conv_attr a = tp_conv_filled(attr);
    const int flat = x.nd == 3, first = tp_image_first_dim(a.channels_last),
              wide = first + !flat; /* the dimension of the width */
    tp_conv_dims d;

    d.n = x.d[0];
    d.c = x.d[tp_image_channel_dim(x.nd, a.channels_last)];
    d.m = w.d[0];
    d.groups = a.groups;
    d.last = a.channels_last;
    d.h = flat ? 1 : x.d[first];
    d.w = x.d[wide];
    d.kh = flat ? 1 : w.d[first];
    d.kw = w.d[wide];
    for (int i = 0; i < 2; i++) {
        const int from = flat ? 0 : i;
        d.stride[i] = flat && i == 0 ? 1 : a.stride[from];
        d.pad[i] = flat && i == 0 ? 0 : a.pad[from];
        d.dilation[i] = flat && i == 0 ? 1 : a.dilation[from];
    }
    d.oh = tp_conv_out_size(d.h, d.kh, d.stride[0], d.pad[0], d.dilation[0]);
    d.ow = tp_conv_out_size(d.w, d.kw, d.stride[1], d.pad[1], d.dilation[1]);
    d.x = tp_image_steps(d.c, d.h, d.w, d.last);
    d.f = tp_image_steps(d.c / d.groups, d.kh, d.kw, d.last);
    d.y = tp_image_steps(d.m, d.oh, d.ow, d.last);
    return d;
}

#endif
