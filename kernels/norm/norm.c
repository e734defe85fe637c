/* norm.c - batch, layer and group norm and their gradients: shapes, gradients and plain references (the fast
 * loops are in norm_simd.c).
 *
 * All three are one pattern: elements fall into sets that share a mean and a deviation (a channel of the
 * batch; a row; a group of channels of a sample), and into channels that share gamma and beta. */
#include "kernels/norm/norm.h"
#include "kernels/cpu.h"
#include <math.h>
#include <string.h>

/* ---- references ---- */

typedef enum norm_kind { BATCH, LAYER, GROUP } norm_kind;

static norm_dims kind_dims(const tp_call *c, norm_kind kind)
{
    return tp_norm_dims(c->in[0].shape, kind == LAYER, ((const tp_norm_attr *)c->attr)->groups);
}

static int64_t set_count(norm_kind kind, norm_dims d)
{
    return kind == BATCH ? d.c : d.n * d.groups;
}

static int64_t set_of(norm_kind kind, norm_dims d, int64_t n, int64_t ch)
{
    return kind == BATCH ? ch : n * d.groups + ch / (d.c / d.groups);
}

/* Five sums in double for each set or channel, whichever are more. */
static tp_status ref_scratch(const tp_call *c, size_t *scratch, norm_kind kind)
{
    const norm_dims d = kind_dims(c, kind);
    *scratch = 5 * (size_t)(set_count(kind, d) + d.c) * sizeof(double);
    return TP_OK;
}

/* The loop over every element: sample n, channel ch, index i, set. */
#define EACH(d, kind, ...)                                                                                   \
    for (int64_t n = 0; n < (d).n; n++)                                                                      \
        for (int64_t ch = 0; ch < (d).c; ch++) {                                                             \
            const int64_t set = set_of(kind, d, n, ch);                                                      \
            for (int64_t i = (n * (d).c + ch) * (d).s; i < (n * (d).c + ch + 1) * (d).s; i++) {              \
                __VA_ARGS__;                                                                                 \
            }                                                                                                \
        }

static tp_status norm_ref(const tp_call *c, norm_kind kind)
{
    const tp_norm_attr *a = c->attr;
    const norm_dims d = kind_dims(c, kind);
    const int64_t sets = set_count(kind, d);
    double *count = c->scratch, *mean = count + sets, *squares = mean + sets;

    memset(count, 0, 3 * (size_t)sets * sizeof(double));
    EACH(
        d, kind, if (kind != BATCH || tp_norm_counts(c, BN_WEIGHT, n)) {
            count[set] += 1.0;
            mean[set] += tp_get(&c->in[0], i);
        })
    for (int64_t set = 0; set < sets; set++)
        mean[set] = count[set] > 0.0 ? mean[set] / count[set] : 0.0;
    EACH(
        d, kind, if (kind != BATCH || tp_norm_counts(c, BN_WEIGHT, n)) {
            const double v = tp_get(&c->in[0], i) - mean[set];
            squares[set] += v * v;
        })
    for (int64_t set = 0; set < sets; set++) {
        const double var = count[set] > 0.0 ? squares[set] / count[set] : 0.0;
        tp_set(&c->out[1], set, mean[set]);
        tp_set(&c->out[2], set, 1.0 / sqrt(var + a->epsilon));
        if (kind == BATCH)
            tp_norm_running(c, set, count[set], mean[set], squares[set]);
        squares[set] = 1.0 / sqrt(var + a->epsilon);
    }
    const int residual = kind == BATCH && tp_norm_has(c, BN_RESIDUAL);
    EACH(d, kind, {
        const double y = (tp_get(&c->in[0], i) - mean[set]) * squares[set] * tp_get(&c->in[1], ch) +
                         tp_get(&c->in[2], ch) + (residual ? tp_get(&c->in[BN_RESIDUAL], i) : 0.0);
        tp_set(&c->out[0], i, tp_norm_relu(c) && y <= 0.0 ? 0.0 : y);
    })
    return TP_OK;
}

/* With g = dy gamma, xh = (x - mean) rstd and averages over the elements that count: dx = rstd (g - mean(g) -
 * xh mean(g xh)), dgamma = sum dy xh, dbeta = sum dy. Rows that do not count had no part in the statistics,
 * so there dx = rstd g; but their y depends on the statistics, so they are in the sums. */
static double grad_of_norm(const tp_call *c, int64_t i, int64_t ch, double xh)
{
    const int off = tp_norm_relu(c) && xh * tp_get(&c->in[BG_GAMMA], ch) + tp_get(&c->in[BG_BETA], ch) <= 0.0;
    return off ? 0.0 : tp_get(&c->in[BG_DY], i);
}

