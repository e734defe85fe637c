/* batch.c - what makes the batch of a step from a resident data set: which rows, and their values normalised,
 * augmented and laid out as float32 (or ids as int64). Pure functions of (seed, step), so there is nothing to
 * save. */
#include "host/core/order.h"
#include "kernels/cpu.h"
#include "kernels/data/place.h"
#include <string.h>

/* ---- sample_index ---- */

static tp_step_place place_of(const tp_tensor *counter, int64_t steps_per_epoch, int64_t batch)
{
    return tp_step_place_of(counter->data, steps_per_epoch, batch);
}

static void index_piece(void *ctx, int64_t begin, int64_t end)
{
    const tp_call *c = ctx;
    const tp_sample_attr *a = c->attr;
    const tp_step_place at = place_of(&c->in[0], a->steps_per_epoch, a->batch);
    const int64_t n = tp_len(&c->in[1]);
    const int64_t *rows = c->in[1].data;
    int64_t *index = c->out[0].data;

    for (int64_t i = begin; i < end; i++) {
        const int64_t p = at.first + i;
        index[i] = rows[p >= n ? 0 : (a->shuffle ? tp_order_at(at.seed, at.epoch, n, p) : p)];
        tp_set(&c->out[1], i, p < n ? 1.0 : 0.0);
    }
}

static tp_status index_run(const tp_call *c)
{
    tp_parallel(tp_len(&c->out[0]), 256, index_piece, (void *)(uintptr_t)c);
    return TP_OK;
}

static tp_status accept_any(tp_call *c, size_t *scratch)
{
    (void)c, (void)scratch;
    return TP_OK;
}

static tp_status check_counter(const tp_infer *x, int i)
{
    TP_CHECK(x->dtype[i] == TP_U64 && tp_shape_len(x->shape[i]) == 2, TP_ESHAPE,
             "counter must be uint64 (2)");
    return TP_OK;
}

static tp_status infer_index(tp_infer *x)
{
    const tp_sample_attr *a = x->attr;

    TP_TRY(check_counter(x, 0));
    TP_CHECK(x->dtype[1] == TP_I64 && x->shape[1].nd == 1 && x->shape[1].d[0] > 0, TP_ESHAPE,
             "rows must be int64 (N), N > 0");
    TP_CHECK(a->batch > 0 && a->steps_per_epoch > 0, TP_ESHAPE,
             "batch is %lld and steps_per_epoch %lld, want > 0", (long long)a->batch,
             (long long)a->steps_per_epoch);
    x->out_shape[0] = x->out_shape[1] = (tp_shape){1, {a->batch}};
    x->out_dtype[0] = TP_I64;
    x->out_dtype[1] = TP_F32;
    return TP_OK;
}

static const tp_sample_attr sample_a = {4, 5, 1}, sample_b = {7, 3, 0}, sample_last = {20, 1, 1},
                            sample_large = {700, 3, 1};
static const tp_case cases_index[] = {{"2:u64,17:i64", 0, 1, 1000, &sample_a, 0, 0},
                                      {"2:u64,17:i64", 0, 1, 1000, &sample_b, 0, 0},
                                      {"2:u64,17:i64", 0, 1, 1000, &sample_last, 0, 0},
                                      {"2:u64,1100:i64", 0, 1, 1000, &sample_large, 0, 0}};
static const tp_impl index_cpu_ref = {"ref", accept_any, index_run, NULL, 0};
const tp_op tp_op_sample_index = {.name = "sample_index",
                                  .min_in = 2,
                                  .max_in = 2,
                                  .n_out = 2,
                                  .flags = TP_OP_RANDOM | TP_OP_STOP,
                                  .attr_size = sizeof(tp_sample_attr),
                                  .infer = infer_index,
                                  .cost = tp_cost_stream,
                                  .cpu = TP_IMPLS(&index_cpu_ref),
                                  .cases = cases_index,
                                  .n_cases = TP_COUNT(cases_index)};

