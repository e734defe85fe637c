/* trainer.c - one training step as a graph: which rows, their values, forward, loss, backward, clipping,
 * optimizer; and the evaluation pass over a part. Everything a step needs lives on the device; the host sets
 * the step number and the learning rate and reads the loss. */
#include "host/core/mem.h"
#include "temper/plan.h"
#include "temper/train.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_INPUTS 64
#define MAX_SPARSE 64
#define MAX_MICRO  256

/* Dropout streams of one micro-batch start this far from the next one's. */
#define STREAMS_PER_PASS 4096

/* An array of the data set on the device. On the CPU it is the data set's own memory. */
typedef struct staged {
    tp_tensor tensor;
    int owned;
} staged;

/* One evaluation pass: its own graph, because a part has its own number of rows. */
typedef struct eval_pass {
    tp_graph *g;
    tp_plan *plan;
    tp_val out, loss_sum, weight_sum;
} eval_pass;

struct tp_trainer {
    tp_device *dev;
    tp_model *model;
    const tp_data *data;
    tp_train_opts opts;
    tp_loss_kind loss;
    int64_t steps_per_epoch;

    staged inputs[MAX_INPUTS], shift[MAX_INPUTS], scale[MAX_INPUTS], target, weight, class_weight,
        rows[TP_PARTS];

    tp_tensor counter, lr;
    tp_state_tensor *states; /* parameters first, then what the optimizer keeps */
    int n_states;
    int n_params;
    int *s1, *s2, *ema; /* per parameter: index of the state tensor, -1 if none */
    int t_state;

    tp_graph *g;
    tp_plan *plan;
    tp_val loss_value, norm_value, clip_value;
    eval_pass eval[TP_PARTS][2]; /* [1]: with averaged weights */
};

/* ---- memory on the device ---- */

static tp_status stage(tp_trainer *t, staged *s, tp_tensor host)
{
    s->tensor = host;
    if (tp_device_kind_of(t->dev) == TP_CPU || host.data == NULL)
        return TP_OK;
    TP_TRY(tp_device_alloc(t->dev, &s->tensor.data, tp_tensor_bytes(&host), "data set"));
    s->owned = 1;
    return tp_device_upload(t->dev, s->tensor.data, host.data, tp_tensor_bytes(&host));
}

static void unstage(tp_trainer *t, staged *s)
{
    if (s->owned)
        tp_device_release(t->dev, s->tensor.data);
}

static tp_status device_tensor(tp_trainer *t, tp_tensor *out, tp_dtype dtype, tp_shape shape,
                               const char *what)
{
    out->dtype = dtype;
    out->shape = shape;
    return tp_device_alloc(t->dev, &out->data, tp_tensor_bytes(out), what);
}

static tp_status norm_tensor(tp_trainer *t, staged *s, const float *values, int64_t n)
{
    union {
        const float *in;
        void *out;
    } p = {.in = values};
    return stage(t, s, (tp_tensor){p.out, {1, {n}}, TP_F32});
}

static tp_status stage_data(tp_trainer *t)
{
    union {
        const void *in;
        void *out;
    } p;
    const tp_data_target *target = tp_data_target_of(t->data);

    for (int i = 0; i < tp_data_n_inputs(t->data); i++) {
        const tp_data_input *in = tp_data_input_at(t->data, i);
        TP_TRY(stage(t, &t->inputs[i], in->array.values));
        if (in->n_norm > 0) {
            TP_TRY(norm_tensor(t, &t->shift[i], in->shift, in->n_norm));
            TP_TRY(norm_tensor(t, &t->scale[i], in->scale, in->n_norm));
        }
    }
    TP_TRY(stage(t, &t->target, target->array.values));
    if (tp_data_weight(t->data) != NULL)
        TP_TRY(stage(t, &t->weight, tp_data_weight(t->data)->values));
    if (t->opts.class_weight != NULL)
        TP_TRY(norm_tensor(t, &t->class_weight, t->opts.class_weight, tp_model_outputs(t->model)));
    for (int part = 0; part < TP_PARTS; part++) {
        p.in = tp_data_part_table(t->data, (tp_part)part);
        TP_TRY(stage(t, &t->rows[part],
                     (tp_tensor){p.out, {1, {tp_data_part_rows(t->data, (tp_part)part)}}, TP_I64}));
    }
    return TP_OK;
}

