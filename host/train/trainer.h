/* trainer.h - what the files of the trainer share: trainer.c makes and runs it, feed.c puts data onto the
 * device, step.c builds the training step as a graph, predict.c the evaluation pass, snapshot.c copies the
 * states. */
#ifndef TP_TRAIN_TRAINER_H
#define TP_TRAIN_TRAINER_H
#include "host/data/stream.h"
#include "host/graph/device.h"
#include "temper/plan.h"
#include "temper/train.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TP_TRAINER_INPUTS 64
#define TP_TRAINER_SPARSE 64 /* places where sparse tables are read */

/* Steps whose learning rate and results the device holds: two launches, and room to write the next. */
#define TP_TRAINER_RING    ((int64_t)4 * TP_MAX_LAUNCH)
#define TP_TRAINER_RESULTS 4 /* loss, scale and ok of tp_clip_norm, its norm */

#define TP_TRAINER_FEED 4 /* batches of a stream on their way to a GPU */

/* Marks in the queues of the device. */
enum {
    TP_MARK_LAUNCH, /* two, for the launches that are not collected */
    TP_MARK_EVAL = TP_MARK_LAUNCH + 2,
    TP_MARK_STATES = TP_MARK_EVAL + 2, /* a snapshot is taken, and has come to the host */
    TP_MARK_SNAPSHOT,
    TP_MARK_FILLED, /* one a place of the feed: it is on the device, and its batch has been taken from it */
    TP_MARK_TAKEN = TP_MARK_FILLED + TP_TRAINER_FEED
};

/* An array on the device: the rows of one batch, a copy, or on the CPU the data set's own memory. */
typedef struct tp_staged {
    tp_tensor tensor;
    int owned;
} tp_staged;

/* A data set that is not resident: its batches pass through one block of memory, the arrays of a batch one
 * behind another, from which the graphs read. On a GPU a batch comes there through a ring: from pinned memory
 * to the device beside the steps before, then into the block between two steps. */
typedef struct tp_feed {
    tp_stream *stream; /* of the training part */
    int64_t next_step; /* whose batch the stream gives next */
    tp_staged *to[TP_TRAINER_INPUTS + 2];
    int n;
    tp_tensor rows, mask; /* row numbers int64 (batch); 1 for a row, 0 for padding, float32 (batch) */
    size_t bytes;
    char *block;
    char *host[TP_TRAINER_FEED], *device[TP_TRAINER_FEED]; /* the ring; on the CPU none, and no second copy */
    int next;
} tp_feed;

/* One evaluation pass: its own graph, because a part has its own number of rows. */
typedef struct tp_eval_pass {
    tp_graph *g;
    tp_plan *plan;
    tp_val out, loss_sum, weight_sum; /* sums are 0 where there is no target */
} tp_eval_pass;

struct tp_trainer {
    tp_device *dev;
    tp_model *model;
    const tp_data *data;
    tp_train_opts opts;
    tp_loss_kind loss;
    int64_t steps_per_epoch;

    tp_staged inputs[TP_TRAINER_INPUTS], shift[TP_TRAINER_INPUTS], scale[TP_TRAINER_INPUTS], target, weight,
        target_shift, target_scale, class_weight, rows[TP_PARTS];
    tp_feed feed;

    tp_tensor counter;
    tp_tensor rates;   /* ring: (TP_TRAINER_RING) */
    float *host_rates; /* the same on the host */
    tp_tensor
        results; /* ring: (TP_TRAINER_RING, TP_TRAINER_RESULTS), in the host's memory, where steps write */
    int64_t device_step; /* what the counter says on the device; -1 if something else set it */
    struct {
        int64_t first, n;
    } launched[2]; /* not yet collected, oldest first */
    int n_launched, next_mark;
    tp_state_tensor *states; /* parameters first, then what the optimizer keeps */
    int n_states;
    int n_params;
    int *s1, *s2, *ema; /* per parameter: index of the state tensor, -1 if none */
    tp_tensor *low;     /* per parameter: its copy in bfloat16, which the optimizer keeps; no data if none */
    int t_state;

