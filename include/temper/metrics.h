/* metrics.h - how good outputs are against targets; computed on the host in double.
 *
 * Undefined is NaN, never a guess: AUROC and average precision where a class that counts has no positive or
 * (AUROC) no negative, R2 of a single sample, every metric where an output is not finite or all weights are
 * 0. */
#ifndef TP_METRICS_H
#define TP_METRICS_H
#include "temper/model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tp_metric {
    const char *name;
    const char *help;
    int higher_is_better;
    unsigned tasks; /* bit 1 << tp_task for each task it is for */
} tp_metric;

/* The table; ends with a NULL name. Functions that take a metric take an element of it, not a copy: which one
 * it is tells them what to compute. */
TP_API extern const tp_metric tp_metrics[];

/* NULL if there is none of this name. */
TP_API const tp_metric *tp_metric_find(const char *name);

/* The metric whose name is nearest to a misspelt one, for messages; never NULL. */
TP_API const tp_metric *tp_metric_nearest(const char *name);

/* What is measured. outputs (n, width): logits for class and multilabel, values for regression. targets:
 * class int64 (n); multilabel float (n, width), 1 from 0.5 up; regression float (n, width). weights (n): how
 * much a sample counts, >= 0; NULL: 1 each. All borrowed. */
typedef struct tp_scores {
    tp_task task;
    int64_t n, width;
    const float *outputs;
    const void *targets;
    const float *weights;
} tp_scores;

/* The value of a metric (tp_metric_find, or &tp_metrics[i]), NaN where it is undefined and on failure.
 * Errors: TP_EINVAL (not for this task, no samples, a class or a weight out of range), TP_ENOMEM. */
TP_API tp_status tp_metric_compute(const tp_metric *m, const tp_scores *s, double *value) TP_MUST_USE;

/* One class, or one label, against the rest. support: weight of its samples. A ratio of 0 to 0 is 0. */
typedef struct tp_class_score {
    double precision, recall, f1, support;
} tp_class_score;

/* Fills rows (width). Errors: as tp_metric_compute; TP_EINVAL for regression. */
TP_API tp_status tp_metric_classes(const tp_scores *s, tp_class_score *rows) TP_MUST_USE;

/* Metrics of each part of the samples that shares one value. */
typedef struct tp_slices {
    int64_t n;
    int n_metrics;
    int64_t *ids;     /* (n): the values, ascending */
    int64_t *support; /* (n): samples */
    double *values;   /* (n, n_metrics) */
} tp_slices;

/* slice (s->n) says which part a sample is in; metrics are elements of tp_metrics. Free what out holds with
 * tp_slices_clear; on failure it holds nothing. Errors: as tp_metric_compute. */
TP_API tp_status tp_metric_slices(tp_slices *out, const tp_scores *s, const int64_t *slice, int n_metrics,
                                  const tp_metric *const *metrics) TP_MUST_USE;
TP_API void tp_slices_clear(tp_slices *t);

#ifdef __cplusplus
}
#endif
#endif
