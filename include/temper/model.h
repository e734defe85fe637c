/* model.h - a model: a tree of layers, the inputs it reads, and its parameters on a device. */
#ifndef TP_MODEL_H
#define TP_MODEL_H
#include "temper/device.h"
#include "temper/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- layers: what a recipe's layer list becomes ---- */

typedef enum tp_layer_kind {
    TP_LAYER_SEQUENCE = 0, /* children one after another */
    TP_LAYER_DENSE,        /* y = act(x W^T + b); W (units, in) */
    TP_LAYER_CONV,         /* 2-D on images, 1-D on (N,C,W) */
    TP_LAYER_BATCH_NORM,
    TP_LAYER_LAYER_NORM,
    TP_LAYER_GROUP_NORM,
    TP_LAYER_DROPOUT,
    TP_LAYER_FLATTEN, /* (N, everything else) */
    TP_LAYER_MAX_POOL,
    TP_LAYER_AVG_POOL,
    TP_LAYER_GLOBAL_AVG_POOL, /* (N, C) */
    TP_LAYER_EMBEDDING,       /* ids -> rows of a table; several ids a sample are laid side by side */
    TP_LAYER_RESIDUAL, /* y = x' + children(x); child 0 is the body, child 1 (optional) the shortcut for x' */
    TP_LAYER_CONCAT,   /* children side by side along dimension 1; each may read another input */
    TP_LAYER_SUM,      /* the sum of the children; each may read another input */
    TP_LAYER_PRODUCT,  /* the elementwise product of the children (matrix factorisation: then a reduce over
                          units) */
    TP_LAYER_REDUCE_SUM, /* sum over the features: (N, 1) */
    TP_LAYER_RELU,
    TP_LAYER_LEAKY_RELU,
    TP_LAYER_ELU,
    TP_LAYER_GELU,
    TP_LAYER_SILU,
    TP_LAYER_TANH,
    TP_LAYER_SIGMOID,
    TP_LAYER_SOFTPLUS,
    TP_LAYER_KINDS
} tp_layer_kind;

typedef enum tp_init { TP_INIT_DEFAULT = 0, TP_INIT_KAIMING, TP_INIT_XAVIER, TP_INIT_ZEROS } tp_init;

#define TP_LAYER_NAME_SIZE 64

/* One layer. Fields that a kind does not use are zero. Zero stride means kernel for pools and 1 for
 * convolutions; zero dilation and groups mean 1. */
typedef struct tp_layer tp_layer;
struct tp_layer {
    tp_layer_kind kind;
    char name[TP_LAYER_NAME_SIZE];  /* "" : its number in the list, as in PyTorch's Sequential */
    char input[TP_LAYER_NAME_SIZE]; /* sequence, embedding: the input it reads; "": what the layer before
                                       gives */
    int64_t units;                  /* dense: outputs; conv: filters; embedding: width of a row */
    int64_t categories;             /* embedding: rows of the table; 0: the input's */
    int no_bias;
    int64_t kernel[2], stride[2], pad[2], dilation[2], groups;
    double epsilon, momentum; /* norms; 0: 1e-5 and 0.1 */
    double rate;              /* dropout */
    double alpha;             /* leaky_relu (0: 0.01), elu (0: 1) */
    tp_init init;             /* weights; default as PyTorch's layer */
    tp_layer *children;
    int n_children;
};

/* The name used in recipes and files: "dense", "batch_norm", ... "" if out of range. */
TP_API const char *tp_layer_kind_name(tp_layer_kind kind);

/* Frees what the children hold, recursively (not l itself), and zeroes l. */
TP_API void tp_layer_clear(tp_layer *l);

/* Appends a zeroed child and returns it in out, borrowed until the next child is appended to parent. Errors:
 * TP_ENOMEM. */
TP_API tp_status tp_layer_append(tp_layer *parent, tp_layer_kind kind, tp_layer **out) TP_MUST_USE;

/* Appends to a sequence: dense + activation [+ dropout, where it is > 0] for each of n_hidden widths, then a
 * dense layer of n_outputs. activation is TP_LAYER_RELU to TP_LAYER_SOFTPLUS; neither it nor dropout, [0, 1),
 * is checked here. On failure out is cleared, with what it held before. Errors: TP_EINVAL (n_hidden < 0, a
 * width or n_outputs < 1), TP_ENOMEM. */
TP_API tp_status tp_layers_mlp(tp_layer *out, int n_hidden, const int64_t *hidden, tp_layer_kind activation,
                               double dropout, int64_t n_outputs) TP_MUST_USE;
/* ResNet-18 for small images (He et al. 2016, CIFAR form: a 3x3 stem, no max pool), as a sequence: out is
 * overwritten, what it held is not freed. Activations are relu. n_outputs is checked by tp_model_new. On
 * failure out is cleared. Errors: TP_ENOMEM. */
TP_API tp_status tp_layers_resnet18(tp_layer *out, int64_t n_outputs) TP_MUST_USE;

/* ---- a model ---- */

