#include "host/graph/device.h"
#include "host/core/mem.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A GPU if one answers, else the CPU, and why. */
static tp_status open_auto(tp_device *dev)
{
    if (tp_device_cuda_open(dev, 0) == TP_OK)
        return TP_OK;
    snprintf(dev->note, sizeof(dev->note), "%s", tp_last_error());
    return tp_device_cpu_open(dev);
}

static tp_status open_kind(tp_device *dev, const char *spec)
{
    char *end = NULL;

    if (strcmp(spec, "cpu") == 0)
        return tp_device_cpu_open(dev);
    if (strcmp(spec, "auto") == 0)
        return open_auto(dev);
    if (strcmp(spec, "cuda") == 0)
        return tp_device_cuda_open(dev, 0);
    if (strncmp(spec, "cuda:", 5) == 0 && spec[5] >= '0' && spec[5] <= '9') {
        const long index = strtol(spec + 5, &end, 10);
        if (*end == '\0' && index <= INT_MAX)
            return tp_device_cuda_open(dev, (int)index);
    }
    TP_FAIL(TP_EINVAL, "device '%s' is not one of auto, cpu, cuda, cuda:N", spec);
}

tp_status tp_device_open(tp_device **out, const char *spec)
{
    tp_device *dev = NULL;

    *out = NULL;
    TP_TRY(tp_alloc(&dev, 1, sizeof(*dev), "device"));
    const tp_status st = open_kind(dev, spec);
    if (st != TP_OK) {
        tp_free(dev);
        return st;
    }
    *out = dev;
    return TP_OK;
}

void tp_device_close(tp_device *dev)
{
    if (dev == NULL)
        return;
    dev->ops->close(dev);
    tp_free(dev);
}

const char *tp_precision_name(tp_precision precision)
{
    static const char *const names[TP_PRECISIONS] = {"fp32", "tf32", "bf16"};
    return (unsigned)precision < TP_PRECISIONS ? names[precision] : "none";
}

tp_device_kind tp_device_kind_of(const tp_device *dev)
{
    return dev->kind;
}

const tp_impl *const *tp_device_impls(const tp_device *dev, const tp_op *op)
{
    return dev->ops->impls(op);
}

const char *tp_device_text(const tp_device *dev)
{
    return dev->text;
}

const char *tp_device_note(const tp_device *dev)
{
    return dev->note;
}

tp_status tp_device_alloc(tp_device *dev, void **out, size_t bytes, const char *what)
{
    return dev->ops->alloc(dev, out, bytes, what);
}

void tp_device_release(tp_device *dev, void *p)
{
    if (p != NULL)
        dev->ops->release(dev, p);
}

tp_status tp_device_upload(tp_device *dev, void *dst, const void *host, size_t bytes)
{
    return bytes > 0 ? dev->ops->upload(dev, dst, host, bytes) : TP_OK;
}

tp_status tp_device_download(tp_device *dev, void *host, const void *src, size_t bytes)
{
    return bytes > 0 ? dev->ops->download(dev, host, src, bytes) : TP_OK;
}

tp_status tp_device_memory(tp_device *dev, size_t *free_bytes, size_t *total)
{
    return dev->ops->memory(dev, free_bytes, total);
}

tp_status tp_device_host_alloc(tp_device *dev, void **out, size_t bytes, const char *what)
{
    return dev->ops->host_alloc(dev, out, bytes, what);
}

void tp_device_host_release(tp_device *dev, void *p)
{
    if (p != NULL)
        dev->ops->host_release(dev, p);
}

tp_status tp_device_enqueue_copy(tp_device *dev, tp_queue queue, void *dst, const void *src, size_t bytes,
                                 tp_direction direction)
{
    return bytes > 0 ? dev->ops->enqueue_copy(dev, queue, dst, src, bytes, direction) : TP_OK;
}

tp_status tp_device_mark(tp_device *dev, tp_queue queue, int mark)
{
    return dev->ops->mark(dev, queue, mark);
}

tp_status tp_device_follow(tp_device *dev, tp_queue queue, int mark)
{
    return dev->ops->follow(dev, queue, mark);
}

tp_status tp_device_await(tp_device *dev, int mark)
{
    return dev->ops->await(dev, mark);
}
