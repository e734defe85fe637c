#include "kernels/case.h"
#include "host/core/mem.h"
#include "host/core/parallel.h"
#include "host/core/rng.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DRAWS      4096 /* worth waking a thread for */
#define MAX_REPEAT ((int64_t)4 * TP_MAX_TENSORS)

/* ---- what the text says ---- */

static const struct {
    const char *name;
    tp_dtype dtype;
} dtypes[] = {{"i64", TP_I64}, {"i32", TP_I32}, {"i16", TP_I16}, {"i8", TP_I8},
              {"u64", TP_U64}, {"u32", TP_U32}, {"u16", TP_U16}, {"u8", TP_U8},
              {"f32", TP_F32}, {"f64", TP_F64}, {"f16", TP_F16}, {"bf16", TP_BF16}};

/* A number without sign or spaces; 0 if there is none. */
static int take_number(const char **at, int64_t *out)
{
    int64_t v = 0;
    const char *s = *at;

    for (; *s >= '0' && *s <= '9' && v < INT64_MAX / 16; s++)
        v = 10 * v + (*s - '0');
    const int found = s != *at && !(*s >= '0' && *s <= '9');
    *at = s;
    *out = v;
    return found;
}

static int take_dtype(const char *name, size_t len, tp_dtype *out)
{
    for (int i = 0; i < TP_COUNT(dtypes); i++)
        if (strlen(dtypes[i].name) == len && memcmp(dtypes[i].name, name, len) == 0) {
            *out = dtypes[i].dtype;
            return 1;
        }
    return 0;
}

/* "4x3" or "()" up to end. */
static int take_shape(const char *s, const char *end, tp_shape *out)
{
    *out = (tp_shape){0};
    if (end - s == 2 && s[0] == '(' && s[1] == ')')
        return 1;
    while (out->nd < TP_MAX_DIMS && take_number(&s, &out->d[out->nd])) {
        out->nd++;
        if (s == end)
            return 1;
        if (*s++ != 'x')
            return 0;
    }
    return 0;
}

/* One entry, len characters of it: "[repeat*]shape[:dtype]" or "-". */
static int take_entry(const char *s, size_t len, tp_tensor *out, int64_t *repeat)
{
    const char *end = s + len, *star = memchr(s, '*', len);

    *out = (tp_tensor){NULL, {0}, TP_F32};
    *repeat = 1;
    if (star != NULL) {
        if (!take_number(&s, repeat) || s != star || *repeat < 1 || *repeat > MAX_REPEAT)
            return 0;
        s = star + 1;
    }
    if (end - s == 1 && *s == '-') {
        out->dtype = TP_DTYPE_NONE;
        return 1;
    }
    const char *colon = memchr(s, ':', (size_t)(end - s));
    if (colon != NULL && !take_dtype(colon + 1, (size_t)(end - colon - 1), &out->dtype))
        return 0;
    return take_shape(s, colon != NULL ? colon : end, &out->shape) &&
           tp_shape_check(out->shape, out->dtype) == TP_OK;
}

static tp_status read_inputs(const char *text, tp_tensor **out, int *n)
{
    for (const char *s = text;; s++) {
        const size_t len = strcspn(s, ",");
        tp_tensor t;
        int64_t repeat;
        TP_CHECK(take_entry(s, len, &t, &repeat) && *n + repeat <= MAX_REPEAT, TP_EDATA,
                 "'%.*s' is no input: want 4x3, 4x3:i64, () or -", (int)len, s);
        TP_TRY(tp_realloc(out, (size_t)*n, (size_t)(*n + repeat), sizeof(tp_tensor), "inputs of a case"));
        for (; repeat > 0; repeat--)
            (*out)[(*n)++] = t;
        s += len;
        if (*s == '\0')
            return TP_OK;
    }
}

tp_status tp_case_inputs(const char *text, tp_tensor **out, int *n)
{
    *out = NULL;
    *n = 0;
    const tp_status st = read_inputs(text, out, n);
    if (st != TP_OK) {
        tp_free(*out);
        *out = NULL;
    }
    return st;
}

/* ---- the numbers ---- */

static uint64_t draw(uint64_t seed, int input, int64_t element)
{
    const tp_rng4 r = tp_rng_draw(seed, TP_RNG_OP, (uint64_t)element, (uint64_t)input);
    return (uint64_t)r.v[0] << 32 | r.v[1];
}

/* Each input has a grid of its own offset, so that no two elements of any inputs tie. */
static void fill_distinct(const tp_case *c, int input, uint64_t seed, double *v, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        v[i] = (double)(float)(c->lo + (c->hi - c->lo) * ((double)i + 0.25 + 0.37 * (input % 3)) / (double)n);
    for (int64_t i = n - 1; i > 0; i--) {
        const int64_t k = (int64_t)(draw(seed, input, i) % (uint64_t)(i + 1));
        const double swap = v[i];
        v[i] = v[k];
        v[k] = swap;
    }
}

/* Numbers that are drawn one by one, on every thread: a benchmark has many of them. */
typedef struct fill_job {
    const tp_case *c;
    int input;
    uint64_t seed, below, stride; /* of integers: below this; the next unique one is so far away */
    double *v;
} fill_job;

static void uniform_piece(void *ctx, int64_t begin, int64_t end)
{
    const fill_job *j = ctx;
    const tp_case *c = j->c;
    double *v = j->v;

    for (int64_t i = begin; i < end; i++) {
        const double u = (double)(draw(j->seed, j->input, i) >> 11) * 0x1p-53;
        v[i] = (double)(float)(c->lo + (c->hi - c->lo) * u);
        if (c->flags & TP_CASE_WHOLE)
            v[i] = floor(v[i]);
        if ((c->flags & TP_CASE_AWAY) && fabs(v[i]) < 0.05)
            v[i] = (double)(v[i] < 0 ? -0.06f : 0.06f);
    }
}

