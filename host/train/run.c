/* run.c - a recipe carried out: open the data, build the model, train, report, save, finish. */
#include "temper/run.h"
#include "host/core/io.h"
#include "host/core/mem.h"
#include "temper/plan.h"
#include "temper/safetensors.h"
#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PATH_SIZE 4096

typedef struct run {
    const tp_recipe *r;
    const tp_run_opts *o;
    tp_run_result *result;
    tp_device *dev;
    tp_data *data;
    tp_model *model;
    tp_trainer *trainer;
    float *class_weight, *outputs;
    int lock;
    FILE *metrics;
    int64_t total, per_epoch, report_every, save_every;
    double best;
    int64_t best_step, reports_since_best;
} run;

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- data ---- */

static const char *text_or_null(const char *s)
{
    return s[0] != '\0' ? s : NULL;
}

static void split_spec(const run *u, tp_split_spec *s)
{
    const tp_recipe *r = u->r;

    s->kind = r->data.split;
    s->validation = r->data.validation;
    s->test = r->data.test;
    s->seed = (uint64_t)r->data.split_seed;
    s->dataset = text_or_null(r->data.split_dataset);
    for (int p = 0; p < TP_PARTS; p++) {
        s->from[p] = r->data.from[p];
        s->to[p] = r->data.to[p];
        s->source[p] = text_or_null(r->data.source[p]);
    }
}

static tp_status open_data(run *u)
{
    const tp_recipe *r = u->r;
    tp_input_spec inputs[TP_RECIPE_INPUTS] = {{.name = NULL}};
    tp_data_spec spec = {.path = u->o->data != NULL ? u->o->data : text_or_null(r->data.file),
                         .n_inputs = r->data.n_inputs,
                         .inputs = inputs,
                         .target_kind = r->data.target_kind,
                         .target = r->data.target,
                         .n_classes = r->data.classes,
                         .weight = text_or_null(r->data.weight),
                         .time = text_or_null(r->data.time),
                         .nonfinite = r->data.nonfinite};

    TP_CHECK(spec.path != NULL || r->data.split == TP_SPLIT_FILES, TP_ERECIPE,
             "data.file is missing, and no --data was given");
    split_spec(u, &spec.split);
    for (int i = 0; i < r->data.n_inputs; i++) {
        const tp_recipe_input *in = &r->data.inputs[i];
        inputs[i] = (tp_input_spec){.name = in->name,
                                    .kind = in->kind,
                                    .n_categories = in->categories,
                                    .normalize = in->normalize,
                                    .factor = in->factor,
                                    .crop_padding = in->crop,
                                    .hflip = in->hflip};
    }
    return tp_data_open(&u->data, &spec);
}

/* ---- model ---- */

static tp_task task_of(tp_target_kind kind)
{
    if (kind == TP_TARGET_CLASS || kind == TP_TARGET_ONEHOT)
        return TP_TASK_CLASS;
    return kind == TP_TARGET_MULTILABEL ? TP_TASK_MULTILABEL : TP_TASK_REGRESSION;
}

/* The numeric inputs and an embedding for each input of ids, side by side, then an mlp. */
static tp_status build_tabular(const run *u, tp_layer *out, int64_t n_outputs)
{
    const tp_recipe *r = u->r;
    tp_layer *concat = NULL, *branch = NULL, mlp = {.kind = TP_LAYER_SEQUENCE};

    TP_TRY(tp_layer_append(out, TP_LAYER_CONCAT, &concat));
    for (int i = 0; i < r->data.n_inputs; i++) {
        const int ids = r->data.inputs[i].kind == TP_INPUT_IDS;
        TP_TRY(tp_layer_append(concat, ids ? TP_LAYER_EMBEDDING : TP_LAYER_SEQUENCE, &branch));
        snprintf(branch->input, sizeof(branch->input), "%s", r->data.inputs[i].name);
        if (ids)
            branch->units = r->model.embedding_dim;
    }
    tp_status st = tp_layers_mlp(&mlp, r->model.n_hidden, r->model.hidden, r->model.activation,
                                 r->model.dropout, n_outputs);
    if (st == TP_OK) {
        st = tp_layer_append(out, TP_LAYER_SEQUENCE, &branch);
        if (st == TP_OK)
            *branch = mlp;
        else
            tp_layer_clear(&mlp);
    }
    return st;
}

