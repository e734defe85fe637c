/* model.c - a model's parameters, and its forward pass as graph code.
 *
 * Parameters have PyTorch's shapes, and layers see images as (N,C,H,W). Convolutions, pooling and batch norm
 * run with channels last, where neighbours in memory share a pixel: an image stays so from layer to layer,
 * and is turned where a layer asks for the other order. In bf16 a convolution takes and gives bfloat16, which
 * stays so through norm, activation, pooling and residual; other layers compute in float32.
 *
 * In training a batch norm does the relu behind it in the same pass, and the addition of the residual whose
 * body it ends.
 *
 * One walk over the layers serves both: when a model is made, the walk runs on a scratch graph whose shape
 * inference checks the layers, and every parameter it asks for is declared; later walks hand out the same
 * parameters in the same order as graph values. */
#include "temper/model.h"
#include "host/core/mem.h"
#include "host/model/filters.h"
#include "host/model/init.h"
#include "kernels/op.h"
#include <stdio.h>
#include <string.h>

#define PATH_SIZE   256
#define NORM_PARAMS 4 /* of a batch norm: weight, bias, running mean and variance */

struct tp_model {
    tp_device *dev;
    tp_layer root;
    tp_model_input *inputs;
    int n_inputs;
    tp_task task;
    int64_t n_outputs, n_target_norm;
    float *target_shift, *target_scale;
    tp_param *params;
    int n_params;
    uint64_t seed;
};

typedef struct walk {
    tp_model *declaring; /* set while the model is made */
    const tp_model *m;
    tp_graph *g;
    tp_forward *f;
    int next_param;
    uint32_t stream;
    tp_status st;
    char path[PATH_SIZE];
} walk;

/* A value on its way through the layers; last: an image whose channels lie last. */
typedef struct flow {
    tp_val v;
    int last;
} flow;

/* What a layer does with its result besides: adds a residual, then an activation. */
typedef struct tail {
    tp_activation act;
    flow residual;
} tail;
static const tail nothing;

typedef struct want {
    const char *suffix;
    tp_shape shape;
    tp_init_rule init;
    int trained, decay, sparse, channels_last;
} want;

/* ---- parameters ---- */

static tp_status declare(walk *w, const want *p)
{
    tp_model *m = w->declaring;
    const size_t n = (size_t)m->n_params;
    char *name = NULL;
    float *host = NULL;
    tp_status st = TP_OK;

    TP_TRY(tp_shape_check(p->shape, TP_F32));
    TP_TRY(tp_realloc(&m->params, n, n + 1, sizeof(tp_param), "parameter"));
    TP_TRY(tp_format(&name, "%s%s%s", w->path, w->path[0] != '\0' ? "." : "", p->suffix));
    m->params[n] =
        (tp_param){.name = name,
                   .shape = p->shape,
                   .tensor = {NULL, p->channels_last ? tp_filters_stored_shape(p->shape) : p->shape, TP_F32},
                   .channels_last = p->channels_last,
                   .trained = p->trained,
                   .decay = p->decay,
                   .sparse = p->sparse};
    m->n_params++;
    const size_t bytes = tp_tensor_bytes(&m->params[n].tensor);
    TP_TRY(tp_device_alloc(m->dev, &m->params[n].tensor.data, bytes, name));
    TP_TRY(tp_alloc(&host, bytes, 1, name));
    tp_init_fill(host, tp_shape_len(p->shape), &p->init, m->seed, (uint32_t)n);
    st = tp_filters_upload(m->dev, &m->params[n].tensor, p->shape, p->channels_last, host);
    tp_free(host);
    return st;
}

static tp_val param(walk *w, const want *p)
{
    const int i = w->next_param++;

    if (w->st != TP_OK)
        return 0;
    if (w->declaring != NULL) {
        w->st = declare(w, p);
        return w->st == TP_OK ? tp_variable(w->g, w->m->params[i].name, w->m->params[i].tensor)
                              : tp_graph_fail(w->g, w->st, "%s", tp_last_error()); /* no layer adds to it */
    }
    return w->f->params[i];
}

