/* optimize.c - every optimizer as one pass over all tensors, the same rule row by row for sparse tables, the
 * step counter and the moving average of weights. Nothing is written when the step's gradient is not finite
 * (clip[1] is 0). */
#include "kernels/cpu.h"
#include "kernels/optim/update.h"

#define PIECE 16384

int tp_optimizer_states(tp_optimizer_kind kind)
{
    return 1 + tp_optimizer_two_states(kind);
}

/* One loop for each kind, so that the switch is outside and the body vectorises. */
#define LOOP(kind_name, KIND)                                                                                \
    TP_SIMD static void loop_##kind_name(const tp_update *r, float *restrict w, const float *restrict g,     \
                                         float *restrict s1, float *restrict s2, int64_t n)                  \
    {                                                                                                        \
        const tp_update local = *r;                                                                          \
        for (int64_t i = 0; i < n; i++)                                                                      \
            tp_update_f(&local, KIND, &w[i], g[i], &s1[i], &s2[i]);                                          \
    }
LOOP(adam, TP_ADAM)
LOOP(adamw, TP_ADAMW)
LOOP(rmsprop, TP_RMSPROP)
#define LOOP1(kind_name, KIND)                                                                               \
    TP_SIMD static void loop_##kind_name(const tp_update *r, float *restrict w, const float *restrict g,     \
                                         float *restrict s1, float *restrict s2, int64_t n)                  \
    {                                                                                                        \
        const tp_update local = *r;                                                                          \
        (void)s2;                                                                                            \
        for (int64_t i = 0; i < n; i++) {                                                                    \
            float unused = 0.0f;                                                                             \
            tp_update_f(&local, KIND, &w[i], g[i], &s1[i], &unused);                                         \
        }                                                                                                    \
    }
LOOP1(sgd, TP_SGD)
LOOP1(lion, TP_LION)
LOOP1(adagrad, TP_ADAGRAD)

typedef void (*loop_fn)(const tp_update *r, float *w, const float *g, float *s1, float *s2, int64_t n);
static const loop_fn loops[] = {
    [TP_SGD] = loop_sgd,   [TP_ADAM] = loop_adam,       [TP_ADAMW] = loop_adamw,
    [TP_LION] = loop_lion, [TP_RMSPROP] = loop_rmsprop, [TP_ADAGRAD] = loop_adagrad};

TP_SIMD static void ema_loop(float *restrict ema, const float *restrict w, int64_t n, float keep)
{
    for (int64_t i = 0; i < n; i++)
        ema[i] = tp_average_f(ema[i], w[i], keep);
}

/* ---- inputs: lr, t, clip, table, then n each of w, dw, s1, (two-state kinds) s2, (with averages) ema, (with
 * copies) low ---- */

enum { IN_LR, IN_T, IN_CLIP, IN_TABLE, IN_TENSORS };

static int tensors_of(const tp_call *c)
{
    return (c->n_in - IN_TENSORS) / tp_optimize_groups(c->attr);
}

static tp_update rule_for(const tp_call *c, int64_t i)
{
    const tp_optimizer_attr *a = c->attr;
    tp_update r = tp_update_of(*a, (double)tp_get_int(&c->in[IN_T], 0), tp_get(&c->in[IN_CLIP], 0));

    r.lr = tp_get(&c->in[IN_LR], 0) * tp_get(&c->in[IN_TABLE], 2 * i);
    r.decay = tp_get(&c->in[IN_TABLE], 2 * i + 1);
    return r;
}

static int step_is_ok(const tp_call *c)
{
    return tp_get(&c->in[IN_CLIP], 1) != 0.0;
}

typedef struct dense_job {
    const tp_call *c;
    int n;
} dense_job;

static int64_t pieces_of(const tp_tensor *t)
{
    return (tp_len(t) + PIECE - 1) / PIECE;
}