static tp_status norm_grad_ref(const tp_call *c, norm_kind kind)
{
    const norm_dims d = kind_dims(c, kind);
    const int64_t sets = set_count(kind, d);
    double *count = c->scratch, *sum = count + sets, *dot = sum + sets, *dgamma = dot + sets,
           *dbeta = dgamma + d.c;
    const tp_tensor *x = &c->in[SG_X], *gamma = &c->in[SG_GAMMA], *mean = &c->in[SG_MEAN],
                    *rstd = &c->in[SG_RSTD];

    memset(count, 0, (size_t)(3 * sets + 2 * d.c) * sizeof(double));
    EACH(d, kind, {
        const double xh = (tp_get(x, i) - tp_get(mean, set)) * tp_get(rstd, set),
                     g = grad_of_norm(c, i, ch, xh);
        count[set] += kind != BATCH || tp_norm_counts(c, BG_WEIGHT, n) ? 1.0 : 0.0;
        sum[set] += g * tp_get(gamma, ch);
        dot[set] += g * tp_get(gamma, ch) * xh;
        dgamma[ch] += g * xh;
        dbeta[ch] += g;
    })
    EACH(d, kind, {
        const double xh = (tp_get(x, i) - tp_get(mean, set)) * tp_get(rstd, set);
        double g = grad_of_norm(c, i, ch, xh) * tp_get(gamma, ch);
        if (kind != BATCH || tp_norm_counts(c, BG_WEIGHT, n))
            g -= (sum[set] + xh * dot[set]) / count[set];
        tp_set(&c->out[0], i, g * tp_get(rstd, set));
    })
    for (int64_t ch = 0; ch < d.c; ch++) {
        tp_set(&c->out[1], ch, dgamma[ch]);
        tp_set(&c->out[2], ch, dbeta[ch]);
    }
    return TP_OK;
}

#define REFERENCE(name, kind, body)                                                                          \
    static tp_status name##_scratch(tp_call *c, size_t *scratch)                                             \
    {                                                                                                        \
        return ref_scratch(c, scratch, kind);                                                                \
    }                                                                                                        \
    static tp_status name##_ref(const tp_call *c)                                                            \
    {                                                                                                        \
        return body(c, kind);                                                                                \
    }
REFERENCE(batch_norm, BATCH, norm_ref)
REFERENCE(layer_norm, LAYER, norm_ref)
REFERENCE(group_norm, GROUP, norm_ref)
REFERENCE(batch_norm_grad, BATCH, norm_grad_ref)
REFERENCE(layer_norm_grad, LAYER, norm_grad_ref)
REFERENCE(group_norm_grad, GROUP, norm_grad_ref)

#define batch_norm_eval_scratch tp_accept_float
static tp_status batch_norm_eval_ref(const tp_call *c)
{
    const tp_norm_attr *a = c->attr;
    const norm_dims d = tp_norm_dims(c->in[0].shape, 0, 1);

    for (int64_t i = 0, len = tp_len(&c->in[0]); i < len; i++) {
        const int64_t ch = i / d.s % d.c;
        tp_set(&c->out[0], i,
               (tp_get(&c->in[BN_X], i) - tp_get(&c->in[BN_MEAN], ch)) /
                       sqrt(tp_get(&c->in[BN_VAR], ch) + a->epsilon) * tp_get(&c->in[BN_GAMMA], ch) +
                   tp_get(&c->in[BN_BETA], ch));
    }
    return TP_OK;
}

/* ---- shapes ---- */

static tp_status check_channels(const tp_infer *x, int from, int to, int64_t n)
{
    TP_CHECK(tp_is_float(x->dtype[0]) && x->shape[0].nd >= 2 && tp_shape_len(x->shape[0]) > 0, TP_ESHAPE,
             "x must be float (N,C,...) and not empty");
    for (int i = from; i <= to && i < x->n_in; i++)
        TP_CHECK(x->dtype[i] == tp_sums_dtype(x->dtype[0]) && tp_shape_len(x->shape[i]) == n, TP_ESHAPE,
                 "input %d must have %lld values of %s", i, (long long)n,
                 tp_dtype_name(tp_sums_dtype(x->dtype[0])));
    return TP_OK;
}

