/* pool.h - the sizes of a pooling and its windows, for every implementation of it. */
#ifndef TP_KERNELS_POOL_H
#define TP_KERNELS_POOL_H
#include "kernels/image.h"

typedef struct tp_pool_dims {
    int64_t n, c, h, w, oh, ow, kernel[2], stride[2], pad[2];
    tp_image_step x, y;
    int last; /* channels */
} tp_pool_dims;

static inline int64_t tp_pool_out_size(int64_t in, int64_t kernel, int64_t stride, int64_t pad)
{
    return in + 2 * pad < kernel ? 0 : (in + 2 * pad - kernel) / stride + 1;
}

static inline tp_pool_dims tp_pool_dims_of(tp_shape x, const tp_pool_attr *a)
{
    const int flat = x.nd == 3, first = tp_image_first_dim(a->channels_last);
    tp_pool_dims d;

    d.last = a->channels_last;
    d.n = x.d[0];
    d.c = x.d[tp_image_channel_dim(x.nd, d.last)];
    d.h = flat ? 1 : x.d[first];
    d.w = x.d[first + !flat];
    for (int i = 0; i < 2; i++) {
        const int from = flat ? 0 : i, idle = flat && i == 0;
        d.kernel[i] = idle ? 1 : a->kernel[from];
        d.stride[i] = idle ? 1 : (a->stride[from] != 0 ? a->stride[from] : a->kernel[from]);
        d.pad[i] = idle ? 0 : a->pad[from];
    }
    d.oh = tp_pool_out_size(d.h, d.kernel[0], d.stride[0], d.pad[0]);
    d.ow = tp_pool_out_size(d.w, d.kernel[1], d.stride[1], d.pad[1]);
    d.x = tp_image_steps(d.c, d.h, d.w, d.last);
    d.y = tp_image_steps(d.c, d.oh, d.ow, d.last);
    return d;
}

/* One window clipped to the image. */
typedef struct tp_window {
    int64_t top, bottom, left, right;
} tp_window;

TP_HD tp_window tp_window_at(const tp_pool_dims *d, int64_t i, int64_t j)
{
    tp_window v;
    v.top = i * d->stride[0] - d->pad[0];
    v.left = j * d->stride[1] - d->pad[1];
    v.bottom = v.top + d->kernel[0] < d->h ? v.top + d->kernel[0] : d->h;
    v.right = v.left + d->kernel[1] < d->w ? v.left + d->kernel[1] : d->w;
    v.top = v.top > 0 ? v.top : 0;
    v.left = v.left > 0 ? v.left : 0;
    return v;
}

#endif
