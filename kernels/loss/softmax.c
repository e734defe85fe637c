/* softmax.c - softmax and log_softmax over the last dimension, cross entropy on logits and binary cross
 * entropy on logits. Rows are independent: threads share them out. Cross entropy recomputes the softmax in
 * its gradient and stores none. */
#include "kernels/cpu.h"
#include "kernels/math.h"
#include <math.h>

typedef struct row_job {
    const tp_call *c;
    int64_t cols;
    void (*row)(const tp_call *c, int64_t i, int64_t cols);
} row_job;

static void rows_piece(void *ctx, int64_t begin, int64_t end)
{
    const row_job *j = ctx;
    for (int64_t i = begin; i < end; i++)
        j->row(j->c, i, j->cols);
}

static tp_status run_rows(const tp_call *c, void (*row)(const tp_call *c, int64_t i, int64_t cols))
{
    const tp_shape s = c->in[0].shape;
    row_job j = {c, s.d[s.nd - 1], row};
    if (j.cols > 0)
        tp_parallel(tp_len(&c->in[0]) / j.cols, 1 + TP_GRAIN / (8 * j.cols + 1), rows_piece, &j);
    return TP_OK;
}

static tp_status infer_row_op(tp_infer *x)
{
    TP_CHECK(tp_is_float(x->dtype[0]) && x->shape[0].nd >= 1 && x->shape[0].d[x->shape[0].nd - 1] > 0,
             TP_ESHAPE, "x must be float with at least one column");
    TP_CHECK(x->n_in < 2 || tp_shape_equal(x->shape[0], x->shape[1]), TP_ESHAPE,
             "dy must have the shape of y");
    return TP_OK;
}

/* ---- float rows ---- */

TP_SIMD static float row_max(const float *x, int64_t n)
{
    float m = x[0];
    for (int64_t k = 1; k < n; k++)
        m = x[k] > m ? x[k] : m;
    return m;
}

/* y = e^(x - m); the sum runs over fixed lanes. */
TP_SIMD static float row_exp(float *y, const float *x, float m, int64_t n)
{
    float lane[TP_LANES] = {0};
    int64_t k = 0;
    for (int64_t i = 0; i < n; i++)
        y[i] = tp_expf(x[i] - m);
    for (; k + TP_LANES <= n; k += TP_LANES)
        for (int l = 0; l < TP_LANES; l++)
            lane[l] += y[k + l];
    for (int l = 0; k + l < n; l++)
        lane[l] += y[k + l];
    return tp_lanes_sum(lane);
}

TP_SIMD static float row_dot(const float *a, const float *b, int64_t n)
{
    float lane[TP_LANES] = {0};
    int64_t k = 0;
    for (; k + TP_LANES <= n; k += TP_LANES)
        for (int l = 0; l < TP_LANES; l++)
            lane[l] += a[k + l] * b[k + l];
    for (int l = 0; k + l < n; l++)
        lane[l] += a[k + l] * b[k + l];
    return tp_lanes_sum(lane);
}

static void softmax_row(const tp_call *c, int64_t i, int64_t n)
{
    const float *x = tp_in_f32(c, 0) + i * n;
    float *y = tp_out_f32(c, 0) + i * n;
    const float scale = 1.0f / row_exp(y, x, row_max(x, n), n);
    for (int64_t k = 0; k < n; k++)
        y[k] *= scale;
}

static void softmax_grad_row(const tp_call *c, int64_t i, int64_t n)
{
    const float *y = tp_in_f32(c, 0) + i * n, *dy = tp_in_f32(c, 1) + i * n;
    float *dx = tp_out_f32(c, 0) + i * n;
    const float dot = row_dot(y, dy, n);
    for (int64_t k = 0; k < n; k++)
        dx[k] = y[k] * (dy[k] - dot);
}

static void log_softmax_row(const tp_call *c, int64_t i, int64_t n)
{
    const float *x = tp_in_f32(c, 0) + i * n;
    float *y = tp_out_f32(c, 0) + i * n;
    const float m = row_max(x, n), log_sum = tp_logf(row_exp(y, x, m, n));
    for (int64_t k = 0; k < n; k++)
        y[k] = (x[k] - m) - log_sum;
}