static tp_status check_rows(const tp_infer *x, int weight)
{
    if (x->n_in <= weight || x->dtype[weight] == TP_DTYPE_NONE)
        return TP_OK;
    const tp_dtype dtype = x->dtype[weight];
    const int64_t len = tp_shape_len(x->shape[weight]);
    TP_CHECK(tp_is_int(dtype) || dtype == TP_F32 || dtype == TP_F64, TP_ESHAPE,
             "weight is %s, want integers, float32 or float64", tp_dtype_name(dtype));
    TP_CHECK(len > 0 && x->shape[0].d[0] % len == 0, TP_ESHAPE,
             "weight must have %lld values, or a divisor of that", (long long)x->shape[0].d[0]);
    return TP_OK;
}

/* Statistics, or gradients of gamma and beta: the second and third output. */
static void give_channels(tp_infer *x, int64_t n)
{
    x->out_shape[1] = x->out_shape[2] = (tp_shape){1, {n}};
    x->out_dtype[1] = x->out_dtype[2] = tp_sums_dtype(x->dtype[0]);
}

static tp_status check_like_x(const tp_infer *x, int input, const char *name)
{
    TP_CHECK(tp_shape_equal(x->shape[0], x->shape[input]) && x->dtype[input] == x->dtype[0], TP_ESHAPE,
             "%s must have the shape and dtype of x", name);
    return TP_OK;
}

static tp_status check_act(const tp_infer *x)
{
    const tp_activation act = ((const tp_norm_attr *)x->attr)->act;
    TP_CHECK(act == TP_ACT_NONE || act == TP_ACT_RELU, TP_ESHAPE, "activation %d, want none or relu",
             (int)act);
    return TP_OK;
}

static tp_status infer_batch_norm(tp_infer *x)
{
    TP_TRY(check_channels(x, BN_GAMMA, BN_VAR, x->shape[0].nd > 1 ? x->shape[0].d[1] : 0));
    TP_TRY(check_rows(x, BN_WEIGHT));
    TP_TRY(check_act(x));
    if (x->n_in > BN_RESIDUAL && x->dtype[BN_RESIDUAL] != TP_DTYPE_NONE)
        TP_TRY(check_like_x(x, BN_RESIDUAL, "residual"));
    give_channels(x, x->shape[0].d[1]);
    return TP_OK;
}

static tp_status infer_batch_norm_grad(tp_infer *x)
{
    TP_TRY(check_channels(x, BG_GAMMA, BG_RSTD, x->shape[0].nd > 1 ? x->shape[0].d[1] : 0));
    TP_TRY(check_rows(x, BG_WEIGHT));
    TP_TRY(check_act(x));
    TP_TRY(check_like_x(x, BG_DY, "dy"));
    TP_CHECK(((const tp_norm_attr *)x->attr)->act == TP_ACT_NONE ||
                 (x->n_in > BG_BETA && x->dtype[BG_BETA] == tp_sums_dtype(x->dtype[0]) &&
                  tp_shape_len(x->shape[BG_BETA]) == x->shape[0].d[1]),
             TP_ESHAPE, "through relu beta must be given, %lld values", (long long)x->shape[0].d[1]);
    give_channels(x, x->shape[0].d[1]);
    return TP_OK;
}

static tp_status infer_batch_norm_eval(tp_infer *x)
{
    return check_channels(x, 1, 4, x->shape[0].nd > 1 ? x->shape[0].d[1] : 0);
}

static tp_status infer_set(tp_infer *x, int last, int grad)
{
    const tp_shape s = x->shape[0];
    const tp_norm_attr *a = x->attr;

    TP_CHECK(s.nd >= 2, TP_ESHAPE, "x has %d dimensions, want at least 2", s.nd);
    const norm_dims d = tp_norm_dims(s, last, a->groups);
    TP_TRY(check_channels(x, 1, grad ? 1 : 2, d.c));
    TP_CHECK(d.c % d.groups == 0, TP_ESHAPE, "%lld groups do not divide %lld channels", (long long)d.groups,
             (long long)d.c);
    if (grad) {
        TP_CHECK(tp_shape_len(x->shape[2]) == d.n * d.groups && tp_shape_len(x->shape[3]) == d.n * d.groups &&
                     tp_shape_equal(s, x->shape[4]),
                 TP_ESHAPE, "mean and rstd must have %lld values and dy the shape of x",
                 (long long)(d.n * d.groups));
        give_channels(x, d.c);
    } else
        give_channels(x, d.n * d.groups);
    return TP_OK;
}

static tp_status infer_layer_norm(tp_infer *x)
{
    return infer_set(x, 1, 0);
}

static tp_status infer_layer_norm_grad(tp_infer *x)
{
    return infer_set(x, 1, 1);
}

