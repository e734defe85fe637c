/* train.h - trains a model on an open data set: one compiled step, run many times. */
#ifndef TP_TRAIN_H
#define TP_TRAIN_H
#include "temper/data.h"
#include "temper/model.h"
#include "temper/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tp_loss_kind {
    TP_LOSS_AUTO = 0, /* mse, softmax_cross_entropy or bce_with_logits, as the model's task asks */
    TP_LOSS_MSE,
    TP_LOSS_MAE,
    TP_LOSS_HUBER,
    TP_LOSS_QUANTILE,
    TP_LOSS_CROSS_ENTROPY,
    TP_LOSS_BCE
} tp_loss_kind;

/* What happens in one training step. */
typedef struct tp_train_opts {
    tp_loss_kind loss;
    double loss_param;         /* huber: delta; quantile: q */
    double label_smoothing;    /* cross entropy */
    const float *class_weight; /* cross entropy: one weight for each class, or NULL; copied */
    tp_optimizer_attr optimizer;
    double weight_decay; /* on weights; biases and norms only with decay_all */
    int decay_all;
    double clip_norm;   /* 0: no clipping */
    int64_t batch;      /* samples of one step */
    int64_t accumulate; /* micro-batches a step is made of, at most TP_MAX_MICRO; divides batch */
    tp_precision precision;
    uint64_t seed; /* order of samples, augmentation, dropout */
    int timed;     /* measure each node; tp_trainer_plan_text then shows it */
} tp_train_opts;
#define TP_TRAIN_OPTS_INIT                                                                                   \
    {                                                                                                        \
        TP_LOSS_AUTO, 0.0, 0.0, NULL, {TP_ADAMW, 0.9, 0.999, 1e-8, 0.0, 0, 0.0, 0}, 0.01, 0, 0.0, 64, 1,     \
            TP_PRECISION_FP32, 0, 0                                                                          \
    }

#define TP_MAX_MICRO 256

typedef struct tp_trainer tp_trainer;

/* Compiles the training step for dev, which the model lives on. dev, model and data are borrowed and must
 * outlive the trainer. Inputs that are not resident are read from their files while training runs. Without a
 * training part, which needs a target, the trainer can only predict. On failure *out is NULL. Errors:
 * TP_EINVAL (options, or more than TP_MAX_TENSORS - 64 parameters and buffers), TP_EDATA (data and model do
 * not fit), TP_ESHAPE (an op refuses, such as a loss that is not for this target), TP_ENOMEM, TP_EUNSUP,
 * TP_EDEVICE. */
TP_API tp_status tp_trainer_new(tp_trainer **out, tp_device *dev, tp_model *model, const tp_data *data,
                                const tp_train_opts *opts) TP_MUST_USE;
TP_API void tp_trainer_free(tp_trainer *t); /* NULL is fine */

/* Steps that see every training row once: ceil(rows / batch). */
TP_API int64_t tp_trainer_steps_per_epoch(const tp_trainer *t);

/* What a step leaves: mean loss of the batch, global gradient norm, and whether it was applied (0: the loss
 * or a gradient was not finite, and nothing was written). */
typedef struct tp_step_result {
    double loss, grad_norm;
    int applied;
} tp_step_result;

/* Runs steps first, first + 1, ... (n of them, at most TP_MAX_LAUNCH, from 0) with these learning rates, and
 * returns before they are done where the device runs by itself. What they leave is collected launch by
 * launch, oldest first; at most two may be on their way. lr has n values and is copied. Makes no allocation
 * of its own, unless the data is streamed and `first` does not follow the step before. Errors: TP_EINVAL (no
 * training part, first < 0, n < 1 or > TP_MAX_LAUNCH, a third launch before the first is collected),
 * TP_EDEVICE, TP_EINTERNAL; when the data is streamed, those of reading the files (TP_EIO, TP_EDATA,
 * TP_ENOMEM). */
#define TP_MAX_LAUNCH 256
TP_API tp_status tp_trainer_launch(tp_trainer *t, int64_t first, int64_t n, const double *lr) TP_MUST_USE;
/* Waits for the oldest launch; results has room for its n. Errors: TP_EINVAL (nothing is launched),
 * TP_EDEVICE (the steps failed on the device). */
TP_API tp_status tp_trainer_collect(tp_trainer *t, tp_step_result *results) TP_MUST_USE;
/* One step, launched and collected; with nothing on its way. Errors: as both. */
TP_API tp_status tp_trainer_step(tp_trainer *t, int64_t step, double lr, tp_step_result *result) TP_MUST_USE;

/* The model's outputs for every row of a part, in the order of its table: outputs (rows, n_outputs), host
 * memory of the caller, in the target's own units. use_ema: with the averaged weights. loss (may be NULL):
 * mean loss of the part, on the normalised target where there is one; NaN without a target. The pass over a
 * part is compiled at the first call, if tp_trainer_new has not. Errors: TP_EINVAL (no such part), TP_ESHAPE,
 * TP_ENOMEM, TP_EUNSUP (compiling), TP_EDEVICE, TP_EINTERNAL; those of reading the files when the data is
 * streamed. */
TP_API tp_status tp_trainer_predict(tp_trainer *t, tp_part part, int use_ema, float *outputs, double *loss)
    TP_MUST_USE;

/* The tensors a run must save to go on bit for bit: parameters, buffers, optimizer states, averages, step
 * count. data is device memory, borrowed. Names: "model.0.weight", "optimizer.0.0.weight" (state 0),
 * "ema.0.weight", "optimizer.t". */
typedef struct tp_state_tensor {
    const char *name;
    tp_shape shape; /* tensor and channels_last as in tp_param */
    tp_tensor tensor;
    int channels_last;
} tp_state_tensor;
TP_API int tp_trainer_n_states(const tp_trainer *t);
TP_API const tp_state_tensor *tp_trainer_state(const tp_trainer *t, int i);

/* After the memory of parameters was written from outside: their copies in bfloat16 follow. Errors:
 * TP_ENOMEM, TP_EDEVICE. */
TP_API tp_status tp_trainer_refresh(tp_trainer *t) TP_MUST_USE;

/* The compiled step as text (tp_plan_text); free with tp_text_free. Errors: TP_EINVAL (no training part),
 * TP_ENOMEM. */
TP_API tp_status tp_trainer_plan_text(const tp_trainer *t, char **out) TP_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