static tp_status copy_layers(tp_layer *dst, const tp_layer *src)
{
    for (int i = 0; i < src->n_children; i++) {
        tp_layer *child = NULL;
        TP_TRY(tp_layer_append(dst, src->children[i].kind, &child));
        *child = src->children[i];
        child->children = NULL;
        child->n_children = 0;
        TP_TRY(copy_layers(child, &src->children[i]));
    }
    return TP_OK;
}

static tp_status build_layers(const run *u, tp_layer *out, int64_t n_outputs)
{
    const tp_recipe *r = u->r;

    switch (r->model.builder) {
    case TP_BUILDER_MLP:
        return tp_layers_mlp(out, r->model.n_hidden, r->model.hidden, r->model.activation, r->model.dropout,
                             n_outputs);
    case TP_BUILDER_RESNET18:
        return tp_layers_resnet18(out, n_outputs);
    case TP_BUILDER_TABULAR:
        return build_tabular(u, out, n_outputs);
    default:
        return copy_layers(out, &r->model.layers);
    }
}

static tp_status make_model(run *u)
{
    const tp_data_target *target = tp_data_target_of(u->data);
    tp_model_input inputs[TP_RECIPE_INPUTS] = {{.n_norm = 0}};
    tp_layer layers = {.kind = TP_LAYER_SEQUENCE};
    union {
        const float *in;
        float *out;
    } p;

    for (int i = 0; i < tp_data_n_inputs(u->data); i++) {
        const tp_data_input *in = tp_data_input_at(u->data, i);
        snprintf(inputs[i].name, sizeof(inputs[i].name), "%s", in->array.name);
        inputs[i].kind = in->kind;
        inputs[i].shape = in->array.sample;
        inputs[i].categories = in->n_categories;
        inputs[i].n_norm = in->n_norm;
        p.in = in->shift;
        inputs[i].shift = p.out;
        p.in = in->scale;
        inputs[i].scale = p.out;
    }
    const tp_status st = build_layers(u, &layers, target->n_outputs);
    if (st != TP_OK) {
        tp_layer_clear(&layers);
        return st;
    }
    return tp_model_new(&u->model, u->dev, &layers, tp_data_n_inputs(u->data), inputs, task_of(target->kind),
                        target->n_outputs, (uint64_t)u->r->train.seed);
}

/* ---- trainer ---- */

/* n / (classes * count), as scikit-learn's "balanced". */
static tp_status balanced_weights(run *u)
{
    const tp_data_target *t = tp_data_target_of(u->data);

    TP_CHECK(t->kind == TP_TARGET_CLASS, TP_ERECIPE, "objective.balanced needs a target of kind class");
    TP_TRY(tp_alloc(&u->class_weight, (size_t)t->n_classes, sizeof(float), "class weights"));
    for (int64_t k = 0; k < t->n_classes; k++) {
        const double count = (double)t->class_count[TP_TRAIN][k];
        u->class_weight[k] =
            count > 0.0
                ? (float)((double)tp_data_part_rows(u->data, TP_TRAIN) / ((double)t->n_classes * count))
                : 0.0f;
    }
    return TP_OK;
}

static tp_status make_trainer(run *u)
{
    const tp_recipe *r = u->r;
    tp_train_opts o = TP_TRAIN_OPTS_INIT;

    if (r->objective.balanced)
        TP_TRY(balanced_weights(u));
    o.loss = r->objective.loss;
    o.loss_param = r->objective.loss == TP_LOSS_KIND_QUANTILE ? r->objective.quantile : r->objective.delta;
    o.label_smoothing = r->objective.label_smoothing;
    o.class_weight = u->class_weight;
    o.optimizer = r->optimizer;
    o.weight_decay = r->weight_decay;
    o.decay_all = r->decay_all;
    o.clip_norm = r->clip_norm;
    o.ema = r->ema;
    o.batch = r->train.batch;
    o.accumulate = r->train.accumulate;
    o.seed = (uint64_t)r->train.seed;
    o.timed = u->o->plan_text != NULL;
    return tp_trainer_new(&u->trainer, u->dev, u->model, u->data, &o);
}