/* ---- states ---- */

static tp_status add_state(tp_trainer *t, const char *prefix, const char *name, tp_tensor tensor, int *index)
{
    char *full = NULL;

    TP_TRY(tp_format(&full, "%s.%s", prefix, name));
    t->states[t->n_states] = (tp_state_tensor){full, tensor};
    *index = t->n_states++;
    return TP_OK;
}

static tp_status new_state(tp_trainer *t, const char *prefix, const tp_param *p, int *index)
{
    tp_tensor tensor;
    TP_TRY(device_tensor(t, &tensor, TP_F32, p->tensor.shape, p->name));
    return add_state(t, prefix, p->name, tensor, index);
}

static tp_status copy_on_device(tp_trainer *t, const tp_tensor *dst, const tp_tensor *src)
{
    void *host = NULL;
    TP_TRY(tp_alloc(&host, tp_tensor_bytes(src), 1, "copy"));
    tp_status st = tp_device_download(t->dev, host, src->data, tp_tensor_bytes(src));
    if (st == TP_OK)
        st = tp_device_upload(t->dev, dst->data, host, tp_tensor_bytes(src));
    tp_free(host);
    return st;
}

static tp_status make_states(tp_trainer *t)
{
    const int n = t->n_params;
    const int two = tp_optimizer_states(t->opts.optimizer.kind) == 2;
    tp_tensor counter_t;
    int index;

    TP_TRY(tp_alloc(&t->states, (size_t)(4 * n + 1), sizeof(tp_state_tensor), "states"));
    TP_TRY(tp_alloc(&t->s1, (size_t)n, sizeof(int), "states"));
    TP_TRY(tp_alloc(&t->s2, (size_t)n, sizeof(int), "states"));
    TP_TRY(tp_alloc(&t->ema, (size_t)n, sizeof(int), "states"));
    for (int i = 0; i < n; i++)
        TP_TRY(add_state(t, "model", tp_model_param(t->model, i)->name, tp_model_param(t->model, i)->tensor,
                         &index));
    for (int i = 0; i < n; i++) {
        const tp_param *p = tp_model_param(t->model, i);
        t->s1[i] = t->s2[i] = t->ema[i] = -1;
        if (!p->trained)
            continue;
        TP_TRY(new_state(t, "optimizer.0", p, &t->s1[i]));
        if (two)
            TP_TRY(new_state(t, "optimizer.1", p, &t->s2[i]));
        if (t->opts.ema > 0.0) {
            TP_TRY(new_state(t, "ema", p, &t->ema[i]));
            TP_TRY(copy_on_device(t, &t->states[t->ema[i]].tensor, &p->tensor));
        }
    }
    TP_TRY(device_tensor(t, &counter_t, TP_I64, (tp_shape){1, {1}}, "step count"));
    return add_state(t, "optimizer", "t", counter_t, &t->t_state);
}

/* ---- the step as a graph ---- */

typedef struct build {
    tp_trainer *t;
    tp_graph *g;
    tp_val counter, index, weight, total; /* total: sum of the weights of the whole batch */
    tp_val inputs[MAX_INPUTS], shift[MAX_INPUTS], scale[MAX_INPUTS], target, class_weight;
    tp_val *params;
} build;

static tp_val bind(tp_graph *g, const char *name, const tp_tensor *t)
{
    return t->data != NULL ? tp_variable(g, name, *t) : 0;
}

