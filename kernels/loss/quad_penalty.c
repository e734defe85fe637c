/* quad_penalty.c - lambda / 2 sum f (w - w0)^2: elastic weight consolidation, L2 to an anchor, Laplace
 * priors. */
#include "kernels/cpu.h"

#define BLOCK 16384

/* inputs: w, w0, f, lambda; the gradient has dl after them */

TP_SIMD static double block_sum(const float *w, const float *w0, const float *f, int64_t n)
{
    double lane[TP_LANES] = {0};
    int64_t i = 0;
    for (; i + TP_LANES <= n; i += TP_LANES)
        for (int k = 0; k < TP_LANES; k++) {
            const double d = (double)w[i + k] - (double)w0[i + k];
            lane[k] += (double)f[i + k] * d * d;
        }
    for (int k = 0; i + k < n; k++) {
        const double d = (double)w[i + k] - (double)w0[i + k];
        lane[k] += (double)f[i + k] * d * d;
    }
    for (int half = TP_LANES / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++)
            lane[k] += lane[k + half];
    return lane[0];
}

static void penalty_blocks(void *ctx, int64_t begin, int64_t end)
{
    const tp_call *c = ctx;
    const int64_t n = tp_len(&c->in[0]);
    for (int64_t b = begin; b < end; b++) {
        const int64_t at = b * BLOCK, left = n - at < BLOCK ? n - at : BLOCK;
        ((double *)c->scratch)[b] =
            block_sum(tp_in_f32(c, 0) + at, tp_in_f32(c, 1) + at, tp_in_f32(c, 2) + at, left);
    }
}

static int64_t blocks_of(const tp_call *c)
{
    return (tp_len(&c->in[0]) + BLOCK - 1) / BLOCK;
}

static tp_status penalty_prepare(tp_call *c, size_t *scratch)
{
    TP_TRY(tp_accept_f32(c, scratch));
    *scratch = (size_t)blocks_of(c) * sizeof(double);
    return TP_OK;
}

static tp_status penalty_simd(const tp_call *c)
{
    double sum = 0.0;
    tp_parallel(blocks_of(c), 2, penalty_blocks, (void *)(uintptr_t)c);
    for (int64_t b = 0; b < blocks_of(c); b++)
        sum += ((const double *)c->scratch)[b];
    tp_set(&c->out[0], 0, 0.5 * tp_get(&c->in[3], 0) * sum);
    return TP_OK;
}

static tp_status penalty_ref(const tp_call *c)
{
    double sum = 0.0;
    for (int64_t i = 0, n = tp_len(&c->in[0]); i < n; i++) {
        const double d = tp_get(&c->in[0], i) - tp_get(&c->in[1], i);
        sum += tp_get(&c->in[2], i) * d * d;
    }
    tp_set(&c->out[0], 0, 0.5 * tp_get(&c->in[3], 0) * sum);
    return TP_OK;
}

TP_SIMD static void grad_loop(float *restrict dw, const float *restrict w, const float *restrict w0,
                              const float *restrict f, int64_t n, float scale)
{
    for (int64_t i = 0; i < n; i++)
        dw[i] = scale * f[i] * (w[i] - w0[i]);
}

static void grad_piece(void *ctx, int64_t begin, int64_t end)
{
    const tp_call *c = ctx;
    const float scale = tp_in_f32(c, 3)[0] * tp_in_f32(c, 4)[0];
    grad_loop(tp_out_f32(c, 0) + begin, tp_in_f32(c, 0) + begin, tp_in_f32(c, 1) + begin,
              tp_in_f32(c, 2) + begin, end - begin, scale);
}

static tp_status grad_simd(const tp_call *c)
{
    tp_parallel(tp_len(&c->out[0]), TP_GRAIN, grad_piece, (void *)(uintptr_t)c);
    return TP_OK;
}

