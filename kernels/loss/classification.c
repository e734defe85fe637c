/* classification.c - softmax_cross_entropy and bce_with_logits, a value for each row, and their gradients.
 * A row is short, so one double loop serves float32 and float64 alike. */
#include "kernels/cpu.h"
#include <math.h>

/* inputs: x, target, class_weight; the gradient has dl after them */
enum { IN_X, IN_TARGET, IN_CLASS_WEIGHT, IN_DL };

/* q_c w_c: how much class k of row i counts. */
static double share_of(const tp_call *c, int64_t i, int64_t k, int64_t classes)
{
    const tp_xent_attr *a = c->attr;
    const tp_tensor *t = &c->in[IN_TARGET];
    const double q = tp_is_float(t->dtype) ? tp_get(t, i * classes + k) : (double)(tp_get_int(t, i) == k);
    const double w = c->in[IN_CLASS_WEIGHT].dtype != TP_DTYPE_NONE ? tp_get(&c->in[IN_CLASS_WEIGHT], k) : 1.0;
    return ((1.0 - a->smoothing) * q + a->smoothing / (double)classes) * w;
}

static double log_sum_exp(const tp_tensor *x, int64_t at, int64_t n)
{
    double m = tp_get(x, at), sum = 0.0;
    for (int64_t k = 1; k < n; k++)
        m = fmax(m, tp_get(x, at + k));
    for (int64_t k = 0; k < n; k++)
        sum += exp(tp_get(x, at + k) - m);
    return m + log(sum);
}

static void xent_rows(void *ctx, int64_t begin, int64_t end)
{
    const tp_call *c = ctx;
    const int64_t n = c->in[IN_X].shape.d[1];
    for (int64_t i = begin; i < end; i++) {
        const double l = log_sum_exp(&c->in[IN_X], i * n, n);
        double loss = 0.0;
        for (int64_t k = 0; k < n; k++)
            loss += share_of(c, i, k, n) * (l - tp_get(&c->in[IN_X], i * n + k));
        tp_set(&c->out[0], i, loss);
    }
}

/* dx = dl (softmax(x) sum_c q_c w_c - q w) */
static void xent_grad_rows(void *ctx, int64_t begin, int64_t end)
{
    const tp_call *c = ctx;
    const int64_t n = c->in[IN_X].shape.d[1];
    for (int64_t i = begin; i < end; i++) {
        const double l = log_sum_exp(&c->in[IN_X], i * n, n), dl = tp_get(&c->in[IN_DL], i);
        double total = 0.0;
        for (int64_t k = 0; k < n; k++)
            total += share_of(c, i, k, n);
        for (int64_t k = 0; k < n; k++)
            tp_set(&c->out[0], i * n + k,
                   dl * (exp(tp_get(&c->in[IN_X], i * n + k) - l) * total - share_of(c, i, k, n)));
    }
}

static tp_status run_over(const tp_call *c, void (*rows)(void *, int64_t, int64_t))
{
    tp_parallel(c->in[IN_X].shape.d[0], 1 + 2048 / (c->in[IN_X].shape.d[1] + 1), rows, (void *)(uintptr_t)c);
    return TP_OK;
}

static tp_status xent_run(const tp_call *c)
{
    return run_over(c, xent_rows);
}

static tp_status xent_grad_run(const tp_call *c)
{
    return run_over(c, xent_grad_rows);
}

static tp_status check_xent(const tp_infer *x)
{
    const tp_xent_attr *a = x->attr;
    const tp_shape s = x->shape[IN_X], t = x->shape[IN_TARGET];

    TP_CHECK(tp_is_float(x->dtype[IN_X]) && s.nd == 2 && s.d[1] > 0, TP_ESHAPE, "x must be float (N,C)");
    if (tp_is_int(x->dtype[IN_TARGET]))
        TP_CHECK(tp_shape_len(t) == s.d[0], TP_ESHAPE, "target must be %lld class numbers",
                 (long long)s.d[0]);
    else
        TP_CHECK(tp_shape_equal(s, t), TP_ESHAPE, "a float target must have the shape of x");
    TP_CHECK(x->dtype[IN_CLASS_WEIGHT] == TP_DTYPE_NONE || tp_shape_len(x->shape[IN_CLASS_WEIGHT]) == s.d[1],
             TP_ESHAPE, "class_weight must have %lld values", (long long)s.d[1]);
    TP_CHECK(a->smoothing >= 0.0 && a->smoothing < 1.0, TP_ESHAPE, "smoothing is %g, must be in [0, 1)",
             a->smoothing);
    return TP_OK;
}

static tp_status infer_xent(tp_infer *x)
{
    TP_TRY(check_xent(x));
    x->out_shape[0] = (tp_shape){1, {x->shape[IN_X].d[0]}};
    return TP_OK;
}

