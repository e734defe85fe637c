/* score.c - loss and metrics of a part, and measuring a model file on new data. */
#include "host/core/mem.h"
#include "host/train/run_parts.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

#define MOST_ROWS 256 /* that a model file predicts at a time; fewer where memory is short */

/* ---- targets and weights on the host ---- */

/* int64 class numbers (n), or float32 values (n, outputs). */
static tp_status targets_of(const tp_run *u, tp_part part, void **out)
{
    const tp_data_target *t = tp_data_target_of(u->data);
    const int64_t n = tp_data_part_rows(u->data, part), *rows = tp_data_part_table(u->data, part),
                  w = t->n_outputs;
    const tp_tensor v = t->array.values;
    int64_t *classes = NULL;
    float *values = NULL;

    if (t->kind == TP_TARGET_CLASS || t->kind == TP_TARGET_ONEHOT)
        TP_TRY(tp_alloc(out, (size_t)n, sizeof(int64_t), "targets"));
    else
        TP_TRY(tp_alloc(out, (size_t)(n * w), sizeof(float), "targets"));
    classes = *out;
    values = *out;
    for (int64_t i = 0; i < n; i++) {
        if (t->kind == TP_TARGET_CLASS)
            classes[i] = (int64_t)tp_tensor_get(&v, rows[i]);
        else if (t->kind == TP_TARGET_ONEHOT) {
            int64_t best = 0;
            for (int64_t k = 1; k < w; k++)
                if (tp_tensor_get(&v, rows[i] * w + k) > tp_tensor_get(&v, rows[i] * w + best))
                    best = k;
            classes[i] = best;
        } else
            for (int64_t k = 0; k < w; k++)
                values[i * w + k] = (float)tp_tensor_get(&v, rows[i] * w + k);
    }
    return TP_OK;
}

/* NULL where every sample counts alike. */
static tp_status weights_of(const tp_run *u, tp_part part, float **out)
{
    const tp_data_array *w = tp_data_weight(u->data);
    const int64_t n = tp_data_part_rows(u->data, part), *rows = tp_data_part_table(u->data, part);

    *out = NULL;
    if (w == NULL)
        return TP_OK;
    TP_TRY(tp_alloc(out, (size_t)n, sizeof(float), "sample weights"));
    for (int64_t i = 0; i < n; i++)
        (*out)[i] = (float)tp_tensor_get(&w->values, rows[i]);
    return TP_OK;
}

/* ---- which metrics ---- */

/* Names of the metrics to report, ended by NULL. */
static void metric_names(const tp_run *u, const char *names[TP_RECIPE_METRICS + 1])
{
    static const char *const usual[][3] = {[TP_TASK_REGRESSION] = {"mae", "rmse", "r2"},
                                           [TP_TASK_CLASS] = {"accuracy", "f1", "log_loss"},
                                           [TP_TASK_MULTILABEL] = {"accuracy", "f1", "log_loss"}};
    const tp_recipe *r = u->r;
    const int given = r->train.n_metrics > 0, n = given ? r->train.n_metrics : 3;

    for (int i = 0; i < n; i++)
        names[i] = given ? r->train.metrics[i] : usual[tp_model_task(u->model)][i];
    names[n] = NULL;
}

static tp_status find_metric(const tp_run *u, const char *name, const tp_metric **out)
{
    *out = tp_metric_find(name);
    TP_CHECK(*out != NULL, TP_ERECIPE, "train.metrics: unknown metric '%s': nearest is '%s'", name,
             tp_metric_nearest(name)->name);
    TP_CHECK((*out)->tasks & 1u << tp_model_task(u->model), TP_ERECIPE,
             "train.metrics: %s is not for this kind of target", name);
    return TP_OK;
}

/* "loss", or one of the metrics reported. */
static tp_status check_reported(const tp_run *u, const char *key, const char *name)
{
    const char *names[TP_RECIPE_METRICS + 1];

    TP_CHECK(tp_data_part_rows(u->data, TP_VALIDATION) > 0, TP_ERECIPE,
             "%s is %s, but data.split has no validation part to measure it on", key, name);
    metric_names(u, names);
    int found = strcmp(name, "loss") == 0;
    for (int i = 0; names[i] != NULL; i++)
        found |= strcmp(name, names[i]) == 0;
    TP_CHECK(found, TP_ERECIPE, "%s is %s, which is not 'loss' or one of train.metrics", key, name);
    return TP_OK;
}

tp_status tp_run_check_metrics(const tp_run *u)
{
    const char *names[TP_RECIPE_METRICS + 1];
    const tp_metric *m;

    metric_names(u, names);
    for (int i = 0; names[i] != NULL; i++)
        TP_TRY(find_metric(u, names[i], &m));
    if (u->r->train.best[0] != '\0')
        TP_TRY(check_reported(u, "train.best.metric", u->r->train.best));
    if (u->r->schedule.kind == TP_SCHEDULE_REDUCE_ON_PLATEAU)
        TP_TRY(check_reported(u, "schedule.metric", u->r->plateau_metric));
    return TP_OK;
}