static void log_softmax_grad_row(const tp_call *c, int64_t i, int64_t n)
{
    const float *y = tp_in_f32(c, 0) + i * n, *dy = tp_in_f32(c, 1) + i * n;
    float *dx = tp_out_f32(c, 0) + i * n;
    float sum = 0.0f;
    for (int64_t k = 0; k < n; k++)
        sum += dy[k];
    for (int64_t k = 0; k < n; k++)
        dx[k] = dy[k] - tp_expf(y[k]) * sum;
}

/* ---- references, in double ---- */

static double ref_log_sum(const tp_tensor *x, int64_t at, int64_t n)
{
    double m = tp_get(x, at), sum = 0.0;
    for (int64_t k = 1; k < n; k++)
        m = fmax(m, tp_get(x, at + k));
    for (int64_t k = 0; k < n; k++)
        sum += exp(tp_get(x, at + k) - m);
    return m + log(sum);
}

static void softmax_ref_row(const tp_call *c, int64_t i, int64_t n)
{
    const double l = ref_log_sum(&c->in[0], i * n, n);
    for (int64_t k = i * n; k < (i + 1) * n; k++)
        tp_set(&c->out[0], k, exp(tp_get(&c->in[0], k) - l));
}

static void softmax_grad_ref_row(const tp_call *c, int64_t i, int64_t n)
{
    double dot = 0.0;
    for (int64_t k = i * n; k < (i + 1) * n; k++)
        dot += tp_get(&c->in[0], k) * tp_get(&c->in[1], k);
    for (int64_t k = i * n; k < (i + 1) * n; k++)
        tp_set(&c->out[0], k, tp_get(&c->in[0], k) * (tp_get(&c->in[1], k) - dot));
}

static void log_softmax_ref_row(const tp_call *c, int64_t i, int64_t n)
{
    const double l = ref_log_sum(&c->in[0], i * n, n);
    for (int64_t k = i * n; k < (i + 1) * n; k++)
        tp_set(&c->out[0], k, tp_get(&c->in[0], k) - l);
}

static void log_softmax_grad_ref_row(const tp_call *c, int64_t i, int64_t n)
{
    double sum = 0.0;
    for (int64_t k = i * n; k < (i + 1) * n; k++)
        sum += tp_get(&c->in[1], k);
    for (int64_t k = i * n; k < (i + 1) * n; k++)
        tp_set(&c->out[0], k, tp_get(&c->in[1], k) - exp(tp_get(&c->in[0], k)) * sum);
}

/* ---- gradients of softmax and log_softmax ---- */

static void grad_softmax(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    (void)need;
    dx[0] = tp_softmax_grad(g, n->out[0], dy[0]);
}

static void grad_log_softmax(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    (void)need;
    dx[0] = tp_log_softmax_grad(g, n->out[0], dy[0]);
}

/* The last row case sits past the overflow point of exp: only a shifted softmax survives it. */
static const tp_case cases_row[] = {{"1", -2.0, 2.0, 0, NULL, 2e-6, TP_CASE_NO_GRAD},
                                    {"7x10", -3.0, 3.0, 0, NULL, 2e-6, 0},
                                    {"2x3x33", -3.0, 3.0, 0, NULL, 2e-6, 0},
                                    {"5x17", 80.0, 130.0, 0, NULL, 3e-5, 0},
                                    {"3x1000", -3.0, 3.0, 0, NULL, 2e-6, 0},
                                    {"2x1500", -3.0, 3.0, 0, NULL, 2e-6, 0},
                                    {"9x132", -3.0, 3.0, 0, NULL, 2e-6, TP_CASE_NO_GRAD},
                                    {"17x301", -3.0, 3.0, 0, NULL, 2e-6, TP_CASE_NO_GRAD},
                                    {"3x516", -3.0, 3.0, 0, NULL, 2e-6, TP_CASE_NO_GRAD},
                                    {"2x1501", -3.0, 3.0, 0, NULL, 2e-6, TP_CASE_NO_GRAD},
                                    {"3x2052", -3.0, 3.0, 0, NULL, 2e-6, TP_CASE_NO_GRAD},
                                    {"2x4100", -3.0, 3.0, 0, NULL, 2e-6, TP_CASE_NO_GRAD},
                                    {"2x8200", -3.0, 3.0, 0, NULL, 2e-6, TP_CASE_NO_GRAD},
                                    {"2x8201", -3.0, 3.0, 0, NULL, 2e-6, TP_CASE_NO_GRAD},
                                    {"5x9", -300.0, 300.0, 0, NULL, 3e-5, TP_CASE_NO_GRAD}};
