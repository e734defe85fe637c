/* trainer.c - a trainer: its states, the device memory around the compiled step, and running it. Everything a
 * step needs lives on the device, the learning rates of coming steps in a ring, so that many steps run
 * without the host. Steps write their results to a ring in the host's memory: a copy would queue behind a
 * snapshot's. */
#include "host/train/trainer.h"
#include "host/core/float16.h"
#include "host/core/mem.h"
#include <math.h>
#include <stdio.h>

_Static_assert(TP_MARK_TAKEN + TP_TRAINER_FEED <= TP_DEVICE_MARKS, "a device has too few marks");

tp_status tp_trainer_alloc(tp_trainer *t, tp_tensor *out, tp_dtype dtype, tp_shape shape, const char *what)
{
    out->dtype = dtype;
    out->shape = shape;
    return tp_device_alloc(t->dev, &out->data, tp_tensor_bytes(out), what);
}

tp_status tp_trainer_set_counter(tp_trainer *t, uint64_t step)
{
    const uint64_t counter[2] = {t->opts.seed, step};
    t->device_step = -1;
    return tp_device_upload(t->dev, t->counter.data, counter, sizeof(counter));
}

/* ---- states ---- */

static tp_status add_state(tp_trainer *t, const char *prefix, const tp_param *p, tp_tensor tensor, int *index)
{
    char *full = NULL;

    TP_TRY(tp_format(&full, "%s.%s", prefix, p->name));
    t->states[t->n_states] = (tp_state_tensor){full, p->shape, tensor, p->channels_last};
    *index = t->n_states++;
    return TP_OK;
}

static tp_status new_state(tp_trainer *t, const char *prefix, const tp_param *p, int *index)
{
    tp_tensor tensor;
    TP_TRY(tp_trainer_alloc(t, &tensor, TP_F32, p->tensor.shape, p->name));
    return add_state(t, prefix, p, tensor, index);
}

static tp_status make_states(tp_trainer *t)
{
    const int n = t->n_params;
    const int two = tp_optimizer_states(t->opts.optimizer.kind) == 2;
    const tp_param step_count = {.name = "t", .shape = {1, {1}}};
    tp_tensor counter_t;
    int index;

    TP_TRY(tp_alloc(&t->states, (size_t)(4 * n + 1), sizeof(tp_state_tensor), "states"));
    TP_TRY(tp_alloc(&t->s1, (size_t)n, sizeof(int), "states"));
    TP_TRY(tp_alloc(&t->s2, (size_t)n, sizeof(int), "states"));
    TP_TRY(tp_alloc(&t->ema, (size_t)n, sizeof(int), "states"));
    for (int i = 0; i < n; i++) {
        const tp_param *p = tp_model_param(t->model, i);
        TP_TRY(add_state(t, "model", p, p->tensor, &index));
    }
    for (int i = 0; i < n; i++) {
        const tp_param *p = tp_model_param(t->model, i);
        t->s1[i] = t->s2[i] = t->ema[i] = -1;
        if (!p->trained)
            continue;
        TP_TRY(new_state(t, "optimizer.0", p, &t->s1[i]));
        if (two)
            TP_TRY(new_state(t, "optimizer.1", p, &t->s2[i]));
        if (t->opts.optimizer.ema > 0.0) {
            TP_TRY(new_state(t, "ema", p, &t->ema[i]));
            TP_TRY(tp_device_enqueue_copy(t->dev, TP_QUEUE_RUN, t->states[t->ema[i]].tensor.data,
                                          p->tensor.data, tp_tensor_bytes(&p->tensor), TP_ON_DEVICE));
        }
    }
    TP_TRY(tp_trainer_alloc(t, &counter_t, TP_I64, step_count.shape, "step count"));
    return add_state(t, "optimizer", &step_count, counter_t, &t->t_state);
}

/* ---- copies in bfloat16 ---- */

/* Of the filters of convolutions, which multiply in it. */
static tp_status make_low(tp_trainer *t)
{
    TP_TRY(tp_alloc(&t->low, (size_t)t->n_params, sizeof(tp_tensor), "copies"));
    for (int i = 0; i < t->n_params && t->opts.precision == TP_PRECISION_BF16; i++) {
        const tp_param *p = tp_model_param(t->model, i);
        if (p->trained && p->channels_last)
            TP_TRY(tp_trainer_alloc(t, &t->low[i], TP_BF16, p->tensor.shape, p->name));
    }
    return tp_trainer_refresh(t);
}