static void fail(walk *w, const tp_layer *l, const char *why)
{
    if (w->st == TP_OK && tp_graph_status(w->g) == TP_OK)
        w->st = tp_error_set(TP_ESHAPE, __FILE__, __LINE__, "layer %s (%s): %s", w->path,
                             tp_layer_kind_name(l->kind), why);
}

static tp_val norm_param(walk *w, const char *suffix, int64_t n, double value, int trained)
{
    const want p = {suffix, {1, {n}}, {TP_FILL_CONSTANT, value, 0.0}, trained, 0, 0, 0};
    return param(w, &p);
}

/* ---- the order of images ---- */

/* Moves dimension `from` to `to`: a view if nothing moves in memory. */
static tp_val move_dim(walk *w, tp_val x, int from, int to)
{
    const tp_shape s = tp_val_shape(w->g, x);
    tp_shape y = {.nd = s.nd};
    int perm[TP_MAX_DIMS];
    int64_t passed = 1;

    if (s.nd == 0) /* of a graph that has failed */
        return x;
    for (int i = 0, k = 0; i < s.nd; i++) {
        if (k == from)
            k++;
        perm[i] = i == to ? from : k++;
        y.d[i] = s.d[perm[i]];
    }
    for (int i = from < to ? from + 1 : to; i <= (from < to ? to : from - 1); i++)
        passed *= s.d[i];
    const int moves = s.d[from] > 1 && passed > 1;
    return moves ? tp_transpose(w->g, x, perm) : tp_reshape(w->g, x, y);
}

static flow channels_last(walk *w, flow x)
{
    const int nd = tp_val_shape(w->g, x.v).nd;
    return x.last || nd < 3 ? x : (flow){move_dim(w, x.v, 1, nd - 1), 1};
}

static flow channels_first(walk *w, flow x)
{
    return x.last ? (flow){move_dim(w, x.v, tp_val_shape(w->g, x.v).nd - 1, 1), 0} : x;
}

/* ---- how values are stored ---- */

static flow narrow(walk *w, flow x)
{
    return w->f->bf16 ? (flow){tp_cast(w->g, x.v, TP_BF16), x.last} : x;
}

static flow widen(walk *w, flow x)
{
    return tp_val_dtype(w->g, x.v) == TP_BF16 ? (flow){tp_cast(w->g, x.v, TP_F32), x.last} : x;
}

/* As a layer sees it that knows neither channels last nor bfloat16. */
static flow plain(walk *w, flow x)
{
    return channels_first(w, widen(w, x));
}

/* ---- layers ---- */

static tp_val input_named(walk *w, const tp_layer *l, const char *name)
{
    for (int i = 0; i < w->m->n_inputs; i++)
        if (strcmp(w->m->inputs[i].name, name) == 0)
            return w->f->inputs[i];
    if (w->st == TP_OK)
        w->st = tp_error_set(TP_ESHAPE, __FILE__, __LINE__, "layer %s (%s): there is no input '%s'", w->path,
                             tp_layer_kind_name(l->kind), name);
    return 0;
}

static int64_t or_default(int64_t v, int64_t otherwise)
{
    return v != 0 ? v : otherwise;
}

static double or_default_f(double v, double otherwise)
{
    return v > 0.0 ? v : otherwise;
}

static tp_val walk_dense(walk *w, const tp_layer *l, tp_val x, tp_activation act)
{
    const tp_shape s = tp_val_shape(w->g, x);

    if (s.nd != 2 || l->units <= 0) {
        fail(w, l,
             l->units <= 0 ? "units must be > 0"
                           : "wants (N, features): add flatten or global_avg_pool before it");
        return 0;
    }
    const want weight = {
        "weight", {2, {l->units, s.d[1]}}, tp_init_weight(l->init, s.d[1], l->units), 1, 1, 0, 0};
    const want bias = {"bias", {1, {l->units}}, tp_init_bias(l->init, s.d[1]), 1, 0, 0, 0};
    const tp_val wv = param(w, &weight);
    const tp_val bv = l->no_bias ? 0 : param(w, &bias);
    return tp_gemm(w->g, x, wv, bv, (tp_gemm_attr){0, 1, act});
}