static void bind_data(build *b, tp_part part, int64_t batch, int64_t steps, int shuffle)
{
    tp_trainer *t = b->t;
    const int n = tp_data_n_inputs(t->data);

    b->counter = bind(b->g, "counter", &t->counter);
    for (int i = 0; i < n; i++) {
        b->inputs[i] = bind(b->g, tp_data_input_at(t->data, i)->array.name, &t->inputs[i].tensor);
        b->shift[i] = bind(b->g, "shift", &t->shift[i].tensor);
        b->scale[i] = bind(b->g, "scale", &t->scale[i].tensor);
    }
    b->target = bind(b->g, "target", &t->target.tensor);
    b->class_weight = bind(b->g, "class_weight", &t->class_weight.tensor);
    tp_graph_scope(b->g, "batch");
    b->index = tp_sample_index(b->g, b->counter, bind(b->g, "rows", &t->rows[part].tensor),
                               (tp_sample_attr){batch, steps, shuffle});
    b->weight = b->index != 0 ? b->index + 1 : 0;
    if (t->weight.tensor.data != NULL)
        b->weight = tp_mul(b->g, b->weight,
                           tp_reshape(b->g,
                                      tp_gather_batch(b->g, bind(b->g, "weight", &t->weight.tensor), b->index,
                                                      0, 0, 0, (tp_gather_attr){0}),
                                      (tp_shape){1, {batch}}));
}

static tp_val gather_input(build *b, int i, tp_val index, int augmented, int64_t steps)
{
    const tp_data_input *in = tp_data_input_at(b->t->data, i);
    tp_gather_attr a = {.ids = in->kind == TP_INPUT_IDS};

    if (augmented && in->kind == TP_INPUT_IMAGE) {
        a.crop = in->crop_padding;
        a.hflip = in->hflip;
        a.steps_per_epoch = steps;
    }
    return tp_gather_batch(b->g, b->inputs[i], index, b->shift[i], b->scale[i],
                           a.crop > 0 || a.hflip ? b->counter : 0, a);
}

static tp_val gather_target(build *b, tp_val index)
{
    const tp_data_target *target = tp_data_target_of(b->t->data);
    const int ids = target->kind == TP_TARGET_CLASS;
    const tp_val y = tp_gather_batch(b->g, b->target, index, 0, 0, 0, (tp_gather_attr){.ids = ids});
    tp_shape s = tp_val_shape(b->g, y);

    if (ids)
        s.nd = 1;
    else
        s = (tp_shape){2, {s.d[0], tp_model_outputs(b->t->model)}};
    return tp_reshape(b->g, y, s);
}

static tp_val row_losses(build *b, tp_val out, tp_val target)
{
    const tp_train_opts *o = &b->t->opts;
    switch (b->t->loss) {
    case TP_LOSS_KIND_MAE:
        return tp_mae(b->g, out, target);
    case TP_LOSS_KIND_HUBER:
        return tp_huber(b->g, out, target, o->loss_param);
    case TP_LOSS_KIND_QUANTILE:
        return tp_quantile(b->g, out, target, o->loss_param);
    case TP_LOSS_KIND_CROSS_ENTROPY:
        return tp_softmax_cross_entropy(b->g, out, target, b->class_weight, o->label_smoothing);
    case TP_LOSS_KIND_BCE:
        return tp_bce_with_logits(b->g, out, target);
    default:
        return tp_mse(b->g, out, target);
    }
}

/* The weight of each row in the mean: PyTorch divides by the class weights of the targets, so they count here
 * too. */
static tp_val row_weights(build *b, tp_val weight, tp_val target)
{
    if (b->class_weight == 0 || tp_data_target_of(b->t->data)->kind != TP_TARGET_CLASS)
        return weight;
    const int64_t classes = tp_model_outputs(b->t->model), n = tp_val_shape(b->g, weight).d[0];
    const tp_val table = tp_reshape(b->g, b->class_weight, (tp_shape){2, {classes, 1}});
    return tp_mul(b->g, weight, tp_reshape(b->g, tp_embedding(b->g, table, target), (tp_shape){1, {n}}));
}

/* What a micro-batch adds: gradients of dense parameters, and the ids and row gradients of sparse ones. */
typedef struct gradients {
    tp_val *dense; /* per parameter, 0 if sparse or not trained */
    tp_val ids[MAX_SPARSE], rows[MAX_SPARSE];
    int param[MAX_SPARSE];
    int n_sparse;
} gradients;

