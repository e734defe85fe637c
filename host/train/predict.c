/* predict.c - the evaluation pass over a part, as a graph of its own. */
#include "host/core/mem.h"
#include "host/graph/plan.h"
#include "host/train/trainer.h"
#include <string.h>

/* Mean loss of the part, as two sums over a batch. */
static void append_loss(tp_batch_graph *b, tp_eval_pass *e, tp_val out)
{
    const tp_val target = tp_feed_target(b, b->index, 0);
    const tp_val losses = tp_mul(b->g, tp_step_row_losses(b, out, target), b->weight);

    e->loss_sum = tp_output(b->g, tp_reduce_sum(b->g, losses, 0, 0));
    e->weight_sum = tp_output(b->g, tp_reduce_sum(b->g, tp_step_row_weights(b, b->weight, target), 0, 0));
}

int64_t tp_eval_batch(const tp_trainer *t)
{
    /* A stream fills arrays of a whole batch. */
    return tp_data_resident(t->data) ? t->opts.batch / t->opts.accumulate : t->opts.batch;
}

static tp_status build_eval(tp_trainer *t, tp_eval_pass *e, tp_part part, int use_ema, tp_val *params)
{
    const int64_t batch = tp_eval_batch(t), rows = tp_data_part_rows(t->data, part);
    tp_batch_graph b = {.t = t, .batch = batch, .g = e->g, .params = params};
    tp_val x[TP_TRAINER_INPUTS];

    tp_model_bind(t->model, b.g, params);
    for (int i = 0; i < t->n_params && use_ema; i++)
        if (t->ema[i] >= 0)
            params[i] = tp_step_bind_state(&b, t->ema[i]);
    tp_feed_bind(&b, part, (rows + batch - 1) / batch, 0);
    for (int i = 0; i < tp_data_n_inputs(t->data); i++)
        x[i] = tp_feed_input(&b, i, b.index, 0, 0);
    tp_forward f = {
        .mode = TP_MODE_EVAL, .inputs = x, .params = params, .bf16 = t->opts.precision == TP_PRECISION_BF16};
    tp_val out = tp_model_forward(t->model, b.g, &f);
    if (b.target != 0)
        append_loss(&b, e, out);
    if (b.target_scale != 0)
        out = tp_add(b.g, tp_div(b.g, out, b.target_scale), b.target_shift);
    e->out = tp_output(b.g, out);
    tp_advance(b.g, b.counter);
    TP_TRY(tp_graph_status(b.g));
    tp_plan_opts opts = TP_PLAN_OPTS_INIT;
    opts.precision = t->opts.precision;
    return tp_plan_new(&e->plan, b.g, t->dev, &opts);
}

static tp_status make_eval(tp_trainer *t, tp_eval_pass *e, tp_part part, int use_ema)
{
    tp_val *params = NULL;

    TP_TRY(tp_graph_new(&e->g));
    TP_TRY(tp_alloc(&params, (size_t)t->n_params + 1, sizeof(tp_val), "evaluation"));
    const tp_status st = build_eval(t, e, part, use_ema, params);
    tp_free(params);
    return st;
}

void tp_eval_free(tp_eval_pass *e)
{
    tp_plan_free(e->plan);
    tp_graph_free(e->g);
    *e = (tp_eval_pass){0};
}

static tp_status read_later(tp_trainer *t, const tp_eval_pass *e, tp_val v, float *to)
{
    return tp_device_enqueue_copy(t->dev, TP_QUEUE_RUN, to, e->plan->data[v],
                                  (size_t)tp_shape_len(tp_val_shape(e->g, v)) * sizeof(float),
                                  TP_FROM_DEVICE);
}

static tp_status launch_batch(tp_trainer *t, const tp_eval_pass *e, tp_stream *stream, int place)
{
    float *to = t->eval_out[place];
    const int64_t n = tp_eval_batch(t) * tp_model_outputs(t->model);

    if (stream != NULL)
        TP_TRY(tp_feed_next(t, stream));
    TP_TRY(tp_plan_run(e->plan));
    TP_TRY(read_later(t, e, e->out, to));
    if (e->loss_sum != 0) {
        TP_TRY(read_later(t, e, e->loss_sum, to + n));
        TP_TRY(read_later(t, e, e->weight_sum, to + n + 1));
    }
    return tp_device_mark(t->dev, TP_QUEUE_RUN, TP_MARK_EVAL + place);
}

/* A batch is collected while the next one runs. */
static tp_status run_eval(tp_trainer *t, const tp_eval_pass *e, tp_part part, tp_stream *stream,
                          float *outputs, double *loss)
{
    const int64_t batch = tp_eval_batch(t), rows = tp_data_part_rows(t->data, part),
                  width = tp_model_outputs(t->model), batches = (rows + batch - 1) / batch;
    double loss_sum = 0.0, weight_sum = 0.0;

    TP_TRY(tp_trainer_set_counter(t, 0));
    for (int64_t i = 0; i <= batches; i++) {
        if (i < batches)
            TP_TRY(launch_batch(t, e, stream, (int)(i % 2)));
        if (i == 0)
            continue;
        const int place = (int)((i - 1) % 2);
        const int64_t at = (i - 1) * batch, n = rows - at < batch ? rows - at : batch;
        const float *from = t->eval_out[place];
        TP_TRY(tp_device_await(t->dev, TP_MARK_EVAL + place));
        memcpy(outputs + at * width, from, (size_t)(n * width) * sizeof(float));
        loss_sum += (double)from[batch * width];
        weight_sum += (double)from[batch * width + 1];
    }
    if (loss != NULL)
        *loss = loss_sum / weight_sum;
    return TP_OK;
}

static tp_status make_room(tp_trainer *t)
{
    const size_t bytes = (size_t)(tp_eval_batch(t) * tp_model_outputs(t->model) + 2) * sizeof(float);

    for (int i = 0; i < 2; i++)
        if (t->eval_out[i] == NULL)
            TP_TRY(tp_device_host_alloc(t->dev, (void **)&t->eval_out[i], bytes, "outputs"));
    return TP_OK;
}

tp_status tp_eval_prepare(tp_trainer *t, tp_part part, int use_ema)
{
    const int averaged = use_ema && t->opts.optimizer.ema > 0.0;
    tp_eval_pass *e = &t->eval[part][averaged];

    if (e->plan != NULL || tp_data_part_rows(t->data, part) == 0)
        return TP_OK;
    TP_TRY(make_room(t));
    const tp_status st = make_eval(t, e, part, averaged);
    if (st != TP_OK)
        tp_eval_free(e);
    return st;
}

tp_status tp_trainer_predict(tp_trainer *t, tp_part part, int use_ema, float *outputs, double *loss)
{
    tp_eval_pass *e = &t->eval[part][use_ema && t->opts.optimizer.ema > 0.0];
    tp_stream *stream = NULL;

    TP_CHECK(tp_data_part_rows(t->data, part) > 0, TP_EINVAL, "data: there is no %s part",
             tp_part_name(part));
    TP_TRY(tp_eval_prepare(t, part, use_ema));
    if (!tp_data_resident(t->data))
        TP_TRY(tp_stream_open(&stream, t->data, &(tp_stream_spec){.part = part, .batch = t->opts.batch}));
    const tp_status st = run_eval(t, e, part, stream, outputs, loss);
    tp_stream_close(stream);
    return st;
}
