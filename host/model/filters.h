/* filters.h - the filters of a convolution lie on the device with their channels last, (M,KH,KW,C), where its
 * kernels want them; files and first weights have PyTorch's order, (M,C,KH,KW). Everything else is the same
 * on both sides. */
#ifndef TP_FILTERS_H
#define TP_FILTERS_H
#include "temper/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* (M,C,...) to (M,...,C). */
tp_shape tp_filters_stored_shape(tp_shape shape);

/* dst(M,C,...) from src(M,...,C), float32. */
void tp_filters_to_first(float *dst, const float *src, tp_shape shape);

/* To and from the memory of a device, host memory in PyTorch's order; channels_last: `stored` is turned.
 * Errors: TP_ENOMEM, the device's own. */
tp_status tp_filters_upload(tp_device *dev, const tp_tensor *stored, tp_shape shape, int channels_last,
                            const void *host) TP_MUST_USE;
tp_status tp_filters_download(tp_device *dev, const tp_tensor *stored, tp_shape shape, int channels_last,
                              void *host) TP_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
