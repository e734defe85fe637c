/* attr.c - the attributes of every op by name, so that a shapes file can give them and a row can show them.
 */
#include "host/bench/bench.h"
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum field_type { F_INT, F_U32, F_I64, F_F64, F_PAIR, F_INTS, F_I64S, F_SHAPE, F_NAME } field_type;

typedef struct field {
    const char *name;
    field_type type;
    size_t offset;
    const char *const *names; /* F_NAME: the texts of 0, 1, ... */
} field;

static const char *const activations[] = {"none", "relu", "tanh", "sigmoid", NULL};
static const char *const dtypes[] = {"none", "float16", "bfloat16", "float32", NULL};
static const char *const losses[] = {"mse", "mae", "huber", "quantile", NULL};
static const char *const optimizers[] = {"sgd", "adam", "adamw", "lion", "rmsprop", "adagrad", NULL};

#define F(type, member, kind)                                                                                \
    {                                                                                                        \
#member, kind, offsetof(type, member), NULL                                                          \
    }
#define NAMED(type, member, list)                                                                            \
    {                                                                                                        \
#member, F_NAME, offsetof(type, member), list                                                        \
    }
#define INNER(type, outer, member, k)                                                                        \
    {                                                                                                        \
#member, k, offsetof(type, outer.member), NULL                                                       \
    }
#define END                                                                                                  \
    {                                                                                                        \
        NULL, F_INT, 0, NULL                                                                                 \
    }

static const field f_unary[] = {F(tp_unary_attr, a, F_F64), F(tp_unary_attr, b, F_F64), END};
static const field f_cast[] = {NAMED(tp_cast_attr, to, dtypes), END};
static const field f_reduce[] = {F(tp_reduce_attr, axes, F_U32), F(tp_reduce_attr, keep, F_INT), END};
static const field f_expand[] = {F(tp_expand_attr, shape, F_SHAPE), END};
static const field f_transpose[] = {F(tp_transpose_attr, perm, F_INTS), END};
static const field f_concat[] = {F(tp_concat_attr, axis, F_INT), END};
static const field f_slice[] = {F(tp_slice_attr, axis, F_INT), F(tp_slice_attr, begin, F_I64),
                                F(tp_slice_attr, end, F_I64), END};
static const field f_pad[] = {F(tp_pad_attr, before, F_I64S), F(tp_pad_attr, after, F_I64S),
                              F(tp_pad_attr, value, F_F64), END};
static const field f_matmul[] = {F(tp_matmul_attr, trans_a, F_INT), F(tp_matmul_attr, trans_b, F_INT), END};
static const field f_gemm[] = {F(tp_gemm_attr, trans_a, F_INT), F(tp_gemm_attr, trans_b, F_INT),
                               NAMED(tp_gemm_attr, act, activations), END};
static const field f_conv[] = {F(tp_conv_attr, stride, F_PAIR),
                               F(tp_conv_attr, pad, F_PAIR),
                               F(tp_conv_attr, dilation, F_PAIR),
                               F(tp_conv_attr, groups, F_I64),
                               NAMED(tp_conv_attr, act, activations),
                               F(tp_conv_attr, channels_last, F_INT),
                               END};
static const field f_conv_grad[] = {INNER(tp_conv_grad_attr, conv, stride, F_PAIR),
                                    INNER(tp_conv_grad_attr, conv, pad, F_PAIR),
                                    INNER(tp_conv_grad_attr, conv, dilation, F_PAIR),
                                    INNER(tp_conv_grad_attr, conv, groups, F_I64),
                                    INNER(tp_conv_grad_attr, conv, channels_last, F_INT),
                                    F(tp_conv_grad_attr, shape, F_SHAPE),
                                    END};
static const field f_pool[] = {F(tp_pool_attr, kernel, F_PAIR), F(tp_pool_attr, stride, F_PAIR),
                               F(tp_pool_attr, pad, F_PAIR), F(tp_pool_attr, channels_last, F_INT), END};
static const field f_pool_grad[] = {
    INNER(tp_pool_grad_attr, pool, kernel, F_PAIR), INNER(tp_pool_grad_attr, pool, stride, F_PAIR),
    INNER(tp_pool_grad_attr, pool, pad, F_PAIR),    INNER(tp_pool_grad_attr, pool, channels_last, F_INT),
    F(tp_pool_grad_attr, shape, F_SHAPE),           END};
static const field f_norm[] = {F(tp_norm_attr, epsilon, F_F64), F(tp_norm_attr, momentum, F_F64),
                               F(tp_norm_attr, groups, F_I64), NAMED(tp_norm_attr, act, activations), END};
static const field f_embedding[] = {F(tp_embedding_attr, n_rows, F_I64), END};
static const field f_xent[] = {F(tp_xent_attr, smoothing, F_F64), END};
static const field f_regression[] = {NAMED(tp_regression_attr, kind, losses),
                                     F(tp_regression_attr, param, F_F64), END};