tp_val tp_sample_index(tp_graph *g, tp_val counter, tp_val rows, tp_sample_attr attr)
{
    return tp_graph_add(g, &tp_op_sample_index, 2, (const tp_val[]){counter, rows}, &attr);
}

/* ---- gather_batch ---- */

/* inputs: data, index, shift, scale, counter */
enum { IN_DATA, IN_INDEX, IN_SHIFT, IN_SCALE, IN_COUNTER };

#define CONVERT(T)                                                                                           \
    for (int64_t i = 0; i < n; i++)                                                                          \
        y[i] = (float)((const T *)x)[i];                                                                     \
    break

TP_SIMD static void convert_u8(float *restrict y, const uint8_t *restrict x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = (float)x[i];
}

static void to_float(float *y, const void *x, tp_dtype dtype, int64_t n)
{
    switch (dtype) {
    case TP_F32:
        memcpy(y, x, (size_t)n * 4);
        break;
    case TP_U8:
        convert_u8(y, x, n);
        break;
    case TP_F64:
        CONVERT(double);
    case TP_I8:
        CONVERT(int8_t);
    case TP_I16:
        CONVERT(int16_t);
    case TP_I32:
        CONVERT(int32_t);
    case TP_I64:
        CONVERT(int64_t);
    case TP_U16:
        CONVERT(uint16_t);
    case TP_U32:
        CONVERT(uint32_t);
    case TP_U64:
        CONVERT(uint64_t);
    default:
        for (int64_t i = 0; i < n; i++) {
            const uint16_t h = ((const uint16_t *)x)[i];
            y[i] = dtype == TP_F16 ? tp_f16_to_f32(h) : tp_bf16_to_f32(h);
        }
    }
}

TP_SIMD static void normalise(float *y, const float *shift, const float *scale, int64_t n_norm, int64_t run,
                              int64_t n)
{
    if (run == 1) {
        for (int64_t i = 0; i < n; i++)
            y[i] = (y[i] - shift[i]) * scale[i];
        return;
    }
    for (int64_t k = 0; k < n_norm; k++)
        for (int64_t i = 0; i < run; i++)
            y[k * run + i] = (y[k * run + i] - shift[k]) * scale[k];
}

typedef struct gather_job {
    const tp_call *c;
    int64_t row, run;
    int has_norm;
} gather_job;

/* Moves an image not yet normalised. Padding takes the shift, which is to make 0 of it. `copy` has room for
 * the image. */
static void augment_row(const gather_job *g, float *image, float *copy, int64_t sample)
{
    const tp_shape s = g->c->in[IN_DATA].shape;
    const int64_t h = s.d[2], w = s.d[3];
    const float *shift = g->has_norm ? tp_in_f32(g->c, IN_SHIFT) : NULL;
    const tp_augment m =
        tp_augment_of(g->c->in[IN_COUNTER].data, *(const tp_gather_attr *)g->c->attr, sample);

    memcpy(copy, image, (size_t)g->row * sizeof(float));
    for (int64_t c = 0; c < s.d[1]; c++)
        for (int64_t i = 0; i < h; i++)
            for (int64_t j = 0; j < w; j++) {
                const int64_t from = tp_augment_source(m, h, w, i, j), k = (c * h + i) * w + j;
                image[k] = from >= 0 ? copy[c * h * w + from] : shift == NULL ? 0.0f : shift[k / g->run];
            }
}

/* The row of data that output row b comes from. */
static int64_t row_of(const tp_call *c, int64_t b)
{
    const tp_gather_attr *a = c->attr;
    return a->staged ? a->first + b : tp_get_int(&c->in[IN_INDEX], b);
}

static void gather_piece(void *ctx, int64_t begin, int64_t end)
{
    const gather_job *j = ctx;
    const tp_call *c = j->c;
    const tp_gather_attr *a = c->attr;
    const tp_tensor *data = &c->in[IN_DATA];
    const size_t row_bytes = (size_t)j->row * tp_dtype_size(data->dtype);

    for (int64_t b = begin; b < end; b++) {
        const char *x = (const char *)data->data + (size_t)row_of(c, b) * row_bytes;
        float *y = tp_out_f32(c, 0) + b * j->row;
        to_float(y, x, data->dtype, j->row);
        if (a->crop > 0 || a->hflip)
            augment_row(j, y, (float *)c->scratch + b * j->row, tp_get_int(&c->in[IN_INDEX], b));
        if (j->has_norm)
            normalise(y, tp_in_f32(c, IN_SHIFT), tp_in_f32(c, IN_SCALE), tp_len(&c->in[IN_SCALE]), j->run,
                      j->row);
    }
}