static void dense_pieces(void *ctx, int64_t begin, int64_t end)
{
    const dense_job *j = ctx;
    const tp_call *c = j->c;
    const tp_optimizer_attr *attr = c->attr;
    int64_t first = 0;

    for (int i = 0; i < j->n && first < end; i++) {
        const tp_tensor *w = &c->in[IN_TENSORS + i];
        const int64_t pieces = pieces_of(w), n = tp_len(w);
        if (first + pieces > begin) {
            const tp_update r = rule_for(c, i);
            const int64_t lo = begin > first ? begin - first : 0,
                          hi = end - first < pieces ? end - first : pieces;
            const int64_t at = lo * PIECE, stop = hi * PIECE < n ? hi * PIECE : n;
            float *s2 = tp_optimizer_states(attr->kind) == 2
                            ? (float *)c->in[IN_TENSORS + 3 * j->n + i].data + at
                            : NULL;
            loops[attr->kind](&r, (float *)w->data + at, tp_in_f32(c, IN_TENSORS + j->n + i) + at,
                              (float *)c->in[IN_TENSORS + 2 * j->n + i].data + at, s2, stop - at);
            if (r.keep > 0.0f)
                ema_loop((float *)c->in[IN_TENSORS + tp_optimize_ema(attr) * j->n + i].data + at,
                         (float *)w->data + at, stop - at, r.keep);
        }
        first += pieces;
    }
}

static tp_status optimize_simd(const tp_call *c)
{
    const dense_job j = {c, tensors_of(c)};
    int64_t pieces = 0, elements = 0;

    if (!step_is_ok(c))
        return TP_OK;
    for (int i = 0; i < j.n; i++) {
        pieces += pieces_of(&c->in[IN_TENSORS + i]);
        elements += tp_len(&c->in[IN_TENSORS + i]);
    }
    /* Many small tensors are many pieces, but little work. */
    tp_parallel(pieces, 1 + pieces * TP_GRAIN / (elements + 1), dense_pieces, (void *)(uintptr_t)&j);
    return TP_OK;
}

static void update_at(const tp_update *r, const tp_tensor *w, const tp_tensor *g, const tp_tensor *s1,
                      const tp_tensor *s2, int64_t iw, int64_t ig)
{
    double ww = tp_get(w, iw), a = tp_get(s1, iw), b = s2 != NULL ? tp_get(s2, iw) : 0.0;
    tp_update_d(r, r->kind, &ww, tp_get(g, ig), &a, &b);
    tp_set(w, iw, ww);
    tp_set(s1, iw, a);
    if (s2 != NULL)
        tp_set(s2, iw, b);
}

static tp_status optimize_ref(const tp_call *c)
{
    const tp_optimizer_attr *attr = c->attr;
    const ptrdiff_t n = tensors_of(c);

    for (ptrdiff_t i = 0; i < n && step_is_ok(c); i++) {
        const tp_update r = rule_for(c, i);
        const tp_tensor *w = &c->in[IN_TENSORS + i];
        const tp_tensor *s2 = tp_optimizer_states(r.kind) == 2 ? w + 3 * n : NULL;
        const tp_tensor *ema = attr->ema > 0.0 ? w + tp_optimize_ema(attr) * n : NULL,
                        *low = attr->low ? w + tp_optimize_low(attr) * n : NULL;
        for (int64_t k = 0, len = tp_len(w); k < len; k++) {
            update_at(&r, w, w + n, w + 2 * n, s2, k, k);
            if (ema != NULL)
                tp_set(ema, k, attr->ema * tp_get(ema, k) + (1.0 - attr->ema) * tp_get(w, k));
            if (low != NULL && low->dtype != TP_DTYPE_NONE)
                tp_set(low, k, tp_get(w, k));
        }
    }
    return TP_OK;
}

/* ---- shapes ---- */

static tp_status check_scalars(const tp_infer *x, int n)
{
    TP_CHECK(tp_shape_len(x->shape[IN_LR]) == 1 && tp_is_float(x->dtype[IN_LR]), TP_ESHAPE,
             "lr must be one float");
    TP_CHECK(tp_shape_len(x->shape[IN_T]) == 1 && tp_is_int(x->dtype[IN_T]), TP_ESHAPE,
             "t must be one integer");
    TP_CHECK(tp_shape_len(x->shape[IN_CLIP]) == 2, TP_ESHAPE, "clip must have 2 elements");
    TP_CHECK(tp_shape_len(x->shape[IN_TABLE]) == 2 * (int64_t)n, TP_ESHAPE, "table must have shape (%d,2)",
             n);
    return TP_OK;
}