static void merge(build *b, gradients *sum, const tp_sparse_use *uses, int n_uses, const int *param_of,
                  int n_dense, const tp_val *grad, int first)
{
    for (int i = 0; i < n_dense; i++) {
        tp_val *at = &sum->dense[param_of[i]];
        *at = *at != 0 && grad[i] != 0 ? tp_add(b->g, *at, grad[i]) : (*at != 0 ? *at : grad[i]);
    }
    for (int i = 0; i < n_uses; i++) {
        const int64_t n = tp_shape_len(tp_val_shape(b->g, uses[i].ids)),
                      d = tp_val_shape(b->g, b->params[uses[i].param]).d[1];
        const tp_val ids = tp_reshape(b->g, uses[i].ids, (tp_shape){1, {n}});
        const tp_val rows = tp_reshape(b->g, grad[n_dense + i], (tp_shape){2, {n, d}});
        sum->param[i] = uses[i].param;
        sum->ids[i] = first ? ids : tp_concat(b->g, 2, (const tp_val[]){sum->ids[i], ids}, 0);
        sum->rows[i] = first ? rows : tp_concat(b->g, 2, (const tp_val[]){sum->rows[i], rows}, 0);
    }
    sum->n_sparse = n_uses;
}

static int is_sparse(const tp_sparse_use *uses, int n, int param)
{
    for (int i = 0; i < n; i++)
        if (uses[i].param == param)
            return 1;
    return 0;
}

/* Forward, loss and backward of micro-batch k; returns its share of the batch's mean loss. */
static tp_val micro_batch(build *b, int64_t k, int64_t size, gradients *sum, tp_val *wrt, tp_val *grad,
                          int *param_of)
{
    tp_trainer *t = b->t;
    tp_val x[MAX_INPUTS];
    tp_sparse_use uses[MAX_SPARSE];
    int n_dense = 0;

    tp_graph_scope(b->g, "batch");
    const tp_val index = tp_slice(b->g, b->index, 0, k * size, (k + 1) * size);
    const tp_val mask = tp_slice(b->g, b->weight, 0, k * size, (k + 1) * size);
    for (int i = 0; i < tp_data_n_inputs(t->data); i++)
        x[i] = gather_input(b, i, index, 1, t->steps_per_epoch);
    const tp_val target = gather_target(b, index);
    tp_forward f = {.mode = TP_MODE_TRAIN,
                    .inputs = x,
                    .params = b->params,
                    .counter = b->counter,
                    .stream = (uint32_t)k * STREAMS_PER_PASS,
                    .weight = mask,
                    .sparse = uses,
                    .max_sparse = MAX_SPARSE};
    const tp_val out = tp_model_forward(t->model, b->g, &f);
    tp_graph_scope(b->g, "loss");
    const tp_val weighted = tp_mul(b->g, row_losses(b, out, target), mask);
    const tp_val loss = tp_div(b->g, tp_reduce_sum(b->g, weighted, 0, 0), b->total);
    for (int i = 0; i < t->n_params; i++)
        if (tp_model_param(t->model, i)->trained && !is_sparse(uses, f.n_sparse, i)) {
            param_of[n_dense] = i;
            wrt[n_dense++] = b->params[i];
        }
    for (int i = 0; i < f.n_sparse; i++)
        wrt[n_dense + i] = uses[i].rows;
    tp_grad(b->g, loss, n_dense + f.n_sparse, wrt, grad);
    if (tp_graph_status(b->g) == TP_OK)
        merge(b, sum, uses, f.n_sparse, param_of, n_dense, grad, k == 0);
    return loss;
}

/* Sum over the batch of what divides its loss; all micro-batches need it before the first backward pass. */
static tp_val total_weight(build *b)
{
    const tp_val target = b->class_weight != 0 ? gather_target(b, b->index) : 0;
    return tp_reduce_sum(b->g, target != 0 ? row_weights(b, b->weight, target) : b->weight, 0, 0);
}

typedef struct update {
    tp_val w[TP_MAX_TENSORS], dw[TP_MAX_TENSORS], s1[TP_MAX_TENSORS], s2[TP_MAX_TENSORS], ema[TP_MAX_TENSORS],
        averaged[TP_MAX_TENSORS];
    float table[2 * TP_MAX_TENSORS];
    int n, n_ema;
} update;

