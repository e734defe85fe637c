/* device.h - where a plan runs and where tensors live.
 *
 * Threads: a device may be used by any thread, by one at a time. What is called with a GPU makes that GPU the
 * current one (cudaSetDevice) of the thread that calls. */
#ifndef TP_DEVICE_H
#define TP_DEVICE_H
#include "temper/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tp_device_kind { TP_CPU = 0, TP_CUDA } tp_device_kind;

typedef struct tp_device tp_device;

/* How products of matrices and convolutions are computed; sums are float32. tf32 rounds the factors to 10
 * bits of mantissa, bf16 to 7, where the device has units for it. Values stay float32 in memory, but what a
 * model in bf16 stores otherwise (tp_forward). */
typedef enum tp_precision { TP_PRECISION_FP32 = 0, TP_PRECISION_TF32, TP_PRECISION_BF16 } tp_precision;
#define TP_PRECISIONS 3
/* "fp32", "tf32", "bf16"; "none" otherwise. */
TP_API const char *tp_precision_name(tp_precision precision);

/* Opens a device: "auto" (a GPU if one answers, else the CPU), "cpu", "cuda" or "cuda:N".
 * Errors: TP_EINVAL (spec), TP_EDEVICE with the reason: "cuda" never falls back. Free with tp_device_close.
 */
TP_API tp_status tp_device_open(tp_device **out, const char *spec) TP_MUST_USE;
TP_API void tp_device_close(tp_device *dev); /* NULL is fine */

TP_API tp_device_kind tp_device_kind_of(const tp_device *dev);

/* One line for people: "cpu: Intel(R) Xeon(R), 2 threads". Borrowed. */
TP_API const char *tp_device_text(const tp_device *dev);

/* Where "auto" has chosen the CPU: why no GPU. "" otherwise. Borrowed. */
TP_API const char *tp_device_note(const tp_device *dev);

/* What is known of a GPU. Versions as CUDA writes them: 1000 * major + 10 * minor; driver is the newest CUDA
 * that the driver knows, which several builds of it share. */
typedef struct tp_device_info {
    char name[256];
    int capability; /* 10 * major + minor */
    int multiprocessors;
    size_t memory_bytes, free_bytes;
    int driver, runtime;
    char driver_build[32];        /* "580.159.04"; "" where the system does not say */
    char cublaslt[96], cudnn[96]; /* versions, or why a library is not used */
} tp_device_info;

/* Number of GPUs that answer. TP_EDEVICE says why there is none: no module, no driver, a driver too old, no
 * device, no memory; *out is then 0. */
TP_API tp_status tp_device_gpu_count(int *out) TP_MUST_USE;
/* Leaves the thread's current GPU as it was. Errors: TP_EDEVICE where tp_device_gpu_count has it, when there
 * is no GPU of that index, or when it does not answer. */
TP_API tp_status tp_device_gpu_info(int index, tp_device_info *out) TP_MUST_USE;

/* Zeroed device memory, at least 256-byte aligned. Errors: TP_ENOMEM with what and the bytes asked;
 * TP_EDEVICE. */
TP_API tp_status tp_device_alloc(tp_device *dev, void **out, size_t bytes, const char *what) TP_MUST_USE;
TP_API void tp_device_release(tp_device *dev, void *p); /* NULL is fine */

/* Copies between host memory and device memory of dev; both return when the copy is done, which
 * is after the plans that were run before. Errors: TP_EDEVICE. */
TP_API tp_status tp_device_upload(tp_device *dev, void *dst, const void *host, size_t bytes) TP_MUST_USE;
TP_API tp_status tp_device_download(tp_device *dev, void *host, const void *src, size_t bytes) TP_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
