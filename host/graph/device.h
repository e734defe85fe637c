/* device.h - what a device does, for the files of host/graph. device_<kind>.c are the only files that know a
 * runtime. */
#ifndef TP_DEVICE_INTERNAL_H
#define TP_DEVICE_INTERNAL_H
#include "kernels/op.h"
#include "temper/device.h"
#include "temper/plan.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TP_DEVICE_TEXT 512

/* A device works off several queues side by side, each in its own order: plans and what belongs to them run
 * on the first, copies that others need not wait for on one for each direction. */
typedef enum tp_queue { TP_QUEUE_RUN, TP_QUEUE_IN, TP_QUEUE_OUT } tp_queue;
#define TP_QUEUES 3

typedef enum tp_direction { TP_TO_DEVICE, TP_FROM_DEVICE, TP_ON_DEVICE } tp_direction;

typedef struct tp_device_ops {
    tp_status (*alloc)(tp_device *dev, void **out, size_t bytes, const char *what);
    void (*release)(tp_device *dev, void *p);
    tp_status (*upload)(tp_device *dev, void *dst, const void *host, size_t bytes);
    tp_status (*download)(tp_device *dev, void *host, const void *src, size_t bytes);
    /* Memory of the device's own: free and in all; 0 and 0 where it is the host's. */
    tp_status (*memory)(tp_device *dev, size_t *free_bytes, size_t *total);
    /* Host memory that copies to and from without staging, and copies that are not waited for: done when a
     * mark made after them in the same queue has been reached. */
    tp_status (*host_alloc)(tp_device *dev, void **out, size_t bytes, const char *what);
    void (*host_release)(tp_device *dev, void *p);
    tp_status (*enqueue_copy)(tp_device *dev, tp_queue queue, void *dst, const void *src, size_t bytes,
                              tp_direction direction);
    tp_status (*mark)(tp_device *dev, tp_queue queue, int mark);
    tp_status (*follow)(tp_device *dev, tp_queue queue, int mark);
    tp_status (*await)(tp_device *dev, int mark);
    tp_status (*run)(tp_device *dev, tp_plan *plan,
                     int64_t times);               /* walk the steps, or replay what was captured */
    void (*forget)(tp_device *dev, tp_plan *plan); /* what run has kept with the plan */
    /* NULL-terminated, fastest first; NULL if there is none. */
    const tp_impl *const *(*impls)(const tp_op *op);
    void (*close)(tp_device *dev);
} tp_device_ops;

struct tp_device {
    tp_device_kind kind;
    const tp_device_ops *ops;
    void *ctx;
    const void *queue;   /* tp_call's */
    int multiprocessors; /* of a GPU; 0 for the CPU */
    char text[TP_DEVICE_TEXT], note[TP_DEVICE_TEXT];
};

tp_status tp_device_cpu_open(tp_device *dev) TP_MUST_USE;

/* Opens GPU number index through the module. TP_EDEVICE with the reason when there is none. */
tp_status tp_device_cuda_open(tp_device *dev, int index) TP_MUST_USE;

/* Memory of the device's own: free and in all; 0 and 0 where it is the host's. */
tp_status tp_device_memory(tp_device *dev, size_t *free_bytes, size_t *total) TP_MUST_USE;

/* Zeroed host memory for tp_device_enqueue_*, which kernels may read and write too; free with
 * tp_device_host_release (NULL is fine). */
tp_status tp_device_host_alloc(tp_device *dev, void **out, size_t bytes, const char *what) TP_MUST_USE;
void tp_device_host_release(tp_device *dev, void *p);

/* A copy that returns at once: memory of both sides must stay as it is until a mark made after it in the same
 * queue has been reached. Host memory is tp_device_host_alloc's. */
tp_status tp_device_enqueue_copy(tp_device *dev, tp_queue queue, void *dst, const void *src, size_t bytes,
                                 tp_direction direction) TP_MUST_USE;

/* Remembers this place in a queue as a mark; lets a queue go on only when the mark has been reached; waits
 * for it (from any thread). A mark that was never made counts as reached. */
#define TP_DEVICE_MARKS 16
tp_status tp_device_mark(tp_device *dev, tp_queue queue, int mark) TP_MUST_USE;
tp_status tp_device_follow(tp_device *dev, tp_queue queue, int mark) TP_MUST_USE;
tp_status tp_device_await(tp_device *dev, int mark) TP_MUST_USE;

/* The implementations of an op on a device, as tp_device_ops.impls. */
const tp_impl *const *tp_device_impls(const tp_device *dev, const tp_op *op);

/* The processor's name. */
void tp_device_cpu_model(char *buf, size_t size);

#ifdef __cplusplus
}
#endif

#endif