static tp_val bind_state(build *b, int i)
{
    return i >= 0 ? tp_variable(b->g, b->t->states[i].name, b->t->states[i].tensor) : 0;
}

static tp_status apply(build *b, gradients *sum, tp_val loss, update *u)
{
    tp_trainer *t = b->t;
    const tp_val lr = tp_variable(b->g, "lr", t->lr), count = bind_state(b, t->t_state);
    tp_val sparse_rows[MAX_SPARSE], all[TP_MAX_TENSORS];
    int n_all = 0;

    tp_graph_scope(b->g, "optimizer");
    for (int i = 0; i < t->n_params; i++) {
        const tp_param *p = tp_model_param(t->model, i);
        const int decays = p->trained && (p->decay || t->opts.decay_all);
        if (t->ema[i] >= 0) {
            u->ema[u->n_ema] = bind_state(b, t->ema[i]);
            u->averaged[u->n_ema++] = b->params[i];
        }
        if (sum->dense[i] == 0)
            continue;
        u->w[u->n] = b->params[i];
        u->dw[u->n] = all[n_all++] = sum->dense[i];
        u->s1[u->n] = bind_state(b, t->s1[i]);
        u->s2[u->n] = bind_state(b, t->s2[i]);
        u->table[2 * u->n] = 1.0f;
        u->table[2 * u->n + 1] = decays ? (float)t->opts.weight_decay : 0.0f;
        u->n++;
    }
    for (int i = 0; i < sum->n_sparse; i++) {
        sparse_rows[i] = tp_embedding_rows(b->g, sum->ids[i], sum->rows[i],
                                           tp_val_shape(b->g, b->params[sum->param[i]]).d[0]);
        all[n_all++] = sparse_rows[i] != 0 ? sparse_rows[i] + 1 : 0;
    }
    const tp_val clip = tp_clip_norm(b->g, n_all, all, loss, t->opts.clip_norm);
    t->clip_value = tp_output(b->g, clip);
    t->norm_value = tp_output(b->g, clip != 0 ? clip + 1 : 0);
    tp_count(b->g, count, clip);
    if (u->n > 0)
        tp_optimize(b->g, lr, count, clip, tp_constant(b->g, TP_F32, (tp_shape){2, {u->n, 2}}, u->table),
                    u->n, u->w, u->dw, u->s1, u->s2, t->opts.optimizer);
    const float sparse_table[2] = {1.0f, (float)t->opts.weight_decay};
    for (int i = 0; i < sum->n_sparse; i++) {
        const int p = sum->param[i];
        tp_optimize_rows(b->g, lr, count, clip,
                         tp_constant(b->g, TP_F32, (tp_shape){2, {1, 2}}, sparse_table), b->params[p],
                         sparse_rows[i], sparse_rows[i] + 1, bind_state(b, t->s1[p]), bind_state(b, t->s2[p]),
                         t->opts.optimizer);
    }
    if (u->n_ema > 0)
        tp_ema(b->g, clip, u->n_ema, u->ema, u->averaged, t->opts.ema);
    return tp_graph_status(b->g);
}

static tp_status build_step(tp_trainer *t, build *b, gradients *sum, update *u, tp_val *wrt, tp_val *grad,
                            int *param_of)
{
    const int64_t size = t->opts.batch / t->opts.accumulate;
    tp_val loss = 0;

    tp_model_bind(t->model, b->g, b->params);
    bind_data(b, TP_TRAIN, t->opts.batch, t->steps_per_epoch, 1);
    b->total = total_weight(b);
    for (int64_t k = 0; k < t->opts.accumulate; k++) {
        const tp_val share = micro_batch(b, k, size, sum, wrt, grad, param_of);
        loss = k == 0 ? share : tp_add(b->g, loss, share);
    }
    t->loss_value = tp_output(b->g, loss);
    TP_TRY(tp_graph_status(b->g));
    TP_TRY(apply(b, sum, loss, u));
    tp_plan_opts opts = TP_PLAN_OPTS_INIT;
    opts.timed = t->opts.timed;
    return tp_plan_new(&t->plan, b->g, t->dev, &opts);
}