typedef enum tp_input_kind { TP_INPUT_DENSE = 0, TP_INPUT_IMAGE, TP_INPUT_IDS } tp_input_kind;
typedef enum tp_task { TP_TASK_REGRESSION = 0, TP_TASK_CLASS, TP_TASK_MULTILABEL } tp_task;

/* What the model reads: enough to evaluate it on new data. shape is that of one sample. x' = (x - shift)
 * scale with n_norm values (one for each feature or channel; 0: none). Owned by the model. */
typedef struct tp_model_input {
    char name[TP_LAYER_NAME_SIZE]; /* as layers refer to it, and the dataset's name in the file */
    tp_input_kind kind;
    tp_shape shape;
    int64_t categories; /* ids */
    int64_t n_norm;
    float *shift, *scale;
} tp_model_input;

typedef struct tp_model tp_model;

/* Takes over layers (zeroed in the caller's hands, on failure too); copies inputs. n_outputs: width the
 * last layer must have. Weights are drawn from Philox by (seed, parameter, element), so they do not depend on
 * the device. dev is borrowed and must outlive the model. Errors: TP_ESHAPE (layers that do not fit the
 * inputs or each other, naming layer and shapes), TP_EINVAL (no inputs), TP_ENOMEM, TP_EDEVICE; *out is then
 * NULL. */
TP_API tp_status tp_model_new(tp_model **out, tp_device *dev, tp_layer *layers, int n_inputs,
                              const tp_model_input *inputs, tp_task task, int64_t n_outputs, uint64_t seed)
    TP_MUST_USE;
TP_API void tp_model_free(tp_model *m); /* NULL is fine */

/* Regression on a normalised target: outputs are in its units, so that a prediction is output / scale +
 * shift, with one shift and scale for each output; n is n_outputs, or 0 for none. Copies. Errors: TP_EINVAL,
 * TP_ENOMEM. */
TP_API tp_status tp_model_set_target_norm(tp_model *m, int64_t n, const float *shift, const float *scale)
    TP_MUST_USE;
/* Returns n; borrowed. */
TP_API int64_t tp_model_target_norm(const tp_model *m, const float **shift, const float **scale);

TP_API tp_task tp_model_task(const tp_model *m);
TP_API int64_t tp_model_outputs(const tp_model *m);
TP_API const tp_layer *tp_model_layers(const tp_model *m); /* the root sequence; borrowed */
TP_API int tp_model_n_inputs(const tp_model *m);
TP_API const tp_model_input *tp_model_input_at(const tp_model *m, int i);

/* Parameters (trained) and buffers (running statistics), in the order of the layers. data is device memory.
 */
typedef struct tp_param {
    const char *name;  /* "0.weight", "3.running_mean" */
    tp_shape shape;    /* PyTorch's, and that of files */
    tp_tensor tensor;  /* of that shape, or */
    int channels_last; /* 1: filters (M,C,KH,KW) are stored as (M,KH,KW,C) */
    int trained;       /* 0 for a buffer */
    int decay;         /* weight decay applies: not a bias, not of a norm */
    int sparse;        /* an embedding table used once: its gradient touches only the rows of the batch */
} tp_param;
TP_API int tp_model_n_params(const tp_model *m);
TP_API const tp_param *tp_model_param(const tp_model *m, int i);

/* How a forward pass treats batch norm and dropout. */
typedef enum tp_mode { TP_MODE_EVAL = 0, TP_MODE_TRAIN } tp_mode;

/* A place where a sparse table is read: its parameter, the ids, and the rows that came out (whose gradient is
 * asked for). */
typedef struct tp_sparse_use {
    int param;
    tp_val ids, rows;
} tp_sparse_use;

/* What one forward pass reads and leaves. params[i] is the graph's variable for parameter i (made by
 * tp_model_bind). */
typedef struct tp_forward {
    tp_mode mode;
    const tp_val *inputs;     /* (B, sample...) float32, or int64 ids */
    const tp_val *params;     /* tp_model_n_params values */
    tp_val counter;           /* train: uint64 (2) {seed, step} for dropout */
    uint32_t stream;          /* train: first stream number of this pass */
    tp_val weight;            /* train, optional: (B) sample weights that mask padding in batch norm */
    int bf16;                 /* convolutions and what follows them are stored in bfloat16 */
    const tp_val *low;        /* optional, with bf16: copies of parameters in it, 0 where there is none */
    tp_sparse_use *sparse;    /* optional room for max_sparse uses */
    int max_sparse, n_sparse; /* out: uses found */
} tp_forward;

/* Adds a variable for every parameter. */
TP_API void tp_model_bind(const tp_model *m, tp_graph *g, tp_val *params);

/* Appends the forward pass and returns the outputs (B, n_outputs): logits, or values for regression, in the
 * units of the normalised target where there is one (tp_model_set_target_norm). On failure returns 0. What an
 * op refuses is the graph's error, which sticks (tp_graph_status); what a layer refuses, an input of another
 * rank than the model was made for, is in tp_last_error alone. */
TP_API tp_val tp_model_forward(const tp_model *m, tp_graph *g, tp_forward *f);

#ifdef __cplusplus
}
#endif
#endif
