/* schedule.h - the learning rate as a function of the step. */
#ifndef TP_SCHEDULE_H
#define TP_SCHEDULE_H
#include "temper/status.h"
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tp_schedule_kind {
    TP_SCHEDULE_CONSTANT = 0,
    TP_SCHEDULE_STEP,   /* times gamma after every step_epochs epochs */
    TP_SCHEDULE_COSINE, /* (1 + cos(pi p)) / 2 from 1 to final (Loshchilov & Hutter 2017, without restarts) */
    TP_SCHEDULE_LINEAR, /* from 1 to final */
    TP_SCHEDULE_ONE_CYCLE /* Smith & Topin 2018, as PyTorch's OneCycleLR with cosine annealing: from
                             1/div_factor up to 1 over the first pct_start of the steps, then down to
                             1/(div_factor final_div_factor) */
} tp_schedule_kind;

/* All factors multiply the optimizer's lr. */
typedef struct tp_schedule {
    tp_schedule_kind kind;
    double warmup; /* fraction of all steps over which the factor first rises linearly from 0; not for
                      one_cycle */
    double gamma, step_epochs;
    double final; /* cosine, linear: factor at the last step */
    double pct_start, div_factor, final_div_factor;
} tp_schedule;
#define TP_SCHEDULE_INIT                                                                                     \
    {                                                                                                        \
        TP_SCHEDULE_CONSTANT, 0.0, 0.1, 10.0, 0.0, 0.3, 25.0, 1e4                                            \
    }

/* The factor at step (from 0) of total steps. */
TP_API double tp_schedule_factor(const tp_schedule *s, int64_t step, int64_t total, int64_t steps_per_epoch);

#ifdef __cplusplus
}
#endif
#endif
