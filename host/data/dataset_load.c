#include "host/core/float16.h"
#include "host/core/mem.h"
#include "host/data/dataset.h"
#include <math.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

/* What is read, decoded and checked in one go. */
#define PIECE_BYTES   ((size_t)4 << 20)
#define PIECE_NUMBERS ((int64_t)1 << 16)

int tp_dtype_is_float(tp_dtype dtype)
{
    return dtype == TP_F16 || dtype == TP_BF16 || dtype == TP_F32 || dtype == TP_F64;
}

/* ---- numbers of any dtype ---- */

#define DECODE(T, value)                                                                                     \
    do {                                                                                                     \
        const T *s = src;                                                                                    \
        for (int64_t i = 0; i < n; i++)                                                                      \
            dst[i] = value(s[i]);                                                                            \
        return;                                                                                              \
    } while (0)

void tp_decode(tp_dtype dtype, const void *src, int64_t n, double *dst)
{
    switch (dtype) {
    case TP_F16:
        DECODE(uint16_t, (double)tp_f16_to_f32);
    case TP_BF16:
        DECODE(uint16_t, (double)tp_bf16_to_f32);
    case TP_F32:
        DECODE(float, (double));
    case TP_F64:
        DECODE(double, (double));
    case TP_I8:
        DECODE(int8_t, (double));
    case TP_I16:
        DECODE(int16_t, (double));
    case TP_I32:
        DECODE(int32_t, (double));
    case TP_I64:
        DECODE(int64_t, (double));
    case TP_U8:
        DECODE(uint8_t, (double));
    case TP_U16:
        DECODE(uint16_t, (double));
    case TP_U32:
        DECODE(uint32_t, (double));
    case TP_U64:
        DECODE(uint64_t, (double));
    case TP_DTYPE_NONE:
    case TP_DTYPE_COUNT:
        break;
    }
}

/* ---- reading ---- */

tp_status tp_column_read(const tp_data *d, const tp_column *c, int64_t row, int64_t n, void *dst)
{
    if (c->values) {
        memcpy(dst, (const char *)c->values + (size_t)row * c->row_bytes, (size_t)n * c->row_bytes);
        return TP_OK;
    }
    char *out = dst;
    for (int i = 0; i < d->n_sources && n > 0; i++) {
        const tp_source *s = &d->sources[i];
        const int64_t left = s->first + s->n - row;
        if (left <= 0)
            continue;
        const int64_t m = n < left ? n : left;
        TP_TRY(tp_h5_read(s->file, c->in[i], row - s->first, m, out));
        out += (size_t)m * c->row_bytes;
        row += m;
        n -= m;
    }
    return TP_OK;
}

/* Rows of one piece: whole chunks where that fits. */
static int64_t piece_rows(const tp_column *c, const tp_h5_array *a)
{
    const int64_t fit = (int64_t)(PIECE_BYTES / c->row_bytes);
    if (fit <= a->chunk_rows || a->chunk_rows < 1)
        return a->chunk_rows < 1 ? (fit < 1 ? 1 : fit) : a->chunk_rows;
    return fit - fit % a->chunk_rows;
}

tp_status tp_column_visit(const tp_data *d, const tp_column *c, tp_piece_fn fn, void *ctx)
{
    char *scratch = NULL;
    tp_status st = TP_OK;
    for (int i = 0; i < d->n_sources; i++) {
        const tp_source *s = &d->sources[i];
        const int64_t step = piece_rows(c, c->in[i]);
        if (!c->values) {
            tp_free(scratch);
            scratch = NULL;
            TP_TRY(tp_alloc(&scratch, (size_t)(step < s->n ? step : s->n), c->row_bytes, c->name));
        }
        for (int64_t row = 0; row < s->n; row += step) {
            const int64_t n = step < s->n - row ? step : s->n - row;
            const char *values = scratch;
            if (c->values)
                values = (const char *)c->values + (size_t)(s->first + row) * c->row_bytes;
            else
                TP_TRY_GOTO(tp_h5_read(s->file, c->in[i], row, n, scratch), st, done);
            TP_TRY_GOTO(fn(ctx, s->first + row, n, values), st, done);
        }
    }
done:
    tp_free(scratch);
    return st;
}