static tp_status infer_optimize(tp_infer *x)
{
    const tp_optimizer_attr *a = x->attr;
    const int per = tp_optimize_groups(a), n = (x->n_in - IN_TENSORS) / per;

    TP_CHECK(n > 0 && (x->n_in - IN_TENSORS) % per == 0, TP_ESHAPE, "%d tensors do not make groups of %d",
             x->n_in - IN_TENSORS, per);
    TP_TRY(check_scalars(x, n));
    for (int i = 0; i < n; i++)
        for (int k = 1; k < per; k++)
            TP_CHECK(tp_shape_equal(x->shape[IN_TENSORS + i], x->shape[IN_TENSORS + k * n + i]) ||
                         (a->low && k == per - 1 && x->dtype[IN_TENSORS + k * n + i] == TP_DTYPE_NONE),
                     TP_ESHAPE, "tensor %d: its gradient, a state, its average or copy has another shape", i);
    return TP_OK;
}

/* Rows: inputs lr, t, clip, table, w (V,D), rows i64 (B), dw (B,D), s1, [s2]. */
enum { ROW_W = IN_TENSORS, ROW_ROWS, ROW_DW, ROW_S1, ROW_S2 };

static tp_status infer_rows(tp_infer *x)
{
    TP_TRY(check_scalars(x, 1));
    TP_CHECK(x->shape[ROW_W].nd == 2 && x->shape[ROW_DW].nd == 2 &&
                 x->shape[ROW_W].d[1] == x->shape[ROW_DW].d[1],
             TP_ESHAPE, "w and dw must be (V,D) and (B,D)");
    TP_CHECK(tp_is_int(x->dtype[ROW_ROWS]) && tp_shape_len(x->shape[ROW_ROWS]) == x->shape[ROW_DW].d[0],
             TP_ESHAPE, "rows must be %lld integers", (long long)x->shape[ROW_DW].d[0]);
    for (int i = ROW_S1; i < x->n_in; i++)
        TP_CHECK(tp_shape_equal(x->shape[ROW_W], x->shape[i]), TP_ESHAPE, "state %d has another shape than w",
                 i - ROW_S1);
    return TP_OK;
}

static void row_pieces(void *ctx, int64_t begin, int64_t end)
{
    const tp_call *c = ctx;
    const tp_update r = rule_for(c, 0);
    const int64_t d = c->in[ROW_W].shape.d[1], v = c->in[ROW_W].shape.d[0];

    for (int64_t b = begin; b < end; b++) {
        const int64_t row = tp_get_int(&c->in[ROW_ROWS], b);
        if (row < 0 || row >= v)
            continue;
        loops[r.kind](&r, (float *)c->in[ROW_W].data + row * d, tp_in_f32(c, ROW_DW) + b * d,
                      (float *)c->in[ROW_S1].data + row * d,
                      c->n_in > ROW_S2 ? (float *)c->in[ROW_S2].data + row * d : NULL, d);
    }
}

static tp_status rows_simd(const tp_call *c)
{
    if (step_is_ok(c))
        tp_parallel(tp_len(&c->in[ROW_ROWS]), 1 + TP_GRAIN / (c->in[ROW_W].shape.d[1] + 1), row_pieces,
                    (void *)(uintptr_t)c);
    return TP_OK;
}

static tp_status rows_ref(const tp_call *c)
{
    const tp_update r = rule_for(c, 0);
    const int64_t d = c->in[ROW_W].shape.d[1], v = c->in[ROW_W].shape.d[0];

    for (int64_t b = 0, n = tp_len(&c->in[ROW_ROWS]); b < n && step_is_ok(c); b++) {
        const int64_t row = tp_get_int(&c->in[ROW_ROWS], b);
        for (int64_t k = 0; k < d && row >= 0 && row < v; k++)
            update_at(&r, &c->in[ROW_W], &c->in[ROW_DW], &c->in[ROW_S1],
                      c->n_in > ROW_S2 ? &c->in[ROW_S2] : NULL, row * d + k, b * d + k);
    }
    return TP_OK;
}

/* ---- count and ema ---- */