static const tp_case cases_row2[] = {{"1x1,1x1", -2.0, 2.0, 0, NULL, 1e-5, TP_CASE_NO_GRAD},
                                     {"7x10,7x10", -2.0, 2.0, 0, NULL, 1e-5, TP_CASE_NO_GRAD},
                                     {"3x1000,3x1000", -2.0, 1.0, 0, NULL, 1e-5, TP_CASE_NO_GRAD},
                                     {"2x1500,2x1500", -2.0, 1.0, 0, NULL, 1e-5, TP_CASE_NO_GRAD},
                                     {"17x301,17x301", -2.0, 1.0, 0, NULL, 1e-5, TP_CASE_NO_GRAD},
                                     {"2x1501,2x1501", -2.0, 1.0, 0, NULL, 1e-5, TP_CASE_NO_GRAD},
                                     {"2x8200,2x8200", -2.0, 1.0, 0, NULL, 1e-5, TP_CASE_NO_GRAD},
                                     {"2x8201,2x8201", -2.0, 1.0, 0, NULL, 1e-5, TP_CASE_NO_GRAD}};

#define ROW_OP(opname, onnx_name, inputs, grad_fn, case_table)                                               \
    static tp_status opname##_simd(const tp_call *c)                                                         \
    {                                                                                                        \
        return run_rows(c, opname##_row);                                                                    \
    }                                                                                                        \
    static tp_status opname##_ref(const tp_call *c)                                                          \
    {                                                                                                        \
        return run_rows(c, opname##_ref_row);                                                                \
    }                                                                                                        \
    static const tp_impl opname##_cpu = {"simd", tp_accept_f32, opname##_simd, NULL, 0};                     \
    static const tp_impl opname##_cpu_ref = {"ref", tp_accept_float, opname##_ref, NULL, 0};                 \
    const tp_op tp_op_##opname = {.name = #opname,                                                           \
                                  .onnx = onnx_name,                                                         \
                                  .min_in = inputs,                                                          \
                                  .max_in = inputs,                                                          \
                                  .n_out = 1,                                                                \
                                  .infer = infer_row_op,                                                     \
                                  .grad = grad_fn,                                                           \
                                  .cost = tp_cost_stream,                                                    \
                                  .cpu = TP_IMPLS(&opname##_cpu, &opname##_cpu_ref),                         \
                                  .cases = case_table,                                                       \
                                  .n_cases = TP_COUNT(case_table)};

ROW_OP(softmax, "Softmax", 1, grad_softmax, cases_row)
ROW_OP(softmax_grad, NULL, 2, NULL, cases_row2)
ROW_OP(log_softmax, "LogSoftmax", 1, grad_log_softmax, cases_row)
ROW_OP(log_softmax_grad, NULL, 2, NULL, cases_row2)

tp_val tp_softmax(tp_graph *g, tp_val x)
{
    return tp_graph_add(g, &tp_op_softmax, 1, &x, NULL);
}

tp_val tp_softmax_grad(tp_graph *g, tp_val y, tp_val dy)
{
    return tp_graph_add(g, &tp_op_softmax_grad, 2, (const tp_val[]){y, dy}, NULL);
}

tp_val tp_log_softmax(tp_graph *g, tp_val x)
{
    return tp_graph_add(g, &tp_op_log_softmax, 1, &x, NULL);
}

tp_val tp_log_softmax_grad(tp_graph *g, tp_val y, tp_val dy)
{
    return tp_graph_add(g, &tp_op_log_softmax_grad, 2, (const tp_val[]){y, dy}, NULL);
}
