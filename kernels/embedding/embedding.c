/* embedding.c - rows of a table by id, and the two forms of its gradient: dense (V,D), or sparse (the
 * distinct rows of the batch with their sums), which is what lets a step touch only those rows. Sums run in
 * the order of the ids. */
#include "kernels/cpu.h"
#include <string.h>

static int64_t clamp_id(int64_t id, int64_t n_rows)
{
    return id >= 0 && id < n_rows ? id : 0;
}

/* ---- embedding ---- */

static tp_status infer_embedding(tp_infer *x)
{
    TP_CHECK(tp_is_float(x->dtype[0]) && x->shape[0].nd == 2 && x->shape[0].d[0] > 0, TP_ESHAPE,
             "table must be float (V,D), V > 0");
    TP_CHECK(tp_is_int(x->dtype[1]) && x->shape[1].nd + 1 <= TP_MAX_DIMS, TP_ESHAPE,
             "ids are %s, want integers", tp_dtype_name(x->dtype[1]));
    x->out_shape[0] = x->shape[1];
    x->out_shape[0].d[x->out_shape[0].nd++] = x->shape[0].d[1];
    return TP_OK;
}

static void embedding_piece(void *ctx, int64_t begin, int64_t end)
{
    const tp_call *c = ctx;
    const tp_shape table = c->in[0].shape;
    const size_t row_bytes = (size_t)table.d[1] * tp_dtype_size(c->in[0].dtype);
    for (int64_t i = begin; i < end; i++)
        memcpy((char *)c->out[0].data + (size_t)i * row_bytes,
               (const char *)c->in[0].data +
                   (size_t)clamp_id(tp_get_int(&c->in[1], i), table.d[0]) * row_bytes,
               row_bytes);
}

static tp_status embedding_run(const tp_call *c)
{
    tp_parallel(tp_len(&c->in[1]), 1 + TP_GRAIN / (c->in[0].shape.d[1] + 1), embedding_piece,
                (void *)(uintptr_t)c);
    return TP_OK;
}

static void grad_embedding(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    if (need[0])
        dx[0] = tp_embedding_grad(g, n->in[1], dy[0], tp_val_shape(g, n->in[0]).d[0]);
}

/* ---- dense gradient ---- */

static tp_status infer_grad(tp_infer *x)
{
    const tp_embedding_attr *a = x->attr;
    const int64_t n = tp_shape_len(x->shape[0]),
                  d = x->shape[1].nd > 0 ? x->shape[1].d[x->shape[1].nd - 1] : 0;

    TP_CHECK(tp_is_int(x->dtype[0]) && tp_is_float(x->dtype[1]) && tp_shape_len(x->shape[1]) == n * d &&
                 a->n_rows > 0,
             TP_ESHAPE, "wants integer ids (...), dy (...,D) and n_rows > 0, not n_rows %lld",
             (long long)a->n_rows);
    x->out_shape[0] = (tp_shape){2, {a->n_rows, d}};
    x->out_dtype[0] = x->dtype[1];
    return TP_OK;
}

/* Threads own columns, so every sum keeps the order of the ids. */
typedef struct grad_job {
    const tp_call *c;
    int64_t d;
} grad_job;

static void grad_columns(void *ctx, int64_t begin, int64_t end)
{
    const grad_job *j = ctx;
    const tp_call *c = j->c;
    float *dw = tp_out_f32(c, 0);
    const float *dy = tp_in_f32(c, 1);
    const int64_t v = c->out[0].shape.d[0];

    for (int64_t r = 0; r < v; r++)
        memset(dw + r * j->d + begin, 0, (size_t)(end - begin) * sizeof(float));
    for (int64_t i = 0, n = tp_len(&c->in[0]); i < n; i++) {
        float *row = dw + clamp_id(tp_get_int(&c->in[0], i), v) * j->d;
        for (int64_t k = begin; k < end; k++)
            row[k] += dy[i * j->d + k];
    }
}

static tp_status grad_simd(const tp_call *c)
{
    grad_job j = {c, c->out[0].shape.d[1]};
    tp_parallel(j.d, 16, grad_columns, &j);
    return TP_OK;
}

static tp_status grad_ref(const tp_call *c)
{
    const int64_t d = c->out[0].shape.d[1], v = c->out[0].shape.d[0];

    for (int64_t r = 0; r < v; r++)
        for (int64_t k = 0; k < d; k++) {
            double sum = 0.0;
            for (int64_t i = 0, n = tp_len(&c->in[0]); i < n; i++)
                if (clamp_id(tp_get_int(&c->in[0], i), v) == r)
                    sum += tp_get(&c->in[1], i * d + k);
            tp_set(&c->out[0], r * d + k, sum);
        }
    return TP_OK;
}