static tp_status infer_count(tp_infer *x)
{
    TP_CHECK(tp_shape_len(x->shape[0]) == 1 && x->dtype[0] == TP_I64, TP_ESHAPE, "t must be one int64");
    TP_CHECK(tp_shape_len(x->shape[1]) == 2, TP_ESHAPE, "clip must have 2 elements");
    return TP_OK;
}

static tp_status count_run(const tp_call *c)
{
    int64_t *t = c->in[0].data;
    *t += tp_get(&c->in[1], 1) != 0.0;
    return TP_OK;
}

/* ema: inputs clip, then n averages, then n weights. */
static tp_status infer_ema(tp_infer *x)
{
    const int n = (x->n_in - 1) / 2;

    TP_CHECK(n > 0 && x->n_in == 1 + 2 * n && tp_shape_len(x->shape[0]) == 2, TP_ESHAPE,
             "wants clip (2), then as many averages as weights");
    for (int i = 0; i < n; i++)
        TP_CHECK(tp_shape_equal(x->shape[1 + i], x->shape[1 + n + i]), TP_ESHAPE,
                 "average %d has another shape than its weight", i);
    return TP_OK;
}

typedef struct ema_job {
    float *ema;
    const float *w;
    float keep;
} ema_job;

static void ema_piece(void *ctx, int64_t begin, int64_t end)
{
    const ema_job *j = ctx;
    ema_loop(j->ema + begin, j->w + begin, end - begin, j->keep);
}

static tp_status ema_simd(const tp_call *c)
{
    const tp_ema_attr *attr = c->attr;
    const int n = (c->n_in - 1) / 2;

    for (int i = 0; i < n && tp_get(&c->in[0], 1) != 0.0; i++) {
        ema_job j = {c->in[1 + i].data, tp_in_f32(c, 1 + n + i), (float)attr->decay};
        tp_parallel(tp_len(&c->in[1 + i]), TP_GRAIN, ema_piece, &j);
    }
    return TP_OK;
}

static tp_status ema_ref(const tp_call *c)
{
    const tp_ema_attr *attr = c->attr;
    const int n = (c->n_in - 1) / 2;

    for (int i = 0; i < n && tp_get(&c->in[0], 1) != 0.0; i++)
        for (int64_t k = 0, len = tp_len(&c->in[1 + i]); k < len; k++)
            tp_set(&c->in[1 + i], k,
                   attr->decay * tp_get(&c->in[1 + i], k) +
                       (1.0 - attr->decay) * tp_get(&c->in[1 + n + i], k));
    return TP_OK;
}

/* ---- descriptors ---- */

static const tp_optimizer_attr a_sgd = {.kind = TP_SGD, .momentum = 0.9},
                               a_nesterov = {.kind = TP_SGD, .momentum = 0.9, .nesterov = 1},
                               a_adam = {TP_ADAM, 0.9, 0.999, 1e-8, 0, 0, 0, 0},
                               a_adamw = {TP_ADAMW, 0.9, 0.999, 1e-8, 0, 0, 0, 0},
                               a_lion = {TP_LION, 0.9, 0.99, 0, 0, 0, 0, 0},
                               a_rms = {TP_RMSPROP, 0, 0.99, 1e-8, 0.9, 0, 0, 0},
                               a_ada = {TP_ADAGRAD, 0, 0, 1e-10, 0, 0, 0, 0},
                               a_adamw_ema = {TP_ADAMW, 0.9, 0.999, 1e-8, 0, 0, 0.9, 0},
                               a_lion_ema = {TP_LION, 0.9, 0.99, 0, 0, 0, 0.75, 0},
                               a_adamw_low = {TP_ADAMW, 0.9, 0.999, 1e-8, 0, 0, 0, 1},
                               a_lion_low = {TP_LION, 0.9, 0.99, 0, 0, 0, 0.75, 1};