static tp_status infer_xent_grad(tp_infer *x)
{
    TP_TRY(check_xent(x));
    TP_CHECK(tp_shape_len(x->shape[IN_DL]) == x->shape[IN_X].d[0], TP_ESHAPE, "dl must have %lld values",
             (long long)x->shape[IN_X].d[0]);
    return TP_OK;
}

static void grad_xent(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    const tp_xent_attr *a = n->attr;
    if (need[IN_X])
        dx[IN_X] = tp_softmax_cross_entropy_grad(g, n->in[IN_X], n->in[IN_TARGET], n->in[IN_CLASS_WEIGHT],
                                                 dy[0], a->smoothing);
}

/* ---- binary cross entropy ---- */

static void bce_rows(void *ctx, int64_t begin, int64_t end)
{
    const tp_call *c = ctx;
    const int64_t n = c->in[IN_X].shape.d[1];
    for (int64_t i = begin; i < end; i++) {
        double loss = 0.0;
        for (int64_t k = i * n; k < (i + 1) * n; k++) {
            const double x = tp_get(&c->in[IN_X], k);
            loss += fmax(x, 0.0) - x * tp_get(&c->in[IN_TARGET], k) + log1p(exp(-fabs(x)));
        }
        tp_set(&c->out[0], i, loss / (double)n);
    }
}

static void bce_grad_rows(void *ctx, int64_t begin, int64_t end)
{
    const tp_call *c = ctx;
    const int64_t n = c->in[IN_X].shape.d[1];
    for (int64_t i = begin; i < end; i++)
        for (int64_t k = i * n; k < (i + 1) * n; k++) {
            const double x = tp_get(&c->in[IN_X], k), e = exp(-fabs(x));
            const double p = x > 0.0 ? 1.0 / (1.0 + e) : e / (1.0 + e);
            tp_set(&c->out[0], k, tp_get(&c->in[2], i) * (p - tp_get(&c->in[IN_TARGET], k)) / (double)n);
        }
}

static tp_status bce_run(const tp_call *c)
{
    return run_over(c, bce_rows);
}

static tp_status bce_grad_run(const tp_call *c)
{
    return run_over(c, bce_grad_rows);
}

static tp_status infer_bce(tp_infer *x)
{
    TP_CHECK(tp_is_float(x->dtype[0]) && x->dtype[1] == x->dtype[0] && x->shape[0].nd == 2 &&
                 x->shape[0].d[1] > 0 && tp_shape_equal(x->shape[0], x->shape[1]),
             TP_ESHAPE, "x and target must be float (N,C)");
    x->out_shape[0] = (tp_shape){1, {x->shape[0].d[0]}};
    return TP_OK;
}

static tp_status infer_bce_grad(tp_infer *x)
{
    TP_TRY(infer_bce(x));
    TP_CHECK(tp_shape_len(x->shape[2]) == x->shape[0].d[0], TP_ESHAPE, "dl must have %lld values",
             (long long)x->shape[0].d[0]);
    x->out_shape[0] = x->shape[0];
    return TP_OK;
}

static void grad_bce(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    if (need[0])
        dx[0] = tp_bce_with_logits_grad(g, n->in[0], n->in[1], dy[0]);
}

/* ---- descriptors ---- */

static const tp_xent_attr hard = {0.0}, smooth = {0.1};
static const tp_case cases_xent[] = {
    {"1x2,1:i64,-", -2.0, 2.0, 2, &hard, 2e-6, 0},
    {"7x10,7:i64,10", 0.1, 2.0, 10, &hard, 2e-6, 0},
    {"33x5,33:i32,5", 0.1, 2.0, 5, &smooth, 2e-6, 0},
    {"9x6,9x6,-", 0.1, 2.0, 0, &smooth, 2e-6, TP_CASE_ROWSUM1},
    {"4x10,4:i64,-", 80.0, 130.0, 10, &hard, 2e-6, 0},
    {"2x1500,2:i64,1500", 0.1, 2.0, 1500, &smooth, 5e-6, 0},
    {"19x300,19:i32,300", 0.1, 2.0, 310, &hard, 2e-6, TP_CASE_NO_GRAD}, /* some classes are not there */
    {"3x8200,3:i64,-", 0.1, 2.0, 8200, &hard, 2e-6, TP_CASE_NO_GRAD},
    {"2x8201,2x8201,8201", 0.1, 2.0, 0, &hard, 5e-6, TP_CASE_NO_GRAD | TP_CASE_ROWSUM1},
};
static const tp_case cases_xent_grad[] = {
    {"1x2,1:i64,-,1", -2.0, 2.0, 2, &hard, 2e-6, TP_CASE_NO_GRAD},
    {"300x10,300:i64,10,300", 0.1, 2.0, 10, &smooth, 5e-6, TP_CASE_NO_GRAD},
    {"9x6,9x6,-,9", 0.1, 2.0, 0, &hard, 2e-6, TP_CASE_NO_GRAD},
    {"2x1500,2:i64,1500,2", 0.1, 2.0, 1500, &smooth, 2e-5, TP_CASE_NO_GRAD},
    {"19x300,19:i32,300,19", 0.1, 2.0, 310, &hard, 5e-6, TP_CASE_NO_GRAD}, /* some classes are not there */
    {"3x1001,3x1001,1001,3", 0.1, 2.0, 0, &smooth, 2e-5, TP_CASE_NO_GRAD},
    {"3x8200,3:i64,-,3", 0.1, 2.0, 8200, &hard, 2e-5, TP_CASE_NO_GRAD},
    {"2x8201,2:i64,-,2", 0.1, 2.0, 8201, &smooth, 2e-5, TP_CASE_NO_GRAD},
};
static const tp_case cases_bce[] = {{"1x1,1x1", -3.0, 3.0, 0, NULL, 2e-6, 0},
                                    {"37x5,37x5", -30.0, 30.0, 0, NULL, 2e-6, 0},
                                    {"2x1500,2x1500", -3.0, 3.0, 0, NULL, 2e-6, 0}};
