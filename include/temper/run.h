/* run.h - a whole run from a recipe: data, model, training, checkpoints, the finished model. */
#ifndef TP_RUN_H
#define TP_RUN_H
#include "temper/metrics.h"
#include "temper/recipe.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TP_RUN_METRICS (TP_RECIPE_METRICS + 1)

/* Metrics of one part; in training, names[0] is "loss": its mean, on the normalised target where there is
 * one. */
typedef struct tp_run_part {
    int n; /* 0: there is no such part */
    const char *names[TP_RUN_METRICS];
    double values[TP_RUN_METRICS];
} tp_run_part;

/* Given out at every report; borrowed for the call. Steps before a resume count. */
typedef struct tp_run_report {
    int64_t step, total_steps;  /* done, and in all */
    int64_t epoch;              /* whole ones done */
    double lr, loss, grad_norm; /* of the last step; loss: mean since the last report, of the steps that were
                                   applied (NaN: none was) */
    double seconds;             /* of this call's training so far: with validation and waiting for
                                   checkpoints, without set-up */
    double samples_per_second;  /* since the last report */
    tp_run_part validation;
} tp_run_report;

typedef struct tp_run_opts {
    const char *data;   /* HDF5 file, or NULL: the recipe's */
    const char *out;    /* run directory; NULL: nothing is written */
    const char *device; /* "auto", "cpu", "cuda", "cuda:N" */
    int resume;
    const volatile int *stop; /* polled between launches of steps (the recipe's train.steps_per_launch): not 0
                                 saves and ends with TP_ESTOPPED; may be NULL */
    /* Once, before the first step: "cpu: NAME, 2 threads (no GPU: WHY); fp32; data resident, 1.3 MiB of
     * float32". */
    void (*start)(void *user, const char *device);
    void (*report)(void *user, const tp_run_report *r);
    void *user;
    char **plan_text; /* NULL, or where to leave the compiled step with the time of each node, once training
                         is over (before that it stays as it was): free with tp_text_free */
} tp_run_opts;
#define TP_RUN_OPTS_INIT                                                                                     \
    {                                                                                                        \
        NULL, NULL, "auto", 0, NULL, NULL, NULL, NULL, NULL                                                  \
    }

typedef struct tp_run_result {
    int64_t steps, samples; /* steps: with those before a resume; samples: of this call, steps times batch */
    int already_done;       /* resume found nothing left to do */
    double seconds, samples_per_second; /* of this call's training, as in a report */
    char weights_hash[65], data_hash[65], device[256], precision[8];
    char device_note[256]; /* why not a GPU, where one was looked for; else "" */
    tp_run_part validation, test;
} tp_run_result;

/* Trains. With out NULL nothing can be resumed, and the model that is measured is that of the last step: the
 * best one is not kept, whatever train.best says. With resume a run goes on from the newest checkpoint in out
 * that verifies: TP_ENOENT if there is none, TP_EDATA if it is of another recipe or other data.
 *
 * After a failure result holds what was known by then, and the rest is 0: device, precision and data_hash
 * once all was set up, steps of the checkpoint gone on from, its numbers once training was over. Errors:
 * those of the recipe, the data and the model; TP_EDIVERGED (max_bad_steps in a row were not finite; the last
 * good checkpoint is intact), TP_ESTOPPED, TP_EBUSY, TP_ECREATE (out cannot be made, or holds another run),
 * TP_EIO, TP_ENOMEM, TP_EUNSUP, TP_EDEVICE. */
TP_API tp_status tp_run_train(const tp_recipe *r, const tp_run_opts *opts, tp_run_result *result) TP_MUST_USE;

/* What tp_run_evaluate measures on: all rows, the rows of a group, or those with from <= time < to. */
typedef struct tp_evaluate_opts {
    const char *data, *device;
    const char *group; /* NULL, or the group the datasets are in */
    const char *time;  /* NULL, or the dataset of times */
    double from, to;
    int n_metrics; /* 0: what the model's task asks; at most TP_RECIPE_METRICS */
    const char *const *metrics;
    const char *weight; /* NULL, or the dataset of one weight a sample */
    const char *slice;  /* NULL, or a dataset of one integer a sample: the metrics again for each value */
    int by_class;       /* precision, recall, F1 and support of each class or label */
} tp_evaluate_opts;
#define TP_EVALUATE_OPTS_INIT                                                                                \
    {                                                                                                        \
        NULL, "auto", NULL, NULL, 0.0, 0.0, 0, NULL, NULL, NULL, 0                                           \
    }

/* What came of it; free what it holds with tp_evaluation_clear. */
typedef struct tp_evaluation {
    char device[256], device_note[256]; /* what it was measured on, and why not a GPU (as in tp_run_result) */
    int64_t rows, width;
    float *outputs;          /* (rows, width): logits, or values in the target's own units */
    tp_run_part scores;      /* the metrics alone: a model does not know which loss it was trained with */
    tp_class_score *classes; /* (n_classes), with by_class */
    int64_t n_classes;
    tp_slices slices; /* with slice; its metrics are scores' */
} tp_evaluation;

/* Measures a model file on new data, with the normalisation it carries. On failure result holds nothing.
 * Errors: those of tp_model_load, tp_data_open, tp_trainer_predict and the metrics; TP_EINVAL (data is NULL,
 * by_class for regression), TP_ERECIPE (a metric that is unknown or not for this task). */
TP_API tp_status tp_run_evaluate(const char *model, const tp_evaluate_opts *opts, tp_evaluation *result)
    TP_MUST_USE;
/* The same without a target in the data: outputs alone. */
TP_API tp_status tp_run_predict(const char *model, const tp_evaluate_opts *opts, tp_evaluation *result)
    TP_MUST_USE;
TP_API void tp_evaluation_clear(tp_evaluation *e);

/* Writes a model with all that is needed to use it: layers, inputs, normalisation, and the name and kind of
 * the target's dataset. Errors: TP_ECREATE, TP_EIO, TP_ENOMEM, those of the device; nothing half-written is
 * left. */
TP_API tp_status tp_model_save(tp_model *m, tp_device *dev, const char *target, tp_target_kind kind,
                               const char *path) TP_MUST_USE;
/* Reads one: *target, freed with tp_text_free, and *kind are its target's; on failure *out and *target are
 * NULL. Errors: TP_ENOENT, TP_EDATA (not a model, or damaged), TP_EIO, TP_ENOMEM, those of the device. */
TP_API tp_status tp_model_load(tp_model **out, tp_device *dev, const char *path, char **target,
                               tp_target_kind *kind) TP_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