static tp_status make_step(tp_trainer *t)
{
    const size_t room = (size_t)t->n_params + MAX_SPARSE;
    build b = {.t = t};
    gradients sum = {0};
    update *u = NULL;
    tp_val *wrt = NULL, *grad = NULL;
    int *param_of = NULL;
    tp_status st = TP_OK;

    TP_TRY_GOTO(tp_graph_new(&t->g), st, done);
    b.g = t->g;
    TP_TRY_GOTO(tp_alloc(&b.params, room, sizeof(tp_val), "step"), st, done);
    TP_TRY_GOTO(tp_alloc(&sum.dense, room, sizeof(tp_val), "step"), st, done);
    TP_TRY_GOTO(tp_alloc(&wrt, room, sizeof(tp_val), "step"), st, done);
    TP_TRY_GOTO(tp_alloc(&grad, room, sizeof(tp_val), "step"), st, done);
    TP_TRY_GOTO(tp_alloc(&param_of, room, sizeof(int), "step"), st, done);
    TP_TRY_GOTO(tp_alloc(&u, 1, sizeof(*u), "step"), st, done);
    st = build_step(t, &b, &sum, u, wrt, grad, param_of);
done:
    tp_free(b.params);
    tp_free(sum.dense);
    tp_free(wrt);
    tp_free(grad);
    tp_free(param_of);
    tp_free(u);
    return st;
}

/* ---- evaluation ---- */

static tp_status build_eval(tp_trainer *t, eval_pass *e, tp_part part, int use_ema, tp_val *params)
{
    const int64_t batch = t->opts.batch, rows = tp_data_part_rows(t->data, part);
    build b = {.t = t, .g = e->g, .params = params};
    tp_val x[MAX_INPUTS];

    tp_model_bind(t->model, b.g, params);
    for (int i = 0; i < t->n_params && use_ema; i++)
        if (t->ema[i] >= 0)
            params[i] = bind_state(&b, t->ema[i]);
    bind_data(&b, part, batch, (rows + batch - 1) / batch, 0);
    for (int i = 0; i < tp_data_n_inputs(t->data); i++)
        x[i] = gather_input(&b, i, b.index, 0, 1);
    const tp_val target = gather_target(&b, b.index);
    tp_forward f = {.mode = TP_MODE_EVAL, .inputs = x, .params = params};
    e->out = tp_output(b.g, tp_model_forward(t->model, b.g, &f));
    const tp_val w = row_weights(&b, b.weight, target);
    e->loss_sum =
        tp_output(b.g, tp_reduce_sum(b.g, tp_mul(b.g, row_losses(&b, e->out, target), b.weight), 0, 0));
    e->weight_sum = tp_output(b.g, tp_reduce_sum(b.g, w, 0, 0));
    TP_TRY(tp_graph_status(b.g));
    return tp_plan_new(&e->plan, b.g, t->dev, NULL);
}

static tp_status make_eval(tp_trainer *t, eval_pass *e, tp_part part, int use_ema)
{
    tp_val *params = NULL;

    TP_TRY(tp_graph_new(&e->g));
    TP_TRY(tp_alloc(&params, (size_t)t->n_params + 1, sizeof(tp_val), "evaluation"));
    const tp_status st = build_eval(t, e, part, use_ema, params);
    tp_free(params);
    return st;
}

static void free_eval(eval_pass *e)
{
    tp_plan_free(e->plan);
    tp_graph_free(e->g);
    *e = (eval_pass){0};
}

static tp_status set_counter(tp_trainer *t, uint64_t step)
{
    const uint64_t counter[2] = {t->opts.seed, step};
    return tp_device_upload(t->dev, t->counter.data, counter, sizeof(counter));
}

static tp_status read_scalar(tp_plan *plan, tp_val v, double *out)
{
    float f = 0.0f;
    TP_TRY(tp_plan_read(plan, v, &f));
    *out = (double)f;
    return TP_OK;
}