static void grad_grad(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    if (need[1])
        dx[1] = tp_embedding(g, dy[0], n->in[0]);
}

/* ---- sparse gradient: sort (id, position), then sum each run ---- */

static tp_status infer_rows(tp_infer *x)
{
    TP_TRY(infer_grad(x));
    const int64_t n = tp_shape_len(x->shape[0]), d = x->out_shape[0].d[1];
    x->out_shape[0] = (tp_shape){1, {n}};
    x->out_dtype[0] = TP_I64;
    x->out_shape[1] = (tp_shape){2, {n, d}};
    x->out_dtype[1] = x->dtype[1];
    return TP_OK;
}

typedef struct slot {
    int64_t id, at;
} slot;

/* Bottom-up merge sort by id; stable, so positions stay in order. Returns whichever buffer holds the result.
 */
static slot *sort_slots(slot *a, slot *b, int64_t n)
{
    for (int64_t width = 1; width < n; width *= 2) {
        for (int64_t lo = 0; lo < n; lo += 2 * width) {
            const int64_t mid = lo + width < n ? lo + width : n, hi = lo + 2 * width < n ? lo + 2 * width : n;
            int64_t i = lo, k = mid;
            for (int64_t o = lo; o < hi; o++)
                b[o] = i < mid && (k >= hi || a[i].id <= a[k].id) ? a[i++] : a[k++];
        }
        slot *swap = a;
        a = b;
        b = swap;
    }
    return a;
}

static tp_status rows_prepare(tp_call *c, size_t *scratch)
{
    *scratch = 2 * (size_t)tp_len(&c->in[0]) * sizeof(slot);
    return TP_OK;
}

static tp_status rows_run(const tp_call *c)
{
    const tp_embedding_attr *attr = c->attr;
    const int64_t n = tp_len(&c->in[0]), d = c->out[1].shape.d[1];
    int64_t *rows = c->out[0].data, n_rows = 0;
    slot *slots = c->scratch;

    for (int64_t i = 0; i < n; i++)
        slots[i] = (slot){clamp_id(tp_get_int(&c->in[0], i), attr->n_rows), i};
    slots = sort_slots(slots, slots + n, n);
    memset(c->out[1].data, 0, tp_tensor_bytes(&c->out[1]));
    for (int64_t i = 0; i < n; n_rows++) {
        int64_t end = i;
        while (end < n && slots[end].id == slots[i].id)
            end++;
        rows[n_rows] = slots[i].id;
        for (int64_t k = 0; k < d; k++) {
            double sum = 0.0;
            for (int64_t s = i; s < end; s++)
                sum += tp_get(&c->in[1], slots[s].at * d + k);
            tp_set(&c->out[1], n_rows * d + k, sum);
        }
        i = end;
    }
    for (int64_t i = n_rows; i < n; i++)
        rows[i] = -1;
    return TP_OK;
}

/* ---- descriptors ---- */

static tp_status accept_any(tp_call *c, size_t *scratch)
{
    (void)c, (void)scratch;
    return TP_OK;
}

/* Only the rows of the ids are read. */
static tp_cost cost_embedding(const tp_call *c)
{
    return (tp_cost){.bytes = (double)tp_tensor_bytes(&c->in[1]) + 2 * (double)tp_tensor_bytes(&c->out[0])};
}

static const tp_embedding_attr v11 = {11}, v1000 = {1000}, v300k = {300000};
static const tp_case cases_embedding[] = {
    {"11x5,7:i64", -1.0, 1.0, 11, NULL, 0, 0},
    {"11x1,3x2:i32", -1.0, 1.0, 11, NULL, 0, 0},
    {"11x3,7:i16", -1.0, 1.0, 11, NULL, 0, 0},
    {"11x3,7:i8", -1.0, 1.0, 11, NULL, 0, 0},
    {"11x3,7:u64", -1.0, 1.0, 11, NULL, 0, 0},
    {"11x3,7:u32", -1.0, 1.0, 11, NULL, 0, 0},
    {"11x3,7:u16", -1.0, 1.0, 11, NULL, 0, 0},
    {"11x3,7:u8", -1.0, 1.0, 20, NULL, 0, 0}, /* some are out of range */
    {"1000x33,257:i64", -1.0, 1.0, 1000, NULL, 0, 0},
    {"300x32,1000:i64", -1.0, 1.0, 320, NULL, 0, 0},
    {"30x1028,9:i32", -1.0, 1.0, 30, NULL, 0, 0},
    {"30x301,9:i32", -1.0, 1.0, 30, NULL, 0, 0}};
