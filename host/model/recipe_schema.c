#include "host/model/recipe_schema.h"
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define R(field)        offsetof(tp_recipe, field)
#define I(field)        offsetof(tp_recipe_input, field)
#define L(field)        offsetof(tp_layer, field)
#define BIG             9007199254740992.0 /* 2^53 */
#define CHOICE(choices) 0, 0, choices
#define TEXT(size)      0, (double)(size), NULL
#define RANGE(lo, hi)   lo, hi, NULL

static const tp_choice input_kinds[] = {
    {"dense", TP_INPUT_DENSE}, {"image", TP_INPUT_IMAGE}, {"ids", TP_INPUT_IDS}, {NULL, 0}};
static const tp_choice norm_kinds[] = {{"none", TP_NORM_NONE},
                                       {"standard", TP_NORM_STANDARD},
                                       {"minmax", TP_NORM_MINMAX},
                                       {"scale", TP_NORM_SCALE},
                                       {NULL, 0}};
static const tp_choice target_norms[] = {
    {"none", TP_NORM_NONE}, {"standard", TP_NORM_STANDARD}, {"minmax", TP_NORM_MINMAX}, {NULL, 0}};
static const tp_choice target_kinds[] = {{"regression", TP_TARGET_REGRESSION},
                                         {"class", TP_TARGET_CLASS},
                                         {"onehot", TP_TARGET_ONEHOT},
                                         {"multilabel", TP_TARGET_MULTILABEL},
                                         {NULL, 0}};
static const tp_choice split_kinds[] = {{"time", TP_SPLIT_TIME},       {"fraction", TP_SPLIT_FRACTION},
                                        {"dataset", TP_SPLIT_DATASET}, {"groups", TP_SPLIT_GROUPS},
                                        {"files", TP_SPLIT_FILES},     {NULL, 0}};
static const tp_choice nonfinite_kinds[] = {
    {"refuse", TP_NONFINITE_REFUSE}, {"drop", TP_NONFINITE_DROP}, {NULL, 0}};
static const tp_choice builders[] = {
    {"mlp", TP_BUILDER_MLP}, {"resnet18", TP_BUILDER_RESNET18}, {"tabular", TP_BUILDER_TABULAR}, {NULL, 0}};
static const tp_choice activations[] = {{"relu", TP_LAYER_RELU},
                                        {"leaky_relu", TP_LAYER_LEAKY_RELU},
                                        {"elu", TP_LAYER_ELU},
                                        {"gelu", TP_LAYER_GELU},
                                        {"silu", TP_LAYER_SILU},
                                        {"tanh", TP_LAYER_TANH},
                                        {"sigmoid", TP_LAYER_SIGMOID},
                                        {"softplus", TP_LAYER_SOFTPLUS},
                                        {NULL, 0}};
static const tp_choice losses[] = {{"auto", TP_LOSS_AUTO},
                                   {"mse", TP_LOSS_MSE},
                                   {"mae", TP_LOSS_MAE},
                                   {"huber", TP_LOSS_HUBER},
                                   {"quantile", TP_LOSS_QUANTILE},
                                   {"softmax_cross_entropy", TP_LOSS_CROSS_ENTROPY},
                                   {"bce_with_logits", TP_LOSS_BCE},
                                   {NULL, 0}};
static const tp_choice schedules[] = {{"constant", TP_SCHEDULE_CONSTANT},
                                      {"step", TP_SCHEDULE_STEP},
                                      {"cosine", TP_SCHEDULE_COSINE},
                                      {"linear", TP_SCHEDULE_LINEAR},
                                      {"one_cycle", TP_SCHEDULE_ONE_CYCLE},
                                      {"reduce_on_plateau", TP_SCHEDULE_REDUCE_ON_PLATEAU},
                                      {NULL, 0}};
static const tp_choice precisions[] = {{"auto", -1},
                                       {"fp32", TP_PRECISION_FP32},
                                       {"tf32", TP_PRECISION_TF32},
                                       {"bf16", TP_PRECISION_BF16},
                                       {NULL, 0}};
static const tp_choice micro_batches[] = {
    {"fixed", TP_MICRO_BATCH_FIXED}, {"auto", TP_MICRO_BATCH_AUTO}, {NULL, 0}};
static const tp_choice inits[] = {{"default", TP_INIT_DEFAULT},
                                  {"kaiming", TP_INIT_KAIMING},
                                  {"xavier", TP_INIT_XAVIER},
                                  {"zeros", TP_INIT_ZEROS},
                                  {NULL, 0}};