/* ---- metrics ---- */

static tp_status targets_of(const run *u, tp_part part, void **out)
{
    const tp_data_target *t = tp_data_target_of(u->data);
    const int64_t n = tp_data_part_rows(u->data, part), *rows = tp_data_part_table(u->data, part),
                  w = t->n_outputs;
    const tp_tensor v = t->array.values;
    int64_t *classes = NULL;
    float *values = NULL;

    TP_TRY(tp_alloc(out, (size_t)(n * w), sizeof(int64_t), "targets"));
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

static tp_status add_metric(tp_run_part *out, const char *name, const tp_scores *s)
{
    const tp_metric *m = tp_metric_find(name);

    TP_CHECK(m != NULL, TP_ERECIPE, "train.metrics: unknown metric '%s'", name);
    TP_CHECK(m->tasks & 1u << s->task, TP_ERECIPE, "train.metrics: %s is not for this kind of target", name);
    TP_TRY(tp_metric_compute(m, s, &out->values[out->n]));
    out->names[out->n++] = m->name;
    return TP_OK;
}

static tp_status score_part(run *u, tp_part part, tp_run_part *out)
{
    static const char *const usual[][3] = {[TP_TASK_REGRESSION] = {"mae", "rmse", "r2"},
                                           [TP_TASK_CLASS] = {"accuracy", "f1", "log_loss"},
                                           [TP_TASK_MULTILABEL] = {"accuracy", "f1", "log_loss"}};
    const tp_recipe *r = u->r;
    tp_scores s = {.task = tp_model_task(u->model),
                   .n = tp_data_part_rows(u->data, part),
                   .width = tp_model_outputs(u->model)};
    void *targets = NULL;
    tp_status st = TP_OK;

    *out = (tp_run_part){.names = {"loss"}};
    if (s.n == 0)
        return TP_OK;
    TP_TRY(tp_trainer_predict(u->trainer, part, r->ema > 0.0, u->outputs, &out->values[0]));
    TP_TRY(targets_of(u, part, &targets));
    out->n = 1;
    s.outputs = u->outputs;
    s.targets = targets;
    const int n = r->train.n_metrics > 0 ? r->train.n_metrics : 3;
    for (int i = 0; i < n && st == TP_OK; i++)
        st = add_metric(out, r->train.n_metrics > 0 ? r->train.metrics[i] : usual[s.task][i], &s);
    tp_free(targets);
    return st;
}

/* ---- evaluating a model file ---- */

static tp_target_kind target_kind_of(tp_task task)
{
    return task == TP_TASK_CLASS        ? TP_TARGET_CLASS
           : task == TP_TASK_MULTILABEL ? TP_TARGET_MULTILABEL
                                        : TP_TARGET_REGRESSION;
}

static tp_status open_for_model(run *u, const tp_evaluate_opts *o, const char *target)
{
    tp_input_spec inputs[TP_RECIPE_INPUTS] = {{.name = NULL}};
    const int n = tp_model_n_inputs(u->model);
    tp_data_spec spec = {.path = o->data, .n_inputs = n, .inputs = inputs, .target = target, .time = o->time};

    TP_CHECK(o->data != NULL, TP_EINVAL, "evaluate: no data file was given");
    spec.target_kind = target_kind_of(tp_model_task(u->model));
    spec.n_classes = spec.target_kind == TP_TARGET_REGRESSION ? 0 : tp_model_outputs(u->model);
    spec.split = (tp_split_spec){.kind = TP_SPLIT_ALL, .all = TP_TEST};
    if (o->group != NULL)
        spec.split = (tp_split_spec){.kind = TP_SPLIT_GROUPS, .source = {[TP_TEST] = o->group}};
    else if (o->time != NULL)
        spec.split =
            (tp_split_spec){.kind = TP_SPLIT_TIME, .from = {[TP_TEST] = o->from}, .to = {[TP_TEST] = o->to}};
    for (int i = 0; i < n; i++) {
        const tp_model_input *in = tp_model_input_at(u->model, i);
        inputs[i] = (tp_input_spec){.name = in->name,
                                    .kind = in->kind,
                                    .n_categories = in->categories,
                                    .normalize = in->n_norm > 0 ? TP_NORM_GIVEN : TP_NORM_NONE,
                                    .shift = in->shift,
                                    .scale = in->scale,
                                    .n_norm = in->n_norm};
    }
    return tp_data_open(&u->data, &spec);
}

static tp_status evaluate(run *u, const char *path, const tp_evaluate_opts *o, tp_recipe *r, char **target,
                          tp_run_part *result)
{
    tp_train_opts opts = TP_TRAIN_OPTS_INIT;

    TP_TRY(tp_device_open(&u->dev, o->device));
    TP_TRY(tp_model_load(&u->model, u->dev, path, target));
    TP_TRY(open_for_model(u, o, *target));
    opts.batch = 256;
    TP_TRY(tp_trainer_new(&u->trainer, u->dev, u->model, u->data, &opts));
    const int64_t rows = tp_data_part_rows(u->data, TP_TEST);
    TP_TRY(tp_alloc(&u->outputs, (size_t)(rows * tp_model_outputs(u->model)), sizeof(float), "outputs"));
    for (int i = 0; i < o->n_metrics && i < TP_RECIPE_METRICS; i++)
        snprintf(r->train.metrics[r->train.n_metrics++], TP_LAYER_NAME_SIZE, "%s", o->metrics[i]);
    TP_TRY(score_part(u, TP_TEST, result));
    if (o->rows != NULL)
        *o->rows = rows;
    if (o->outputs != NULL) {
        *o->outputs = u->outputs;
        u->outputs = NULL;
    }
    return TP_OK;
}

static void run_close(run *u)
{
    tp_trainer_free(u->trainer);
    tp_model_free(u->model);
    tp_data_free(u->data);
    tp_device_close(u->dev);
    tp_free(u->class_weight);
    tp_free(u->outputs);
    if (u->metrics != NULL)
        fclose(u->metrics);
    if (u->lock >= 0)
        close(u->lock);
}

tp_status tp_run_evaluate(const char *model, const tp_evaluate_opts *opts, tp_run_part *result)
{
    tp_recipe *r = NULL;
    char *target = NULL;

    *result = (tp_run_part){.n = 0};
    TP_TRY(tp_alloc(&r, 1, sizeof(*r), "evaluation"));
    run u = {.r = r, .lock = -1};
    const tp_status st = evaluate(&u, model, opts, r, &target, result);
    run_close(&u);
    tp_text_free(target);
    tp_free(r);
    return st;
}

void tp_outputs_free(float *outputs)
{
    tp_free(outputs);
}

/* ---- checkpoints ---- */

static tp_status path_in(const run *u, char *out, const char *format, int64_t step)
{
    char name[128];
    snprintf(name, sizeof(name), format, (long long)step);
    TP_CHECK(snprintf(out, PATH_SIZE, "%s/%s", u->o->out, name) < PATH_SIZE, TP_ECREATE,
             "%.100s...: the path is too long", u->o->out);
    return TP_OK;
}

#define CHECKPOINT "checkpoints/gen-%020lld.safetensors"

/* Steps of the checkpoints in the run, newest first. */
static int list_checkpoints(const run *u, int64_t *steps, int most)
{
    char folder[PATH_SIZE];
    int n = 0;

    if (path_in(u, folder, "checkpoints", 0) != TP_OK)
        return 0;
    DIR *d = opendir(folder);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        long long step;
        int end = 0;
        if (sscanf(e->d_name, "gen-%20lld.safetensors%n", &step, &end) != 1 || end == 0 ||
            e->d_name[end] != '\0' || n == most)
            continue;
        int at = n++;
        for (; at > 0 && steps[at - 1] < step; at--)
            steps[at] = steps[at - 1];
        steps[at] = step;
    }
    if (d != NULL)
        closedir(d);
    return n;
}

