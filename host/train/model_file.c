/* model_file.c - a model as one safetensors file: its tensors by PyTorch's names, and in the metadata its
 * layers (as the recipe's layer list), inputs, target and task, so that nothing else is needed to use it. */
#include "host/core/mem.h"
#include "host/model/filters.h"
#include "host/model/layers_text.h"
#include "temper/plan.h"
#include "temper/run.h"
#include "temper/safetensors.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *shape_json(tp_shape s)
{
    json_t *a = json_array();
    for (int i = 0; i < s.nd; i++)
        json_array_append_new(a, json_integer(s.d[i]));
    return a;
}

static json_t *floats_json(const float *v, int64_t n)
{
    json_t *a = json_array();
    for (int64_t i = 0; i < n; i++)
        json_array_append_new(a, json_real((double)v[i]));
    return a;
}

/* JSON with enough digits to give every float32 back. */
static tp_status set_json(tp_tensors *t, const char *key, json_t *o)
{
    char *text = o != NULL ? json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    tp_status st = TP_OK;

    json_decref(o);
    TP_CHECK(text != NULL, TP_ENOMEM, "model: no memory for its description");
    st = tp_tensors_meta_set(t, key, text);
    free(text);
    return st;
}

static tp_status describe(tp_tensors *t, const tp_model *m, const char *target, tp_target_kind kind)
{
    json_t *inputs = json_array();
    char *layers = NULL;

    for (int i = 0; i < tp_model_n_inputs(m); i++) {
        const tp_model_input *in = tp_model_input_at(m, i);
        json_array_append_new(inputs, json_pack("{s:s, s:i, s:o, s:I, s:o, s:o}", "name", in->name, "kind",
                                                (int)in->kind, "shape", shape_json(in->shape), "categories",
                                                (json_int_t)in->categories, "shift",
                                                floats_json(in->shift, in->n_norm), "scale",
                                                floats_json(in->scale, in->n_norm)));
    }
    const float *shift, *scale;
    const int64_t n_norm = tp_model_target_norm(m, &shift, &scale);
    TP_TRY(set_json(t, "temper.model",
                    json_pack("{s:i, s:s, s:i, s:i, s:I, s:o, s:o, s:o}", "version", 1, "target", target,
                              "target_kind", (int)kind, "task", (int)tp_model_task(m), "outputs",
                              (json_int_t)tp_model_outputs(m), "target_shift", floats_json(shift, n_norm),
                              "target_scale", floats_json(scale, n_norm), "inputs", inputs)));
    TP_TRY(tp_layers_text(tp_model_layers(m), &layers));
    const tp_status st = tp_tensors_meta_set(t, "temper.layers", layers);
    tp_text_free(layers);
    return st;
}

static tp_status add_tensors(tp_tensors *t, const tp_model *m, tp_device *dev)
{
    for (int i = 0; i < tp_model_n_params(m); i++) {
        const tp_param *p = tp_model_param(m, i);
        void *dst = NULL;
        TP_TRY(tp_tensors_add(t, p->name, p->tensor.dtype, p->shape, &dst));
        TP_TRY(tp_filters_download(dev, &p->tensor, p->shape, p->channels_last, dst));
    }
    return TP_OK;
}

tp_status tp_model_save(tp_model *m, tp_device *dev, const char *target, tp_target_kind kind,
                        const char *path)
{
    tp_tensors *t = NULL;

    TP_TRY(tp_tensors_new(&t));
    tp_status st = add_tensors(t, m, dev);
    if (st == TP_OK)
        st = describe(t, m, target, kind);
    if (st == TP_OK)
        st = tp_tensors_save(t, path);
    tp_tensors_free(t);
    return st;
}

/* ---- reading ---- */

static tp_status take_floats(const json_t *a, float **out, int64_t *n)
{
    *n = (int64_t)json_array_size(a);
    TP_TRY(tp_alloc(out, (size_t)*n, sizeof(float), "normalisation"));
    for (int64_t i = 0; i < *n; i++)
        (*out)[i] = (float)json_number_value(json_array_get(a, (size_t)i));
    return TP_OK;
}

static tp_status take_input(const char *path, const json_t *o, tp_model_input *in)
{
    const json_t *shape = json_object_get(o, "shape");
    const char *name = json_string_value(json_object_get(o, "name"));
    int64_t n_scale = 0;

    TP_CHECK(name != NULL && strlen(name) < sizeof(in->name) && json_array_size(shape) < TP_MAX_DIMS,
             TP_EDATA, "%s: one of its inputs has no name or shape", path);
    snprintf(in->name, sizeof(in->name), "%s", name);
    in->kind = (tp_input_kind)json_integer_value(json_object_get(o, "kind"));
    in->categories = json_integer_value(json_object_get(o, "categories"));
    for (size_t i = 0; i < json_array_size(shape); i++)
        in->shape.d[in->shape.nd++] = json_integer_value(json_array_get(shape, i));
    TP_TRY(take_floats(json_object_get(o, "shift"), &in->shift, &in->n_norm));
    TP_TRY(take_floats(json_object_get(o, "scale"), &in->scale, &n_scale));
    TP_CHECK(n_scale == in->n_norm && in->kind <= TP_INPUT_IDS, TP_EDATA,
             "%s: input '%s' is described wrongly", path, name);
    return TP_OK;
}