const char *const tp_schema_optimizers[] = {"sgd", "adam", "adamw", "lion", "rmsprop", "adagrad", NULL};

const tp_schema_row tp_schema[] = {
    {"data.file", TP_KEY_TEXT, R(data.file), TEXT(TP_RECIPE_TEXT), "HDF5 file; --data overrides it"},
    {"data.inputs", TP_KEY_INPUTS, 0, RANGE(0, 0),
     "list of datasets the model reads: a name, or a mapping (below)"},
    {"data.target.name", TP_KEY_TEXT, R(data.target), TEXT(TP_RECIPE_TEXT), "dataset to predict"},
    {"data.target.kind", TP_KEY_CHOICE, R(data.target_kind), CHOICE(target_kinds), "what the target holds"},
    {"data.target.normalize", TP_KEY_CHOICE, R(data.target_normalize), CHOICE(target_norms),
     "regression: fitted on the training part, per output"},
    {"data.target.classes", TP_KEY_INTEGER, R(data.classes), RANGE(0, 1e6),
     "number of classes; 0: from the data"},
    {"data.weight", TP_KEY_TEXT, R(data.weight), TEXT(TP_RECIPE_TEXT), "dataset of one weight a sample"},
    {"data.time", TP_KEY_TEXT, R(data.time), TEXT(TP_RECIPE_TEXT), "dataset of one time a sample"},
    {"data.split.by", TP_KEY_CHOICE, R(data.split), CHOICE(split_kinds),
     "how rows fall into train, validation and test"},
    {"data.split.train", TP_KEY_RANGE, 0, RANGE(TP_TRAIN, 0), "[from, to) in time, or a group or file"},
    {"data.split.validation", TP_KEY_RANGE, 0, RANGE(TP_VALIDATION, 0), "likewise"},
    {"data.split.test", TP_KEY_RANGE, 0, RANGE(TP_TEST, 0), "likewise"},
    {"data.split.validation_fraction", TP_KEY_NUMBER, R(data.validation), RANGE(0, 0.999),
     "by fraction: share for validation"},
    {"data.split.test_fraction", TP_KEY_NUMBER, R(data.test), RANGE(0, 0.999), "by fraction: share for test"},
    {"data.split.seed", TP_KEY_INTEGER, R(data.split_seed), RANGE(0, BIG),
     "by fraction: which rows go where"},
    {"data.split.dataset", TP_KEY_TEXT, R(data.split_dataset), TEXT(TP_RECIPE_TEXT),
     "dataset of 0 train, 1 validation, 2 test"},
    {"data.non_finite", TP_KEY_CHOICE, R(data.nonfinite), CHOICE(nonfinite_kinds),
     "rows with NaN or infinity"},
    {"data.resident_bytes", TP_KEY_INTEGER, R(data.resident_bytes), RANGE(0, BIG),
     "inputs larger than this are streamed; 0: half of the memory, of a GPU three quarters of what is free"},
    {"model.builder", TP_KEY_CHOICE, R(model.builder), CHOICE(builders),
     "a named model, instead of model.layers"},
    {"model.hidden", TP_KEY_HIDDEN, R(model.hidden), RANGE(1, 65536),
     "mlp, tabular: widths of the hidden layers; []: a linear model"},
    {"model.activation", TP_KEY_CHOICE, R(model.activation), CHOICE(activations),
     "mlp, tabular: after each hidden layer"},
    {"model.dropout", TP_KEY_NUMBER, R(model.dropout), RANGE(0, 0.999),
     "mlp, tabular: after each hidden layer"},
    {"model.embedding_dim", TP_KEY_INTEGER, R(model.embedding_dim), RANGE(1, 65536),
     "tabular: width of each category's row"},
    {"model.layers", TP_KEY_LAYERS, 0, RANGE(0, 0), "list of layers: a name, or {name: {options}} (below)"},
    {"objective.loss", TP_KEY_CHOICE, R(objective.loss), CHOICE(losses), "auto: as the target's kind asks"},
    {"objective.label_smoothing", TP_KEY_NUMBER, R(objective.label_smoothing), RANGE(0, 0.999),
     "softmax_cross_entropy"},
    {"objective.delta", TP_KEY_NUMBER, R(objective.delta), RANGE(1e-12, 1e12),
     "huber: where it turns linear"},
    {"objective.quantile", TP_KEY_NUMBER, R(objective.quantile), RANGE(1e-6, 0.999999),
     "quantile: which one"},
    {"objective.balanced", TP_KEY_BOOL, R(objective.balanced), RANGE(0, 1),
     "weigh classes by 1 / their count"},
    {"optimizer.@.lr", TP_KEY_NUMBER, R(lr), RANGE(0, 1e6), "learning rate"},
    {"optimizer.@.weight_decay", TP_KEY_NUMBER, R(weight_decay), RANGE(0, 1e6),
     "decoupled for adamw and lion"},
    {"optimizer.@.beta1", TP_KEY_NUMBER, R(optimizer.beta1), RANGE(0, 0.999999), "adam, adamw, lion"},
    {"optimizer.@.beta2", TP_KEY_NUMBER, R(optimizer.beta2), RANGE(0, 0.99999999),
     "adam, adamw, lion; rmsprop: alpha"},
    {"optimizer.@.epsilon", TP_KEY_NUMBER, R(optimizer.epsilon), RANGE(0, 1), "added to the denominator"},
    {"optimizer.@.momentum", TP_KEY_NUMBER, R(optimizer.momentum), RANGE(0, 0.999999), "sgd, rmsprop"},
    {"optimizer.@.nesterov", TP_KEY_BOOL, R(optimizer.nesterov), RANGE(0, 1), "sgd"},
    {"optimizer.@.decay_all", TP_KEY_BOOL, R(decay_all), RANGE(0, 1), "decay biases and norms too"},
    {"optimizer.clip_norm", TP_KEY_NUMBER, R(clip_norm), RANGE(0, 1e12),
     "largest norm of the gradient; 0: no limit"},
    {"optimizer.ema", TP_KEY_NUMBER, R(ema), RANGE(0, 0.9999999), "decay of the averaged weights; 0: none"},
    {"schedule.kind", TP_KEY_CHOICE, R(schedule.kind), CHOICE(schedules), "how lr changes over the run"},
    {"schedule.warmup", TP_KEY_NUMBER, R(schedule.warmup), RANGE(0, 1),
     "share of the run over which lr first rises"},
    {"schedule.gamma", TP_KEY_NUMBER, R(schedule.gamma), RANGE(0, 1), "step: factor"},
    {"schedule.step_epochs", TP_KEY_NUMBER, R(schedule.step_epochs), RANGE(1e-3, 1e6),
     "step: epochs between factors"},
    {"schedule.final", TP_KEY_NUMBER, R(schedule.final), RANGE(0, 1), "cosine, linear: factor at the end"},
    {"schedule.pct_start", TP_KEY_NUMBER, R(schedule.pct_start), RANGE(0, 1),
     "one_cycle: share of the run that rises"},
    {"schedule.div_factor", TP_KEY_NUMBER, R(schedule.div_factor), RANGE(1, 1e9), "one_cycle: lr / first lr"},
    {"schedule.final_div_factor", TP_KEY_NUMBER, R(schedule.final_div_factor), RANGE(1, 1e12),
     "one_cycle: first lr / last lr"},
    {"schedule.metric", TP_KEY_TEXT, R(plateau_metric), TEXT(TP_LAYER_NAME_SIZE),
     "reduce_on_plateau: validation metric that must improve"},
    {"schedule.factor", TP_KEY_NUMBER, R(plateau.factor), RANGE(1e-9, 1), "reduce_on_plateau: lr times this"},
    {"schedule.patience", TP_KEY_INTEGER, R(plateau.patience), RANGE(0, 1e9),
     "reduce_on_plateau: reports without a better value that are borne"},
    {"schedule.threshold", TP_KEY_NUMBER, R(plateau.threshold), RANGE(0, 1e12),
     "reduce_on_plateau: what counts as better, relative to the best"},
    {"schedule.cooldown", TP_KEY_INTEGER, R(plateau.cooldown), RANGE(0, 1e9),
     "reduce_on_plateau: reports after a cut that do not count"},
    {"schedule.min_factor", TP_KEY_NUMBER, R(plateau.min_factor), RANGE(0, 1),
     "reduce_on_plateau: lr falls to no less than this share"},
    {"train.batch", TP_KEY_INTEGER, R(train.batch), RANGE(1, 1048576), "samples of a step"},
    {"train.epochs", TP_KEY_INTEGER, R(train.epochs), RANGE(1, 1e9), "passes over the training part"},
    {"train.accumulate", TP_KEY_INTEGER, R(train.accumulate), RANGE(1, TP_MAX_MICRO),
     "micro-batches of a step"},
    {"train.micro_batch", TP_KEY_CHOICE, R(train.micro_batch), CHOICE(micro_batches),
     "auto: more micro-batches, where memory is short"},
    {"train.precision", TP_KEY_CHOICE, R(train.precision), CHOICE(precisions),
     "of products on a GPU; auto: tf32; the CPU computes in fp32"},
    {"train.seed", TP_KEY_INTEGER, R(train.seed), RANGE(0, BIG),
     "first weights, order, augmentation, dropout"},
    {"train.report", TP_KEY_INTEGER, R(train.report), RANGE(0, 1e12),
     "steps between reports; 0: one an epoch"},
    {"train.save", TP_KEY_INTEGER, R(train.save), RANGE(0, 1e12),
     "steps between checkpoints; 0: one an epoch"},
    {"train.keep", TP_KEY_INTEGER, R(train.keep), RANGE(2, 1000), "checkpoints kept"},
    {"train.max_bad_steps", TP_KEY_INTEGER, R(train.max_bad_steps), RANGE(1, 1e9),
     "steps in a row with NaN or infinity before giving up"},
    {"train.steps_per_launch", TP_KEY_INTEGER, R(train.steps_per_launch), RANGE(0, TP_MAX_LAUNCH),
     "steps handed to the device at a time; 0: what takes about 5 ms"},
    {"train.metrics", TP_KEY_METRICS, 0, RANGE(0, 0),
     "list of metrics to report; default: what the target's kind asks"},
    {"train.best.metric", TP_KEY_TEXT, R(train.best), TEXT(TP_LAYER_NAME_SIZE),
     "validation metric that picks the model kept"},
    {"train.early_stop.patience", TP_KEY_INTEGER, R(train.patience), RANGE(0, 1e9),
     "reports without a better train.best.metric; 0: off"},
    {"train.early_stop.min_delta", TP_KEY_NUMBER, R(train.min_delta), RANGE(0, 1e12),
     "what counts as better"},
    {NULL, TP_KEY_TEXT, 0, 0, 0, NULL, NULL},
};