typedef struct numbers_ctx {
    const tp_column *c;
    tp_numbers_fn fn;
    void *ctx;
    int64_t step;
    double *buffer;
} numbers_ctx;

static tp_status decode_piece(void *ctx, int64_t row, int64_t n, const void *values)
{
    const numbers_ctx *x = ctx;
    for (int64_t k = 0; k < n; k += x->step) {
        const int64_t m = x->step < n - k ? x->step : n - k;
        tp_decode(x->c->dtype, (const char *)values + (size_t)k * x->c->row_bytes, m * x->c->row_len,
                  x->buffer);
        TP_TRY(x->fn(x->ctx, row + k, m, x->buffer));
    }
    return TP_OK;
}

tp_status tp_column_numbers(const tp_data *d, const tp_column *c, tp_numbers_fn fn, void *ctx)
{
    numbers_ctx x = {c, fn, ctx, PIECE_NUMBERS / c->row_len, NULL};
    if (x.step < 1)
        x.step = 1;
    TP_TRY(tp_alloc(&x.buffer, (size_t)(x.step * c->row_len), sizeof(double), c->name));
    const tp_status st = tp_column_visit(d, c, decode_piece, &x);
    tp_free(x.buffer);
    return st;
}

tp_place tp_column_place(const tp_data *d, const tp_column *c, int64_t row)
{
    int i = 0;
    while (i + 1 < d->n_sources && row >= d->sources[i + 1].first)
        i++;
    const tp_source *s = &d->sources[i];
    const char *slash = strrchr(s->path, '/');
    tp_place p;
    snprintf(p.text, sizeof p.text, "%.200s: %.200s: row %lld", slash ? slash + 1 : s->path, c->in[i]->name,
             (long long)(row - s->first));
    return p;
}

/* ---- the load pass ---- */

typedef struct load_ctx {
    tp_data *d;
    tp_column *c;
    crypto_generichash_state hash;
    int64_t bad_row, bad_count; /* rows in use that hold NaN or infinity, and the first of them */
    int64_t bad_element;
    double bad_value;
    int drop;
    double *buffer; /* one row, for float columns */
} load_ctx;

/* Whether any exponent is all ones; without a branch in the loop, so that it vectorises. */
#define ANY_NONFINITE(T, mask)                                                                               \
    do {                                                                                                     \
        const T *bits = src;                                                                                 \
        unsigned any = 0;                                                                                    \
        for (int64_t i = 0; i < n; i++)                                                                      \
            any |= (bits[i] & (mask)) == (mask);                                                             \
        return any != 0;                                                                                     \
    } while (0)

static int any_nonfinite(tp_dtype dtype, const void *src, int64_t n)
{
    switch (dtype) {
    case TP_F16:
        ANY_NONFINITE(uint16_t, 0x7c00);
    case TP_BF16:
        ANY_NONFINITE(uint16_t, 0x7f80);
    case TP_F32:
        ANY_NONFINITE(uint32_t, 0x7f800000);
    case TP_F64:
        ANY_NONFINITE(uint64_t, UINT64_C(0x7ff0000000000000));
    default:
        return 0;
    }
}

static void note_first(load_ctx *x, int64_t row, const void *values)
{
    tp_decode(x->c->dtype, values, x->c->row_len, x->buffer);
    x->bad_row = row;
    while (isfinite(x->buffer[x->bad_element]))
        x->bad_element++;
    x->bad_value = x->buffer[x->bad_element];
}