int tp_run_find_score(const tp_run_part *p, const char *name, double *value)
{
    for (int i = 0; i < p->n; i++)
        if (strcmp(p->names[i], name) == 0) {
            *value = p->values[i];
            return 1;
        }
    return 0;
}

/* ---- measuring ---- */

static void scores_free(tp_scores *s)
{
    union {
        const void *in;
        void *out;
    } targets = {.in = s->targets}, weights = {.in = s->weights};
    tp_free(targets.out);
    tp_free(weights.out);
}

/* Outputs of a part into u->outputs; s is what to measure on, with its own targets and weights. */
static tp_status predict(tp_run *u, tp_part part, tp_scores *s, double *loss)
{
    void *targets = NULL;
    float *weights = NULL;

    *s = (tp_scores){.task = tp_model_task(u->model),
                     .n = tp_data_part_rows(u->data, part),
                     .width = tp_model_outputs(u->model),
                     .outputs = u->outputs};
    TP_TRY(tp_trainer_predict(u->trainer, part, u->r->ema > 0.0, u->outputs, loss));
    if (tp_data_target_of(u->data) == NULL)
        return TP_OK;
    TP_TRY(targets_of(u, part, &targets));
    s->targets = targets;
    const tp_status st = weights_of(u, part, &weights);
    s->weights = weights;
    return st;
}

static tp_status compute(const tp_run *u, const tp_scores *s, tp_run_part *out)
{
    const char *names[TP_RECIPE_METRICS + 1];
    const tp_metric *m;

    metric_names(u, names);
    for (int i = 0; names[i] != NULL; i++) {
        TP_TRY(find_metric(u, names[i], &m));
        TP_TRY(tp_metric_compute(m, s, &out->values[out->n]));
        out->names[out->n++] = m->name;
    }
    return TP_OK;
}

tp_status tp_run_score(tp_run *u, tp_part part, tp_run_part *out)
{
    tp_scores s = {.n = 0};

    *out = (tp_run_part){.n = 0};
    if (tp_data_part_rows(u->data, part) == 0)
        return TP_OK;
    tp_status st = predict(u, part, &s, &out->values[0]);
    out->names[out->n++] = "loss";
    if (st == TP_OK)
        st = compute(u, &s, out);
    scores_free(&s);
    return st;
}

/* ---- a model file on new data ---- */

static void take_inputs(const tp_model *m, tp_input_spec *inputs)
{
    for (int i = 0; i < tp_model_n_inputs(m); i++) {
        const tp_model_input *in = tp_model_input_at(m, i);
        inputs[i] = (tp_input_spec){.name = in->name,
                                    .kind = in->kind,
                                    .n_categories = in->categories,
                                    .normalize = in->n_norm > 0 ? TP_NORM_GIVEN : TP_NORM_NONE,
                                    .shift = in->shift,
                                    .scale = in->scale,
                                    .n_norm = in->n_norm};
    }
}

static tp_split_spec rows_wanted(const tp_evaluate_opts *o)
{
    if (o->group != NULL)
        return (tp_split_spec){.kind = TP_SPLIT_GROUPS, .source = {[TP_TEST] = o->group}};
    if (o->time != NULL)
        return (tp_split_spec){
            .kind = TP_SPLIT_TIME, .from = {[TP_TEST] = o->from}, .to = {[TP_TEST] = o->to}};
    return (tp_split_spec){.kind = TP_SPLIT_ALL, .all = TP_TEST};
}

/* target NULL: for prediction alone. */
static tp_status open_for_model(tp_run *u, const tp_evaluate_opts *o, const char *target, tp_target_kind kind)
{
    tp_input_spec inputs[TP_RECIPE_INPUTS] = {{.name = NULL}};
    tp_data_spec spec = {.path = o->data,
                         .n_inputs = tp_model_n_inputs(u->model),
                         .inputs = inputs,
                         .weight = o->weight,
                         .slice = o->slice,
                         .time = o->time,
                         .split = rows_wanted(o)};

    TP_CHECK(o->data != NULL, TP_EINVAL, "evaluate: no data file was given");
    TP_CHECK(o->n_metrics >= 0 && o->n_metrics <= TP_RECIPE_METRICS, TP_EINVAL,
             "evaluate: %d metrics, at most %d are taken", o->n_metrics, TP_RECIPE_METRICS);
    TP_TRY(tp_run_resident_limit(u->dev, 0, &spec.resident_bytes, &u->free_bytes));
    take_inputs(u->model, inputs);
    if (target != NULL) {
        spec.target = target;
        spec.target_kind = kind;
        spec.n_classes = spec.target_kind == TP_TARGET_REGRESSION ? 0 : tp_model_outputs(u->model);
        spec.target_n_norm = tp_model_target_norm(u->model, &spec.target_shift, &spec.target_scale);
        spec.target_normalize = spec.target_n_norm > 0 ? TP_NORM_GIVEN : TP_NORM_NONE;
    }
    return tp_data_open(&u->data, &spec);
}