static flow walk_conv(walk *w, const tp_layer *l, flow in, tp_activation act)
{
    const flow x = narrow(w, channels_last(w, in));
    const tp_shape s = tp_val_shape(w->g, x.v);
    const int spatial = s.nd - 2;
    const int64_t groups = or_default(l->groups, 1);
    tp_conv_attr attr = {.groups = groups, .act = act, .channels_last = 1};
    tp_shape ws = {.nd = s.nd, .d = {l->units, s.nd > 1 ? s.d[s.nd - 1] / groups : 0}};
    int64_t fan_in = ws.d[1];

    if (spatial < 1 || spatial > 2 || l->units <= 0 || l->kernel[0] <= 0) {
        fail(w, l, "wants (N,C,W) or (N,C,H,W), filters > 0 and a kernel > 0");
        return (flow){0, 0};
    }
    for (int i = 0; i < spatial; i++) {
        attr.stride[i] = or_default(l->stride[i], 1);
        attr.pad[i] = l->pad[i];
        attr.dilation[i] = or_default(l->dilation[i], 1);
        ws.d[2 + i] = l->kernel[i];
        fan_in *= l->kernel[i];
    }
    const want weight = {
        "weight", ws, tp_init_weight(l->init, fan_in, l->units * fan_in / or_default(ws.d[1], 1)), 1, 1,
        0,        1};
    const want bias = {"bias", {1, {l->units}}, tp_init_bias(l->init, fan_in), 1, 0, 0, 0};
    const int index = w->next_param;
    const tp_val wv = param(w, &weight), low = w->f->low != NULL ? w->f->low[index] : 0;
    const tp_val bv = l->no_bias ? 0 : param(w, &bias);
    return (flow){tp_conv(w->g, x.v, low != 0 ? low : narrow(w, (flow){wv, 1}).v, bv, attr), 1};
}

/* The residual as x is: its order and its dtype. */
static tp_val residual_like(walk *w, flow residual, flow x)
{
    const flow turned = x.last ? channels_last(w, residual) : channels_first(w, residual);
    return residual.v != 0 ? tp_cast(w->g, turned.v, tp_val_dtype(w->g, x.v)) : 0;
}

/* Over every dimension but the channels: with them last, over the rows of a matrix. */
static flow walk_batch_norm(walk *w, const tp_layer *l, flow x, tp_val gamma, tp_val beta, int64_t n,
                            tail then)
{
    const tp_shape s = tp_val_shape(w->g, x.v);
    const double eps = or_default_f(l->epsilon, 1e-5);
    const tp_val mean = norm_param(w, "running_mean", n, 0.0, 0),
                 var = norm_param(w, "running_var", n, 1.0, 0);
    const tp_shape rows = {2, {-1, n}};
    const tp_val in = x.last ? tp_reshape(w->g, x.v, rows) : x.v, add = residual_like(w, then.residual, x);
    const tp_val y = w->f->mode == TP_MODE_TRAIN
                         ? tp_batch_norm(w->g, in, gamma, beta, mean, var, w->f->weight,
                                         x.last && add != 0 ? tp_reshape(w->g, add, rows) : add, eps,
                                         or_default_f(l->momentum, 0.1), then.act)
                         : tp_batch_norm_eval(w->g, in, gamma, beta, mean, var, eps);
    return (flow){x.last ? tp_reshape(w->g, y, s) : y, x.last};
}

