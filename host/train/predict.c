/* predict.c - the evaluation pass over a part, as a graph of its own. */
#include "host/core/mem.h"
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
    tp_forward f = {.mode = TP_MODE_EVAL, .inputs = x, .params = params};
    tp_val out = tp_model_forward(t->model, b.g, &f);
    if (b.target != 0)
        append_loss(&b, e, out);
    if (b.target_scale != 0)
        out = tp_add(b.g, tp_div(b.g, out, b.target_scale), b.target_shift);
    e->out = tp_output(b.g, out);
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

static tp_status run_eval(tp_trainer *t, tp_eval_pass *e, tp_part part, tp_stream *stream, float *outputs,
                          double *loss)
{
    const int64_t batch = tp_eval_batch(t), rows = tp_data_part_rows(t->data, part),
                  width = tp_model_outputs(t->model);
    double loss_sum = 0.0, weight_sum = 0.0;
    float *batch_out = NULL;
    tp_status st = TP_OK;

    TP_TRY(tp_alloc(&batch_out, (size_t)(batch * width), sizeof(float), "outputs"));
    for (int64_t at = 0; at < rows; at += batch) {
        const int64_t n = rows - at < batch ? rows - at : batch;
        double l = 0.0, w = 0.0;
        if (stream != NULL)
            TP_TRY_GOTO(tp_feed_next(t, stream), st, done);
        TP_TRY_GOTO(tp_trainer_set_counter(t, (uint64_t)(at / batch)), st, done);
        TP_TRY_GOTO(tp_plan_run(e->plan), st, done);
        TP_TRY_GOTO(tp_plan_read(e->plan, e->out, batch_out), st, done);
        memcpy(outputs + at * width, batch_out, (size_t)(n * width) * sizeof(float));
        if (e->loss_sum != 0) {
            TP_TRY_GOTO(tp_trainer_read(e->plan, e->loss_sum, &l), st, done);
            TP_TRY_GOTO(tp_trainer_read(e->plan, e->weight_sum, &w), st, done);
        }
        loss_sum += l;
        weight_sum += w;
    }
    if (loss != NULL)
        *loss = loss_sum / weight_sum;
done:
    tp_free(batch_out);
    return st;
}

tp_status tp_eval_prepare(tp_trainer *t, tp_part part, int use_ema)
{
    const int averaged = use_ema && t->opts.ema > 0.0;
    tp_eval_pass *e = &t->eval[part][averaged];

    if (e->plan != NULL || tp_data_part_rows(t->data, part) == 0)
        return TP_OK;
    const tp_status st = make_eval(t, e, part, averaged);
    if (st != TP_OK)
        tp_eval_free(e);
    return st;
}

tp_status tp_trainer_predict(tp_trainer *t, tp_part part, int use_ema, float *outputs, double *loss)
{
    tp_eval_pass *e = &t->eval[part][use_ema && t->opts.ema > 0.0];
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
