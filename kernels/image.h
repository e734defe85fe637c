/* image.h - images in memory, channels first, (N,C,H,W) and (N,C,W), or last, (N,H,W,C) and (N,W,C). */
#ifndef TP_KERNELS_IMAGE_H
#define TP_KERNELS_IMAGE_H
#include "host/core/hd.h"
#include "kernels/op.h"

/* Elements from one index to the next along (sample or filter, channel, row, column). */
typedef struct tp_image_step {
    int64_t n, c, h, w;
} tp_image_step;

static inline tp_image_step tp_image_steps(int64_t channels, int64_t height, int64_t width, int last)
{
    const int64_t c = channels, h = height, w = width;
    const tp_image_step first = {c * h * w, h * w, w, 1}, then = {c * h * w, 1, w * c, c};
    return last ? then : first;
}

TP_HD int64_t tp_image_at(tp_image_step s, int64_t n, int64_t c, int64_t i, int64_t j)
{
    return n * s.n + c * s.c + i * s.h + j * s.w;
}

/* Where the channels and the first of the kernel's or image's dimensions lie in a shape. */
static inline int tp_image_channel_dim(int nd, int last)
{
    return last ? nd - 1 : 1;
}

static inline int tp_image_first_dim(int last)
{
    return last ? 1 : 2;
}

#endif