static const field f_random[] = {F(tp_random_attr, stream, F_U32), F(tp_random_attr, shape, F_SHAPE),
                                 F(tp_random_attr, a, F_F64), F(tp_random_attr, b, F_F64), END};
static const field f_dropout[] = {F(tp_dropout_attr, stream, F_U32), F(tp_dropout_attr, rate, F_F64), END};
static const field f_sample[] = {F(tp_sample_attr, batch, F_I64), F(tp_sample_attr, steps_per_epoch, F_I64),
                                 F(tp_sample_attr, shuffle, F_INT), END};
static const field f_gather[] = {F(tp_gather_attr, ids, F_INT),
                                 F(tp_gather_attr, crop, F_INT),
                                 F(tp_gather_attr, hflip, F_INT),
                                 F(tp_gather_attr, steps_per_epoch, F_I64),
                                 F(tp_gather_attr, staged, F_INT),
                                 F(tp_gather_attr, first, F_I64),
                                 END};
static const field f_clip_norm[] = {F(tp_clip_norm_attr, max_norm, F_F64), END};
static const field f_optimizer[] = {NAMED(tp_optimizer_attr, kind, optimizers),
                                    F(tp_optimizer_attr, beta1, F_F64),
                                    F(tp_optimizer_attr, beta2, F_F64),
                                    F(tp_optimizer_attr, epsilon, F_F64),
                                    F(tp_optimizer_attr, momentum, F_F64),
                                    F(tp_optimizer_attr, nesterov, F_INT),
                                    F(tp_optimizer_attr, ema, F_F64),
                                    F(tp_optimizer_attr, low, F_INT),
                                    END};
static const field f_ema[] = {F(tp_ema_attr, decay, F_F64), END};

/* Ops whose name begins so have these attributes; the first that fits counts. */
static const struct {
    const char *begin;
    const field *fields;
} ops[] = {{"leaky_relu", f_unary},
           {"elu", f_unary},
           {"clip_norm", f_clip_norm},
           {"clip", f_unary},
           {"cast", f_cast},
           {"reduce_", f_reduce},
           {"expand", f_expand},
           {"reshape", f_expand},
           {"transpose", f_transpose},
           {"concat", f_concat},
           {"slice", f_slice},
           {"pad", f_pad},
           {"matmul", f_matmul},
           {"gemm", f_gemm},
           {"conv_", f_conv_grad},
           {"conv", f_conv},
           {"avg_pool_grad", f_pool_grad},
           {"avg_pool", f_pool},
           {"max_pool", f_pool},
           {"batch_norm", f_norm},
           {"layer_norm", f_norm},
           {"group_norm", f_norm},
           {"embedding_", f_embedding},
           {"softmax_cross_entropy", f_xent},
           {"regression_loss", f_regression},
           {"random_", f_random},
           {"dropout", f_dropout},
           {"sample_index", f_sample},
           {"gather_batch", f_gather},
           {"optimize", f_optimizer},
           {"ema", f_ema}};

static const field *fields_of(const tp_op *op)
{
    static const field none[] = {END};

    for (int i = 0; i < TP_COUNT(ops) && op->attr_size > 0; i++)
        if (strncmp(op->name, ops[i].begin, strlen(ops[i].begin)) == 0)
            return ops[i].fields;
    return none;
}

/* ---- text to value ---- */

/* Up to max numbers, separated by sep; their count, or 0. */
static int read_numbers(const char *text, char sep, int max, double *out)
{
    char *end;

    for (int n = 0; n < max; text = end + 1) {
        out[n] = strtod(text, &end);
        if (end == text || !isfinite(out[n]))
            return 0;
        n++;
        if (*end == '\0')
            return n;
        if (*end != sep)
            return 0;
    }
    return 0;
}

static int fits_int(double v, double limit)
{
    return floor(v) == v && fabs(v) <= limit;
}

static int all_fit(const double *v, int n, double limit)
{
    for (int i = 0; i < n; i++)
        if (!fits_int(v[i], limit))
            return 0;
    return n > 0;
}

static int set_name(const field *f, char *at, const char *value)
{
    for (int i = 0; f->names[i] != NULL; i++)
        if (strcmp(f->names[i], value) == 0) {
            memcpy(at, &i, sizeof(i)); /* an enum is an int here */
            return 1;
        }
    return 0;
}

