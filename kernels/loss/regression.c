/* regression.c - mse, mae, huber and quantile loss, a value for each row, and their gradient; the weighted
 * mean that turns row losses into one number. */
#include "kernels/loss/regression.h"
#include "kernels/cpu.h"

static int64_t columns_of(const tp_tensor *x)
{
    const int64_t rows = x->shape.d[0];
    return rows > 0 ? tp_len(x) / rows : 0;
}

/* Rows are short and few against the layers around them: one loop in double serves both precisions. */
static void loss_rows(void *ctx, int64_t begin, int64_t end)
{
    const tp_call *c = ctx;
    const int64_t cols = columns_of(&c->in[0]);
    for (int64_t i = begin; i < end; i++) {
        double sum = 0.0;
        for (int64_t k = 0; k < cols; k++)
            sum += tp_regression_value(tp_get(&c->in[0], i * cols + k) - tp_get(&c->in[1], i * cols + k),
                                       c->attr);
        tp_set(&c->out[0], i, sum / (double)cols);
    }
}

static tp_status loss_run(const tp_call *c)
{
    tp_parallel(tp_len(&c->out[0]), 1 + TP_GRAIN / (columns_of(&c->in[0]) + 1), loss_rows,
                (void *)(uintptr_t)c);
    return TP_OK;
}

static void grad_rows(void *ctx, int64_t begin, int64_t end)
{
    const tp_call *c = ctx;
    const int64_t cols = columns_of(&c->in[0]);
    for (int64_t i = begin; i < end; i++) {
        const double share = tp_get(&c->in[2], i) / (double)cols;
        for (int64_t k = i * cols; k < (i + 1) * cols; k++)
            tp_set(&c->out[0], k,
                   share * tp_regression_slope(tp_get(&c->in[0], k) - tp_get(&c->in[1], k), c->attr));
    }
}

static tp_status grad_run(const tp_call *c)
{
    tp_parallel(tp_len(&c->in[2]), 1 + TP_GRAIN / (columns_of(&c->in[0]) + 1), grad_rows,
                (void *)(uintptr_t)c);
    return TP_OK;
}

static tp_status infer_loss(tp_infer *x)
{
    const tp_regression_attr *a = x->attr;

    TP_CHECK(x->shape[0].nd >= 1 && tp_shape_equal(x->shape[0], x->shape[1]), TP_ESHAPE,
             "x and target must have one shape (N,...)");
    TP_CHECK(tp_is_float(x->dtype[0]) && x->dtype[1] == x->dtype[0], TP_ESHAPE,
             "x is %s and target %s, want one float dtype", tp_dtype_name(x->dtype[0]),
             tp_dtype_name(x->dtype[1]));
    TP_CHECK(a->kind != TP_REGRESSION_HUBER || a->param > 0.0, TP_ESHAPE, "delta is %g, must be > 0",
             a->param);
    TP_CHECK(a->kind != TP_REGRESSION_QUANTILE || (a->param > 0.0 && a->param < 1.0), TP_ESHAPE,
             "quantile is %g, must be in (0, 1)", a->param);
    x->out_shape[0] = (tp_shape){1, {x->shape[0].d[0]}};
    return TP_OK;
}

static tp_status infer_grad(tp_infer *x)
{
    TP_CHECK(tp_shape_equal(x->shape[0], x->shape[1]) && tp_shape_len(x->shape[2]) == x->shape[0].d[0],
             TP_ESHAPE, "x and target must have one shape (N,...) and dl (N)");
    return TP_OK;
}

static void grad_loss(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    const tp_regression_attr *a = n->attr;
    if (need[0])
        dx[0] = tp_regression_loss_grad(g, n->in[0], n->in[1], dy[0], a->kind, a->param);
    if (need[1])
        dx[1] = tp_neg(g, tp_regression_loss_grad(g, n->in[0], n->in[1], dy[0], a->kind, a->param));
}

static const tp_regression_attr mse = {TP_REGRESSION_MSE, 0.0}, mae = {TP_REGRESSION_MAE, 0.0},
                                huber = {TP_REGRESSION_HUBER, 0.7}, quantile = {TP_REGRESSION_QUANTILE, 0.9};