    tp_graph *g;
    tp_plan *plan;
    tp_eval_pass eval[TP_PARTS][2]; /* [1]: with averaged weights */
    float *eval_out[2];             /* on the host: outputs of a batch, its two sums */
};

/* A graph that reads batches of one part. */
typedef struct tp_batch_graph {
    tp_trainer *t;
    tp_graph *g;
    int64_t batch;                        /* rows */
    tp_val counter, index, weight, total; /* total: sum of the weights of the whole batch */
    tp_val present;                       /* (batch) 1, 0 where a row only fills the batch up */
    tp_val inputs[TP_TRAINER_INPUTS], shift[TP_TRAINER_INPUTS], scale[TP_TRAINER_INPUTS], target,
        target_shift, target_scale, class_weight;
    tp_val *params, *low;
} tp_batch_graph;

/* ---- trainer.c ---- */

tp_status tp_trainer_alloc(tp_trainer *t, tp_tensor *out, tp_dtype dtype, tp_shape shape, const char *what)
    TP_MUST_USE;
tp_status tp_trainer_set_counter(tp_trainer *t, uint64_t step) TP_MUST_USE;

/* ---- feed.c ---- */

/* Puts data set, normalisation and class weights onto the device. */
tp_status tp_feed_stage(tp_trainer *t) TP_MUST_USE;
void tp_feed_free(tp_trainer *t);

/* Makes the batch of training step `step` the one the arrays hold; nothing to do for resident data. */
tp_status tp_feed_train(tp_trainer *t, int64_t step) TP_MUST_USE;
/* The next batch of a stream. */
tp_status tp_feed_next(tp_trainer *t, tp_stream *s) TP_MUST_USE;

/* Binds what the batches of a part are made from; index and weight of a batch are then in b. */
void tp_feed_bind(tp_batch_graph *b, tp_part part, int64_t steps, int shuffle);
/* Rows [first, first + rows of index) of the batch. */
tp_val tp_feed_input(tp_batch_graph *b, int i, tp_val index, int64_t first, int augmented);
tp_val tp_feed_target(tp_batch_graph *b, tp_val index, int64_t first);

/* ---- snapshot.c ---- */

/* The states of a trainer as they were between two steps, on their way to the host while it trains on. */
typedef struct tp_snapshot tp_snapshot;

/* Memory for it: the host's, and as much of the device's if that has its own and enough of it. t must outlive
 * it. */
tp_status tp_snapshot_new(tp_snapshot **out, tp_trainer *t) TP_MUST_USE;
void tp_snapshot_free(tp_snapshot *s); /* NULL is fine */
/* Takes the states as they are behind the last step that was launched. The one before must have come. */
tp_status tp_snapshot_take(tp_snapshot *s) TP_MUST_USE;
/* Waits until it has come to the host, on any thread, and gives it the order of files. */
tp_status tp_snapshot_await(tp_snapshot *s) TP_MUST_USE;
/* State i of the trainer in it. */
tp_tensor tp_snapshot_at(const tp_snapshot *s, int i);

/* ---- step.c ---- */

tp_status tp_step_build(tp_trainer *t) TP_MUST_USE;
tp_val tp_step_bind_state(tp_batch_graph *b, int i); /* 0 for i < 0 */

/* Loss of each row, and how much each counts in the mean: PyTorch divides by the class weights of the
 * targets, so they count. */
tp_val tp_step_row_losses(tp_batch_graph *b, tp_val out, tp_val target);
tp_val tp_step_row_weights(tp_batch_graph *b, tp_val weight, tp_val target);

/* ---- predict.c ---- */

void tp_eval_free(tp_eval_pass *e);
/* Compiles the pass over a part, unless it is there or the part is empty. */
tp_status tp_eval_prepare(tp_trainer *t, tp_part part, int use_ema) TP_MUST_USE;
/* Rows of an evaluation batch: as many as a micro-batch has, so that it takes no more memory than training.
 */
int64_t tp_eval_batch(const tp_trainer *t);

#ifdef __cplusplus
}
#endif
#endif