static tp_status take_target_norm(tp_model *m, const json_t *root, const char *path)
{
    float *shift = NULL, *scale = NULL;
    int64_t n = 0, n_scale = 0;

    tp_status st = take_floats(json_object_get(root, "target_shift"), &shift, &n);
    if (st == TP_OK)
        st = take_floats(json_object_get(root, "target_scale"), &scale, &n_scale);
    if (st == TP_OK && (n != n_scale || (n != 0 && n != tp_model_outputs(m))))
        st = tp_error_set(TP_EDATA, __FILE__, __LINE__,
                          "%s: its target's normalisation has %lld and %lld values, want %lld", path,
                          (long long)n, (long long)n_scale, (long long)tp_model_outputs(m));
    if (st == TP_OK)
        st = tp_model_set_target_norm(m, n, shift, scale);
    tp_free(shift);
    tp_free(scale);
    return st;
}

static tp_status fill(tp_model *m, tp_device *dev, const tp_tensors *t, const char *path)
{
    for (int i = 0; i < tp_model_n_params(m); i++) {
        const tp_param *p = tp_model_param(m, i);
        const tp_tensor *x = tp_tensors_find(t, p->name);
        TP_CHECK(x != NULL && x->dtype == p->tensor.dtype && tp_shape_equal(x->shape, p->shape), TP_EDATA,
                 "%s: tensor '%s' is missing or has the wrong shape", path, p->name);
        TP_TRY(tp_filters_upload(dev, &p->tensor, p->shape, p->channels_last, x->data));
    }
    return TP_OK;
}

static tp_status build(tp_model **out, tp_device *dev, const tp_tensors *t, const char *path,
                       const json_t *root)
{
    const json_t *list = json_object_get(root, "inputs");
    const int n = (int)json_array_size(list);
    const char *text = tp_tensors_meta(t, "temper.layers");
    tp_model_input *inputs = NULL;
    tp_layer layers = {.kind = TP_LAYER_SEQUENCE};

    const json_int_t task = json_integer_value(json_object_get(root, "task"));

    TP_CHECK(text != NULL && n > 0 && n <= TP_RECIPE_INPUTS, TP_EDATA, "%s: its description is incomplete",
             path);
    TP_CHECK(task >= TP_TASK_REGRESSION && task <= TP_TASK_MULTILABEL, TP_EDATA,
             "%s: its task is %lld, want 0 to %d", path, (long long)task, (int)TP_TASK_MULTILABEL);
    TP_TRY(tp_alloc(&inputs, (size_t)n, sizeof(*inputs), "inputs"));
    tp_status st = TP_OK;
    for (int i = 0; i < n && st == TP_OK; i++)
        st = take_input(path, json_array_get(list, (size_t)i), &inputs[i]);
    if (st == TP_OK)
        st = tp_layers_parse(&layers, text, path);
    if (st == TP_ERECIPE) /* whose message names the place in the file's layers */
        st = TP_EDATA;
    if (st == TP_OK)
        st = tp_model_new(out, dev, &layers, n, inputs, (tp_task)task,
                          json_integer_value(json_object_get(root, "outputs")), 0);
    tp_layer_clear(&layers);
    for (int i = 0; i < n; i++) {
        tp_free(inputs[i].shift);
        tp_free(inputs[i].scale);
    }
    tp_free(inputs);
    return st;
}

/* Name and kind of the target; a file without a kind is of before there was a choice. */
static tp_status take_target(const json_t *root, const char *path, tp_task task, char **name,
                             tp_target_kind *kind)
{
    static const tp_target_kind usual[] = {[TP_TASK_REGRESSION] = TP_TARGET_REGRESSION,
                                           [TP_TASK_CLASS] = TP_TARGET_CLASS,
                                           [TP_TASK_MULTILABEL] = TP_TARGET_MULTILABEL};
    const char *text = json_string_value(json_object_get(root, "target"));
    const json_t *stored = json_object_get(root, "target_kind");

    *kind = json_is_integer(stored) ? (tp_target_kind)json_integer_value(stored) : usual[task];
    TP_CHECK(*kind == usual[task] || (*kind == TP_TARGET_ONEHOT && task == TP_TASK_CLASS), TP_EDATA,
             "%s: its target's kind is %d, which is not for task %d", path, (int)*kind, (int)task);
    return tp_strdup(name, text != NULL ? text : "");
}

tp_status tp_model_load(tp_model **out, tp_device *dev, const char *path, char **target, tp_target_kind *kind)
{
    tp_tensors *t = NULL;

    *out = NULL;
    *target = NULL;
    TP_TRY(tp_tensors_load(&t, path));
    const char *text = tp_tensors_meta(t, "temper.model");
    json_t *root = text != NULL ? json_loads(text, 0, NULL) : NULL;
    tp_status st = TP_OK;
    if (root == NULL)
        st = tp_error_set(TP_EDATA, __FILE__, __LINE__,
                          "%s: is not a Temper model: it has no description of its layers", path);
    if (st == TP_OK)
        st = build(out, dev, t, path, root);
    if (st == TP_OK)
        st = take_target_norm(*out, root, path);
    if (st == TP_OK)
        st = fill(*out, dev, t, path);
    if (st == TP_OK)
        st = take_target(root, path, tp_model_task(*out), target, kind);
    if (st != TP_OK) {
        tp_model_free(*out);
        *out = NULL;
    }
    json_decref(root);
    tp_tensors_free(t);
    return st;
}