static tp_status grad_ref(const tp_call *c)
{
    const double scale = tp_get(&c->in[3], 0) * tp_get(&c->in[4], 0);
    for (int64_t i = 0, n = tp_len(&c->in[0]); i < n; i++)
        tp_set(&c->out[0], i, scale * tp_get(&c->in[2], i) * (tp_get(&c->in[0], i) - tp_get(&c->in[1], i)));
    return TP_OK;
}

static tp_status check_grad(tp_infer *x)
{
    TP_CHECK(tp_is_float(x->dtype[0]) && tp_shape_equal(x->shape[0], x->shape[1]) &&
                 tp_shape_equal(x->shape[0], x->shape[2]),
             TP_ESHAPE, "w, w0 and f must have one shape");
    for (int i = 3; i < x->n_in; i++)
        TP_CHECK(tp_shape_len(x->shape[i]) == 1, TP_ESHAPE, "%s must have one element",
                 i == 3 ? "lambda" : "dl");
    return TP_OK;
}

static tp_status infer_penalty(tp_infer *x)
{
    TP_TRY(check_grad(x));
    x->out_shape[0] = tp_shape_scalar();
    return TP_OK;
}

static void grad_penalty(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    if (need[0])
        dx[0] = tp_quad_penalty_grad(g, n->in[0], n->in[1], n->in[2], n->in[3], dy[0]);
}

static const tp_case cases_penalty[] = {{"1,1,1,()", 0.1, 2.0, 0, NULL, 2e-6, 0},
                                        {"33x17,33x17,33x17,()", 0.1, 2.0, 0, NULL, 2e-6, 0},
                                        {"40001,40001,40001,()", 0.1, 2.0, 0, NULL, 2e-6, 0}};
static const tp_case cases_penalty_grad[] = {
    {"1,1,1,(),()", 0.1, 2.0, 0, NULL, 2e-6, TP_CASE_NO_GRAD},
    {"40001,40001,40001,(),()", 0.1, 2.0, 0, NULL, 2e-6, TP_CASE_NO_GRAD}};
static const tp_impl penalty_cpu = {"simd", penalty_prepare, penalty_simd, NULL, 0};
static const tp_impl penalty_cpu_ref = {"ref", tp_accept_float, penalty_ref, NULL, 0};
static const tp_impl grad_cpu = {"simd", tp_accept_f32, grad_simd, NULL, 0};
static const tp_impl grad_cpu_ref = {"ref", tp_accept_float, grad_ref, NULL, 0};
const tp_op tp_op_quad_penalty = {.name = "quad_penalty",
                                  .min_in = 4,
                                  .max_in = 4,
                                  .n_out = 1,
                                  .constant_in = 14u,
                                  .infer = infer_penalty,
                                  .grad = grad_penalty,
                                  .cost = tp_cost_stream,
                                  .cpu = TP_IMPLS(&penalty_cpu, &penalty_cpu_ref),
                                  .cases = cases_penalty,
                                  .n_cases = TP_COUNT(cases_penalty)};
const tp_op tp_op_quad_penalty_grad = {.name = "quad_penalty_grad",
                                       .min_in = 5,
                                       .max_in = 5,
                                       .n_out = 1,
                                       .infer = check_grad,
                                       .cost = tp_cost_stream,
                                       .cpu = TP_IMPLS(&grad_cpu, &grad_cpu_ref),
                                       .cases = cases_penalty_grad,
                                       .n_cases = TP_COUNT(cases_penalty_grad)};

tp_val tp_quad_penalty(tp_graph *g, tp_val w, tp_val w0, tp_val f, tp_val lambda)
{
    return tp_graph_add(g, &tp_op_quad_penalty, 4, (const tp_val[]){w, w0, f, lambda}, NULL);
}

tp_val tp_quad_penalty_grad(tp_graph *g, tp_val w, tp_val w0, tp_val f, tp_val lambda, tp_val dl)
{
    return tp_graph_add(g, &tp_op_quad_penalty_grad, 5, (const tp_val[]){w, w0, f, lambda, dl}, NULL);
}