static tp_status refresh(tp_trainer *t, const tp_tensor *low, const tp_tensor *w)
{
    const int64_t n = tp_shape_len(w->shape);
    float *from = NULL;
    uint16_t *to = NULL;
    tp_status st;

    TP_TRY_GOTO(tp_alloc(&from, (size_t)n, sizeof(*from), "copy in bfloat16"), st, done);
    TP_TRY_GOTO(tp_alloc(&to, (size_t)n, sizeof(*to), "copy in bfloat16"), st, done);
    TP_TRY_GOTO(tp_device_download(t->dev, from, w->data, tp_tensor_bytes(w)), st, done);
    for (int64_t k = 0; k < n; k++)
        to[k] = tp_bf16_from_f32(from[k]);
    st = tp_device_upload(t->dev, low->data, to, tp_tensor_bytes(low));
done:
    tp_free(from);
    tp_free(to);
    return st;
}

tp_status tp_trainer_refresh(tp_trainer *t)
{
    for (int i = 0; i < t->n_params; i++)
        if (t->low[i].data != NULL)
            TP_TRY(refresh(t, &t->low[i], &tp_model_param(t->model, i)->tensor));
    return TP_OK;
}

/* ---- making and running ---- */

static tp_status check_opts(const tp_trainer *t)
{
    const tp_train_opts *o = &t->opts;
    const tp_data_target *target = tp_data_target_of(t->data);

    TP_CHECK(o->batch > 0, TP_EINVAL, "batch is %lld, must be > 0", (long long)o->batch);
    TP_CHECK(o->accumulate > 0 && o->accumulate <= TP_MAX_MICRO && o->batch % o->accumulate == 0, TP_EINVAL,
             "accumulate is %lld, must be 1 to %d and divide batch %lld", (long long)o->accumulate,
             TP_MAX_MICRO, (long long)o->batch);
    TP_CHECK(o->optimizer.ema >= 0.0 && o->optimizer.ema < 1.0, TP_EINVAL, "ema is %g, must be in [0, 1)",
             o->optimizer.ema);
    TP_CHECK(o->clip_norm >= 0.0 && isfinite(o->clip_norm), TP_EINVAL, "clip_norm is %g, must be >= 0",
             o->clip_norm);
    TP_CHECK(target != NULL || tp_data_part_rows(t->data, TP_TRAIN) == 0, TP_EDATA,
             "data: there is no target to train on");
    if (target != NULL) {
        const float *shift, *scale;
        TP_CHECK(target->n_outputs == tp_model_outputs(t->model), TP_EDATA,
                 "data: target %s has %lld values, the model gives %lld", target->array.name,
                 (long long)target->n_outputs, (long long)tp_model_outputs(t->model));
        TP_CHECK(target->n_norm == tp_model_target_norm(t->model, &shift, &scale), TP_EINVAL,
                 "data: target %s is normalised otherwise than the model's", target->array.name);
    }
    TP_CHECK(tp_data_n_inputs(t->data) == tp_model_n_inputs(t->model) &&
                 tp_data_n_inputs(t->data) <= TP_TRAINER_INPUTS,
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
        return TP_LOSS_CROSS_ENTROPY;
    case TP_TASK_MULTILABEL:
        return TP_LOSS_BCE;
    default:
        return TP_LOSS_MSE;
    }
}

static tp_status make_rings(tp_trainer *t)
{
    const tp_shape one = {1, {TP_TRAINER_RING}}, row = {2, {TP_TRAINER_RING, TP_TRAINER_RESULTS}};

    TP_TRY(tp_trainer_alloc(t, &t->rates, TP_F32, one, "learning rates"));
    TP_TRY(
        tp_device_host_alloc(t->dev, (void **)&t->host_rates, tp_tensor_bytes(&t->rates), "learning rates"));
    t->results = (tp_tensor){.shape = row, .dtype = TP_F32};
    return tp_device_host_alloc(t->dev, &t->results.data, tp_tensor_bytes(&t->results), "results of steps");
}