static flow walk_norm(walk *w, const tp_layer *l, flow in, tail then)
{
    const flow x = l->kind == TP_LAYER_BATCH_NORM ? in : plain(w, in);
    const tp_shape s = tp_val_shape(w->g, x.v);
    const double eps = or_default_f(l->epsilon, 1e-5);

    if (s.nd < 2) {
        fail(w, l, "wants at least (N, features)");
        return (flow){0, 0};
    }
    const int64_t n = s.d[x.last || l->kind == TP_LAYER_LAYER_NORM ? s.nd - 1 : 1];
    const tp_val gamma = norm_param(w, "weight", n, 1.0, 1), beta = norm_param(w, "bias", n, 0.0, 1);
    if (l->kind == TP_LAYER_LAYER_NORM)
        return (flow){tp_layer_norm(w->g, x.v, gamma, beta, eps), 0};
    if (l->kind == TP_LAYER_GROUP_NORM)
        return (flow){tp_group_norm(w->g, x.v, gamma, beta, or_default(l->groups, 1), eps), 0};
    return walk_batch_norm(w, l, x, gamma, beta, n, then);
}

static flow walk_pool(walk *w, const tp_layer *l, flow in)
{
    const flow x = channels_last(w, in);
    tp_pool_attr attr = {.channels_last = x.last};
    for (int i = 0; i < 2; i++) {
        attr.kernel[i] = l->kernel[i];
        attr.stride[i] = or_default(l->stride[i], l->kernel[i]);
        attr.pad[i] = l->pad[i];
    }
    return (flow){l->kind == TP_LAYER_MAX_POOL ? tp_max_pool(w->g, x.v, attr) : tp_avg_pool(w->g, x.v, attr),
                  x.last};
}

/* As the layer says, or as the input says that it reads. */
static int64_t categories_of(const walk *w, const tp_layer *l, tp_val ids)
{
    for (int i = 0; i < w->m->n_inputs && l->categories == 0; i++)
        if (ids == w->f->inputs[i])
            return w->m->inputs[i].categories;
    return l->categories;
}

static tp_val walk_embedding(walk *w, const tp_layer *l, tp_val x)
{
    const tp_val ids = l->input[0] != '\0' ? input_named(w, l, l->input) : x;
    const int64_t rows = categories_of(w, l, ids);

    if (l->units <= 0 || rows <= 0) {
        fail(w, l, "dim and categories must be > 0");
        return 0;
    }
    const want table = {"weight", {2, {rows, l->units}}, tp_init_embedding(l->init, l->units), 1, 1, 1, 0};
    const int index = w->next_param;
    const tp_val y = tp_embedding(w->g, param(w, &table), ids);
    if (w->f->sparse != NULL && w->f->n_sparse < w->f->max_sparse)
        w->f->sparse[w->f->n_sparse++] = (tp_sparse_use){index, ids, y};
    return tp_val_shape(w->g, y).nd > 2 ? tp_flatten(w->g, y, 1) : y;
}

static tp_val walk_dropout(walk *w, const tp_layer *l, tp_val x)
{
    if (!(l->rate >= 0.0 && l->rate < 1.0)) {
        fail(w, l, "rate must be in [0, 1)");
        return 0;
    }
    const uint32_t stream = w->stream++;
    return w->f->mode == TP_MODE_TRAIN && l->rate > 0.0 ? tp_dropout(w->g, x, w->f->counter, stream, l->rate)
                                                        : x;
}

static tp_val walk_activation(walk *w, const tp_layer *l, tp_val x)
{
    switch (l->kind) {
    case TP_LAYER_RELU:
        return tp_relu(w->g, x);
    case TP_LAYER_LEAKY_RELU:
        return tp_leaky_relu(w->g, x, or_default_f(l->alpha, 0.01));
    case TP_LAYER_ELU:
        return tp_elu(w->g, x, or_default_f(l->alpha, 1.0));
    case TP_LAYER_GELU:
        return tp_gelu(w->g, x);
    case TP_LAYER_SILU:
        return tp_silu(w->g, x);
    case TP_LAYER_TANH:
        return tp_tanh(w->g, x);
    case TP_LAYER_SIGMOID:
        return tp_sigmoid(w->g, x);
    default:
        return tp_softplus(w->g, x);
    }
}

