/* cuda_module.h - what libtemper and libtemper_cuda.so know of each other. The module is opened with dlopen,
 * so that temper runs where there is no CUDA; it links nothing of libtemper, and what it needs of it is
 * handed over here. Both come from one source tree: a module that was built with other headers is refused. */
#ifndef TP_CUDA_MODULE_H
#define TP_CUDA_MODULE_H
#include "host/graph/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Each side has its own: a hash of the headers that both see the same data through (cmake/module_abi.cmake).
 */
extern const uint64_t tp_cuda_module_abi;

typedef struct tp_cuda_host {
    uint64_t abi; /* libtemper's number; first in every version */
    tp_status (*error)(tp_status st, const char *file, int line, const char *text);
    const char *(*last_error)(void);
    tp_status (*alloc)(void *out_pointer, size_t count, size_t size, const char *what);
    void (*free)(void *p);
} tp_cuda_host;

typedef struct tp_cuda_module {
    /* Number of devices. TP_EDEVICE with the reason when none can be used. */
    tp_status (*count)(int *out);
    tp_status (*describe)(int index, tp_device_info *out);
    /* Fills dev: kind, ops, ctx, queue, text. */
    tp_status (*open)(tp_device *dev, int index);
} tp_cuda_module;

/* The one symbol of the module; NULL if the numbers differ. host must stay. */
TP_API const tp_cuda_module *tp_cuda_module_get(const tp_cuda_host *host);
#define TP_CUDA_MODULE_SYMBOL "tp_cuda_module_get"

/* The module, loaded once for the process. TP_EDEVICE saying what is missing. */
tp_status tp_cuda_module_load(const tp_cuda_module **out) TP_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