static tp_status infer_group_norm(tp_infer *x)
{
    return infer_set(x, 0, 0);
}

static tp_status infer_group_norm_grad(tp_infer *x)
{
    return infer_set(x, 0, 1);
}

/* ---- gradients ---- */

static void spread(const uint8_t *need, tp_val first, tp_val *dx)
{
    for (int i = 0; i < 3; i++)
        if (need[i] && first != 0)
            dx[i] = first + (tp_val)i;
}

static void grad_batch_norm(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    const tp_val residual = n->n_in > BN_RESIDUAL ? n->in[BN_RESIDUAL] : 0,
                 weight = n->n_in > BN_WEIGHT ? n->in[BN_WEIGHT] : 0;
    const tp_activation act = ((const tp_norm_attr *)n->attr)->act;
    /* What y adds to the norm of x is not known to its gradient, but that is the residual's own. */
    const int apart = residual != 0 && act != TP_ACT_NONE;
    const tp_val d = apart ? tp_relu_grad(g, n->out[0], dy[0]) : dy[0];

    if (residual != 0 && need[BN_RESIDUAL])
        dx[BN_RESIDUAL] = d;
    spread(need,
           tp_batch_norm_grad(g, n->in[0], n->in[1], n->out[1], n->out[2], d, weight,
                              apart || act == TP_ACT_NONE ? 0 : n->in[BN_BETA], apart ? TP_ACT_NONE : act),
           dx);
}

static void grad_layer_norm(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    spread(need, tp_layer_norm_grad(g, n->in[0], n->in[1], n->out[1], n->out[2], dy[0]), dx);
}

static void grad_group_norm(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need, tp_val *dx)
{
    const tp_norm_attr *a = n->attr;
    spread(need, tp_group_norm_grad(g, n->in[0], n->in[1], n->out[1], n->out[2], dy[0], a->groups), dx);
}

/* Frozen statistics: y = (x - mean) r gamma + beta with r = 1 / sqrt(var + eps), elementwise in x. */
static void grad_batch_norm_eval(tp_graph *g, const tp_node *n, const tp_val *dy, const uint8_t *need,
                                 tp_val *dx)
{
    const tp_norm_attr *a = n->attr;
    const tp_shape s = tp_val_shape(g, n->in[0]);
    const tp_dtype dtype = tp_val_dtype(g, n->in[0]);
    tp_shape per = {.nd = s.nd, .d = {1, s.d[1]}};
    uint32_t axes = 1;

    for (int i = 2; i < s.nd; i++) {
        per.d[i] = 1;
        axes |= 1u << i;
    }
    const tp_dtype sums = tp_sums_dtype(dtype);
    const tp_val up = tp_cast(g, dy[0], sums),
                 r = tp_rsqrt(g, tp_add(g, n->in[4], tp_scalar(g, sums, a->epsilon)));
    if (need[0])
        dx[0] = tp_cast(g, tp_mul(g, up, tp_reshape(g, tp_mul(g, r, n->in[1]), per)), dtype);
    if (need[1]) {
        const tp_val centred = tp_sub(g, tp_cast(g, n->in[0], sums), tp_reshape(g, n->in[3], per));
        dx[1] = tp_mul(g, r, tp_reduce_sum(g, tp_mul(g, up, centred), axes, 0));
    }
    if (need[2])
        dx[2] = tp_reduce_sum(g, up, axes, 0);
}

/* ---- descriptors ---- */

static const tp_norm_attr norm = {1e-5, 0.1, 1, TP_ACT_NONE}, norm_3 = {1e-5, 0.1, 3, TP_ACT_NONE},
                          norm_relu = {1e-5, 0.1, 1, TP_ACT_RELU};