const tp_schema_row tp_schema_input[] = {
    {"name", TP_KEY_TEXT, I(name), TEXT(TP_LAYER_NAME_SIZE), "path of the dataset"},
    {"kind", TP_KEY_CHOICE, I(kind), CHOICE(input_kinds),
     "dense numbers, an image (N,H,W) or (N,C,H,W), or category ids"},
    {"normalize", TP_KEY_CHOICE, I(normalize), CHOICE(norm_kinds),
     "fitted on the training part, per feature or channel"},
    {"factor", TP_KEY_NUMBER, I(factor), RANGE(-1e30, 1e30), "normalize: scale multiplies by it"},
    {"categories", TP_KEY_INTEGER, I(categories), RANGE(0, 1e12),
     "ids: how many there are; 0: from the data"},
    {"crop", TP_KEY_INTEGER, I(crop), RANGE(0, 64), "image: shift by up to so many pixels"},
    {"hflip", TP_KEY_BOOL, I(hflip), RANGE(0, 1), "image: mirror half of the samples"},
    {NULL, TP_KEY_TEXT, 0, 0, 0, NULL, NULL},
};

const tp_schema_row tp_schema_layer[] = {
    {"name", TP_KEY_TEXT, L(name), TEXT(TP_LAYER_NAME_SIZE), "name in the model file; default: its number"},
    {"input", TP_KEY_TEXT, L(input), TEXT(TP_LAYER_NAME_SIZE), "sequence, embedding: the input it reads"},
    {"units", TP_KEY_INTEGER, L(units), RANGE(1, 1e7), "dense: outputs"},
    {"filters", TP_KEY_INTEGER, L(units), RANGE(1, 1e6), "conv: output channels"},
    {"dim", TP_KEY_INTEGER, L(units), RANGE(1, 1e6), "embedding: width of a row"},
    {"categories", TP_KEY_INTEGER, L(categories), RANGE(1, 1e12), "embedding: rows; default: the input's"},
    {"no_bias", TP_KEY_BOOL, L(no_bias), RANGE(0, 1), "dense, conv"},
    {"kernel", TP_KEY_PAIR, L(kernel), RANGE(1, 4096), "conv, pools: one size or [height, width]"},
    {"stride", TP_KEY_PAIR, L(stride), RANGE(1, 4096), "conv (default 1), pools (default: kernel)"},
    {"padding", TP_KEY_PAIR, L(pad), RANGE(0, 4096), "conv, pools"},
    {"dilation", TP_KEY_PAIR, L(dilation), RANGE(1, 4096), "conv"},
    {"groups", TP_KEY_INTEGER, L(groups), RANGE(1, 1e6), "conv, group_norm"},
    {"epsilon", TP_KEY_NUMBER, L(epsilon), RANGE(1e-12, 1), "norms"},
    {"momentum", TP_KEY_NUMBER, L(momentum), RANGE(1e-6, 1), "batch_norm: weight of the newest batch"},
    {"rate", TP_KEY_NUMBER, L(rate), RANGE(0, 0.999), "dropout"},
    {"alpha", TP_KEY_NUMBER, L(alpha), RANGE(1e-9, 1e6), "leaky_relu, elu"},
    {"init", TP_KEY_CHOICE, L(init), CHOICE(inits), "first weights"},
    {NULL, TP_KEY_TEXT, 0, 0, 0, NULL, NULL},
};

