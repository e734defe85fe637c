/* step.c - one training step as a graph: which rows, their values, forward, loss, backward, clipping,
 * optimizer. */
#include "host/core/mem.h"
#include "host/train/trainer.h"

#define MAX_SPARSE TP_TRAINER_SPARSE

/* Dropout streams of one micro-batch start this far from the next one's. */
#define STREAMS_PER_PASS 4096

tp_val tp_step_row_losses(tp_batch_graph *b, tp_val out, tp_val target)
{
    const tp_train_opts *o = &b->t->opts;
    switch (b->t->loss) {
    case TP_LOSS_MAE:
        return tp_mae(b->g, out, target);
    case TP_LOSS_HUBER:
        return tp_huber(b->g, out, target, o->loss_param);
    case TP_LOSS_QUANTILE:
        return tp_quantile(b->g, out, target, o->loss_param);
    case TP_LOSS_CROSS_ENTROPY:
        return tp_softmax_cross_entropy(b->g, out, target, b->class_weight, o->label_smoothing);
    case TP_LOSS_BCE:
        return tp_bce_with_logits(b->g, out, target);
    default:
        return tp_mse(b->g, out, target);
    }
}

tp_val tp_step_row_weights(tp_batch_graph *b, tp_val weight, tp_val target)
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

static void merge(tp_batch_graph *b, gradients *sum, const tp_sparse_use *uses, int n_uses,
                  const int *param_of, int n_dense, const tp_val *grad, int first)
{
    for (int i = 0; i < n_dense; i++) {
        tp_val *at = &sum->dense[param_of[i]];
        const tp_val one =
            b->t->opts.accumulate > 1 && grad[i] != 0 ? tp_cast(b->g, grad[i], TP_F32) : grad[i];
        *at = *at != 0 && one != 0 ? tp_add(b->g, *at, one) : (*at != 0 ? *at : one);
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

/* 1 if the last batch of an epoch is not full: its padding must not count in batch statistics. */
static int has_tail(const tp_trainer *t)
{
    return tp_data_part_rows(t->data, TP_TRAIN) % t->opts.batch != 0;
}

/* Forward, loss and backward of micro-batch k; returns its share of the batch's mean loss. */
static tp_val micro_batch(tp_batch_graph *b, int64_t k, int64_t size, gradients *sum, tp_val *wrt,
                          tp_val *grad, int *param_of)
{
    tp_trainer *t = b->t;
    tp_val x[TP_TRAINER_INPUTS];
    tp_sparse_use uses[MAX_SPARSE];
    int n_dense = 0;

    tp_graph_scope(b->g, "batch");
    const tp_val index = tp_slice(b->g, b->index, 0, k * size, (k + 1) * size);
    const tp_val mask = tp_slice(b->g, b->weight, 0, k * size, (k + 1) * size),
                 present = has_tail(t) ? tp_slice(b->g, b->present, 0, k * size, (k + 1) * size) : 0;
    for (int i = 0; i < tp_data_n_inputs(t->data); i++)
        x[i] = tp_feed_input(b, i, index, k * size, 1);
    const tp_val target = tp_feed_target(b, index, k * size);
    tp_forward f = {.mode = TP_MODE_TRAIN,
                    .inputs = x,
                    .params = b->params,
                    .counter = b->counter,
                    .stream = (uint32_t)k * STREAMS_PER_PASS,
                    .weight = present,
                    .bf16 = t->opts.precision == TP_PRECISION_BF16,
                    .low = b->low,
                    .sparse = uses,
                    .max_sparse = MAX_SPARSE};
    const tp_val out = tp_model_forward(t->model, b->g, &f);
    tp_graph_scope(b->g, "loss");
    const tp_val weighted = tp_mul(b->g, tp_step_row_losses(b, out, target), mask);
    const tp_val loss = tp_div(b->g, tp_reduce_sum(b->g, weighted, 0, 0), b->total);
    for (int i = 0; i < t->n_params; i++)
        if (tp_model_param(t->model, i)->trained && !is_sparse(uses, f.n_sparse, i)) {
            param_of[n_dense] = i;
            wrt[n_dense++] = b->low[i] != 0 ? b->low[i] : b->params[i];
        }
    for (int i = 0; i < f.n_sparse; i++)
        wrt[n_dense + i] = uses[i].rows;
    tp_grad(b->g, loss, n_dense + f.n_sparse, wrt, grad);
    if (tp_graph_status(b->g) == TP_OK)
        merge(b, sum, uses, f.n_sparse, param_of, n_dense, grad, k == 0);
    return loss;
}

/* Sum over the batch of what divides its loss; all micro-batches need it before the first backward pass. */
static tp_val total_weight(tp_batch_graph *b)
{
    const tp_val target = b->class_weight != 0 ? tp_feed_target(b, b->index, 0) : 0;
    return tp_reduce_sum(b->g, target != 0 ? tp_step_row_weights(b, b->weight, target) : b->weight, 0, 0);
}

typedef struct update {
    tp_val w[TP_MAX_TENSORS], dw[TP_MAX_TENSORS], s1[TP_MAX_TENSORS], s2[TP_MAX_TENSORS], ema[TP_MAX_TENSORS],
        low[TP_MAX_TENSORS];
    float table[2 * TP_MAX_TENSORS];
    int n;
    tp_val table_ema[TP_MAX_TENSORS], averaged[TP_MAX_TENSORS]; /* of what is not updated as a whole */
    int n_table_ema;
} update;

tp_val tp_step_bind_state(tp_batch_graph *b, int i)
{
    return i >= 0 ? tp_variable(b->g, b->t->states[i].name, b->t->states[i].tensor) : 0;
}

static tp_optimizer_attr with_copies(const tp_trainer *t)
{
    tp_optimizer_attr a = t->opts.optimizer;
    a.low = t->opts.precision == TP_PRECISION_BF16;
    return a;
}

static tp_status apply(tp_batch_graph *b, gradients *sum, tp_val loss, update *u)
{
    tp_trainer *t = b->t;
    const tp_val lr = tp_ring_read(b->g, tp_variable(b->g, "rates", t->rates), b->counter),
                 count = tp_step_bind_state(b, t->t_state);
    tp_val sparse_rows[MAX_SPARSE], all[TP_MAX_TENSORS];
    int n_all = 0;

    tp_graph_scope(b->g, "optimizer");
    for (int i = 0; i < t->n_params; i++) {
        const tp_param *p = tp_model_param(t->model, i);
        const int decays = p->trained && (p->decay || t->opts.decay_all);
        const tp_val ema = tp_step_bind_state(b, t->ema[i]);
        if (sum->dense[i] == 0) {
            u->table_ema[u->n_table_ema] = ema;
            u->averaged[u->n_table_ema] = b->params[i];
            u->n_table_ema += ema != 0;
            continue;
        }
        u->w[u->n] = b->params[i];
        u->dw[u->n] = all[n_all++] = sum->dense[i];
        u->s1[u->n] = tp_step_bind_state(b, t->s1[i]);
        u->s2[u->n] = tp_step_bind_state(b, t->s2[i]);
        u->ema[u->n] = ema;
        u->low[u->n] = b->low[i];
        float *row = u->table + 2 * (size_t)u->n;
        row[0] = 1.0f;
        row[1] = decays ? (float)t->opts.weight_decay : 0.0f;
        u->n++;
    }
    for (int i = 0; i < sum->n_sparse; i++) {
        sparse_rows[i] = tp_embedding_rows(b->g, sum->ids[i], sum->rows[i],
                                           tp_val_shape(b->g, b->params[sum->param[i]]).d[0]);
        all[n_all++] = sparse_rows[i] != 0 ? sparse_rows[i] + 1 : 0;
    }
    const tp_val clip = tp_clip_norm(b->g, n_all, all, loss, t->opts.clip_norm);
    tp_count(b->g, count, clip);
    if (u->n > 0)
        tp_optimize(b->g, lr, count, clip, tp_constant(b->g, TP_F32, (tp_shape){2, {u->n, 2}}, u->table),
                    u->n, u->w, u->dw, u->s1, u->s2, u->ema, u->low, with_copies(t));
    const float sparse_table[2] = {1.0f, (float)t->opts.weight_decay};
    for (int i = 0; i < sum->n_sparse; i++) {
        const int p = sum->param[i];
        tp_optimize_rows(b->g, lr, count, clip,
                         tp_constant(b->g, TP_F32, (tp_shape){2, {1, 2}}, sparse_table), b->params[p],
                         sparse_rows[i], sparse_rows[i] + 1, tp_step_bind_state(b, t->s1[p]),
                         tp_step_bind_state(b, t->s2[p]), t->opts.optimizer);
    }
    if (u->n_table_ema > 0)
        tp_ema(b->g, clip, u->n_table_ema, u->table_ema, u->averaged, t->opts.optimizer.ema);
    const tp_val results[] = {loss, clip, clip != 0 ? clip + 1 : 0};
    tp_ring_write(b->g, tp_variable(b->g, "results", t->results), b->counter, 3, results);
    tp_advance(b->g, b->counter);
    return tp_graph_status(b->g);
}

static tp_status build_step(tp_trainer *t, tp_batch_graph *b, gradients *sum, update *u, tp_val *wrt,
                            tp_val *grad, int *param_of)
{
    const int64_t size = t->opts.batch / t->opts.accumulate;
    tp_val loss = 0;

    tp_model_bind(t->model, b->g, b->params);
    for (int i = 0; i < t->n_params; i++)
        b->low[i] = t->low[i].data != NULL ? tp_variable(b->g, "copy in bfloat16", t->low[i]) : 0;
    tp_feed_bind(b, TP_TRAIN, t->steps_per_epoch, 1);
    b->total = total_weight(b);
    for (int64_t k = 0; k < t->opts.accumulate; k++) {
        const tp_val share = micro_batch(b, k, size, sum, wrt, grad, param_of);
        loss = k == 0 ? share : tp_add(b->g, loss, share);
    }
    TP_TRY(tp_graph_status(b->g));
    TP_TRY(apply(b, sum, loss, u));
    tp_plan_opts opts = TP_PLAN_OPTS_INIT;
    opts.timed = t->opts.timed;
    opts.precision = t->opts.precision;
    return tp_plan_new(&t->plan, b->g, t->dev, &opts);
}

tp_status tp_step_build(tp_trainer *t)
{
    const size_t room = (size_t)t->n_params + MAX_SPARSE;
    tp_batch_graph b = {.t = t, .batch = t->opts.batch};
    gradients sum = {0};
    update *u = NULL;
    tp_val *wrt = NULL, *grad = NULL;
    int *param_of = NULL;
    tp_status st = TP_OK;

    TP_TRY_GOTO(tp_graph_new(&t->g), st, done);
    b.g = t->g;
    TP_TRY_GOTO(tp_alloc(&b.params, room, sizeof(tp_val), "step"), st, done);
    TP_TRY_GOTO(tp_alloc(&b.low, room, sizeof(tp_val), "step"), st, done);
    TP_TRY_GOTO(tp_alloc(&sum.dense, room, sizeof(tp_val), "step"), st, done);
    TP_TRY_GOTO(tp_alloc(&wrt, room, sizeof(tp_val), "step"), st, done);
    TP_TRY_GOTO(tp_alloc(&grad, room, sizeof(tp_val), "step"), st, done);
    TP_TRY_GOTO(tp_alloc(&param_of, room, sizeof(int), "step"), st, done);
    TP_TRY_GOTO(tp_alloc(&u, 1, sizeof(*u), "step"), st, done);
    st = build_step(t, &b, &sum, u, wrt, grad, param_of);
done:
    tp_free(b.params);
    tp_free(b.low);
    tp_free(sum.dense);
    tp_free(wrt);
    tp_free(grad);
    tp_free(param_of);
    tp_free(u);
    return st;
}
