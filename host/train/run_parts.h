/* run_parts.h - what the files of a run share: run.c carries it out, setup.c opens data, model and trainer,
 * score.c measures, checkpoint.c saves and restores, run_dir.c keeps the run directory. */
#ifndef TP_TRAIN_RUN_PARTS_H
#define TP_TRAIN_RUN_PARTS_H
#include "host/train/trainer.h"
#include "temper/run.h"
#include "temper/safetensors.h"
#include <pthread.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TP_RUN_PATH 4096

/* A checkpoint that a thread of its own writes while training goes on. */
typedef struct tp_saving {
    tp_snapshot *snapshot; /* NULL where nothing is written */
    int running;
    pthread_t thread;
    tp_tensors *tensors; /* on the snapshot's memory */
    char path[TP_RUN_PATH];
    int64_t step; /* of the newest one that was begun or gone on from; -1: none */
    double best_step;
    /* Left by the thread. */
    int finite;
    tp_status status;
    char error[TP_RUN_PATH + 512];
} tp_saving;

/* The checkpoint that a resumed run goes on from, and what its run had settled by itself. */
typedef struct tp_run_from {
    tp_tensors *tensors; /* NULL: a new run */
    char path[TP_RUN_PATH];
    int64_t step;
    int64_t accumulate;
    int resident;
    char device[8], precision[8];
} tp_run_from;

typedef struct tp_run {
    const tp_recipe *r;
    const tp_run_opts *o;
    tp_run_result *result;
    tp_device *dev;
    tp_precision precision;
    tp_data *data;
    tp_model *model;
    tp_trainer *trainer;
    float *class_weight, *outputs;
    int lock; /* -1: none */
    FILE *metrics, *log;
    int64_t total, per_epoch, report_every, save_every, accumulate;
    int64_t free_bytes; /* of the device's memory before the data came; 0: not known */
    int64_t bad;        /* steps in a row that were not applied */
    tp_early_stop early;
    tp_early_stop_state best;
    tp_plateau_state plateau;
    tp_saving saving;
    tp_run_from from;
    int64_t saved; /* step of the last good checkpoint; -1: none */
} tp_run;

/* Frees everything the run holds. */
void tp_run_close(tp_run *u);
/* Steps of one launch of about 5 ms, for steps of this length. */
int64_t tp_run_launch_length(double step_seconds);

/* ---- setup.c ---- */

/* What of the data may be resident: `asked`, or if that is 0 what fits into three quarters of the device's
 * free memory (and half of the host's, through which it comes). *free_bytes: of the device; 0: it has the
 * host's. */
tp_status tp_run_resident_limit(tp_device *dev, int64_t asked, int64_t *limit, int64_t *free_bytes)
    TP_MUST_USE;
/* "data resident, 45.0 MiB of u8: 0.1 % of the 79.2 GiB that were free" */
void tp_run_describe_data(const tp_run *u, char *text, size_t size);
tp_status tp_run_open_data(tp_run *u) TP_MUST_USE;
tp_status tp_run_make_model(tp_run *u) TP_MUST_USE;
tp_status tp_run_make_trainer(tp_run *u) TP_MUST_USE;

/* ---- score.c ---- */

/* Loss and metrics of a part; none when there is no such part. */
tp_status tp_run_score(tp_run *u, tp_part part, tp_run_part *out) TP_MUST_USE;
/* The value of this name; 0 when it is not among them. */
int tp_run_find_score(const tp_run_part *p, const char *name, double *value);
/* Are the metrics of the recipe known, for this task, and the named ones reported? */
tp_status tp_run_check_metrics(const tp_run *u) TP_MUST_USE;

/* ---- checkpoint.c ---- */

/* Begins a checkpoint, once the one before is written; only the copy is waited for. */
tp_status tp_run_save(tp_run *u, int64_t step) TP_MUST_USE;
/* Waits until the checkpoint that was begun, if any, is written, verified and counted in u->saved. Nothing is
 * written when a tensor is not finite; that is noted, and no error. */
tp_status tp_run_settle(tp_run *u) TP_MUST_USE;
/* The same when the run has failed already: what goes wrong is noted and no error. */
void tp_run_end_saving(tp_run *u);
/* Finds the newest checkpoint that is sound, before there is a trainer to restore. TP_ENOENT: there is none.
 */
tp_status tp_run_find_checkpoint(tp_run *u) TP_MUST_USE;
/* With the data open: is what tp_run_find_checkpoint found, if anything, of this recipe and this data? */
tp_status tp_run_check_same(const tp_run *u) TP_MUST_USE;
/* Restores what tp_run_find_checkpoint found, and what the run had seen so far. */
tp_status tp_run_go_on(tp_run *u, int64_t *step) TP_MUST_USE;
/* Restores the states alone of the checkpoint of this step. TP_ENOENT: it is not there, or damaged. */
tp_status tp_run_load_best(tp_run *u, int64_t step) TP_MUST_USE;
int tp_run_has_checkpoint(const tp_run *u);
/* Name of the first float32 tensor with a value that is not finite, or NULL. */
const char *tp_run_not_finite(const tp_tensors *t);

/* ---- run_dir.c ---- */

/* out/format, with step in it. */
tp_status tp_run_path(const tp_run *u, char *out, const char *format, int64_t step) TP_MUST_USE;
/* Before anything is made: is the directory busy, or does it hold a run that this one is not to go on with?
 * Takes it if it is there, and finds the checkpoint of a run that goes on. */
tp_status tp_run_check_dir(tp_run *u) TP_MUST_USE;
/* Takes the directory, writes recipe.yaml, opens log.txt. */
tp_status tp_run_open_dir(tp_run *u) TP_MUST_USE;
/* Opens metrics.jsonl with the lines up to a step that the run goes on from. */
tp_status tp_run_open_metrics(tp_run *u, int64_t step) TP_MUST_USE;
tp_status tp_run_write_manifest(tp_run *u) TP_MUST_USE;
tp_status tp_run_log_report(tp_run *u, const tp_run_report *rep) TP_MUST_USE;
/* A line of log.txt that also goes to the log of the program. */
void tp_run_warn(tp_run *u, const char *format, ...) TP_PRINTF(2, 3);
/* A line of log.txt, with the time. */
void tp_run_note(tp_run *u, const char *format, ...) TP_PRINTF(2, 3);

#ifdef __cplusplus
}
#endif
#endif