static tp_status run_eval(tp_trainer *t, eval_pass *e, tp_part part, float *outputs, double *loss,
                          float *batch_out)
{
    const int64_t batch = t->opts.batch, rows = tp_data_part_rows(t->data, part),
                  width = tp_model_outputs(t->model);
    double loss_sum = 0.0, weight_sum = 0.0;

    for (int64_t at = 0; at < rows; at += batch) {
        const int64_t n = rows - at < batch ? rows - at : batch;
        double l, w;
        TP_TRY(set_counter(t, (uint64_t)(at / batch)));
        TP_TRY(tp_plan_run(e->plan));
        TP_TRY(tp_plan_read(e->plan, e->out, batch_out));
        memcpy(outputs + at * width, batch_out, (size_t)(n * width) * sizeof(float));
        TP_TRY(read_scalar(e->plan, e->loss_sum, &l));
        TP_TRY(read_scalar(e->plan, e->weight_sum, &w));
        loss_sum += l;
        weight_sum += w;
    }
    if (loss != NULL)
        *loss = loss_sum / weight_sum;
    return TP_OK;
}

tp_status tp_trainer_predict(tp_trainer *t, tp_part part, int use_ema, float *outputs, double *loss)
{
    const int averaged = use_ema && t->opts.ema > 0.0;
    eval_pass *e = &t->eval[part][averaged];
    float *batch_out = NULL;

    TP_CHECK(tp_data_part_rows(t->data, part) > 0, TP_EINVAL, "data: there is no %s part",
             tp_part_name(part));
    if (e->plan == NULL) {
        const tp_status made = make_eval(t, e, part, averaged);
        if (made != TP_OK) {
            free_eval(e);
            return made;
        }
    }
    TP_TRY(
        tp_alloc(&batch_out, (size_t)(t->opts.batch * tp_model_outputs(t->model)), sizeof(float), "outputs"));
    const tp_status st = run_eval(t, e, part, outputs, loss, batch_out);
    tp_free(batch_out);
    return st;
}

/* ---- making and running ---- */

static tp_status check_opts(const tp_trainer *t)
{
    const tp_train_opts *o = &t->opts;
    const tp_data_target *target = tp_data_target_of(t->data);

    TP_CHECK(o->batch > 0, TP_EINVAL, "batch is %lld, must be > 0", (long long)o->batch);
    TP_CHECK(o->accumulate > 0 && o->accumulate <= MAX_MICRO && o->batch % o->accumulate == 0, TP_EINVAL,
             "accumulate is %lld, must be 1 to %d and divide batch %lld", (long long)o->accumulate, MAX_MICRO,
             (long long)o->batch);
    TP_CHECK(o->ema >= 0.0 && o->ema < 1.0, TP_EINVAL, "ema is %g, must be in [0, 1)", o->ema);
    TP_CHECK(o->clip_norm >= 0.0 && isfinite(o->clip_norm), TP_EINVAL, "clip_norm is %g, must be >= 0",
             o->clip_norm);
    TP_CHECK(tp_data_resident(t->data), TP_EINVAL, "data: the trainer needs a resident data set");
    TP_CHECK(target != NULL, TP_EDATA, "data: there is no target to train on");
    TP_CHECK(target->n_outputs == tp_model_outputs(t->model), TP_EDATA,
             "data: target %s has %lld values, the model gives %lld", target->array.name,
             (long long)target->n_outputs, (long long)tp_model_outputs(t->model));
    TP_CHECK(tp_data_n_inputs(t->data) == tp_model_n_inputs(t->model) &&
                 tp_data_n_inputs(t->data) <= MAX_INPUTS,
             TP_EDATA, "data: has %d inputs, the model %d", tp_data_n_inputs(t->data),
             tp_model_n_inputs(t->model));
    return TP_OK;
}

static tp_loss_kind resolve_loss(const tp_trainer *t)
{
    if (t->opts.loss != TP_LOSS_AUTO)
        return t->opts.loss;
    switch (tp_model_task(t->model)) {
    case TP_TASK_CLASS:
        return TP_LOSS_KIND_CROSS_ENTROPY;
    case TP_TASK_MULTILABEL:
        return TP_LOSS_KIND_BCE;
    default:
        return TP_LOSS_KIND_MSE;
    }
}