static void gather_ids(const tp_call *c, int64_t row)
{
    int64_t *y = c->out[0].data;
    for (int64_t b = 0, n = tp_len(&c->in[IN_INDEX]); b < n; b++)
        for (int64_t k = 0; k < row; k++)
            y[b * row + k] = tp_get_int(&c->in[IN_DATA], row_of(c, b) * row + k);
}

static int64_t row_len(tp_shape s)
{
    return s.d[0] > 0 ? tp_shape_len(s) / s.d[0] : 0;
}

static tp_status gather_run(const tp_call *c)
{
    const tp_gather_attr *a = c->attr;
    gather_job j = {
        .c = c, .row = row_len(c->in[IN_DATA].shape), .has_norm = c->in[IN_SCALE].dtype != TP_DTYPE_NONE};

    if (a->ids) {
        gather_ids(c, j.row);
        return TP_OK;
    }
    if (j.has_norm)
        j.run = j.row / tp_len(&c->in[IN_SCALE]);
    tp_parallel(tp_len(&c->in[IN_INDEX]), 1 + TP_GRAIN / (j.row + 1), gather_piece, &j);
    return TP_OK;
}

/* One element at a time: where it comes from, then its value. */
static double element(const tp_tensor *t, int64_t i)
{
    if (t->dtype == TP_F16)
        return (double)tp_f16_to_f32(((const uint16_t *)t->data)[i]);
    if (t->dtype == TP_BF16)
        return (double)tp_bf16_to_f32(((const uint16_t *)t->data)[i]);
    return tp_get(t, i);
}

/* Source pixel of element k of an augmented image, or -1 in the padding. */
static int64_t source_of(const tp_call *c, int64_t sample, int64_t k)
{
    const tp_gather_attr *a = c->attr;
    const tp_shape s = c->in[IN_DATA].shape;
    if (a->crop == 0 && !a->hflip)
        return k;
    const tp_step_place at = place_of(&c->in[IN_COUNTER], a->steps_per_epoch, 1);
    const tp_rng4 r = tp_rng_draw(at.seed, TP_RNG_AUGMENT, (uint64_t)sample, at.epoch);
    const int64_t span = 2 * (int64_t)a->crop + 1, w = s.d[3], h = s.d[2];
    const int64_t i = k / w % h + (int64_t)r.v[0] * span / ((int64_t)1 << 32) - a->crop;
    const int64_t j = k % w + (int64_t)r.v[1] * span / ((int64_t)1 << 32) - a->crop;
    if (i < 0 || i >= h || j < 0 || j >= w)
        return -1;
    return k / (h * w) * h * w + i * w + (a->hflip && r.v[2] >= 0x80000000u ? w - 1 - j : j);
}

static tp_status gather_ref(const tp_call *c)
{
    const int64_t row = row_len(c->in[IN_DATA].shape);
    const int has_norm = c->in[IN_SCALE].dtype != TP_DTYPE_NONE;
    const int64_t run = has_norm ? row / tp_len(&c->in[IN_SCALE]) : 1;

    for (int64_t b = 0, n = tp_len(&c->in[IN_INDEX]); b < n; b++) {
        const int64_t sample = tp_get_int(&c->in[IN_INDEX], b);
        for (int64_t k = 0; k < row; k++) {
            const int64_t from = source_of(c, sample, k);
            double v = from >= 0 ? element(&c->in[IN_DATA], row_of(c, b) * row + from) : 0.0;
            if (has_norm && from >= 0)
                v = (v - tp_get(&c->in[IN_SHIFT], k / run)) * tp_get(&c->in[IN_SCALE], k / run);
            tp_set(&c->out[0], b * row + k, v);
        }
    }
    return TP_OK;
}