#define K(kind) (UINT64_C(1) << TP_LAYER_##kind)
#define POOLS   (K(MAX_POOL) | K(AVG_POOL))
#define NORMS   (K(BATCH_NORM) | K(LAYER_NORM) | K(GROUP_NORM))

int tp_schema_layer_takes(tp_layer_kind kind, const char *option)
{
    static const struct {
        const char *option;
        uint64_t kinds;
    } takes[] = {{"name", UINT64_MAX},
                 {"input", K(SEQUENCE) | K(EMBEDDING)},
                 {"units", K(DENSE)},
                 {"filters", K(CONV)},
                 {"dim", K(EMBEDDING)},
                 {"categories", K(EMBEDDING)},
                 {"no_bias", K(DENSE) | K(CONV)},
                 {"kernel", K(CONV) | POOLS},
                 {"stride", K(CONV) | POOLS},
                 {"padding", K(CONV) | POOLS},
                 {"dilation", K(CONV)},
                 {"groups", K(CONV) | K(GROUP_NORM)},
                 {"epsilon", NORMS},
                 {"momentum", K(BATCH_NORM)},
                 {"rate", K(DROPOUT)},
                 {"alpha", K(LEAKY_RELU) | K(ELU)},
                 {"init", K(DENSE) | K(CONV) | K(EMBEDDING)},
                 {"layers", K(SEQUENCE) | K(RESIDUAL) | K(CONCAT) | K(SUM) | K(PRODUCT)}};
    for (size_t i = 0; i < sizeof(takes) / sizeof(takes[0]); i++)
        if (strcmp(takes[i].option, option) == 0)
            return (takes[i].kinds >> kind & 1) != 0;
    return 0;
}

