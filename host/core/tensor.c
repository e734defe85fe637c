#include "temper/tensor.h"
#include "host/core/float16.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    size_t size;
} dtype_table[TP_DTYPE_COUNT] = {
    [TP_DTYPE_NONE] = {"none", 0}, [TP_F16] = {"float16", 2}, [TP_BF16] = {"bfloat16", 2},
    [TP_F32] = {"float32", 4},     [TP_F64] = {"float64", 8}, [TP_I8] = {"int8", 1},
    [TP_I16] = {"int16", 2},       [TP_I32] = {"int32", 4},   [TP_I64] = {"int64", 8},
    [TP_U8] = {"uint8", 1},        [TP_U16] = {"uint16", 2},  [TP_U32] = {"uint32", 4},
    [TP_U64] = {"uint64", 8},
};

size_t tp_dtype_size(tp_dtype dtype)
{
    return (unsigned)dtype < TP_DTYPE_COUNT ? dtype_table[dtype].size : 0;
}

const char *tp_dtype_name(tp_dtype dtype)
{
    return (unsigned)dtype < TP_DTYPE_COUNT ? dtype_table[dtype].name : "none";
}

tp_shape tp_shape_make(int nd, const int64_t *d)
{
    tp_shape s = {.nd = nd};
    for (int i = 0; i < nd && i < TP_MAX_DIMS; i++)
        s.d[i] = d[i];
    return s;
}

tp_shape tp_shape_scalar(void)
{
    return (tp_shape){0};
}

int64_t tp_shape_len(tp_shape shape)
{
    int64_t n = 1;
    for (int i = 0; i < shape.nd; i++)
        n *= shape.d[i];
    return n;
}

int tp_shape_equal(tp_shape a, tp_shape b)
{
    if (a.nd != b.nd)
        return 0;
    for (int i = 0; i < a.nd; i++)
        if (a.d[i] != b.d[i])
            return 0;
    return 1;
}

const char *tp_shape_text(tp_shape shape, char *buf, size_t size)
{
    size_t at = (size_t)snprintf(buf, size, "(");
    for (int i = 0; i < shape.nd && at < size; i++)
        at += (size_t)snprintf(buf + at, size - at, i > 0 ? ",%lld" : "%lld", (long long)shape.d[i]);
    if (at < size)
        snprintf(buf + at, size - at, ")");
    return buf;
}

tp_status tp_shape_check(tp_shape shape, tp_dtype dtype)
{
    int64_t n = (int64_t)tp_dtype_size(dtype);

    TP_CHECK(n > 0, TP_ESHAPE, "dtype %d is not one of the %d known", (int)dtype, TP_DTYPE_COUNT - 1);
    TP_CHECK(shape.nd >= 0 && shape.nd <= TP_MAX_DIMS, TP_ESHAPE,
             "shape has %d dimensions, at most %d are allowed", shape.nd, TP_MAX_DIMS);
    for (int i = 0; i < shape.nd; i++) {
        TP_CHECK(shape.d[i] >= 0, TP_ESHAPE, "dimension %d is %lld, must be >= 0", i, (long long)shape.d[i]);
        TP_CHECK(!__builtin_mul_overflow(n, shape.d[i] > 0 ? shape.d[i] : 1, &n) && n <= (int64_t)1 << 62,
                 TP_ESHAPE, "shape needs more than 2^62 bytes at dimension %d (%lld)", i,
                 (long long)shape.d[i]);
    }
    return TP_OK;
}

size_t tp_tensor_bytes(const tp_tensor *t)
{
    return (size_t)tp_shape_len(t->shape) * tp_dtype_size(t->dtype);
}

double tp_tensor_get(const tp_tensor *t, int64_t i)
{
    switch (t->dtype) {
    case TP_F16:
        return (double)tp_f16_to_f32(((const uint16_t *)t->data)[i]);
    case TP_BF16:
        return (double)tp_bf16_to_f32(((const uint16_t *)t->data)[i]);
    case TP_F32:
        return (double)((const float *)t->data)[i];
    case TP_F64:
        return ((const double *)t->data)[i];
    case TP_I8:
        return (double)((const int8_t *)t->data)[i];
    case TP_I16:
        return (double)((const int16_t *)t->data)[i];
    case TP_I32:
        return (double)((const int32_t *)t->data)[i];
    case TP_I64:
        return (double)((const int64_t *)t->data)[i];
    case TP_U8:
        return (double)((const uint8_t *)t->data)[i];
    case TP_U16:
        return (double)((const uint16_t *)t->data)[i];
    case TP_U32:
        return (double)((const uint32_t *)t->data)[i];
    case TP_U64:
        return (double)((const uint64_t *)t->data)[i];
    default:
        return (double)NAN;
    }
}