static tp_status make(tp_trainer *t)
{
    TP_TRY(check_opts(t));
    t->loss = resolve_loss(t);
    t->n_params = tp_model_n_params(t->model);
    TP_CHECK(t->n_params + TP_TRAINER_SPARSE <= TP_MAX_TENSORS, TP_EINVAL,
             "model has %d parameters, at most %d are trained together", t->n_params,
             TP_MAX_TENSORS - TP_TRAINER_SPARSE);
    t->steps_per_epoch = (tp_data_part_rows(t->data, TP_TRAIN) + t->opts.batch - 1) / t->opts.batch;
    TP_TRY(tp_trainer_alloc(t, &t->counter, TP_U64, (tp_shape){1, {2}}, "counter"));
    TP_TRY(make_rings(t));
    TP_TRY(make_states(t));
    TP_TRY(make_low(t));
    TP_TRY(tp_feed_stage(t));
    if (t->steps_per_epoch == 0)
        return TP_OK;
    TP_TRY(tp_step_build(t));
    /* What a run will need is taken before its first step. */
    TP_TRY(tp_eval_prepare(t, TP_VALIDATION, 1));
    return tp_eval_prepare(t, TP_TEST, 1);
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
    t->device_step = -1;
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
        tp_eval_free(&t->eval[p][0]);
        tp_eval_free(&t->eval[p][1]);
    }
    tp_plan_free(t->plan);
    tp_graph_free(t->g);
    tp_feed_free(t);
    for (int i = 0; i < t->n_states; i++) {
        if (i >= t->n_params) /* the first n_params are the model's own */
            tp_device_release(t->dev, t->states[i].tensor.data);
        tp_free((void *)(uintptr_t)t->states[i].name);
    }
    for (int i = 0; t->low != NULL && i < t->n_params; i++)
        tp_device_release(t->dev, t->low[i].data);
    tp_device_release(t->dev, t->counter.data);
    tp_device_release(t->dev, t->rates.data);
    tp_device_host_release(t->dev, t->host_rates);
    tp_device_host_release(t->dev, t->results.data);
    tp_device_host_release(t->dev, t->eval_out[0]);
    tp_device_host_release(t->dev, t->eval_out[1]);
    tp_free(t->states);
    tp_free(t->s1);
    tp_free(t->s2);
    tp_free(t->ema);
    tp_free(t->low);
    tp_free(t);
}

int64_t tp_trainer_steps_per_epoch(const tp_trainer *t)
{
    return t->steps_per_epoch;
}

/* ---- steps ---- */

/* Learning rates of steps [first, first + n) go to the device's ring, whose end they may pass. */
static tp_status send_rates(tp_trainer *t, int64_t first, int64_t n)
{
    while (n > 0) {
        const int64_t at = first % TP_TRAINER_RING;
        const int64_t piece = n < TP_TRAINER_RING - at ? n : TP_TRAINER_RING - at;
        TP_TRY(tp_device_enqueue_copy(t->dev, TP_QUEUE_RUN, (float *)t->rates.data + at, t->host_rates + at,
                                      (size_t)piece * sizeof(float), TP_TO_DEVICE));
        first += piece;
        n -= piece;
    }
    return TP_OK;
}

static tp_status run_steps(tp_trainer *t, int64_t first, int64_t n)
{
    if (tp_data_resident(t->data))
        return tp_plan_run_times(t->plan, n);
    for (int64_t i = first; i < first + n; i++) {
        TP_TRY(tp_feed_train(t, i));
        TP_TRY(tp_plan_run(t->plan));
    }
    return TP_OK;
}

tp_status tp_trainer_launch(tp_trainer *t, int64_t first, int64_t n, const double *lr)
{
    TP_CHECK(t->plan != NULL, TP_EINVAL, "data: there is no training part to step on");
    TP_CHECK(first >= 0 && n >= 1 && n <= TP_MAX_LAUNCH, TP_EINVAL, "%lld steps from %lld on, want 1 to %d",
             (long long)n, (long long)first, TP_MAX_LAUNCH);
    TP_CHECK(t->n_launched < 2, TP_EINVAL, "two launches are not collected yet");
    for (int64_t i = 0; i < n; i++)
        t->host_rates[(first + i) % TP_TRAINER_RING] = (float)lr[i];
    if (t->device_step != first)
        TP_TRY(tp_trainer_set_counter(t, (uint64_t)first));
    TP_TRY(send_rates(t, first, n));
    TP_TRY(run_steps(t, first, n));
    TP_TRY(tp_device_mark(t->dev, TP_QUEUE_RUN, TP_MARK_LAUNCH + t->next_mark));
    t->next_mark = (t->next_mark + 1) % 2;
    t->device_step = first + n;
    t->launched[t->n_launched].first = first;
    t->launched[t->n_launched++].n = n;
    return TP_OK;
}

tp_status tp_trainer_collect(tp_trainer *t, tp_step_result *results)
{
    TP_CHECK(t->n_launched > 0, TP_EINVAL, "nothing is launched that could be collected");
    TP_TRY(tp_device_await(t->dev, TP_MARK_LAUNCH + (t->next_mark + t->n_launched) % 2));
    for (int64_t i = 0; i < t->launched[0].n; i++) {
        const float *r = (const float *)t->results.data +
                         (t->launched[0].first + i) % TP_TRAINER_RING * TP_TRAINER_RESULTS;
        results[i] =
            (tp_step_result){.loss = (double)r[0], .grad_norm = (double)r[3], .applied = r[2] > 0.0f};
    }
    t->launched[0] = t->launched[1];
    t->n_launched--;
    return TP_OK;
}

tp_status tp_trainer_step(tp_trainer *t, int64_t step, double lr, tp_step_result *result)
{
    TP_TRY(tp_trainer_launch(t, step, 1, &lr));
    return tp_trainer_collect(t, result);
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
