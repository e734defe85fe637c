/* device.h - what a device does, for the files of host/graph. device_<kind>.c are the only files that know a
 * runtime. */
#ifndef TP_DEVICE_INTERNAL_H
#define TP_DEVICE_INTERNAL_H
#include "temper/device.h"
#include "temper/plan.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tp_device_ops {
    tp_status (*alloc)(tp_device *dev, void **out, size_t bytes, const char *what);
    void (*release)(tp_device *dev, void *p);
    tp_status (*upload)(tp_device *dev, void *dst, const void *host, size_t bytes);
    tp_status (*download)(tp_device *dev, void *host, const void *src, size_t bytes);
    tp_status (*run)(tp_device *dev, tp_plan *plan); /* walk the steps, or replay what was captured */
    void (*close)(tp_device *dev);
} tp_device_ops;

struct tp_device {
    tp_device_kind kind;
    const tp_device_ops *ops;
    void *ctx;
    char text[256];
};

tp_status tp_device_cpu_open(tp_device *dev);

/* The processor's name. */
void tp_device_cpu_model(char *buf, size_t size);

#ifdef __cplusplus
}
#endif

#endif
