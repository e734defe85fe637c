#include "host/model/filters.h"
#include "host/core/mem.h"

tp_shape tp_filters_stored_shape(tp_shape shape)
{
    tp_shape s = {.nd = shape.nd, .d = {shape.d[0]}};

    for (int i = 2; i < shape.nd; i++)
        s.d[i - 1] = shape.d[i];
    s.d[shape.nd - 1] = shape.d[1];
    return s;
}

static int64_t taps_of(tp_shape shape)
{
    int64_t n = 1;
    for (int i = 2; i < shape.nd; i++)
        n *= shape.d[i];
    return n;
}

/* Each filter is a matrix (C, taps), or turned (taps, C). */
static void turn(float *dst, const float *src, int64_t filters, int64_t rows, int64_t cols)
{
    for (int64_t m = 0; m < filters; m++)
        for (int64_t i = 0; i < rows; i++)
            for (int64_t k = 0; k < cols; k++)
                dst[(m * cols + k) * rows + i] = src[(m * rows + i) * cols + k];
}

void tp_filters_to_first(float *dst, const float *src, tp_shape shape)
{
    turn(dst, src, shape.d[0], taps_of(shape), shape.d[1]);
}

tp_status tp_filters_upload(tp_device *dev, const tp_tensor *stored, tp_shape shape, int channels_last,
                            const void *host)
{
    const size_t bytes = tp_tensor_bytes(stored);
    float *turned = NULL;

    if (!channels_last)
        return tp_device_upload(dev, stored->data, host, bytes);
    TP_TRY(tp_alloc(&turned, bytes, 1, "filters"));
    turn(turned, host, shape.d[0], shape.d[1], taps_of(shape));
    const tp_status st = tp_device_upload(dev, stored->data, turned, bytes);
    tp_free(turned);
    return st;
}

tp_status tp_filters_download(tp_device *dev, const tp_tensor *stored, tp_shape shape, int channels_last,
                              void *host)
{
    const size_t bytes = tp_tensor_bytes(stored);
    float *turned = NULL;

    if (!channels_last)
        return tp_device_download(dev, host, stored->data, bytes);
    TP_TRY(tp_alloc(&turned, bytes, 1, "filters"));
    const tp_status st = tp_device_download(dev, turned, stored->data, bytes);
    if (st == TP_OK)
        tp_filters_to_first(host, turned, shape);
    tp_free(turned);
    return st;
}
