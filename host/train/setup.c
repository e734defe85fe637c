/* setup.c - data, model and trainer as a recipe asks for them. */
#include "host/core/mem.h"
#include "host/graph/device.h"
#include "host/train/run_parts.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- data ---- */

static const char *text_or_null(const char *s)
{
    return s[0] != '\0' ? s : NULL;
}

static void split_spec(const tp_run *u, tp_split_spec *s)
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

tp_status tp_run_resident_limit(tp_device *dev, int64_t asked, int64_t *limit, int64_t *free_bytes)
{
    size_t left = 0, total = 0;
    const int64_t half = (int64_t)sysconf(_SC_PHYS_PAGES) / 2 * (int64_t)sysconf(_SC_PAGESIZE);

    TP_TRY(tp_device_memory(dev, &left, &total));
    *free_bytes = total > 0 ? (int64_t)left : 0;
    *limit = asked;
    if (asked == 0 && total > 0) {
        *limit = (int64_t)(left / 4 * 3);
        *limit = *limit < half ? *limit : half;
    }
    return TP_OK;
}

/* A run that goes on has its data where it had it: streamed rows come in another order. */
static tp_status resident_limit(tp_run *u, int64_t *out)
{
    TP_TRY(tp_run_resident_limit(u->dev, u->r->data.resident_bytes, out, &u->free_bytes));
    if (u->from.tensors != NULL)
        *out = u->from.resident ? INT64_MAX : -1;
    return TP_OK;
}

static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};

/* "45.0 MiB" */
static void size_text(double bytes, char *text, size_t size)
{
    int unit = 0;
    for (; bytes >= 1024.0 && unit < TP_COUNT(units) - 1; unit++)
        bytes /= 1024.0;
    snprintf(text, size, unit > 0 ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
}

void tp_run_describe_data(const tp_run *u, char *text, size_t size)
{
    const int64_t rows = tp_data_rows(u->data);
    double row_bytes = (double)tp_data_target_of(u->data)->array.row_bytes;
    char dtypes[128] = "", all[32], memory[32];
    unsigned seen = 0;

    for (int i = 0; i < tp_data_n_inputs(u->data); i++) {
        const tp_data_array *a = &tp_data_input_at(u->data, i)->array;
        const size_t n = strlen(dtypes);
        row_bytes += (double)a->row_bytes;
        if (!(seen & 1u << a->dtype))
            snprintf(dtypes + n, sizeof(dtypes) - n, "%s%s", n > 0 ? " and " : "", tp_dtype_name(a->dtype));
        seen |= 1u << a->dtype;
    }
    if (tp_data_weight(u->data) != NULL)
        row_bytes += (double)tp_data_weight(u->data)->row_bytes;
    const double bytes = (double)rows * row_bytes;
    size_text(bytes, all, sizeof(all));
    size_text((double)u->free_bytes, memory, sizeof(memory));
    const int n = snprintf(text, size, "data %s, %s of %s",
                           tp_data_resident(u->data) ? "resident" : "streamed", all, dtypes);
    if (u->free_bytes > 0 && n > 0 && (size_t)n < size)
        snprintf(text + n, size - (size_t)n, ": %.3g %% of the %s free on the GPU",
                 100.0 * bytes / (double)u->free_bytes, memory);
}

tp_status tp_run_open_data(tp_run *u)
{
    const tp_recipe *r = u->r;
    tp_input_spec inputs[TP_RECIPE_INPUTS] = {{.name = NULL}};
    tp_data_spec spec = {.path = u->o->data != NULL ? u->o->data : text_or_null(r->data.file),
                         .n_inputs = r->data.n_inputs,
                         .inputs = inputs,
                         .target_kind = r->data.target_kind,
                         .target = r->data.target,
                         .target_normalize = r->data.target_normalize,
                         .n_classes = r->data.classes,
                         .weight = text_or_null(r->data.weight),
                         .time = text_or_null(r->data.time),
                         .nonfinite = r->data.nonfinite};

    TP_TRY(resident_limit(u, &spec.resident_bytes));
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
                                    .crop_padding = (int)in->crop,
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
static tp_status build_tabular(const tp_run *u, tp_layer *out, int64_t n_outputs)
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

/* An mlp takes rows of numbers; images are laid out as such. */
static tp_status flatten_input(const tp_run *u, tp_layer *out)
{
    tp_layer *flatten = NULL;
    return tp_data_input_at(u->data, 0)->array.sample.nd > 1
               ? tp_layer_append(out, TP_LAYER_FLATTEN, &flatten)
               : TP_OK;
}

static tp_status build_layers(const tp_run *u, tp_layer *out, int64_t n_outputs)
{
    const tp_recipe *r = u->r;

    switch (r->model.builder) {
    case TP_BUILDER_MLP:
        TP_TRY(flatten_input(u, out));
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

/* What does not fit the data is the recipe's fault. */
static tp_status blame_recipe(tp_status st)
{
    char why[1024];

    if (st != TP_ESHAPE)
        return st;
    snprintf(why, sizeof(why), "%s", tp_last_error());
    TP_FAIL(TP_ERECIPE, "model: %s", why);
}

tp_status tp_run_make_model(tp_run *u)
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
    TP_TRY(blame_recipe(tp_model_new(&u->model, u->dev, &layers, tp_data_n_inputs(u->data), inputs,
                                     task_of(target->kind), target->n_outputs, (uint64_t)u->r->train.seed)));
    return tp_model_set_target_norm(u->model, target->n_norm, target->shift, target->scale);
}

/* ---- trainer ---- */

/* n / (classes * count), as scikit-learn's "balanced". */
static tp_status balanced_weights(tp_run *u)
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

tp_status tp_run_make_trainer(tp_run *u)
{
    const tp_recipe *r = u->r;
    tp_train_opts o = TP_TRAIN_OPTS_INIT;

    if (r->objective.balanced)
        TP_TRY(balanced_weights(u));
    o.loss = r->objective.loss;
    o.loss_param = r->objective.loss == TP_LOSS_QUANTILE ? r->objective.quantile : r->objective.delta;
    o.label_smoothing = r->objective.label_smoothing;
    o.class_weight = u->class_weight;
    o.optimizer = r->optimizer;
    o.weight_decay = r->weight_decay;
    o.decay_all = r->decay_all;
    o.clip_norm = r->clip_norm;
    o.optimizer.ema = r->ema;
    o.batch = r->train.batch;
    o.accumulate = u->from.tensors != NULL ? u->from.accumulate : r->train.accumulate;
    o.seed = (uint64_t)r->train.seed;
    o.precision = u->precision;
    o.timed = u->o->plan_text != NULL;
    tp_status st = tp_trainer_new(&u->trainer, u->dev, u->model, u->data, &o);
    while (st == TP_ENOMEM && r->train.micro_batch == TP_MICRO_BATCH_AUTO &&
           o.batch % (2 * o.accumulate) == 0 && o.accumulate < TP_MAX_MICRO) {
        o.accumulate *= 2;
        st = tp_trainer_new(&u->trainer, u->dev, u->model, u->data, &o);
    }
    u->accumulate = o.accumulate;
    return blame_recipe(st);
}