static flow walk_layer(walk *w, const tp_layer *l, flow x, tail then);

/* Goes on under the name of child i (or its number; "." adds nothing). Returns where the path ended. */
static size_t enter(walk *w, const tp_layer *parent, int i)
{
    const tp_layer *l = &parent->children[i];
    const size_t at = strlen(w->path);
    const char *dot = at > 0 ? "." : "";

    if (l->name[0] == '\0')
        snprintf(w->path + at, PATH_SIZE - at, "%s%d", dot, i);
    else if (strcmp(l->name, ".") != 0)
        snprintf(w->path + at, PATH_SIZE - at, "%s%s", dot, l->name);
    tp_graph_scope(w->g, w->path);
    return at;
}

static void leave(walk *w, size_t at)
{
    if (w->st == TP_OK && tp_graph_status(w->g) != TP_OK)
        w->st = tp_graph_status(w->g);
    w->path[at] = '\0';
}

static flow walk_child(walk *w, const tp_layer *parent, int i, flow x, tail then)
{
    const size_t at = enter(w, parent, i);
    const flow y = walk_layer(w, &parent->children[i], x, then);
    leave(w, at);
    return y;
}

/* 1 if a residual ends its body with a batch norm, which then does the addition. */
static int adds_in_norm(const walk *w, const tp_layer *l)
{
    const tp_layer *body = &l->children[0];
    return w->declaring == NULL && w->f->mode == TP_MODE_TRAIN && l->n_children >= 1 &&
           body->kind == TP_LAYER_SEQUENCE && body->n_children > 1 && body->input[0] == '\0' &&
           body->children[body->n_children - 1].kind == TP_LAYER_BATCH_NORM;
}

/* The activation that the layer after child i fuses into it, or none. */
static tail fused(const walk *w, const tp_layer *l, int i)
{
    static const tp_activation of[] = {
        [TP_LAYER_RELU] = TP_ACT_RELU, [TP_LAYER_TANH] = TP_ACT_TANH, [TP_LAYER_SIGMOID] = TP_ACT_SIGMOID};
    const tp_layer *c = &l->children[i];
    const int any = c->kind == TP_LAYER_DENSE || c->kind == TP_LAYER_CONV,
              relu = (c->kind == TP_LAYER_BATCH_NORM && w->f->mode == TP_MODE_TRAIN) ||
                     (c->kind == TP_LAYER_RESIDUAL && adds_in_norm(w, c));
    const tp_layer_kind next = i + 1 < l->n_children ? l->children[i + 1].kind : TP_LAYER_SEQUENCE;
    const tp_activation act = next < TP_COUNT(of) ? of[next] : TP_ACT_NONE;

    return (tail){any || (relu && act == TP_ACT_RELU) ? act : TP_ACT_NONE, {0, 0}};
}

static flow walk_sequence(walk *w, const tp_layer *l, flow x)
{
    if (l->input[0] != '\0')
        x = (flow){input_named(w, l, l->input), 0};
    for (int i = 0; i < l->n_children && w->st == TP_OK; i++) {
        const tail then = fused(w, l, i);
        x = walk_child(w, l, i, x, then);
        i += then.act != TP_ACT_NONE;
    }
    return x;
}

/* One order and one dtype for all: channels last, and bfloat16, if one of them is so. */
static int same_order(walk *w, flow *x, int n)
{
    int last = 0, low = 0;

    for (int i = 0; i < n; i++) {
        last |= x[i].last;
        low |= tp_val_dtype(w->g, x[i].v) == TP_BF16;
    }
    for (int i = 0; i < n; i++) {
        x[i] = last ? channels_last(w, x[i]) : x[i];
        x[i] = low ? narrow(w, x[i]) : x[i];
    }
    return last;
}