static tp_status make(tp_trainer *t)
{
    TP_TRY(check_opts(t));
    t->loss = resolve_loss(t);
    t->n_params = tp_model_n_params(t->model);
    TP_CHECK(t->n_params + MAX_SPARSE <= TP_MAX_TENSORS, TP_EINVAL,
             "model has %d parameters, at most %d are trained together", t->n_params,
             TP_MAX_TENSORS - MAX_SPARSE);
    t->steps_per_epoch = (tp_data_part_rows(t->data, TP_TRAIN) + t->opts.batch - 1) / t->opts.batch;
    TP_TRY(device_tensor(t, &t->counter, TP_U64, (tp_shape){1, {2}}, "counter"));
    TP_TRY(device_tensor(t, &t->lr, TP_F32, (tp_shape){1, {1}}, "lr"));
    TP_TRY(make_states(t));
    TP_TRY(stage_data(t));
    return t->steps_per_epoch > 0 ? make_step(t) : TP_OK;
}

tp_status tp_trainer_new(tp_trainer **out, tp_device *dev, tp_model *model, const tp_data *data,
                         const tp_train_opts *opts)
{
    tp_trainer *t = NULL;

    *out = NULL;
    TP_TRY(tp_alloc(&t, 1, sizeof(*t), "trainer"));
    t->dev = dev;
    t->model = model;
    t->data = data;
    t->opts = *opts;
    const tp_status st = make(t);
    if (st != TP_OK) {
        tp_trainer_free(t);
        return st;
    }
    *out = t;
    return TP_OK;
}

void tp_trainer_free(tp_trainer *t)
{
    if (t == NULL)
        return;
    for (int p = 0; p < TP_PARTS; p++) {
        free_eval(&t->eval[p][0]);
        free_eval(&t->eval[p][1]);
        unstage(t, &t->rows[p]);
    }
    tp_plan_free(t->plan);
    tp_graph_free(t->g);
    for (int i = 0; i < MAX_INPUTS; i++) {
        unstage(t, &t->inputs[i]);
        unstage(t, &t->shift[i]);
        unstage(t, &t->scale[i]);
    }
    unstage(t, &t->target);
    unstage(t, &t->weight);
    unstage(t, &t->class_weight);
    for (int i = 0; i < t->n_states; i++) {
        if (i >= t->n_params) /* the first n_params are the model's own */
            tp_device_release(t->dev, t->states[i].tensor.data);
        tp_free((void *)(uintptr_t)t->states[i].name);
    }
    tp_device_release(t->dev, t->counter.data);
    tp_device_release(t->dev, t->lr.data);
    tp_free(t->states);
    tp_free(t->s1);
    tp_free(t->s2);
    tp_free(t->ema);
    tp_free(t);
}

int64_t tp_trainer_steps_per_epoch(const tp_trainer *t)
{
    return t->steps_per_epoch;
}

tp_status tp_trainer_step(tp_trainer *t, int64_t step, double lr, tp_step_result *result)
{
    const float rate = (float)lr;
    float clip[2];

    TP_CHECK(t->plan != NULL, TP_EINVAL, "data: there is no training part to step on");
    TP_TRY(set_counter(t, (uint64_t)step));
    TP_TRY(tp_device_upload(t->dev, t->lr.data, &rate, sizeof(rate)));
    TP_TRY(tp_plan_run(t->plan));
    TP_TRY(read_scalar(t->plan, t->loss_value, &result->loss));
    TP_TRY(read_scalar(t->plan, t->norm_value, &result->grad_norm));
    TP_TRY(tp_plan_read(t->plan, t->clip_value, clip));
    result->applied = clip[1] > 0.0f;
    return TP_OK;
}

int tp_trainer_n_states(const tp_trainer *t)
{
    return t->n_states;
}

const tp_state_tensor *tp_trainer_state(const tp_trainer *t, int i)
{
    return &t->states[i];
}

tp_status tp_trainer_plan_text(const tp_trainer *t, char **out)
{
    TP_CHECK(t->plan != NULL, TP_EINVAL, "data: there is no training part, so no step was compiled");
    return tp_plan_text(t->plan, out);
}