static void scan_finite(load_ctx *x, int64_t row, int64_t n, const char *values)
{
    const tp_column *c = x->c;
    if (!any_nonfinite(c->dtype, values, n * c->row_len))
        return;
    for (int64_t k = 0; k < n; k++) {
        const char *v = values + (size_t)k * c->row_bytes;
        if (x->d->part_of[row + k] >= TP_ROW_DROPPED || !any_nonfinite(c->dtype, v, c->row_len))
            continue;
        if (x->bad_count++ == 0)
            note_first(x, row + k, v);
        if (x->drop)
            x->d->part_of[row + k] = TP_ROW_DROPPED;
    }
}

static tp_status load_piece(void *ctx, int64_t row, int64_t n, const void *values)
{
    load_ctx *x = ctx;
    const size_t bytes = (size_t)n * x->c->row_bytes;
    crypto_generichash_update(&x->hash, values, bytes);
    if (x->c->numbers)
        tp_decode(x->c->dtype, values, n * x->c->row_len, x->c->numbers + row);
    if (x->buffer)
        scan_finite(x, row, n, values);
    return TP_OK;
}

/* Resident columns are read straight into their place, so that no second copy is made. */
static tp_status read_resident(tp_data *d, tp_column *c)
{
    char *values = NULL;
    TP_TRY(tp_alloc(&values, (size_t)d->n_rows, c->row_bytes, c->name));
    const tp_status st = tp_column_read(d, c, 0, d->n_rows, values);
    if (st == TP_OK)
        c->values = values;
    else
        tp_free(values);
    return st;
}

static void hash_begin(crypto_generichash_state *hash, const tp_data *d, const tp_column *c)
{
    char text[TP_SHAPE_TEXT_SIZE], head[TP_SHAPE_TEXT_SIZE + 64];
    snprintf(head, sizeof head, "|%d|%s|%lld|%s|", (int)c->role, tp_dtype_name(c->dtype),
             (long long)d->n_rows, tp_shape_text(c->sample, text, sizeof text));
    crypto_generichash_init(hash, NULL, 0, TP_DIGEST_BYTES);
    crypto_generichash_update(hash, (const unsigned char *)c->name, strlen(c->name));
    crypto_generichash_update(hash, (const unsigned char *)head, strlen(head));
}

tp_status tp_dataset_load(tp_data *d, tp_column *c, tp_nonfinite policy)
{
    load_ctx x = {.d = d, .c = c, .drop = policy == TP_NONFINITE_DROP};
    const int keep_numbers = c->role > TP_ROLE_WEIGHT;
    if (keep_numbers)
        TP_TRY(tp_alloc(&c->numbers, (size_t)d->n_rows, sizeof(double), c->name));
    else if (d->resident || c->role != TP_ROLE_INPUT)
        TP_TRY(read_resident(d, c));
    if (tp_dtype_is_float(c->dtype))
        TP_TRY(tp_alloc(&x.buffer, (size_t)c->row_len, sizeof(double), c->name));
    hash_begin(&x.hash, d, c);
    const tp_status st = tp_column_visit(d, c, load_piece, &x);
    tp_free(x.buffer);
    TP_TRY(st);
    crypto_generichash_final(&x.hash, c->digest, TP_DIGEST_BYTES);
    if (x.drop) {
        d->dropped += x.bad_count;
        return TP_OK;
    }
    TP_CHECK(x.bad_count == 0, TP_EDATA,
             "%s, value %lld is %g, want a finite number (%lld rows of it are not finite; the policy 'drop' "
             "leaves "
             "such rows out)",
             tp_column_place(d, c, x.bad_row).text, (long long)x.bad_element, x.bad_value,
             (long long)x.bad_count);
    return TP_OK;
}

void tp_dataset_hash(tp_data *d)
{
    crypto_generichash_state hash;
    unsigned char digest[TP_DIGEST_BYTES];
    crypto_generichash_init(&hash, NULL, 0, sizeof digest);
    for (int i = 0; i < d->n_columns; i++)
        crypto_generichash_update(&hash, d->columns[i].digest, TP_DIGEST_BYTES);
    crypto_generichash_final(&hash, digest, sizeof digest);
    sodium_bin2hex(d->hash, sizeof d->hash, digest, sizeof digest);
}