/* Positive values, as second moments are. */
static const tp_case cases_optimize[] = {
    {"1,1:i64,2,1x2,3*5", 0.1, 1.0, 9, &a_sgd, 2e-6, 0},
    {"1,1:i64,2,2x2,7,20000,7,20000,7,20000", 0.1, 1.0, 9, &a_nesterov, 2e-6, 0},
    {"1,1:i64,2,2x2,7,20000,7,20000,7,20000,7,20000", 0.1, 1.0, 9, &a_adam, 2e-5, 0},
    {"1,1:i64,2,2x2,7,33x65,7,33x65,7,33x65,7,33x65", 0.1, 1.0, 9, &a_adamw, 2e-5, 0},
    {"1,1:i64,2,2x2,7,33x65,7,33x65,7,33x65", 0.1, 1.0, 9, &a_lion, 2e-6, 0},
    {"1,1:i64,2,2x2,7,33x65,7,33x65,7,33x65,7,33x65", 0.1, 1.0, 9, &a_rms, 2e-5, 0},
    {"1,1:i64,2,1x2,3*17", 0.1, 1.0, 9, &a_ada, 2e-6, 0},
    /* zeros and ones: in some the step is not to be applied */
    {"1,1:i64,2,1x2,3*17", 0.0, 2.0, 9, &a_ada, 2e-6, TP_CASE_WHOLE},
    {"1,1:i64,2,1x2,3*19", 0.0, 2.0, 9, &a_sgd, 2e-6, TP_CASE_WHOLE},
    {"1,1:i64,2,1x2,3*21", 0.0, 2.0, 9, &a_lion, 2e-6, TP_CASE_WHOLE},
    {"1,1:i64,2,2x2,7,5000,7,5000,7,5000,7,5000,7,5000", 0.1, 1.0, 9, &a_adamw_ema, 2e-5, 0},
    {"1,1:i64,2,1x2,4*33x65", 0.1, 1.0, 9, &a_lion_ema, 2e-6, 0},
    {"1,1:i64,2,1x2,4*19", 0.0, 2.0, 9, &a_lion_ema, 2e-6, TP_CASE_WHOLE},
    {"1,1:i64,2,1x2,4*18", 0.0, 2.0, 9, &a_lion_ema, 2e-6, TP_CASE_WHOLE},
    /* gradients in bfloat16, copies of weights in it */
    {"1,1:i64,2,2x2,7,33x65,7,33x65:bf16,7,33x65,7,33x65,-,33x65:bf16", 0.1, 1.0, 9, &a_adamw_low, 4e-3, 0},
    {"1,1:i64,2,2x2,2*5000,5000:bf16,5000,2*5000,2*5000,2*5000:bf16", 0.1, 1.0, 9, &a_lion_low, 4e-3, 0},
    {"1,1:i64,2,1x2,19,19:bf16,2*19,19:bf16", 0.0, 2.0, 9, &a_lion_low, 4e-3, TP_CASE_WHOLE},
};
static const tp_case cases_optimize_rows[] = {
    {"1,1:i64,2,1x2,1000x7,1:i64,1x7,1000x7", 0.1, 1.0, 1000, &a_sgd, 2e-6, TP_CASE_UNIQUE},
    {"1,1:i64,2,1x2,1000x16,1:i64,1x16,2*1000x16", 0.1, 1.0, 1000, &a_adamw, 2e-5, TP_CASE_UNIQUE},
    {"1,1:i64,2,1x2,1000x33,1:i64,1x33,2*1000x33", 0.1, 1.0, 1000, &a_adam, 2e-5, TP_CASE_UNIQUE},
    {"1,1:i64,2,1x2,1000x5,1:i64,1x5,2*1000x5", 0.1, 1.0, 1000, &a_rms, 2e-5, TP_CASE_UNIQUE},
    {"1,1:i64,2,1x2,1000x5,1:i64,1x5,1000x5", 0.1, 1.0, 1000, &a_lion, 2e-6, TP_CASE_UNIQUE},
    {"1,1:i64,2,1x2,1000x5,1:i64,1x5,1000x5", 0.1, 1.0, 1000, &a_ada, 2e-6, TP_CASE_UNIQUE},
    {"1,1:i64,2,1x2,40x5124,1:i64,1x5124,2*40x5124", 0.1, 1.0, 40, &a_adamw, 2e-5, TP_CASE_UNIQUE},
    {"1,1:i64,2,1x2,5x7,1:i64,1x7,5x7", 0.1, 1.0, 1000, &a_sgd, 2e-6,
     TP_CASE_UNIQUE}, /* the row is not there */
    {"1,1:i64,2,1x2,40x7,1:i64,1x7,40x7", 0.0, 2.0, 40, &a_sgd, 2e-6, TP_CASE_WHOLE},
    {"1,1:i64,2,1x2,40x7,1:i64,1x7,40x7", 0.0, 2.0, 40, &a_sgd, 2e-6, TP_CASE_WHOLE},
    {"1,1:i64,2,1x2,1000x16,300:i64,300x16,2*1000x16", 0.1, 1.0, 1000, &a_adamw, 2e-5, TP_CASE_UNIQUE},
    {"1,1:i64,2,1x2,40x7,50:i64,50x7,40x7", 0.1, 1.0, 40, &a_sgd, 2e-6, TP_CASE_UNIQUE}, /* ten of -1 */
    {"1,1:i64,2,1x2,33x5,66:i32,66x5,33x5", 0.1, 1.0, 66, &a_lion, 2e-6,
     TP_CASE_UNIQUE}, /* half is not there */
};
static const tp_case cases_count[] = {{"1:i64,2", 0.5, 1.0, 100, NULL, 0, 0},
                                      {"1:i64,2", 0.0, 2.0, 100, NULL, 0, TP_CASE_WHOLE},
                                      {"1:i64,2", 0.0, 2.0, 100, NULL, 0, TP_CASE_WHOLE}};