static void integer_piece(void *ctx, int64_t begin, int64_t end)
{
    const fill_job *j = ctx;
    for (int64_t i = begin; i < end; i++)
        j->v[i] = (double)(draw(j->seed, j->input, i) % j->below);
}

/* Multiples of a number that is prime to `below` are all different, modulo `below`. */
static void unique_piece(void *ctx, int64_t begin, int64_t end)
{
    const fill_job *j = ctx;
    const uint64_t first = draw(j->seed, j->input, 0) % j->below;

    for (int64_t i = begin; i < end; i++)
        j->v[i] = (uint64_t)i < j->below ? (double)((first + (uint64_t)i * j->stride) % j->below) : -1.0;
}

/* Near 0.618 of `below`, where few multiples are neighbours. */
static uint64_t stride_of(uint64_t below)
{
    for (uint64_t stride = (uint64_t)(0.618 * (double)below) + 1;; stride++) {
        uint64_t a = stride, b = below;
        while (b != 0) {
            const uint64_t rest = a % b;
            a = b;
            b = rest;
        }
        if (a == 1)
            return stride;
    }
}

static void fill_integers(const tp_case *c, const tp_tensor *input, int i, uint64_t seed, double *v,
                          int64_t n)
{
    const uint64_t most = (uint64_t)1 << (8 * tp_dtype_size(input->dtype) - 1);
    uint64_t below = c->ihi <= 0 ? 1 : ((uint64_t)c->ihi < most ? (uint64_t)c->ihi : most);

    if (c->flags & TP_CASE_UNIQUE) {
        below = below < UINT32_MAX ? below : UINT32_MAX; /* products fit into 64 bits */
        tp_parallel(n, DRAWS, unique_piece, &(fill_job){c, i, seed, below, stride_of(below), v});
    } else
        tp_parallel(n, DRAWS, integer_piece, &(fill_job){c, i, seed, below, 0, v});
}

static void make_distributions(double *v, int64_t n, int64_t cols)
{
    for (int64_t r = 0; cols > 0 && r + cols <= n; r += cols) {
        double sum = 0;
        for (int64_t k = r; k < r + cols; k++)
            sum += v[k] = fabs(v[k]) + 0.01;
        for (int64_t k = r; k < r + cols; k++)
            v[k] = (double)(float)(v[k] / sum);
    }
}

void tp_case_values(const tp_case *c, const tp_tensor *input, int i, uint64_t seed, double *v)
{
    const tp_shape s = input->shape;
    const int64_t n = input->dtype == TP_DTYPE_NONE ? 0 : tp_shape_len(s);

    if (tp_is_int(input->dtype)) {
        fill_integers(c, input, i, seed, v, n);
        return;
    }
    if (c->flags & TP_CASE_DISTINCT)
        fill_distinct(c, i, seed, v, n);
    else
        tp_parallel(n, DRAWS, uniform_piece, &(fill_job){c, i, seed, 1, 0, v});
    if (c->flags & TP_CASE_ROWSUM1)
        make_distributions(v, n, s.nd > 0 ? s.d[s.nd - 1] : 1);
    for (int64_t k = 0; input->dtype == TP_BF16 && k < n; k++)
        v[k] = (double)tp_bf16_to_f32(tp_bf16_from_f32((float)v[k]));
}

tp_dtype tp_case_dtype(tp_dtype asked, tp_dtype real)
{
    return !tp_is_float(asked) || (asked == TP_BF16 && real == TP_F32) ? asked : real;
}

/* What is cut off is lost: a test reads the stored value. Too small for float16 is 0. */
static uint16_t upper_bits(double v, tp_dtype dtype)
{
    const float f = (float)v;
    uint32_t bits;

    memcpy(&bits, &f, sizeof(bits));
    if (dtype == TP_BF16)
        return (uint16_t)(bits >> 16);
    const int exponent = (int)(bits >> 23 & 0xff) - 112;
    return exponent <= 0 || exponent > 30
               ? 0
               : (uint16_t)((bits >> 16 & 0x8000) | (uint32_t)exponent << 10 | (bits >> 13 & 0x3ff));
}

void tp_case_store(const tp_tensor *t, const double *v)
{
    const int64_t n = t->dtype == TP_DTYPE_NONE ? 0 : tp_shape_len(t->shape);

#define STORE(tag, type)                                                                                     \
    case tag:                                                                                                \
        for (int64_t i = 0; i < n; i++)                                                                      \
            ((type *)t->data)[i] = (type)v[i];                                                               \
        break;
    switch (t->dtype) {
        STORE(TP_F32, float)
        STORE(TP_F64, double)
        STORE(TP_I64, int64_t)
        STORE(TP_U64, uint64_t)
        STORE(TP_I32, int32_t)
        STORE(TP_U32, uint32_t)
        STORE(TP_I16, int16_t)
        STORE(TP_U16, uint16_t)
        STORE(TP_I8, int8_t)
        STORE(TP_U8, uint8_t)
    case TP_F16:
    case TP_BF16:
        for (int64_t i = 0; i < n; i++)
            ((uint16_t *)t->data)[i] = upper_bits(v[i], t->dtype);
        break;
    default:
        break;
    }
#undef STORE
}

double tp_case_tolerance(const tp_case *c, const tp_tensor *inputs, int n)
{
    double longest = 1;

    if (c->tolerance > 0)
        return c->tolerance;
    for (int i = 0; i < n; i++)
        longest = fmax(longest, (double)tp_shape_len(inputs[i].shape));
    return 4 * sqrt(longest) * 0x1p-24 + 1e-6;
}