static tp_status open_model(tp_run *u, const char *path, const tp_evaluate_opts *o, int with_target)
{
    tp_target_kind kind;
    char *target = NULL;

    TP_TRY(tp_device_open(&u->dev, o->device));
    TP_TRY(tp_model_load(&u->model, u->dev, path, &target, &kind));
    const tp_status st = open_for_model(u, o, with_target ? target : NULL, kind);
    tp_text_free(target);
    TP_TRY(st);
    const int64_t values = tp_data_part_rows(u->data, TP_TEST) * tp_model_outputs(u->model);
    return tp_alloc(&u->outputs, (size_t)values, sizeof(float), "outputs");
}

/* Outputs of all rows, in batches that the device has the memory for. */
static tp_status predict_all(tp_run *u, tp_scores *s)
{
    tp_train_opts opts = TP_TRAIN_OPTS_INIT;

    for (opts.batch = MOST_ROWS;; opts.batch /= 2) {
        tp_status st = tp_trainer_new(&u->trainer, u->dev, u->model, u->data, &opts);
        if (st == TP_OK)
            st = predict(u, TP_TEST, s, NULL);
        if (st != TP_ENOMEM || opts.batch == 1)
            return st;
        scores_free(s);
        *s = (tp_scores){.n = 0};
        tp_trainer_free(u->trainer);
        u->trainer = NULL;
    }
}

static tp_status by_class(const tp_scores *s, tp_evaluation *out)
{
    TP_TRY(tp_alloc(&out->classes, (size_t)s->width, sizeof(*out->classes), "scores of the classes"));
    out->n_classes = s->width;
    return tp_metric_classes(s, out->classes);
}

static tp_status by_slice(const tp_run *u, const tp_scores *s, tp_evaluation *out)
{
    const int64_t *rows = tp_data_part_table(u->data, TP_TEST);
    const tp_metric *metrics[TP_RECIPE_METRICS];
    const double *slice = tp_data_slice(u->data);
    int64_t *ids = NULL;

    for (int i = 0; i < out->scores.n; i++)
        metrics[i] = tp_metric_find(out->scores.names[i]);
    TP_TRY(tp_alloc(&ids, (size_t)s->n, sizeof(int64_t), "slices"));
    for (int64_t i = 0; i < s->n; i++)
        ids[i] = (int64_t)slice[rows[i]];
    const tp_status st = tp_metric_slices(&out->slices, s, ids, out->scores.n, metrics);
    tp_free(ids);
    return st;
}

static tp_status evaluate(tp_run *u, const tp_evaluate_opts *o, tp_recipe *r, const tp_scores *s,
                          tp_evaluation *out)
{
    for (int i = 0; i < o->n_metrics; i++)
        snprintf(r->train.metrics[r->train.n_metrics++], TP_LAYER_NAME_SIZE, "%s", o->metrics[i]);
    TP_TRY(compute(u, s, &out->scores));
    if (o->by_class)
        TP_TRY(by_class(s, out));
    return o->slice != NULL ? by_slice(u, s, out) : TP_OK;
}

static tp_status carry_out(tp_run *u, const char *path, const tp_evaluate_opts *o, int with_target,
                           tp_recipe *r, tp_evaluation *out)
{
    tp_scores s = {.n = 0};

    TP_TRY(open_model(u, path, o, with_target));
    tp_status st = predict_all(u, &s);
    if (st == TP_OK && with_target)
        st = evaluate(u, o, r, &s, out);
    scores_free(&s);
    TP_TRY(st);
    snprintf(out->device, sizeof(out->device), "%s", tp_device_text(u->dev));
    snprintf(out->device_note, sizeof(out->device_note), "%s", tp_device_note(u->dev));
    out->rows = tp_data_part_rows(u->data, TP_TEST);
    out->width = tp_model_outputs(u->model);
    out->outputs = u->outputs;
    u->outputs = NULL;
    return TP_OK;
}

static tp_status measure(const char *path, const tp_evaluate_opts *o, int with_target, tp_evaluation *out)
{
    tp_recipe *r = NULL;

    *out = (tp_evaluation){.rows = 0};
    TP_TRY(tp_alloc(&r, 1, sizeof(*r), "evaluation"));
    tp_run u = {.r = r, .lock = -1};
    const tp_status st = carry_out(&u, path, o, with_target, r, out);
    tp_run_close(&u);
    tp_free(r);
    if (st != TP_OK)
        tp_evaluation_clear(out);
    return st;
}

tp_status tp_run_evaluate(const char *model, const tp_evaluate_opts *opts, tp_evaluation *result)
{
    return measure(model, opts, 1, result);
}

tp_status tp_run_predict(const char *model, const tp_evaluate_opts *opts, tp_evaluation *result)
{
    return measure(model, opts, 0, result);
}

void tp_evaluation_clear(tp_evaluation *e)
{
    tp_free(e->outputs);
    tp_free(e->classes);
    tp_slices_clear(&e->slices);
    *e = (tp_evaluation){.rows = 0};
}