static int set_field(const field *f, char *at, const char *value)
{
    double v[TP_MAX_DIMS];
    const int n = f->type == F_NAME ? 0 : read_numbers(value, f->type == F_SHAPE ? 'x' : ',', TP_MAX_DIMS, v);

    switch (f->type) {
    case F_NAME:
        return set_name(f, at, value);
    case F_F64:
        if (n == 1)
            *(double *)(void *)at = v[0];
        return n == 1;
    case F_INT:
        if (n != 1 || !fits_int(v[0], 0x1p30))
            return 0;
        *(int *)(void *)at = (int)v[0];
        return 1;
    case F_U32:
        if (n != 1 || !fits_int(v[0], 0x1p31) || v[0] < 0)
            return 0;
        *(uint32_t *)(void *)at = (uint32_t)v[0];
        return 1;
    case F_I64:
        if (n != 1 || !fits_int(v[0], 0x1p53))
            return 0;
        *(int64_t *)(void *)at = (int64_t)v[0];
        return 1;
    case F_PAIR:
        if (n > 2 || !all_fit(v, n, 0x1p31))
            return 0;
        for (int i = 0; i < 2; i++)
            ((int64_t *)(void *)at)[i] = (int64_t)v[n == 2 ? i : 0];
        return 1;
    case F_INTS:
        for (int i = 0; i < n && all_fit(v, n, 0x1p30); i++)
            ((int *)(void *)at)[i] = (int)v[i];
        return all_fit(v, n, 0x1p30);
    case F_I64S:
        for (int i = 0; i < n && all_fit(v, n, 0x1p53); i++)
            ((int64_t *)(void *)at)[i] = (int64_t)v[i];
        return all_fit(v, n, 0x1p53);
    default: /* F_SHAPE */
        if (!all_fit(v, n, 0x1p53))
            return 0;
        ((tp_shape *)(void *)at)->nd = n;
        for (int i = 0; i < n; i++)
            ((tp_shape *)(void *)at)->d[i] = (int64_t)v[i];
        return 1;
    }
}

tp_status bench_attr_set(const tp_op *op, void *attr, const char *key, const char *value)
{
    static const char *const wanted[] = {"a whole number",   "a whole number",       "a whole number",
                                         "a number",         "one number or two",    "numbers like 1,0",
                                         "numbers like 1,0", "a shape like 8x3x5x5", "one of its names"};

    for (const field *f = fields_of(op); f->name != NULL; f++)
        if (strcmp(f->name, key) == 0) {
            TP_CHECK(set_field(f, (char *)attr + f->offset, value), TP_EDATA, "%s of %s is '%s', want %s",
                     key, op->name, value, wanted[f->type]);
            return TP_OK;
        }
    TP_FAIL(TP_EDATA, "%s has no attribute '%s'", op->name, key);
}

/* ---- value to text ---- */

/* n values of a list, without the zeros that end it. */
static void print_list(FILE *f, const field *fld, const char *at)
{
    int64_t v[TP_MAX_DIMS];
    int n = fld->type == F_PAIR ? 2 : TP_MAX_DIMS;

    for (int i = 0; i < n; i++)
        v[i] =
            fld->type == F_INTS ? ((const int *)(const void *)at)[i] : ((const int64_t *)(const void *)at)[i];
    while (fld->type != F_PAIR && n > 1 && v[n - 1] == 0)
        n--;
    for (int i = 0; i < n; i++)
        fprintf(f, "%s%lld", i > 0 ? "," : "", (long long)v[i]);
}

static int is_zero(const field *f, const char *at)
{
    static const size_t bytes[] = {sizeof(int),
                                   sizeof(uint32_t),
                                   sizeof(int64_t),
                                   sizeof(double),
                                   2 * sizeof(int64_t),
                                   TP_MAX_DIMS * sizeof(int),
                                   TP_MAX_DIMS * sizeof(int64_t),
                                   sizeof(int),
                                   sizeof(int)};
    static const char zeros[TP_MAX_DIMS * sizeof(int64_t)];

    return memcmp(at, zeros, bytes[f->type]) == 0;
}

static void print_field(FILE *f, const field *fld, const char *at)
{
    fprintf(f, "%s=", fld->name);
    switch (fld->type) {
    case F_INT:
        fprintf(f, "%d", *(const int *)(const void *)at);
        break;
    case F_NAME:
        fprintf(f, "%s", fld->names[*(const int *)(const void *)at]);
        break;
    case F_U32:
        fprintf(f, "%u", *(const uint32_t *)(const void *)at);
        break;
    case F_I64:
        fprintf(f, "%lld", (long long)*(const int64_t *)(const void *)at);
        break;
    case F_F64:
        fprintf(f, "%g", *(const double *)(const void *)at);
        break;
    case F_SHAPE:
        for (int i = 0; i < ((const tp_shape *)(const void *)at)->nd; i++)
            fprintf(f, "%s%lld", i > 0 ? "x" : "", (long long)((const tp_shape *)(const void *)at)->d[i]);
        break;
    default:
        print_list(f, fld, at);
    }
}

const char *bench_attr_text(const tp_op *op, const void *attr, char *buf, size_t size)
{
    FILE *f = fmemopen(buf, size, "w");
    int first = 1;

    buf[0] = '\0';
    for (const field *fld = fields_of(op); f != NULL && attr != NULL && fld->name != NULL; fld++) {
        const char *at = (const char *)attr + fld->offset;
        if (is_zero(fld, at) && (fld->type != F_NAME || fld->names == activations))
            continue;
        if (!first)
            fputc(' ', f);
        print_field(f, fld, at);
        first = 0;
    }
    if (f != NULL)
        fclose(f);
    buf[size - 1] = '\0';
    return buf;
}
