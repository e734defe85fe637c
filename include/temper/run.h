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

/* Given out at every report. */
typedef struct tp_run_report {
    int64_t step, total_steps, epoch;
    double lr, loss, grad_norm; /* loss: mean since the last report */
    double seconds, samples_per_second;
    tp_run_part validation;
} tp_run_report;

typedef struct tp_run_opts {
    size_t size;
    const char *data;   /* HDF5 file, or NULL: the recipe's */
    const char *out;    /* run directory; NULL: nothing is written */
    const char *device; /* "auto", "cpu", "cuda", "cuda:N" */
    int resume;
    const volatile int
        *stop; /* polled after every step: not 0 saves and ends with TP_ESTOPPED; may be NULL */
    /* Once, before the first step: "cpu: NAME, 2 threads (no GPU: WHY); fp32". */
    void (*start)(void *user, const char *device);
    void (*report)(void *user, const tp_run_report *r);
    void *user;
    char **plan_text; /* NULL, or where to leave the compiled step with the time of each node: free with
                         tp_text_free */
} tp_run_opts;
#define TP_RUN_OPTS_INIT                                                                                     \
    {                                                                                                        \
        sizeof(tp_run_opts), NULL, NULL, "auto", 0, NULL, NULL, NULL, NULL, NULL                             \
    }

typedef struct tp_run_result {
    int64_t steps, samples;
    int already_done; /* resume found nothing left to do */
    double seconds, samples_per_second;
    char weights_hash[65], data_hash[65], device[256], precision[8];
    tp_run_part validation, test;
} tp_run_result;

/* Trains. Errors: those of the recipe, the data and the model; TP_EDIVERGED (max_bad_steps in a row were not
 * finite; the last good checkpoint is intact), TP_ESTOPPED, TP_EBUSY, TP_ECREATE (out holds another run),
 * TP_EIO. */
TP_API tp_status tp_run_train(const tp_recipe *r, const tp_run_opts *opts, tp_run_result *result) TP_MUST_USE;

/* What tp_run_evaluate measures on: all rows, the rows of a group, or those with from <= time < to. */
typedef struct tp_evaluate_opts {
    size_t size;
    const char *data, *device;
    const char *group; /* NULL, or the group the datasets are in */
    const char *time;  /* NULL, or the dataset of times */
    double from, to;
    int n_metrics; /* 0: what the model's task asks */
    const char *const *metrics;
    const char *weight; /* NULL, or the dataset of one weight a sample */
    const char *slice;  /* NULL, or a dataset of one integer a sample: the metrics again for each value */
    int by_class;       /* precision, recall, F1 and support of each class or label */
} tp_evaluate_opts;
#define TP_EVALUATE_OPTS_INIT                                                                                \
    {                                                                                                        \
        sizeof(tp_evaluate_opts), NULL, "auto", NULL, NULL, 0.0, 0.0, 0, NULL, NULL, NULL, 0                 \
    }

/* What came of it; free what it holds with tp_evaluation_clear. */
typedef struct tp_evaluation {
    int64_t rows, width;
    float *outputs;          /* (rows, width): logits, or values in the target's own units */
    tp_run_part scores;      /* the metrics alone: a model does not know which loss it was trained with */
    tp_class_score *classes; /* (n_classes), with by_class */
    int64_t n_classes;
    tp_slices slices; /* with slice; its metrics are scores' */
} tp_evaluation;

/* Measures a model file on new data, with the normalisation it carries. Errors: as for data and models. */
TP_API tp_status tp_run_evaluate(const char *model, const tp_evaluate_opts *opts, tp_evaluation *result)
    TP_MUST_USE;
/* The same without a target in the data: outputs alone. */
TP_API tp_status tp_run_predict(const char *model, const tp_evaluate_opts *opts, tp_evaluation *result)
    TP_MUST_USE;
TP_API void tp_evaluation_clear(tp_evaluation *e);

/* Writes a model with all that is needed to use it: layers, inputs, normalisation, target. */
TP_API tp_status tp_model_save(tp_model *m, tp_device *dev, const char *target, const char *path) TP_MUST_USE;
/* Reads one. *target (may be NULL) is the name of its target's dataset: free with tp_text_free. */
TP_API tp_status tp_model_load(tp_model **out, tp_device *dev, const char *path, char **target) TP_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
