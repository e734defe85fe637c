/* schedule.h - the learning rate as a function of the step, or of how a validation metric goes; and when to
 * stop.
 *
 * All factors multiply the optimizer's lr. What changes over a run is kept in structs of doubles alone, so
 * that a checkpoint can hold them as an array. */
#ifndef TP_SCHEDULE_H
#define TP_SCHEDULE_H
#include "temper/status.h"
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tp_schedule_kind {
    TP_SCHEDULE_CONSTANT = 0,
    TP_SCHEDULE_STEP,   /* times gamma after every step_epochs epochs, counted from the start of the run */
    TP_SCHEDULE_COSINE, /* (1 + cos(pi p)) / 2 from 1 to final (Loshchilov & Hutter 2017, without restarts) */
    TP_SCHEDULE_LINEAR, /* from 1 to final */
    TP_SCHEDULE_ONE_CYCLE,        /* Smith & Topin 2018, as PyTorch's OneCycleLR with cosine annealing: from
                                    1/div_factor up to 1 over the first pct_start of the steps, then down to
                                    1/(div_factor final_div_factor) */
    TP_SCHEDULE_REDUCE_ON_PLATEAU /* as constant, times the scale of a tp_plateau */
} tp_schedule_kind;

typedef struct tp_schedule {
    tp_schedule_kind kind;
    double warmup; /* fraction of all steps over which the factor first rises linearly, W steps of (step + 1)
                      / (W + 1); not for one_cycle, which has its own */
    double gamma, step_epochs;
    double final; /* cosine, linear: factor the curve would have at step total, one after the last */
    double pct_start, div_factor, final_div_factor;
} tp_schedule;
#define TP_SCHEDULE_INIT                                                                                     \
    {                                                                                                        \
        TP_SCHEDULE_CONSTANT, 0.0, 0.1, 10.0, 0.0, 0.3, 25.0, 1e4                                            \
    }

/* The factor at step (from 0) of total steps. */
TP_API double tp_schedule_factor(const tp_schedule *s, int64_t step, int64_t total, int64_t steps_per_epoch);

/* Reduce on plateau, as PyTorch's ReduceLROnPlateau: after more than `patience` values in a row without a
 * better one the factor is multiplied by `factor`, down to min_factor. */
typedef struct tp_plateau {
    int higher_is_better;
    double factor, threshold; /* better: by more than threshold, relative to the best unless absolute */
    int absolute;
    int64_t patience, cooldown; /* cooldown: values after a cut that are not counted */
    double min_factor;
} tp_plateau;
#define TP_PLATEAU_INIT                                                                                      \
    {                                                                                                        \
        0, 0.1, 1e-4, 0, 10, 0, 0.0                                                                          \
    }

typedef struct tp_plateau_state {
    double scale; /* what the learning rate is multiplied by */
    double best, bad, cooldown_left;
} tp_plateau_state;
#define TP_PLATEAU_STATE_DOUBLES 4

/* The state before the first value. */
TP_API tp_plateau_state tp_plateau_start(const tp_plateau *p);

/* Takes the next value of the metric and returns the scale from now on. NaN is no better than any value. */
TP_API double tp_plateau_update(const tp_plateau *p, tp_plateau_state *state, double value);

/* Early stopping: `patience` values in a row that are not better than the best by more than min_delta. */
typedef struct tp_early_stop {
    int higher_is_better;
    int64_t patience; /* 0: never stop, only keep the best */
    double min_delta;
} tp_early_stop;

typedef struct tp_early_stop_state {
    double best, best_step; /* best_step: -1 before the first value */
    double since_best;      /* values since */
} tp_early_stop_state;
#define TP_EARLY_STOP_STATE_DOUBLES 3

/* The state before the first value. */
TP_API tp_early_stop_state tp_early_stop_start(void);

/* Takes the value at a step. True when it is the best so far: the first is, unless it is NaN, which never is.
 */
TP_API int tp_early_stop_update(const tp_early_stop *e, tp_early_stop_state *state, int64_t step,
                                double value);

/* Is it time to stop? */
TP_API int tp_early_stop_reached(const tp_early_stop *e, const tp_early_stop_state *state);

#ifdef __cplusplus
}
#endif
#endif