static const tp_case cases_bce_grad[] = {{"1x1,1x1,1", -3.0, 3.0, 0, NULL, 2e-6, TP_CASE_NO_GRAD},
                                         {"400x5,400x5,400", -3.0, 3.0, 0, NULL, 2e-6, TP_CASE_NO_GRAD}};

#define LOSS_OP(opname, onnx_name, fewest, most, constants, attr_bytes, infer_fn, grad_fn, run_fn)           \
    static const tp_impl opname##_cpu_ref = {"ref", tp_accept_float, run_fn, NULL, 0};                       \
    const tp_op tp_op_##opname = {.name = #opname,                                                           \
                                  .onnx = onnx_name,                                                         \
                                  .min_in = fewest,                                                          \
                                  .max_in = most,                                                            \
                                  .n_out = 1,                                                                \
                                  .constant_in = constants,                                                  \
                                  .attr_size = attr_bytes,                                                   \
                                  .infer = infer_fn,                                                         \
                                  .grad = grad_fn,                                                           \
                                  .cost = tp_cost_stream,                                                    \
                                  .cpu = TP_IMPLS(&opname##_cpu_ref),                                        \
                                  .cases = CASES_OF(opname),                                                 \
                                  .n_cases = TP_COUNT(CASES_OF(opname))};
#define CASES_OF(opname)                    cases_of_##opname
#define cases_of_softmax_cross_entropy      cases_xent
#define cases_of_softmax_cross_entropy_grad cases_xent_grad
#define cases_of_bce_with_logits            cases_bce
#define cases_of_bce_with_logits_grad       cases_bce_grad

LOSS_OP(softmax_cross_entropy, "SoftmaxCrossEntropyLoss", 2, 3, 6u, sizeof(tp_xent_attr), infer_xent,
        grad_xent, xent_run)
LOSS_OP(softmax_cross_entropy_grad, NULL, 2, 4, 0u, sizeof(tp_xent_attr), infer_xent_grad, NULL,
        xent_grad_run)
LOSS_OP(bce_with_logits, NULL, 2, 2, 2u, 0, infer_bce, grad_bce, bce_run)
LOSS_OP(bce_with_logits_grad, NULL, 3, 3, 0u, 0, infer_bce_grad, NULL, bce_grad_run)

tp_val tp_softmax_cross_entropy(tp_graph *g, tp_val x, tp_val target, tp_val class_weight, double smoothing)
{
    return tp_graph_add(g, &tp_op_softmax_cross_entropy, 3, (const tp_val[]){x, target, class_weight},
                        &(const tp_xent_attr){smoothing});
}

tp_val tp_softmax_cross_entropy_grad(tp_graph *g, tp_val x, tp_val target, tp_val class_weight, tp_val dl,
                                     double smoothing)
{
    return tp_graph_add(g, &tp_op_softmax_cross_entropy_grad, 4,
                        (const tp_val[]){x, target, class_weight, dl}, &(const tp_xent_attr){smoothing});
}

tp_val tp_bce_with_logits(tp_graph *g, tp_val x, tp_val target)
{
    return tp_graph_add(g, &tp_op_bce_with_logits, 2, (const tp_val[]){x, target}, NULL);
}

tp_val tp_bce_with_logits_grad(tp_graph *g, tp_val x, tp_val target, tp_val dl)
{
    return tp_graph_add(g, &tp_op_bce_with_logits_grad, 3, (const tp_val[]){x, target, dl}, NULL);
}