void tp_recipe_optimizer_defaults(tp_recipe *r, tp_optimizer_kind kind)
{
    static const struct {
        tp_optimizer_attr attr;
        double lr, weight_decay;
    } defaults[] = {
        [TP_SGD] = {{TP_SGD, 0.0, 0.0, 0.0, 0.9, 0}, 0.1, 0.0},
        [TP_ADAM] = {{TP_ADAM, 0.9, 0.999, 1e-8, 0.0, 0}, 1e-3, 0.0},
        [TP_ADAMW] = {{TP_ADAMW, 0.9, 0.999, 1e-8, 0.0, 0}, 1e-3, 0.01},
        [TP_LION] = {{TP_LION, 0.9, 0.99, 0.0, 0.0, 0}, 1e-4, 0.1},
        [TP_RMSPROP] = {{TP_RMSPROP, 0.0, 0.99, 1e-8, 0.0, 0}, 1e-2, 0.0},
        [TP_ADAGRAD] = {{TP_ADAGRAD, 0.0, 0.0, 1e-10, 0.0, 0}, 1e-2, 0.0},
    };
    r->optimizer = defaults[kind].attr;
    r->lr = defaults[kind].lr;
    r->weight_decay = defaults[kind].weight_decay;
}

void tp_recipe_defaults(tp_recipe *r)
{
    const tp_schedule schedule = TP_SCHEDULE_INIT;
    const tp_plateau plateau = TP_PLATEAU_INIT;

    *r = (tp_recipe){.data = {.target_kind = TP_TARGET_REGRESSION, .split = TP_SPLIT_FRACTION}};
    r->model.activation = TP_LAYER_RELU;
    r->model.embedding_dim = 16;
    r->objective.delta = 1.0;
    r->objective.quantile = 0.5;
    r->schedule = schedule;
    r->plateau = plateau;
    snprintf(r->plateau_metric, sizeof(r->plateau_metric), "loss");
    r->train.batch = 64;
    r->train.epochs = 10;
    r->train.accumulate = 1;
    r->train.precision = -1;
    r->train.keep = 2;
    r->train.max_bad_steps = 10;
    tp_recipe_optimizer_defaults(r, TP_ADAMW);
}