static flow walk_concat(walk *w, flow *parts, int n)
{
    tp_val all[64];

    for (int i = 0; i < n; i++)
        parts[i] = widen(w, parts[i]);
    const int last = same_order(w, parts, n);
    for (int i = 0; i < n; i++)
        all[i] = parts[i].v;
    return n > 1 ? (flow){tp_concat(w->g, n, all, last ? tp_val_shape(w->g, all[0]).nd - 1 : 1), last}
                 : parts[0];
}

static flow walk_branches(walk *w, const tp_layer *l, flow x)
{
    flow parts[64];

    if (l->n_children < 1 || l->n_children > TP_COUNT(parts)) {
        fail(w, l, "wants 1 to 64 branches");
        return (flow){0, 0};
    }
    for (int i = 0; i < l->n_children && w->st == TP_OK; i++)
        parts[i] = walk_child(w, l, i, x, nothing);
    if (w->st != TP_OK)
        return (flow){0, 0};
    if (l->kind == TP_LAYER_CONCAT)
        return walk_concat(w, parts, l->n_children);
    flow y = {0, same_order(w, parts, l->n_children)};
    y.v = parts[0].v;
    for (int i = 1; i < l->n_children; i++)
        y.v = l->kind == TP_LAYER_SUM ? tp_add(w->g, y.v, parts[i].v) : tp_mul(w->g, y.v, parts[i].v);
    return y;
}

/* The body up to its norm, the shortcut, then the norm, which adds. Parameters keep the order in which they
 * were declared: those of the norm come before those of the shortcut. */
static flow walk_added_in_norm(walk *w, const tp_layer *l, flow x, tp_activation act)
{
    const tp_layer *body = &l->children[0];
    const int last = body->n_children - 1;
    flow y = x, shortcut = x;

    const size_t at = enter(w, l, 0);
    for (int i = 0; i < last && w->st == TP_OK; i++) {
        const tail then = fused(w, body, i);
        y = walk_child(w, body, i, y, then);
        i += then.act != TP_ACT_NONE;
    }
    leave(w, at);
    const int of_norm = w->next_param;
    w->next_param += NORM_PARAMS;
    if (l->n_children == 2 && w->st == TP_OK)
        shortcut = walk_child(w, l, 1, x, nothing);
    const int end = w->next_param;
    w->next_param = of_norm;
    const size_t again = enter(w, l, 0);
    if (w->st == TP_OK)
        y = walk_child(w, body, last, y, (tail){act, shortcut});
    leave(w, again);
    w->next_param = end;
    return y;
}

static flow walk_residual(walk *w, const tp_layer *l, flow x, tail then)
{
    if (l->n_children < 1 || l->n_children > 2) {
        fail(w, l, "wants a body and at most one shortcut");
        return (flow){0, 0};
    }
    if (adds_in_norm(w, l))
        return walk_added_in_norm(w, l, x, then.act);
    flow both[2] = {walk_child(w, l, 0, x, nothing), x};
    if (l->n_children == 2 && w->st == TP_OK)
        both[1] = walk_child(w, l, 1, x, nothing);
    if (w->st != TP_OK)
        return (flow){0, 0};
    const int last = same_order(w, both, 2);
    return (flow){tp_add(w->g, both[0].v, both[1].v), last};
}

