/* conv.h - the sizes of a convolution, for every implementation of it. */
#ifndef TP_KERNELS_CONV_H
#define TP_KERNELS_CONV_H
#include "kernels/op.h"

/* A convolution as 2-D: 1-D has one row. */
typedef struct tp_conv_dims {
    int64_t n, c, h, w, m, kh, kw, oh, ow;
    int64_t stride[2], pad[2], dilation[2], groups;
} tp_conv_dims;

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
    const int flat = x.nd == 3;
    tp_conv_dims d;

    d.n = x.d[0];
    d.c = x.d[1];
    d.m = w.d[0];
    d.groups = a.groups;
    d.h = flat ? 1 : x.d[2];
    d.w = x.d[x.nd - 1];
    d.kh = flat ? 1 : w.d[2];
    d.kw = w.d[w.nd - 1];
    for (int i = 0; i < 2; i++) {
        const int from = flat ? 0 : i;
        d.stride[i] = flat && i == 0 ? 1 : a.stride[from];
        d.pad[i] = flat && i == 0 ? 0 : a.pad[from];
        d.dilation[i] = flat && i == 0 ? 1 : a.dilation[from];
    }
    d.oh = tp_conv_out_size(d.h, d.kh, d.stride[0], d.pad[0], d.dilation[0]);
    d.ow = tp_conv_out_size(d.w, d.kw, d.stride[1], d.pad[1], d.dilation[1]);
    return d;
}

#endif