static tp_status collect(run *u, tp_tensors *t)
{
    for (int i = 0; i < tp_trainer_n_states(u->trainer); i++) {
        const tp_state_tensor *s = tp_trainer_state(u->trainer, i);
        void *dst = NULL;
        TP_TRY(tp_tensors_add(t, s->name, s->tensor.dtype, s->tensor.shape, &dst));
        TP_TRY(tp_device_download(u->dev, dst, s->tensor.data, tp_tensor_bytes(&s->tensor)));
    }
    return TP_OK;
}

/* What a resumed run must share with the run it goes on from, or its bits mean nothing. */
static tp_status fingerprint(const run *u, char **out)
{
    char *text = NULL;
    TP_TRY(tp_recipe_text(u->r, &text));
    const tp_status st = tp_format(out, "%s\ndata %s\n", text, tp_data_hash(u->data));
    tp_text_free(text);
    return st;
}

static tp_status fill_meta(run *u, tp_tensors *t, int64_t step)
{
    char number[64], *print = NULL;

    snprintf(number, sizeof(number), "%lld", (long long)step);
    TP_TRY(tp_tensors_meta_set(t, "temper.step", number));
    snprintf(number, sizeof(number), "%.17g %lld %lld", u->best, (long long)u->best_step,
             (long long)u->reports_since_best);
    TP_TRY(tp_tensors_meta_set(t, "temper.best", number));
    TP_TRY(fingerprint(u, &print));
    const tp_status st = tp_tensors_meta_set(t, "temper.run", print);
    tp_free(print);
    return st;
}