static const tp_ema_attr ema_attr = {0.9};
static const tp_case cases_ema[] = {{"2,3,3", 0.5, 1.0, 0, &ema_attr, 2e-6, 0},
                                    {"2,7,40000,7,40000", 0.5, 1.0, 0, &ema_attr, 2e-6, 0},
                                    {"2,7,7", 0.0, 2.0, 0, &ema_attr, 2e-6, TP_CASE_WHOLE},
                                    {"2,7,7", 0.0, 2.0, 0, &ema_attr, 2e-6, TP_CASE_WHOLE}};

static tp_status accept_any(tp_call *c, size_t *scratch)
{
    (void)c, (void)scratch;
    return TP_OK;
}

/* Reads every tensor; writes all but the gradients. */
static tp_cost cost_optimize(const tp_call *c)
{
    tp_cost cost = tp_cost_stream(c);
    const int n = tensors_of(c);

    for (int i = IN_TENSORS; i < c->n_in; i++)
        if (i < IN_TENSORS + n || i >= IN_TENSORS + 2 * n)
            cost.bytes += (double)tp_tensor_bytes(&c->in[i]);
    return cost;
}

/* Reads and writes the rows of the batch in w and its states, and reads the gradient. */
static tp_cost cost_optimize_rows(const tp_call *c)
{
    const double rows = (double)tp_tensor_bytes(&c->in[ROW_DW]);
    return (tp_cost){.bytes = (double)tp_tensor_bytes(&c->in[ROW_ROWS]) + rows +
                              2 * rows * (1 + c->n_in - ROW_S1)};
}

static tp_cost cost_count(const tp_call *c)
{
    return (tp_cost){.bytes = 2 * (double)tp_tensor_bytes(&c->in[0])};
}

/* Reads both halves, writes the first. */
static tp_cost cost_ema(const tp_call *c)
{
    tp_cost cost = tp_cost_stream(c);

    for (int i = 1; i <= (c->n_in - 1) / 2; i++)
        cost.bytes += (double)tp_tensor_bytes(&c->in[i]);
    return cost;
}