static const tp_case cases_grad[] = {{"7:i64,7x5", -1.0, 1.0, 11, &v11, 0, 0},
                                     {"30x2:i32,30x2x3", -1.0, 1.0, 11, &v11, 0, 0},
                                     {"257:i64,257x33", -1.0, 1.0, 40, &v1000, 0, 0},
                                     {"1500:i32,1500x8", -1.0, 1.0, 3, &v11, 0, 0}};
static const tp_case cases_rows[] = {
    {"1:i64,1x5", -1.0, 1.0, 11, &v11, 0, 0},
    {"5000:i32,5000x2", -1.0, 1.0, 700, &v1000, 0, 0},
    {"30x2:i32,30x2x3", -1.0, 1.0, 11, &v11, 0, 0},
    {"257:i64,257x33", -1.0, 1.0, 40, &v1000, 0, 0},
    {"9000:i64,9000x4", -1.0, 1.0, 310000, &v300k, 0, 0}, /* some are out of range */
    {"3000:i64,3000x12", -1.0, 1.0, 1, &v300k, 0, 0},     /* all are equal */
    {"2600:i32,2600x3", -1.0, 1.0, 2, &v11, 0, 0},
    {"700:u8,700x8", -1.0, 1.0, 5, &v1000, 0, 0},
    {"40:i64,40x2052", -1.0, 1.0, 20, &v11, 0, 0},
};
static const tp_impl embedding_cpu_ref = {"ref", accept_any, embedding_run, NULL, 0};
static const tp_impl grad_cpu = {"simd", tp_accept_f32, grad_simd, NULL, 0};
static const tp_impl grad_cpu_ref = {"ref", tp_accept_float, grad_ref, NULL, 0};
static const tp_impl rows_cpu_ref = {"ref", rows_prepare, rows_run, NULL, 0};

const tp_op tp_op_embedding = {.name = "embedding",
                               .onnx = "Gather",
                               .min_in = 2,
                               .max_in = 2,
                               .n_out = 1,
                               .infer = infer_embedding,
                               .grad = grad_embedding,
                               .cost = cost_embedding,
                               .cpu = TP_IMPLS(&embedding_cpu_ref),
                               .cases = cases_embedding,
                               .n_cases = TP_COUNT(cases_embedding)};
const tp_op tp_op_embedding_grad = {.name = "embedding_grad",
                                    .min_in = 2,
                                    .max_in = 2,
                                    .n_out = 1,
                                    .attr_size = sizeof(tp_embedding_attr),
                                    .infer = infer_grad,
                                    .grad = grad_grad,
                                    .cost = tp_cost_stream,
                                    .cpu = TP_IMPLS(&grad_cpu, &grad_cpu_ref),
                                    .cases = cases_grad,
                                    .n_cases = TP_COUNT(cases_grad)};
const tp_op tp_op_embedding_rows = {.name = "embedding_rows",
                                    .min_in = 2,
                                    .max_in = 2,
                                    .n_out = 2,
                                    .attr_size = sizeof(tp_embedding_attr),
                                    .infer = infer_rows,
                                    .cost = tp_cost_stream,
                                    .cpu = TP_IMPLS(&rows_cpu_ref),
                                    .cases = cases_rows,
                                    .n_cases = TP_COUNT(cases_rows)};

tp_val tp_embedding(tp_graph *g, tp_val table, tp_val ids)
{
    return tp_graph_add(g, &tp_op_embedding, 2, (const tp_val[]){table, ids}, NULL);
}

tp_val tp_embedding_grad(tp_graph *g, tp_val ids, tp_val dy, int64_t n_rows)
{
    return tp_graph_add(g, &tp_op_embedding_grad, 2, (const tp_val[]){ids, dy},
                        &(const tp_embedding_attr){n_rows});
}

tp_val tp_embedding_rows(tp_graph *g, tp_val ids, tp_val dy, int64_t n_rows)
{
    return tp_graph_add(g, &tp_op_embedding_rows, 2, (const tp_val[]){ids, dy},
                        &(const tp_embedding_attr){n_rows});
}