static tp_status save_checkpoint(run *u, int64_t step)
{
    char path[PATH_SIZE];
    int64_t steps[1024];
    tp_tensors *t = NULL;

    if (u->o->out == NULL)
        return TP_OK;
    TP_TRY(tp_tensors_new(&t));
    tp_status st = collect(u, t);
    if (st == TP_OK)
        st = fill_meta(u, t, step);
    if (st == TP_OK)
        st = path_in(u, path, CHECKPOINT, step);
    if (st == TP_OK)
        st = tp_tensors_save(t, path);
    tp_tensors_free(t);
    TP_TRY(st);
    const int n = list_checkpoints(u, steps, 1024);
    for (int i = (int)u->r->train.keep; i < n; i++)
        if (steps[i] != u->best_step && path_in(u, path, CHECKPOINT, steps[i]) == TP_OK)
            unlink(path);
    return TP_OK;
}

static tp_status restore(run *u, const tp_tensors *t, const char *path)
{
    for (int i = 0; i < tp_trainer_n_states(u->trainer); i++) {
        const tp_state_tensor *s = tp_trainer_state(u->trainer, i);
        const tp_tensor *x = tp_tensors_find(t, s->name);
        TP_CHECK(x != NULL && x->dtype == s->tensor.dtype && tp_shape_equal(x->shape, s->tensor.shape),
                 TP_EDATA, "%s: tensor '%s' is missing or has another shape than this run's", path, s->name);
        TP_TRY(tp_device_upload(u->dev, s->tensor.data, x->data, tp_tensor_bytes(x)));
    }
    return TP_OK;
}

static tp_status check_same_run(const run *u, const tp_tensors *t, const char *path)
{
    char *print = NULL;
    const char *theirs = tp_tensors_meta(t, "temper.run");

    TP_TRY(fingerprint(u, &print));
    const int same = theirs != NULL && strcmp(theirs, print) == 0;
    tp_free(print);
    TP_CHECK(same, TP_EDATA,
             "%s: was written by a run with another recipe or other data, so it cannot be resumed", path);
    return TP_OK;
}

