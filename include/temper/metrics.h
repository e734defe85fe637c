/* metrics.h - how good outputs are against targets; computed on the host in double. */
#ifndef TP_METRICS_H
#define TP_METRICS_H
#include "temper/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One metric. outputs (n, width): logits for class and multilabel, values for regression. Targets: class
 * int64 (n); otherwise float (n, width). */
typedef struct tp_metric {
    const char *name;
    const char *help;
    int higher_is_better;
    unsigned tasks; /* bit 1 << tp_task for each task it is for */
} tp_metric;

/* The table; ends with a NULL name. */
TP_API extern const tp_metric tp_metrics[];

/* NULL if there is none of this name. */
TP_API const tp_metric *tp_metric_find(const char *name);

typedef struct tp_scores {
    tp_task task;
    int64_t n, width;
    const float *outputs;
    const void *targets;
} tp_scores;

/* The value of a metric; NaN where it is undefined (AUROC of one class alone). Errors: TP_EINVAL, TP_ENOMEM.
 */
TP_API tp_status tp_metric_compute(const tp_metric *m, const tp_scores *s, double *value) TP_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
