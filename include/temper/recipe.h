/* recipe.h - a training job as a person writes it: YAML 1.2, checked key by key against one schema table. */
#ifndef TP_RECIPE_H
#define TP_RECIPE_H
#include "temper/data.h"
#include "temper/schedule.h"
#include "temper/train.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TP_RECIPE_TEXT    256
#define TP_RECIPE_INPUTS  64
#define TP_RECIPE_HIDDEN  32
#define TP_RECIPE_METRICS 16

typedef struct tp_recipe_input {
    char name[TP_LAYER_NAME_SIZE];
    tp_input_kind kind;
    tp_norm_kind normalize;
    double factor;      /* normalize: scale */
    int64_t categories; /* ids; 0: from the data */
    int64_t crop;
    int hflip;
} tp_recipe_input;

typedef enum tp_builder {
    TP_BUILDER_LAYERS = 0,
    TP_BUILDER_MLP,
    TP_BUILDER_RESNET18,
    TP_BUILDER_TABULAR
} tp_builder;

/* auto: a step that the device has no memory for is tried with twice as many micro-batches, and so on. */
typedef enum tp_micro_batch { TP_MICRO_BATCH_FIXED = 0, TP_MICRO_BATCH_AUTO } tp_micro_batch;

/* Fields are named as the keys of a recipe: unit, range, default and meaning of each are what `temper help
 * recipe` (tp_recipe_help) prints. A text that is not given and has no default is "". */
typedef struct tp_recipe {
    struct {
        char file[TP_RECIPE_TEXT];
        tp_recipe_input inputs[TP_RECIPE_INPUTS];
        int n_inputs;
        char target[TP_RECIPE_TEXT];
        tp_target_kind target_kind;
        tp_norm_kind target_normalize;
        int64_t classes;
        char weight[TP_RECIPE_TEXT], time[TP_RECIPE_TEXT];
        tp_split_kind split;
        double from[TP_PARTS], to[TP_PARTS];   /* time */
        char source[TP_PARTS][TP_RECIPE_TEXT]; /* groups, files */
        double validation, test;               /* fraction */
        int64_t split_seed;
        char split_dataset[TP_RECIPE_TEXT];
        tp_nonfinite nonfinite;
        int64_t resident_bytes;
    } data;
    struct {
        tp_builder builder;
        int64_t hidden[TP_RECIPE_HIDDEN];
        int n_hidden;
        tp_layer_kind activation;
        double dropout;
        int64_t embedding_dim;
        tp_layer layers; /* builder: layers */
    } model;
    struct {
        tp_loss_kind loss;
        double label_smoothing, delta, quantile;
        int balanced; /* class weights inversely proportional to the counts of the training part */
    } objective;
    tp_optimizer_attr optimizer;
    double lr, weight_decay, clip_norm, ema;
    int decay_all;
    tp_schedule schedule;
    tp_plateau plateau; /* which way is better comes from the metric */
    char plateau_metric[TP_LAYER_NAME_SIZE];
    struct {
        tp_micro_batch micro_batch;
        int precision; /* a tp_precision, or -1: tf32 on a GPU */
        int64_t batch, epochs, accumulate, seed, report, save, keep, max_bad_steps, steps_per_launch;
        char metrics[TP_RECIPE_METRICS][TP_LAYER_NAME_SIZE];
        int n_metrics;
        char best[TP_LAYER_NAME_SIZE];
        int64_t patience; /* early stopping: reports without a better value; 0: off */
        double min_delta;
    } train;
} tp_recipe;

/* Reads a recipe; sets[i] are "key=value" overrides, applied after the file. What r held before is
 * overwritten and not freed, so clear a recipe before it is read into again. Free what it holds with
 * tp_recipe_clear; on failure it holds nothing, every field is 0. Errors: TP_ENOENT, TP_EIO, TP_ENOMEM,
 * TP_ERECIPE with "file:line:column: ..." naming the key, its value and what is allowed. */
TP_API tp_status tp_recipe_read(tp_recipe *r, const char *path, int n_sets, const char *const *sets)
    TP_MUST_USE;
/* Frees what r holds (not r itself) and zeroes it; a zeroed one is fine. */
TP_API void tp_recipe_clear(tp_recipe *r);

/* A point in time as recipes write it: a date (2001-12-31), as days since 1970-01-01, or a number. 0: it is
 * neither. */
TP_API int tp_recipe_moment(const char *text, double *out);

/* The resolved recipe as YAML, every key with its value: reading it back gives the same recipe. Free with
 * tp_text_free. Errors: TP_ENOMEM. */
TP_API tp_status tp_recipe_text(const tp_recipe *r, char **out) TP_MUST_USE;

/* Every key, its type, range, default and one line of help. Free with tp_text_free. Errors: TP_ENOMEM. */
TP_API tp_status tp_recipe_help(char **out) TP_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