static const tp_case cases_batch_norm[] = {
    {"4x3,3,3,3,3,-", 0.2, 2.0, 0, &norm, 5e-6, 0},
    {"5x3x4x2,3,3,3,3,5", 0.2, 2.0, 0, &norm, 5e-6, 0},
    {"33x17x9,17,17,17,17,-", 0.2, 2.0, 0, &norm, 5e-6, 0},
    {"37x131,131,131,131,131,37", 0.2, 2.0, 0, &norm, 5e-6, 0},
    {"9x5x4,5,5,5,5,9:i32", 0.2, 2.0, 2, &norm, 5e-6, 0}, /* some rows do not count */
    {"70x3x9x8,3,3,3,3,70:i32", 0.2, 2.0, 2, &norm, 5e-6, 0},
    {"4100x5,5,5,5,5,-", 0.2, 2.0, 0, &norm, 5e-6, 0},
    {"90x20,20,20,20,20,9:i32", 0.2, 2.0, 2, &norm, 5e-6, 0}, /* a weight for each run of 10 rows */
    {"41x12,12,12,12,12,-", -1.0, 1.0, 0, &norm_relu, 5e-6, 0},
    {"41x7,7,7,7,7,41:i32", -1.0, 1.0, 2, &norm_relu, 5e-6, 0},
    {"5x3x4x2,3,3,3,3,-", -1.0, 1.0, 0, &norm_relu, 5e-6, 0},
    {"41x12,12,12,12,12,-,41x12", -1.0, 1.0, 0, &norm, 5e-6, 0},
    {"41x12,12,12,12,12,-,41x12", -1.0, 1.0, 0, &norm_relu, 5e-6, 0},
    {"5x3x4x2,3,3,3,3,5:i32,5x3x4x2", -1.0, 1.0, 2, &norm_relu, 5e-6, 0},
    {"600x24:bf16,24,24,24,24,-", -1.0, 1.0, 0, &norm_relu, 4e-3, TP_CASE_NO_GRAD},
    {"41x12:bf16,12,12,12,12,-,41x12:bf16", -1.0, 1.0, 0, &norm_relu, 4e-3, 0},
    {"41x7:bf16,7,7,7,7,41:i32", -1.0, 1.0, 2, &norm, 4e-3, 0},
    {"5x3x4x2:bf16,3,3,3,3,-", -1.0, 1.0, 0, &norm, 4e-3, 0},
    {"1x3,3,3,3,3,-", 0.2, 2.0, 0, &norm, 5e-6, TP_CASE_NO_GRAD},     /* one value: its variance is 0 */
    {"4x3,3,3,3,3,4:i32", 0.2, 2.0, 1, &norm, 5e-6, TP_CASE_NO_GRAD}, /* no row counts */
    {"300x16:bf16,16,16,16,16,300:i32", -1.0, 1.0, 2, &norm_relu, 4e-3, TP_CASE_NO_GRAD},
    {"70x132,132,132,132,132,7:i32,70x132", 0.2, 2.0, 2, &norm, 5e-6, TP_CASE_NO_GRAD},
    {"3x1100,1100,1100,1100,1100,-", 0.2, 2.0, 0, &norm, 5e-6, TP_CASE_NO_GRAD},
    {"900x4,4,4,4,4,450:i32", 100.0, 101.0, 2, &norm, 5e-6, TP_CASE_NO_GRAD}, /* a mean far from 0 */
    {"5x3x4x2:bf16,3,3,3,3,5:i32", -1.0, 1.0, 2, &norm, 4e-3, TP_CASE_NO_GRAD},
    {"41x7:bf16,7,7,7,7,-,41x7:bf16", -1.0, 1.0, 0, &norm_relu, 4e-3, TP_CASE_NO_GRAD},
};
static const tp_case cases_batch_norm_grad[] = {
    {"4x3,3,3,3,4x3,-", 0.2, 2.0, 0, &norm, 2e-5, TP_CASE_NO_GRAD},
    {"5x3x4x2,3,3,3,5x3x4x2,5", 0.2, 2.0, 0, &norm, 2e-5, TP_CASE_NO_GRAD},
    {"37x131,131,131,131,37x131,37", 0.2, 2.0, 0, &norm, 2e-5, TP_CASE_NO_GRAD},
    {"9x5x4,5,5,5,9x5x4,9:i32", 0.2, 2.0, 2, &norm, 2e-5, TP_CASE_NO_GRAD},
    {"70x3x9x8,3,3,3,70x3x9x8,70:i32", 0.2, 2.0, 2, &norm, 2e-5, TP_CASE_NO_GRAD},
    {"4100x5,5,5,5,4100x5,-", 0.2, 2.0, 0, &norm, 2e-5, TP_CASE_NO_GRAD},
    {"90x20,20,20,20,90x20,9:i32", 0.2, 2.0, 2, &norm, 2e-5, TP_CASE_NO_GRAD},
    {"41x12,12,12,12,41x12,-,12", -1.0, 1.0, 0, &norm_relu, 2e-5, TP_CASE_NO_GRAD},
    {"41x7,7,7,7,41x7,41:i32,7", -1.0, 1.0, 2, &norm_relu, 2e-5, TP_CASE_NO_GRAD},
    {"5x3x4x2,3,3,3,5x3x4x2,-,3", -1.0, 1.0, 0, &norm_relu, 2e-5, TP_CASE_NO_GRAD},
    {"600x24:bf16,24,24,24,600x24:bf16,-,24", -1.0, 1.0, 0, &norm_relu, 4e-3, TP_CASE_NO_GRAD},
    {"41x12:bf16,12,12,12,41x12:bf16,-", -1.0, 1.0, 0, &norm, 4e-3, TP_CASE_NO_GRAD},
    {"41x7:bf16,7,7,7,41x7:bf16,41:i32", -1.0, 1.0, 2, &norm, 4e-3, TP_CASE_NO_GRAD},
    {"5x3x4x2:bf16,3,3,3,5x3x4x2:bf16,-,3", -1.0, 1.0, 0, &norm_relu, 4e-3, TP_CASE_NO_GRAD},
    {"300x16:bf16,16,16,16,300x16:bf16,300:i32,16", -1.0, 1.0, 2, &norm_relu, 4e-3, TP_CASE_NO_GRAD},
    {"70x132,132,132,132,70x132,7:i32", 0.2, 2.0, 2, &norm, 2e-5, TP_CASE_NO_GRAD},
    {"3x1100,1100,1100,1100,3x1100,-", 0.2, 2.0, 0, &norm, 2e-5, TP_CASE_NO_GRAD},
    {"4x3,3,3,3,4x3,4:i32", 0.2, 2.0, 1, &norm, 2e-5, TP_CASE_NO_GRAD}, /* no row counts */
    {"5x3x4x2:bf16,3,3,3,5x3x4x2:bf16,5:i32", -1.0, 1.0, 2, &norm, 4e-3, TP_CASE_NO_GRAD},
};
static const tp_case cases_batch_norm_eval[] = {
    {"4x3,3,3,3,3", 0.2, 2.0, 0, &norm, 5e-6, 0},
    {"5x3x4x2,3,3,3,3", 0.2, 2.0, 0, &norm, 5e-6, 0},
    {"9x131,131,131,131,131", 0.2, 2.0, 0, &norm, 5e-6, 0},
    {"41x12,12,12,12,12", 0.2, 2.0, 0, &norm, 5e-6, 0},
    {"41x12:bf16,12,12,12,12", 0.2, 2.0, 0, &norm, 4e-3, 0},
    {"5x3x4x2:bf16,3,3,3,3", 0.2, 2.0, 0, &norm, 4e-3, 0},
};
static const tp_case cases_layer_norm[] = {
    {"4x3,3,3", -2.0, 2.0, 0, &norm, 5e-6, 0},
    {"2x5x33,33,33", -2.0, 2.0, 0, &norm, 5e-6, 0},
    {"67x257,257,257", -2.0, 2.0, 0, &norm, 5e-6, 0},
    {"3x1100,1100,1100", -2.0, 2.0, 0, &norm, 5e-6, 0},
    {"9x132,132,132", -2.0, 2.0, 0, &norm, 5e-6, TP_CASE_NO_GRAD},
    {"5x301,301,301", -2.0, 2.0, 0, &norm, 5e-6, TP_CASE_NO_GRAD},
    {"3x516,516,516", -2.0, 2.0, 0, &norm, 5e-6, TP_CASE_NO_GRAD},
    {"2x1101,1101,1101", -2.0, 2.0, 0, &norm, 5e-6, TP_CASE_NO_GRAD},
    {"2x2052,2052,2052", -2.0, 2.0, 0, &norm, 5e-6, TP_CASE_NO_GRAD},
    {"2x4100,4100,4100", -2.0, 2.0, 0, &norm, 5e-6, TP_CASE_NO_GRAD},
    {"2x8200,8200,8200", -2.0, 2.0, 0, &norm, 5e-6, TP_CASE_NO_GRAD},
    {"2x8201,8201,8201", -2.0, 2.0, 0, &norm, 5e-6, TP_CASE_NO_GRAD},
    {"17x600,600,600", 100.0, 101.0, 0, &norm, 5e-6, TP_CASE_NO_GRAD}, /* a mean far from 0 */
    {"2x8200,8200,8200", 100.0, 101.0, 0, &norm, 5e-6, TP_CASE_NO_GRAD},
};
static const tp_case cases_layer_norm_grad[] = {
    {"4x3,3,4,4,4x3", 0.2, 2.0, 0, &norm, 2e-5, TP_CASE_NO_GRAD},
    {"70x33,33,70,70,70x33", 0.2, 2.0, 0, &norm, 2e-5, TP_CASE_NO_GRAD},
    {"67x257,257,67,67,67x257", 0.2, 2.0, 0, &norm, 2e-5, TP_CASE_NO_GRAD},
    {"3x1100,1100,3,3,3x1100", 0.2, 2.0, 0, &norm, 2e-5, TP_CASE_NO_GRAD},
    {"300x132,132,300,300,300x132", 0.2, 2.0, 0, &norm, 2e-5, TP_CASE_NO_GRAD},
    {"40x20,20,40,40,40x20", 0.2, 2.0, 0, &norm, 2e-5, TP_CASE_NO_GRAD},
    {"41x300,300,41,41,41x300", 0.2, 2.0, 0, &norm, 2e-5, TP_CASE_NO_GRAD},
    {"37x301,301,37,37,37x301", 0.2, 2.0, 0, &norm, 2e-5, TP_CASE_NO_GRAD},
    {"67x516,516,67,67,67x516", 0.2, 2.0, 0, &norm, 2e-5, TP_CASE_NO_GRAD},
    {"20x601,601,20,20,20x601", 0.2, 2.0, 0, &norm, 2e-5, TP_CASE_NO_GRAD},
    {"11x2052,2052,11,11,11x2052", 0.2, 2.0, 0, &norm, 2e-5, TP_CASE_NO_GRAD},
    {"19x4100,4100,19,19,19x4100", 0.2, 2.0, 0, &norm, 2e-5, TP_CASE_NO_GRAD},
    {"19x2051,2051,19,19,19x2051", 0.2, 2.0, 0, &norm, 2e-5, TP_CASE_NO_GRAD},
};
static const tp_case cases_group_norm[] = {
    {"2x6,6,6", -2.0, 2.0, 0, &norm_3, 5e-6, 0},
    {"2x6x5x4,6,6", -2.0, 2.0, 0, &norm_3, 5e-6, 0},
    {"7x201,201,201", -2.0, 2.0, 0, &norm_3, 5e-6, 0},
    {"2x6x7x7,6,6", -2.0, 2.0, 0, &norm_3, 5e-6, TP_CASE_NO_GRAD},
    {"3x12x32x32,12,12", -2.0, 2.0, 0, &norm_3, 5e-6, TP_CASE_NO_GRAD},
    {"2x6x60x60,6,6", -2.0, 2.0, 0, &norm_3, 5e-6, TP_CASE_NO_GRAD},
    {"1x6x70x70,6,6", -2.0, 2.0, 0, &norm_3, 5e-6, TP_CASE_NO_GRAD},
    {"1x6x71x71,6,6", -2.0, 2.0, 0, &norm_3, 5e-6, TP_CASE_NO_GRAD},
    {"5x12,12,12", -2.0, 2.0, 0, &norm_3, 5e-6, TP_CASE_NO_GRAD},
};
static const tp_case cases_group_norm_grad[] = {
    {"2x6,6,6,6,2x6", 0.2, 2.0, 0, &norm_3, 2e-5, TP_CASE_NO_GRAD},
    {"2x6x5x4,6,6,6,2x6x5x4", 0.2, 2.0, 0, &norm_3, 2e-5, TP_CASE_NO_GRAD},
    {"7x201,201,21,21,7x201", 0.2, 2.0, 0, &norm_3, 2e-5, TP_CASE_NO_GRAD},
    {"2x6x7x7,6,6,6,2x6x7x7", 0.2, 2.0, 0, &norm_3, 2e-5, TP_CASE_NO_GRAD},
    {"35x6x16x17,6,105,105,35x6x16x17", 0.2, 2.0, 0, &norm_3, 2e-5, TP_CASE_NO_GRAD},
    {"2x6x64x64,6,6,6,2x6x64x64", 0.2, 2.0, 0, &norm_3, 2e-5, TP_CASE_NO_GRAD},
    {"2x6x71x72,6,6,6,2x6x71x72", 0.2, 2.0, 0, &norm_3, 2e-5, TP_CASE_NO_GRAD},
    {"2x6x33x33,6,6,6,2x6x33x33", 0.2, 2.0, 0, &norm_3, 2e-5, TP_CASE_NO_GRAD},
    {"70x12,12,210,210,70x12", 0.2, 2.0, 0, &norm_3, 2e-5, TP_CASE_NO_GRAD},
    {"9x2052,2052,27,27,9x2052", 0.2, 2.0, 0, &norm_3, 2e-5, TP_CASE_NO_GRAD},
};