static tp_status load_checkpoint(run *u, int64_t wanted, int64_t *step)
{
    int64_t steps[1024];
    const int n = list_checkpoints(u, steps, 1024);

    for (int i = 0; i < n; i++) {
        char path[PATH_SIZE];
        tp_tensors *t = NULL;
        if (wanted >= 0 && steps[i] != wanted)
            continue;
        TP_TRY(path_in(u, path, CHECKPOINT, steps[i]));
        const tp_status bad = tp_tensors_load(&t, path);
        if (bad != TP_OK) {
            tp_log_line(TP_LOG_WARNING, "checkpoint passed over: %s", tp_last_error());
            continue;
        }
        tp_status st = check_same_run(u, t, path);
        if (st == TP_OK)
            st = restore(u, t, path);
        const char *best = st == TP_OK ? tp_tensors_meta(t, "temper.best") : NULL;
        if (best != NULL && wanted < 0) {
            char *end = NULL;
            u->best = strtod(best, &end);
            u->best_step = strtoll(end, &end, 10);
            u->reports_since_best = strtoll(end, &end, 10);
        }
        tp_tensors_free(t);
        *step = steps[i];
        return st;
    }
    TP_FAIL(TP_ENOENT, "%s: has no checkpoint to resume from", u->o->out);
}

/* ---- the run directory ---- */

static tp_status open_out(run *u)
{
    char path[PATH_SIZE], *text = NULL;
    int64_t steps[1];

    if (u->o->out == NULL)
        return TP_OK;
    TP_TRY(tp_io_mkdir(u->o->out));
    TP_TRY(tp_io_lock(u->o->out, &u->lock));
    TP_TRY(path_in(u, path, "checkpoints", 0));
    TP_TRY(tp_io_mkdir(path));
    TP_TRY(path_in(u, path, "model.safetensors", 0));
    if (!u->o->resume)
        TP_CHECK(access(path, F_OK) != 0 && list_checkpoints(u, steps, 1) == 0, TP_ECREATE,
                 "%s: holds a run already: go on with --resume, or choose another --out", u->o->out);
    TP_TRY(tp_recipe_text(u->r, &text));
    TP_TRY(path_in(u, path, "recipe.yaml", 0));
    const tp_status st = tp_io_replace(path, text, strlen(text));
    tp_text_free(text);
    TP_TRY(st);
    TP_TRY(path_in(u, path, "metrics.jsonl", 0));
    u->metrics = fopen(path, "a");
    TP_CHECK(u->metrics != NULL, TP_ECREATE, "%s: cannot be opened", path);
    return TP_OK;
}

static json_t *part_json(const tp_run_part *p)
{
    json_t *o = json_object();
    for (int i = 0; i < p->n; i++)
        json_object_set_new(o, p->names[i], isfinite(p->values[i]) ? json_real(p->values[i]) : json_null());
    return o;
}

static void log_report(run *u, const tp_run_report *rep)
{
    if (u->metrics == NULL)
        return;
    json_t *o = json_pack("{s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:o}", "step", (json_int_t)rep->step, "epoch",
                          (json_int_t)rep->epoch, "lr", rep->lr, "loss", rep->loss, "grad_norm",
                          rep->grad_norm, "seconds", rep->seconds, "samples_per_second",
                          rep->samples_per_second, "validation", part_json(&rep->validation));
    char *line = o != NULL ? json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    if (line != NULL)
        fprintf(u->metrics, "%s\n", line);
    fflush(u->metrics);
    free(line);
    json_decref(o);
}

static tp_status write_manifest(run *u)
{
    char path[PATH_SIZE];
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:f, s:o, s:o}", "temper", "0.1.0", "device",
                          u->result->device, "data_hash", u->result->data_hash, "weights_hash",
                          u->result->weights_hash, "steps", (json_int_t)u->result->steps, "seed",
                          (json_int_t)u->r->train.seed, "seconds", u->result->seconds, "validation",
                          part_json(&u->result->validation), "test", part_json(&u->result->test));
    char *text = o != NULL ? json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;

    json_decref(o);
    TP_CHECK(text != NULL, TP_ENOMEM, "manifest: no memory");
    tp_status st = path_in(u, path, "manifest.json", 0);
    if (st == TP_OK)
        st = tp_io_replace(path, text, strlen(text));
    free(text);
    return st;
}

/* ---- training ---- */

static double factor_at(const run *u, int64_t step)
{
    return tp_schedule_factor(&u->r->schedule, step, u->total, u->per_epoch);
}