static tp_status gather_prepare(tp_call *c, size_t *scratch)
{
    TP_CHECK(c->n_in <= IN_SCALE || c->in[IN_SCALE].dtype != TP_F64, TP_EUNSUP,
             "scale is float64, want float32");
    const tp_gather_attr *a = c->attr;
    if (a->crop > 0 || a->hflip)
        *scratch = tp_tensor_bytes(&c->out[0]);
    return TP_OK;
}

static tp_status check_norm(const tp_infer *x)
{
    for (int i = IN_SHIFT; i <= IN_SCALE && i < x->n_in; i++) {
        if (x->dtype[i] == TP_DTYPE_NONE)
            continue;
        const int64_t n = tp_shape_len(x->shape[i]);
        TP_CHECK(tp_is_float(x->dtype[i]) && n > 0 && row_len(x->shape[0]) % n == 0, TP_ESHAPE,
                 "shift and scale have %lld values, which do not divide a row of %lld", (long long)n,
                 (long long)row_len(x->shape[0]));
    }
    TP_CHECK((x->dtype[IN_SHIFT] == TP_DTYPE_NONE) == (x->dtype[IN_SCALE] == TP_DTYPE_NONE), TP_ESHAPE,
             "shift and scale come together");
    return TP_OK;
}

static tp_status infer_gather(tp_infer *x)
{
    const tp_gather_attr *a = x->attr;

    TP_CHECK(x->shape[0].nd >= 1 && x->dtype[1] == TP_I64 && x->shape[1].nd == 1, TP_ESHAPE,
             "wants data (N,...) and index int64 (B)");
    TP_CHECK(!a->staged || (a->first >= 0 && a->first + x->shape[1].d[0] <= x->shape[0].d[0]), TP_ESHAPE,
             "staged rows %lld and on for an index of %lld, data has %lld", (long long)a->first,
             (long long)x->shape[1].d[0], (long long)x->shape[0].d[0]);
    TP_CHECK(!a->ids || tp_is_int(x->dtype[0]), TP_ESHAPE, "ids are %s, want integers",
             tp_dtype_name(x->dtype[0]));
    TP_TRY(check_norm(x));
    if (a->crop > 0 || a->hflip) {
        TP_CHECK(x->shape[0].nd == 4 && a->steps_per_epoch > 0, TP_ESHAPE,
                 "augmentation wants images (N,C,H,W) and steps_per_epoch > 0");
        TP_TRY(check_counter(x, IN_COUNTER));
    }
    x->out_shape[0].d[0] = x->shape[1].d[0];
    x->out_dtype[0] = a->ids ? TP_I64 : TP_F32;
    return TP_OK;
}

/* Only the rows of the index are read. */
static tp_cost cost_gather(const tp_call *c)
{
    const double n = (double)tp_len(&c->out[0]);
    return (tp_cost){.flops = n,
                     .bytes = (double)tp_tensor_bytes(&c->in[1]) + (double)tp_tensor_bytes(&c->out[0]) +
                              n * (double)tp_dtype_size(c->in[0].dtype)};
}

static const tp_gather_attr gather_plain = {0}, gather_ids_attr = {.ids = 1},
                            gather_augment = {.crop = 2, .hflip = 1, .steps_per_epoch = 7},
                            gather_staged = {.crop = 1,
                                             .hflip = 1,
                                             .steps_per_epoch = 7,
                                             .staged = 1,
                                             .first = 3},
                            gather_ids_staged = {.ids = 1, .staged = 1, .first = 2};