#define NORM_OP(opname, onnx_name, fewest, most, outs, op_flags, constants, grad_fn)                         \
    static const tp_impl opname##_cpu = {"simd", tp_accept_f32, tp_##opname##_simd, NULL, 0};                \
    static const tp_impl opname##_cpu_ref = {"ref", opname##_scratch, opname##_ref, NULL, 0};                \
    const tp_op tp_op_##opname = {.name = #opname,                                                           \
                                  .onnx = onnx_name,                                                         \
                                  .min_in = fewest,                                                          \
                                  .max_in = most,                                                            \
                                  .n_out = outs,                                                             \
                                  .flags = op_flags,                                                         \
                                  .constant_in = constants,                                                  \
                                  .attr_size = sizeof(tp_norm_attr),                                         \
                                  .infer = infer_##opname,                                                   \
                                  .grad = grad_fn,                                                           \
                                  .cost = tp_cost_stream,                                                    \
                                  .cpu = TP_IMPLS(&opname##_cpu, &opname##_cpu_ref),                         \
                                  .cases = cases_##opname,                                                   \
                                  .n_cases = TP_COUNT(cases_##opname)};

NORM_OP(batch_norm, "BatchNormalization", 5, 7, 3, TP_OP_EFFECT, 56u, grad_batch_norm)
NORM_OP(batch_norm_grad, NULL, 5, 7, 3, 0, 0, NULL)
NORM_OP(batch_norm_eval, "BatchNormalization", 5, 5, 1, 0, 24u, grad_batch_norm_eval)
NORM_OP(layer_norm, "LayerNormalization", 3, 3, 3, 0, 0, grad_layer_norm)
NORM_OP(layer_norm_grad, NULL, 5, 5, 3, 0, 0, NULL)
NORM_OP(group_norm, "GroupNormalization", 3, 3, 3, 0, 0, grad_group_norm)
NORM_OP(group_norm_grad, NULL, 5, 5, 3, 0, 0, NULL)

tp_val tp_batch_norm(tp_graph *g, tp_val x, tp_val gamma, tp_val beta, tp_val running_mean,
                     tp_val running_var, tp_val weight, tp_val residual, double epsilon, double momentum,
                     tp_activation act)
{
    return tp_graph_add(g, &tp_op_batch_norm, 7,
                        (const tp_val[]){x, gamma, beta, running_mean, running_var, weight, residual},
                        &(const tp_norm_attr){epsilon, momentum, 1, act});
}

tp_val tp_batch_norm_grad(tp_graph *g, tp_val x, tp_val gamma, tp_val mean, tp_val rstd, tp_val dy,
                          tp_val weight, tp_val beta, tp_activation act)
{
    return tp_graph_add(g, &tp_op_batch_norm_grad, 7,
                        (const tp_val[]){x, gamma, mean, rstd, dy, weight, beta},
                        &(const tp_norm_attr){0.0, 0.0, 1, act});
}

tp_val tp_batch_norm_eval(tp_graph *g, tp_val x, tp_val gamma, tp_val beta, tp_val mean, tp_val var,
                          double epsilon)
{
    return tp_graph_add(g, &tp_op_batch_norm_eval, 5, (const tp_val[]){x, gamma, beta, mean, var},
                        &(const tp_norm_attr){epsilon, 0.0, 1, TP_ACT_NONE});
}

tp_val tp_layer_norm(tp_graph *g, tp_val x, tp_val gamma, tp_val beta, double epsilon)
{
    return tp_graph_add(g, &tp_op_layer_norm, 3, (const tp_val[]){x, gamma, beta},
                        &(const tp_norm_attr){epsilon, 0.0, 1, TP_ACT_NONE});
}

tp_val tp_layer_norm_grad(tp_graph *g, tp_val x, tp_val gamma, tp_val mean, tp_val rstd, tp_val dy)
{
    return tp_graph_add(g, &tp_op_layer_norm_grad, 5, (const tp_val[]){x, gamma, mean, rstd, dy},
                        &(const tp_norm_attr){0.0, 0.0, 1, TP_ACT_NONE});
}

tp_val tp_group_norm(tp_graph *g, tp_val x, tp_val gamma, tp_val beta, int64_t groups, double epsilon)
{
    return tp_graph_add(g, &tp_op_group_norm, 3, (const tp_val[]){x, gamma, beta},
                        &(const tp_norm_attr){epsilon, 0.0, groups, TP_ACT_NONE});
}

tp_val tp_group_norm_grad(tp_graph *g, tp_val x, tp_val gamma, tp_val mean, tp_val rstd, tp_val dy,
                          int64_t groups)
{
    return tp_graph_add(g, &tp_op_group_norm_grad, 5, (const tp_val[]){x, gamma, mean, rstd, dy},
                        &(const tp_norm_attr){0.0, 0.0, groups, TP_ACT_NONE});
}