/* Is this report's validation the best so far? Returns 1 when patience has run out. */
static int track_best(run *u, const tp_run_report *rep)
{
    const tp_metric *m = tp_metric_find(u->r->train.best);

    for (int i = 0; i < rep->validation.n && u->r->train.best[0] != '\0'; i++) {
        if (strcmp(rep->validation.names[i], u->r->train.best) != 0)
            continue;
        const double v = rep->validation.values[i], sign = m != NULL && m->higher_is_better ? 1.0 : -1.0;
        if (u->best_step < 0 || sign * (v - u->best) > u->r->train.min_delta) {
            u->best = v;
            u->best_step = rep->step;
            u->reports_since_best = 0;
        } else
            u->reports_since_best++;
    }
    return u->r->train.patience > 0 && u->reports_since_best >= u->r->train.patience;
}

typedef struct progress {
    int64_t step, since; /* steps since the last report */
    double loss, start, last_time, norm;
    int bad;
} progress;

static tp_status report(run *u, progress *p, int *finished)
{
    tp_run_report rep = {.step = p->step,
                         .total_steps = u->total,
                         .epoch = p->step / u->per_epoch,
                         .lr = u->r->lr * factor_at(u, p->step - 1),
                         .loss = p->loss / (double)p->since,
                         .grad_norm = p->norm,
                         .seconds = seconds_now() - p->start};
    const double spent = seconds_now() - p->last_time;

    rep.samples_per_second = spent > 0.0 ? (double)(p->since * u->r->train.batch) / spent : 0.0;
    TP_TRY(score_part(u, TP_VALIDATION, &rep.validation));
    *finished |= track_best(u, &rep);
    log_report(u, &rep);
    if (u->o->report != NULL)
        u->o->report(u->o->user, &rep);
    p->loss = 0.0;
    p->since = 0;
    p->last_time = seconds_now();
    return TP_OK;
}

static tp_status one_step(run *u, progress *p)
{
    tp_step_result s;

    TP_TRY(tp_trainer_step(u->trainer, p->step, u->r->lr * factor_at(u, p->step), &s));
    p->step++;
    p->since++;
    p->norm = s.grad_norm;
    p->bad = s.applied ? 0 : p->bad + 1;
    if (s.applied)
        p->loss += s.loss;
    TP_CHECK(p->bad < u->r->train.max_bad_steps, TP_EDIVERGED,
             "training diverged: %d steps in a row up to step %lld had a loss or gradient that is not finite "
             "(train.max_bad_steps)",
             p->bad, (long long)p->step);
    return TP_OK;
}

static tp_status train(run *u, int64_t first)
{
    progress p = {.step = first, .start = seconds_now()};
    int64_t saved = first;
    int finished = 0;

    p.last_time = p.start;
    while (p.step < u->total && !finished) {
        TP_TRY(one_step(u, &p));
        const int last = p.step == u->total;
        if (p.step % u->report_every == 0 || last)
            TP_TRY(report(u, &p, &finished));
        const int stop = u->o->stop != NULL && *u->o->stop && !last;
        if (p.step % u->save_every == 0 || last || finished || stop || p.step == u->best_step) {
            if (p.bad == 0) {
                TP_TRY(save_checkpoint(u, p.step));
                saved = p.step;
            }
        }
        TP_CHECK(!stop, TP_ESTOPPED,
                 "stopped at step %lld of %lld; checkpoint of step %lld is good: go on with --resume",
                 (long long)p.step, (long long)u->total, (long long)saved);
    }
    u->result->steps = p.step;
    u->result->samples = (p.step - first) * u->r->train.batch;
    u->result->seconds = seconds_now() - p.start;
    u->result->samples_per_second =
        u->result->seconds > 0.0 ? (double)u->result->samples / u->result->seconds : 0.0;
    return TP_OK;
}

/* The averaged weights become the model's own. */
static tp_status adopt_ema(run *u)
{
    for (int i = 0; i < tp_trainer_n_states(u->trainer); i++) {
        const tp_state_tensor *s = tp_trainer_state(u->trainer, i);
        if (strncmp(s->name, "ema.", 4) != 0)
            continue;
        for (int k = 0; k < tp_model_n_params(u->model); k++) {
            const tp_param *p = tp_model_param(u->model, k);
            if (strcmp(p->name, s->name + 4) != 0)
                continue;
            void *host = NULL;
            TP_TRY(tp_alloc(&host, tp_tensor_bytes(&p->tensor), 1, p->name));
            tp_status st = tp_device_download(u->dev, host, s->tensor.data, tp_tensor_bytes(&p->tensor));
            if (st == TP_OK)
                st = tp_device_upload(u->dev, p->tensor.data, host, tp_tensor_bytes(&p->tensor));
            tp_free(host);
            TP_TRY(st);
        }
    }
    return TP_OK;
}

