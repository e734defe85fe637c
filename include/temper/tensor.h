/* tensor.h - dtypes, shapes, and a view of dense row-major memory. */
#ifndef TP_TENSOR_H
#define TP_TENSOR_H
#include "temper/status.h"
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TP_MAX_DIMS 8

typedef enum tp_dtype {
    TP_DTYPE_NONE = 0,
    TP_F16,
    TP_BF16,
    TP_F32,
    TP_F64,
    TP_I8,
    TP_I16,
    TP_I32,
    TP_I64,
    TP_U8,
    TP_U16,
    TP_U32,
    TP_U64,
    TP_DTYPE_COUNT
} tp_dtype;

/* Bytes of one element; 0 for TP_DTYPE_NONE. */
TP_API size_t tp_dtype_size(tp_dtype dtype);

/* NumPy's names: "float32", "int8", "uint64", "bfloat16"; "none" otherwise. */
TP_API const char *tp_dtype_name(tp_dtype dtype);

/* Row-major and dense: no strides. nd = 0 is a scalar with one element. */
typedef struct tp_shape {
    int nd;
    int64_t d[TP_MAX_DIMS];
} tp_shape;

/* Builds a shape from its dimensions: TP_SHAPE(64, 3, 32, 32). For a scalar: tp_shape_scalar(). */
#define TP_SHAPE(...)                                                                                        \
    tp_shape_make((int)(sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),                           \
                  (const int64_t[]){__VA_ARGS__})
/* Of nd > TP_MAX_DIMS dimensions the first TP_MAX_DIMS are kept, and nd as it is: only tp_shape_check may be
 * asked about such a shape, and refuses it. */
TP_API tp_shape tp_shape_make(int nd, const int64_t *d);
TP_API tp_shape tp_shape_scalar(void);

/* Number of elements. The product of a shape that passed tp_shape_check never overflows. */
TP_API int64_t tp_shape_len(tp_shape shape);

TP_API int tp_shape_equal(tp_shape a, tp_shape b);

/* "(64,3,32,32)"; "()" for a scalar. Writes at most size bytes into buf, always terminated, and returns buf.
 */
TP_API const char *tp_shape_text(tp_shape shape, char *buf, size_t size);
#define TP_SHAPE_TEXT_SIZE 192

/* TP_ESHAPE unless dtype is known, 0 <= nd <= TP_MAX_DIMS, every dimension is >= 0 and the bytes fit in
 * 2^62. */
TP_API tp_status tp_shape_check(tp_shape shape, tp_dtype dtype);

/* A view: owns nothing. data lives where the device that made it keeps its memory. */
typedef struct tp_tensor {
    void *data;
    tp_shape shape;
    tp_dtype dtype;
} tp_tensor;

TP_API size_t tp_tensor_bytes(const tp_tensor *t);

/* Element i, which is not checked, of host data as a double, whatever the dtype (float16 and bfloat16 too;
 * integers beyond 2^53 are rounded). NaN for TP_DTYPE_NONE. */
TP_API double tp_tensor_get(const tp_tensor *t, int64_t i);

#ifdef __cplusplus
}
#endif
#endif