static flow walk_layer(walk *w, const tp_layer *l, flow x, tail then)
{
    if (w->st != TP_OK)
        return (flow){0, 0};
    switch (l->kind) {
    case TP_LAYER_SEQUENCE:
        return walk_sequence(w, l, x);
    case TP_LAYER_DENSE:
        return (flow){walk_dense(w, l, plain(w, x).v, then.act), 0};
    case TP_LAYER_CONV:
        return walk_conv(w, l, x, then.act);
    case TP_LAYER_BATCH_NORM:
    case TP_LAYER_LAYER_NORM:
    case TP_LAYER_GROUP_NORM:
        return walk_norm(w, l, x, then);
    case TP_LAYER_DROPOUT:
        return (flow){walk_dropout(w, l, widen(w, x).v), x.last};
    case TP_LAYER_FLATTEN:
        return (flow){tp_flatten(w->g, plain(w, x).v, 1), 0};
    case TP_LAYER_MAX_POOL:
    case TP_LAYER_AVG_POOL:
        return walk_pool(w, l, x);
    case TP_LAYER_GLOBAL_AVG_POOL:
        return (flow){tp_global_avg_pool(w->g, widen(w, x).v, x.last), 0};
    case TP_LAYER_EMBEDDING:
        return (flow){walk_embedding(w, l, x.v), 0};
    case TP_LAYER_RESIDUAL:
        return walk_residual(w, l, x, then);
    case TP_LAYER_CONCAT:
    case TP_LAYER_SUM:
    case TP_LAYER_PRODUCT:
        return walk_branches(w, l, x);
    case TP_LAYER_REDUCE_SUM:
        return (flow){tp_reduce_sum(w->g, plain(w, x).v, 2, 1), 0};
    default:
        return (flow){walk_activation(w, l, x.v), x.last};
    }
}

static tp_val walk_model(walk *w)
{
    const tp_val y = plain(w, walk_layer(w, &w->m->root, (flow){w->f->inputs[0], 0}, nothing)).v;

    tp_graph_scope(w->g, NULL);
    if (w->st == TP_OK)
        w->st = tp_graph_status(w->g);
    return w->st == TP_OK ? y : 0;
}

/* ---- making a model ---- */

static tp_status copy_floats(float **out, const float *src, int64_t n)
{
    *out = NULL;
    if (n == 0)
        return TP_OK;
    TP_TRY(tp_alloc(out, (size_t)n, sizeof(float), "normalisation"));
    memcpy(*out, src, (size_t)n * sizeof(float));
    return TP_OK;
}

static tp_status copy_inputs(tp_model *m, int n, const tp_model_input *inputs)
{
    TP_CHECK(n > 0, TP_EINVAL, "model: has no inputs");
    TP_TRY(tp_alloc(&m->inputs, (size_t)n, sizeof(*m->inputs), "inputs"));
    m->n_inputs = n;
    for (int i = 0; i < n; i++) {
        m->inputs[i] = inputs[i];
        m->inputs[i].shift = m->inputs[i].scale = NULL;
    }
    for (int i = 0; i < n; i++) {
        TP_TRY(copy_floats(&m->inputs[i].shift, inputs[i].shift, inputs[i].n_norm));
        TP_TRY(copy_floats(&m->inputs[i].scale, inputs[i].scale, inputs[i].n_norm));
    }
    return TP_OK;
}

/* Stands in for a batch while shapes are checked: two samples of every input. */
static tp_val placeholder(tp_graph *g, const tp_model_input *in)
{
    tp_tensor t = {NULL, {.nd = in->shape.nd + 1, .d = {2}}, in->kind == TP_INPUT_IDS ? TP_I64 : TP_F32};
    for (int i = 0; i < in->shape.nd; i++)
        t.shape.d[i + 1] = in->shape.d[i];
    return tp_variable(g, in->name, t);
}

static tp_status check_output(const tp_model *m, const tp_graph *g, tp_val y)
{
    char text[TP_SHAPE_TEXT_SIZE];
    const tp_shape s = tp_val_shape(g, y);
    TP_CHECK(s.nd == 2 && s.d[1] == m->n_outputs, TP_ESHAPE,
             "model: the last layer gives %s for a batch of 2, but the target wants (2,%lld)",
             tp_shape_text(s, text, sizeof(text)), (long long)m->n_outputs);
    return TP_OK;
}

static tp_status declare_all(tp_model *m)
{
    tp_graph *g = NULL;
    tp_val *inputs = NULL;
    tp_forward f = {.mode = TP_MODE_EVAL};
    tp_status st = TP_OK;

    TP_TRY_GOTO(tp_graph_new(&g), st, done);
    TP_TRY_GOTO(tp_alloc(&inputs, (size_t)m->n_inputs, sizeof(tp_val), "inputs"), st, done);
    for (int i = 0; i < m->n_inputs; i++)
        inputs[i] = placeholder(g, &m->inputs[i]);
    f.inputs = inputs;
    walk w = {.declaring = m, .m = m, .g = g, .f = &f};
    const tp_val y = walk_model(&w);
    st = w.st == TP_OK ? check_output(m, g, y) : w.st;
done:
    tp_graph_free(g);
    tp_free(inputs);
    return st;
}