static tp_status hash_weights(run *u)
{
    tp_tensors *t = NULL;

    TP_TRY(tp_tensors_new(&t));
    tp_status st = TP_OK;
    for (int i = 0; i < tp_model_n_params(u->model) && st == TP_OK; i++) {
        const tp_param *p = tp_model_param(u->model, i);
        void *dst = NULL;
        st = tp_tensors_add(t, p->name, p->tensor.dtype, p->tensor.shape, &dst);
        if (st == TP_OK)
            st = tp_device_download(u->dev, dst, p->tensor.data, tp_tensor_bytes(&p->tensor));
    }
    if (st == TP_OK)
        st = tp_tensors_hash(t, u->result->weights_hash);
    tp_tensors_free(t);
    return st;
}

static tp_status finish(run *u)
{
    char path[PATH_SIZE];
    int64_t step;

    if (u->best_step >= 0 && u->best_step != u->result->steps && u->o->out != NULL)
        TP_TRY(load_checkpoint(u, u->best_step, &step));
    TP_TRY(score_part(u, TP_VALIDATION, &u->result->validation));
    TP_TRY(score_part(u, TP_TEST, &u->result->test));
    TP_TRY(adopt_ema(u));
    TP_TRY(hash_weights(u));
    if (u->o->out == NULL)
        return TP_OK;
    TP_TRY(path_in(u, path, "model.safetensors", 0));
    TP_TRY(tp_model_save(u->model, u->dev, u->r->data.target, path));
    return write_manifest(u);
}

static tp_status prepare(run *u)
{
    int64_t most = 0;

    TP_TRY(tp_device_open(&u->dev, u->o->device));
    TP_TRY(open_data(u));
    TP_TRY(make_model(u));
    TP_TRY(make_trainer(u));
    TP_TRY(open_out(u));
    for (int p = 0; p < TP_PARTS; p++)
        if (tp_data_part_rows(u->data, (tp_part)p) > most)
            most = tp_data_part_rows(u->data, (tp_part)p);
    TP_TRY(tp_alloc(&u->outputs, (size_t)(most * tp_model_outputs(u->model)), sizeof(float), "outputs"));
    u->per_epoch = tp_trainer_steps_per_epoch(u->trainer);
    u->total = u->per_epoch * u->r->train.epochs;
    u->report_every = u->r->train.report > 0 ? u->r->train.report : u->per_epoch;
    u->save_every = u->r->train.save > 0 ? u->r->train.save : u->per_epoch;
    snprintf(u->result->device, sizeof(u->result->device), "%s", tp_device_text(u->dev));
    snprintf(u->result->data_hash, sizeof(u->result->data_hash), "%s", tp_data_hash(u->data));
    return TP_OK;
}

static tp_status carry_out(run *u)
{
    int64_t first = 0;

    TP_TRY(prepare(u));
    if (u->o->resume)
        TP_TRY(load_checkpoint(u, -1, &first));
    const int out_of_patience = u->r->train.patience > 0 && u->reports_since_best >= u->r->train.patience;
    u->result->already_done = u->o->resume && (first >= u->total || out_of_patience);
    u->result->steps = first;
    if (!u->result->already_done)
        TP_TRY(train(u, first));
    if (u->o->plan_text != NULL)
        TP_TRY(tp_trainer_plan_text(u->trainer, u->o->plan_text));
    return finish(u);
}

tp_status tp_run_train(const tp_recipe *r, const tp_run_opts *opts, tp_run_result *result)
{
    run u = {.r = r, .o = opts, .result = result, .lock = -1, .best_step = -1};

    *result = (tp_run_result){.steps = 0};
    const tp_status st = carry_out(&u);
    run_close(&u);
    return st;
}