static const tp_case cases_gather[] = {
    {"20x5:f32,9:i64,-,-,-", -1.0, 1.0, 20, &gather_plain, 0, 0},
    {"20x6:u8,9:i64,6,6,-", -1.0, 1.0, 20, &gather_plain, 0, 0},
    {"20x64:u8,70:i64,64,64,-", -1.0, 1.0, 20, &gather_plain, 0, 0},
    {"20x1100:u8,9:i64,1,1,-", -1.0, 1.0, 20, &gather_plain, 0, 0},
    {"20x12:f32,300:i64,6,6,-", -1.0, 1.0, 20, &gather_plain, 0, 0},
    {"20x8:f64,9:i64,-,-,-", -1.0, 1.0, 20, &gather_plain, 0, 0},
    {"20x4:f16,9:i64,4,4,-", -1.0, 1.0, 20, &gather_plain, 0, 0},
    {"20x300:f32,9:i64,-,-,-", -1.0, 1.0, 20, &gather_plain, 0, 0},
    {"20x301:f32,9:i64,301,301,-", -1.0, 1.0, 20, &gather_plain, 0, 0},
    {"2000:f32,1500:i64,-,-,-", -1.0, 1.0, 2000, &gather_plain, 0, 0},
    {"6x1x3x40:u8,5:i64,1,1,2:u64", -1.0, 1.0, 6, &gather_augment, 0, 0},
    {"20x3x4x5:i16,9:i64,3,3,-", -1.0, 1.0, 20, &gather_plain, 0, 0},
    {"20x3:i8,9:i64,3,3,-", -1.0, 1.0, 20, &gather_plain, 0, 0},
    {"20x3:i32,9:i64,3,3,-", -1.0, 1.0, 20, &gather_plain, 0, 0},
    {"20x3:i64,9:i64,3,3,-", -1.0, 1.0, 20, &gather_plain, 0, 0},
    {"20x3:u16,9:i64,3,3,-", -1.0, 1.0, 20, &gather_plain, 0, 0},
    {"20x3:u32,9:i64,3,3,-", -1.0, 1.0, 20, &gather_plain, 0, 0},
    {"20x3:u64,9:i64,3,3,-", -1.0, 1.0, 20, &gather_plain, 0, 0},
    {"20x3:f16,9:i64,3,3,-", -1.0, 1.0, 20, &gather_plain, 0, 0},
    {"20x3:bf16,9:i64,-,-,-", -1.0, 1.0, 20, &gather_plain, 0, 0},
    {"20x2x8x9:f16,33:i64,-,-,2:u64", -1.0, 1.0, 20, &gather_augment, 0, 0},
    {"20:i32,9:i64,-,-,-", -1.0, 1.0, 20, &gather_ids_attr, 0, 0},
    {"20x2x8x9:u8,33:i64,2,2,2:u64", -1.0, 1.0, 20, &gather_augment, 0, 0},
    {"9x2x5x4:u8,6:i64,2,2,2:u64", -1.0, 1.0, 50, &gather_staged, 0, 0},
    {"8x2:i32,6:i64,-,-,-", -1.0, 1.0, 50, &gather_ids_staged, 0, 0},
    {"6x1x3x40:u8,5:i64,120,120,2:u64", -1.0, 1.0, 6, &gather_augment, 0, 0},
};
static const tp_impl gather_cpu = {"simd", gather_prepare, gather_run, NULL, 0};
static const tp_impl gather_cpu_ref = {"ref", accept_any, gather_ref, NULL, 0};
const tp_op tp_op_gather_batch = {.name = "gather_batch",
                                  .onnx = "Gather",
                                  .min_in = 2,
                                  .max_in = 5,
                                  .n_out = 1,
                                  .flags = TP_OP_RANDOM | TP_OP_STOP,
                                  .attr_size = sizeof(tp_gather_attr),
                                  .infer = infer_gather,
                                  .cost = cost_gather,
                                  .cpu = TP_IMPLS(&gather_cpu, &gather_cpu_ref),
                                  .cases = cases_gather,
                                  .n_cases = TP_COUNT(cases_gather)};

tp_val tp_gather_batch(tp_graph *g, tp_val data, tp_val index, tp_val shift, tp_val scale, tp_val counter,
                       tp_gather_attr attr)
{
    return tp_graph_add(g, &tp_op_gather_batch, 5, (const tp_val[]){data, index, shift, scale, counter},
                        &attr);
}