tp_status tp_model_new(tp_model **out, tp_device *dev, tp_layer *layers, int n_inputs,
                       const tp_model_input *inputs, tp_task task, int64_t n_outputs, uint64_t seed)
{
    tp_model *m = NULL;
    tp_status st = tp_alloc(&m, 1, sizeof(*m), "model");

    *out = NULL;
    if (st != TP_OK) {
        tp_layer_clear(layers);
        return st;
    }
    m->dev = dev;
    m->root = *layers;
    *layers = (tp_layer){0};
    m->task = task;
    m->n_outputs = n_outputs;
    m->seed = seed;
    st = copy_inputs(m, n_inputs, inputs);
    if (st == TP_OK)
        st = declare_all(m);
    if (st != TP_OK) {
        tp_model_free(m);
        return st;
    }
    *out = m;
    return TP_OK;
}

void tp_model_free(tp_model *m)
{
    if (m == NULL)
        return;
    for (int i = 0; i < m->n_params; i++) {
        tp_device_release(m->dev, m->params[i].tensor.data);
        tp_free((void *)(uintptr_t)m->params[i].name);
    }
    for (int i = 0; i < m->n_inputs; i++) {
        tp_free(m->inputs[i].shift);
        tp_free(m->inputs[i].scale);
    }
    tp_layer_clear(&m->root);
    tp_free(m->target_shift);
    tp_free(m->target_scale);
    tp_free(m->params);
    tp_free(m->inputs);
    tp_free(m);
}

tp_status tp_model_set_target_norm(tp_model *m, int64_t n, const float *shift, const float *scale)
{
    float *copies[2] = {NULL, NULL};

    TP_CHECK(n == 0 || n == m->n_outputs, TP_EINVAL, "model: a normalisation of %lld values for %lld outputs",
             (long long)n, (long long)m->n_outputs);
    TP_TRY(copy_floats(&copies[0], shift, n));
    const tp_status st = copy_floats(&copies[1], scale, n);
    if (st != TP_OK) {
        tp_free(copies[0]);
        return st;
    }
    tp_free(m->target_shift);
    tp_free(m->target_scale);
    m->n_target_norm = n;
    m->target_shift = copies[0];
    m->target_scale = copies[1];
    return TP_OK;
}

int64_t tp_model_target_norm(const tp_model *m, const float **shift, const float **scale)
{
    *shift = m->target_shift;
    *scale = m->target_scale;
    return m->n_target_norm;
}

tp_task tp_model_task(const tp_model *m)
{
    return m->task;
}

int64_t tp_model_outputs(const tp_model *m)
{
    return m->n_outputs;
}

int tp_model_n_inputs(const tp_model *m)
{
    return m->n_inputs;
}

const tp_model_input *tp_model_input_at(const tp_model *m, int i)
{
    return &m->inputs[i];
}

int tp_model_n_params(const tp_model *m)
{
    return m->n_params;
}

const tp_param *tp_model_param(const tp_model *m, int i)
{
    return &m->params[i];
}

const tp_layer *tp_model_layers(const tp_model *m)
{
    return &m->root;
}

void tp_model_bind(const tp_model *m, tp_graph *g, tp_val *params)
{
    for (int i = 0; i < m->n_params; i++)
        params[i] = tp_variable(g, m->params[i].name, m->params[i].tensor);
}

tp_val tp_model_forward(const tp_model *m, tp_graph *g, tp_forward *f)
{
    walk w = {.m = m, .g = g, .f = f, .stream = f->stream};

    f->n_sparse = 0;
    return walk_model(&w);
}