static const tp_case cases_loss[] = {
    {"1x1,1x1", -2.0, 2.0, 0, &mse, 2e-6, TP_CASE_DISTINCT},
    {"37x5,37x5", -2.0, 2.0, 0, &mse, 2e-6, 0},
    {"37x5,37x5", -2.0, 2.0, 0, &mae, 2e-6, TP_CASE_DISTINCT},
    {"37x5,37x5", -2.0, 2.0, 0, &huber, 2e-6, 0},
    {"37x5,37x5", -2.0, 2.0, 0, &quantile, 2e-6, TP_CASE_DISTINCT},
};
static const tp_case cases_grad[] = {
    {"1x1,1x1,1", -2.0, 2.0, 0, &mse, 2e-6, TP_CASE_NO_GRAD},
    {"37x5,37x5,37", -2.0, 2.0, 0, &mae, 2e-6, TP_CASE_NO_GRAD},
    {"37x5,37x5,37", -2.0, 2.0, 0, &huber, 2e-6, TP_CASE_NO_GRAD},
    {"4000x5,4000x5,4000", -2.0, 2.0, 0, &quantile, 2e-6, TP_CASE_NO_GRAD},
};
static const tp_impl loss_cpu_ref = {"ref", tp_accept_float, loss_run, NULL, 0};
static const tp_impl grad_cpu_ref = {"ref", tp_accept_float, grad_run, NULL, 0};
const tp_op tp_op_regression_loss = {.name = "regression_loss",
                                     .min_in = 2,
                                     .max_in = 2,
                                     .n_out = 1,
                                     .attr_size = sizeof(tp_regression_attr),
                                     .infer = infer_loss,
                                     .grad = grad_loss,
                                     .cost = tp_cost_stream,
                                     .cpu = TP_IMPLS(&loss_cpu_ref),
                                     .cases = cases_loss,
                                     .n_cases = TP_COUNT(cases_loss)};
const tp_op tp_op_regression_loss_grad = {.name = "regression_loss_grad",
                                          .min_in = 3,
                                          .max_in = 3,
                                          .n_out = 1,
                                          .attr_size = sizeof(tp_regression_attr),
                                          .infer = infer_grad,
                                          .cost = tp_cost_stream,
                                          .cpu = TP_IMPLS(&grad_cpu_ref),
                                          .cases = cases_grad,
                                          .n_cases = TP_COUNT(cases_grad)};

tp_val tp_regression_loss(tp_graph *g, tp_val x, tp_val target, tp_regression_kind kind, double param)
{
    return tp_graph_add(g, &tp_op_regression_loss, 2, (const tp_val[]){x, target},
                        &(const tp_regression_attr){kind, param});
}

tp_val tp_regression_loss_grad(tp_graph *g, tp_val x, tp_val target, tp_val dl, tp_regression_kind kind,
                               double param)
{
    return tp_graph_add(g, &tp_op_regression_loss_grad, 3, (const tp_val[]){x, target, dl},
                        &(const tp_regression_attr){kind, param});
}

tp_val tp_mse(tp_graph *g, tp_val x, tp_val target)
{
    return tp_regression_loss(g, x, target, TP_REGRESSION_MSE, 0.0);
}

tp_val tp_mae(tp_graph *g, tp_val x, tp_val target)
{
    return tp_regression_loss(g, x, target, TP_REGRESSION_MAE, 0.0);
}

tp_val tp_huber(tp_graph *g, tp_val x, tp_val target, double delta)
{
    return tp_regression_loss(g, x, target, TP_REGRESSION_HUBER, delta);
}

tp_val tp_quantile(tp_graph *g, tp_val x, tp_val target, double q)
{
    return tp_regression_loss(g, x, target, TP_REGRESSION_QUANTILE, q);
}

tp_val tp_weighted_mean(tp_graph *g, tp_val l, tp_val w)
{
    return tp_div(g, tp_reduce_sum(g, tp_mul(g, l, w), 0, 0), tp_reduce_sum(g, w, 0, 0));
}