#define EFFECT_OP(opname, fewest, most, attr_bytes, infer_fn, impl_list)                                     \
    const tp_op tp_op_##opname = {.name = #opname,                                                           \
                                  .min_in = fewest,                                                          \
                                  .max_in = most,                                                            \
                                  .n_out = 0,                                                                \
                                  .flags = TP_OP_EFFECT,                                                     \
                                  .attr_size = attr_bytes,                                                   \
                                  .infer = infer_fn,                                                         \
                                  .cost = cost_##opname,                                                     \
                                  .cpu = impl_list,                                                          \
                                  .cases = cases_##opname,                                                   \
                                  .n_cases = TP_COUNT(cases_##opname)};

static const tp_impl optimize_cpu = {"simd", tp_accept_f32, optimize_simd, NULL, 0};
static const tp_impl optimize_cpu_ref = {"ref", tp_accept_float, optimize_ref, NULL, 0};
static const tp_impl rows_cpu = {"simd", tp_accept_f32, rows_simd, NULL, 0};
static const tp_impl rows_cpu_ref = {"ref", tp_accept_float, rows_ref, NULL, 0};
static const tp_impl count_cpu_ref = {"ref", accept_any, count_run, NULL, 0};
static const tp_impl ema_cpu = {"simd", tp_accept_f32, ema_simd, NULL, 0};
static const tp_impl ema_cpu_ref = {"ref", tp_accept_float, ema_ref, NULL, 0};

EFFECT_OP(optimize, IN_TENSORS + 3, -1, sizeof(tp_optimizer_attr), infer_optimize,
          TP_IMPLS(&optimize_cpu, &optimize_cpu_ref))
EFFECT_OP(optimize_rows, ROW_S1 + 1, ROW_S2 + 1, sizeof(tp_optimizer_attr), infer_rows,
          TP_IMPLS(&rows_cpu, &rows_cpu_ref))
EFFECT_OP(count, 2, 2, 0, infer_count, TP_IMPLS(&count_cpu_ref))
EFFECT_OP(ema, 3, -1, sizeof(tp_ema_attr), infer_ema, TP_IMPLS(&ema_cpu, &ema_cpu_ref))

/* ---- builders ---- */

static int too_many(tp_graph *g, const char *op, int n)
{
    if (n <= TP_MAX_TENSORS)
        return 0;
    if (tp_graph_ok(g))
        (void)tp_graph_fail(g, TP_ESHAPE, "%s: %d tensors, at most %d", op, n, TP_MAX_TENSORS);
    return 1;
}

void tp_count(tp_graph *g, tp_val t, tp_val clip)
{
    (void)tp_graph_add(g, &tp_op_count, 2, (const tp_val[]){t, clip}, NULL);
}

void tp_optimize(tp_graph *g, tp_val lr, tp_val t, tp_val clip, tp_val table, int n, const tp_val *w,
                 const tp_val *dw, const tp_val *s1, const tp_val *s2, const tp_val *ema, const tp_val *low,
                 tp_optimizer_attr attr)
{
    tp_val in[IN_TENSORS + 6 * TP_MAX_TENSORS] = {lr, t, clip, table};
    const int states = tp_optimizer_states(attr.kind);

    if (too_many(g, "optimize", n))
        return;
    for (int i = 0; i < n; i++) {
        in[IN_TENSORS + i] = w[i];
        in[IN_TENSORS + n + i] = dw[i];
        in[IN_TENSORS + 2 * n + i] = s1[i];
        if (states == 2)
            in[IN_TENSORS + 3 * n + i] = s2[i];
        if (attr.ema > 0.0)
            in[IN_TENSORS + tp_optimize_ema(&attr) * n + i] = ema[i];
        if (attr.low)
            in[IN_TENSORS + tp_optimize_low(&attr) * n + i] = low[i];
    }
    (void)tp_graph_add(g, &tp_op_optimize, IN_TENSORS + tp_optimize_groups(&attr) * n, in, &attr);
}

void tp_optimize_rows(tp_graph *g, tp_val lr, tp_val t, tp_val clip, tp_val table, tp_val w, tp_val rows,
                      tp_val dw, tp_val s1, tp_val s2, tp_optimizer_attr attr)
{
    const tp_val in[] = {lr, t, clip, table, w, rows, dw, s1, s2};
    (void)tp_graph_add(g, &tp_op_optimize_rows, ROW_S1 + tp_optimizer_states(attr.kind), in, &attr);
}

void tp_ema(tp_graph *g, tp_val clip, int n, const tp_val *ema, const tp_val *w, double decay)
{
    tp_val in[1 + 2 * TP_MAX_TENSORS] = {clip};

    if (too_many(g, "ema", n))
        return;
    for (int i = 0; i < n; i++) {
        in[1 + i] = ema[i];
        in[1 + n + i] = w[i];
    }
    (void)tp_graph_add(g, &tp_op_ema, 1 + 2 * n, in, &(const tp_ema_attr){decay});
}
