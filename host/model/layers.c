/* layers.c - the tree of layers and the named builders. */
#include "host/core/mem.h"
#include "temper/model.h"
#include <stdio.h>
#include <string.h>

static const char *const kind_names[TP_LAYER_KINDS] = {
    [TP_LAYER_SEQUENCE] = "sequence",
    [TP_LAYER_DENSE] = "dense",
    [TP_LAYER_CONV] = "conv",
    [TP_LAYER_BATCH_NORM] = "batch_norm",
    [TP_LAYER_LAYER_NORM] = "layer_norm",
    [TP_LAYER_GROUP_NORM] = "group_norm",
    [TP_LAYER_DROPOUT] = "dropout",
    [TP_LAYER_FLATTEN] = "flatten",
    [TP_LAYER_MAX_POOL] = "max_pool",
    [TP_LAYER_AVG_POOL] = "avg_pool",
    [TP_LAYER_GLOBAL_AVG_POOL] = "global_avg_pool",
    [TP_LAYER_EMBEDDING] = "embedding",
    [TP_LAYER_RESIDUAL] = "residual",
    [TP_LAYER_CONCAT] = "concat",
    [TP_LAYER_SUM] = "sum",
    [TP_LAYER_PRODUCT] = "product",
    [TP_LAYER_REDUCE_SUM] = "reduce_sum",
    [TP_LAYER_RELU] = "relu",
    [TP_LAYER_LEAKY_RELU] = "leaky_relu",
    [TP_LAYER_ELU] = "elu",
    [TP_LAYER_GELU] = "gelu",
    [TP_LAYER_SILU] = "silu",
    [TP_LAYER_TANH] = "tanh",
    [TP_LAYER_SIGMOID] = "sigmoid",
    [TP_LAYER_SOFTPLUS] = "softplus",
};

const char *tp_layer_kind_name(tp_layer_kind kind)
{
    return (unsigned)kind < TP_LAYER_KINDS ? kind_names[kind] : "";
}

void tp_layer_clear(tp_layer *l)
{
    if (l == NULL)
        return;
    for (int i = 0; i < l->n_children; i++)
        tp_layer_clear(&l->children[i]);
    tp_free(l->children);
    *l = (tp_layer){0};
}

tp_status tp_layer_append(tp_layer *parent, tp_layer_kind kind, tp_layer **out)
{
    const size_t n = (size_t)parent->n_children;

    *out = NULL;
    TP_TRY(tp_realloc(&parent->children, n, n + 1, sizeof(tp_layer), "layer"));
    parent->n_children++;
    *out = &parent->children[n];
    (*out)->kind = kind;
    return TP_OK;
}

static tp_status append_named(tp_layer *parent, tp_layer_kind kind, const char *name, tp_layer **out)
{
    TP_TRY(tp_layer_append(parent, kind, out));
    snprintf((*out)->name, sizeof((*out)->name), "%s", name);
    return TP_OK;
}

static tp_status build_mlp(tp_layer *out, int n_hidden, const int64_t *hidden, tp_layer_kind activation,
                           double dropout, int64_t n_outputs)
{
    tp_layer *l = NULL;

    TP_CHECK(n_hidden >= 0 && n_outputs > 0, TP_EINVAL,
             "mlp: %d hidden layers and %lld outputs, want >= 0 and > 0", n_hidden, (long long)n_outputs);
    for (int i = 0; i < n_hidden; i++) {
        TP_CHECK(hidden[i] > 0, TP_EINVAL, "mlp: hidden layer %d has %lld units, want > 0", i,
                 (long long)hidden[i]);
        TP_TRY(tp_layer_append(out, TP_LAYER_DENSE, &l));
        l->units = hidden[i];
        TP_TRY(tp_layer_append(out, activation, &l));
        if (dropout > 0.0) {
            TP_TRY(tp_layer_append(out, TP_LAYER_DROPOUT, &l));
            l->rate = dropout;
        }
    }
    TP_TRY(tp_layer_append(out, TP_LAYER_DENSE, &l));
    l->units = n_outputs;
    return TP_OK;
}

tp_status tp_layers_mlp(tp_layer *out, int n_hidden, const int64_t *hidden, tp_layer_kind activation,
                        double dropout, int64_t n_outputs)
{
    const tp_status st = build_mlp(out, n_hidden, hidden, activation, dropout, n_outputs);
    if (st != TP_OK)
        tp_layer_clear(out);
    return st;
}

static tp_status append_conv_bn(tp_layer *seq, const char *conv, const char *norm, int64_t filters,
                                int64_t kernel, int64_t stride)
{
    tp_layer *l = NULL;

    TP_TRY(append_named(seq, TP_LAYER_CONV, conv, &l));
    l->units = filters;
    l->no_bias = 1;
    for (int i = 0; i < 2; i++) {
        l->kernel[i] = kernel;
        l->stride[i] = stride;
        l->pad[i] = kernel / 2;
    }
    return append_named(seq, TP_LAYER_BATCH_NORM, norm, &l);
}

/* The block of He et al.: conv-bn-relu-conv-bn added to the input, or to a strided 1x1 projection of it. */
static tp_status append_block(tp_layer *stage, const char *name, int64_t filters, int64_t stride, int project)
{
    tp_layer *block = NULL, *body = NULL, *l = NULL;

    TP_TRY(append_named(stage, TP_LAYER_RESIDUAL, name, &block));
    TP_TRY(tp_layer_append(block, TP_LAYER_SEQUENCE, &body));
    body->name[0] = '.'; /* transparent: "layer1.0.conv1", as PyTorch names it */
    TP_TRY(append_conv_bn(body, "conv1", "bn1", filters, 3, stride));
    TP_TRY(tp_layer_append(body, TP_LAYER_RELU, &l));
    TP_TRY(append_conv_bn(body, "conv2", "bn2", filters, 3, 1));
    if (project) {
        TP_TRY(append_named(block, TP_LAYER_SEQUENCE, "downsample", &l));
        TP_TRY(append_conv_bn(l, "0", "1", filters, 1, stride));
    }
    return tp_layer_append(stage, TP_LAYER_RELU, &l);
}

static tp_status build_resnet18(tp_layer *out, int64_t n_outputs)
{
    tp_layer *l = NULL, *stage = NULL;

    TP_TRY(append_conv_bn(out, "conv1", "bn1", 64, 3, 1));
    TP_TRY(tp_layer_append(out, TP_LAYER_RELU, &l));
    for (int s = 0; s < 4; s++) {
        char name[16];
        snprintf(name, sizeof(name), "layer%d", s + 1);
        TP_TRY(append_named(out, TP_LAYER_SEQUENCE, name, &stage));
        TP_TRY(append_block(stage, "0", (int64_t)64 << s, s > 0 ? 2 : 1, s > 0));
        TP_TRY(append_block(stage, "1", (int64_t)64 << s, 1, 0));
    }
    TP_TRY(tp_layer_append(out, TP_LAYER_GLOBAL_AVG_POOL, &l));
    TP_TRY(append_named(out, TP_LAYER_DENSE, "fc", &l));
    l->units = n_outputs;
    return TP_OK;
}

tp_status tp_layers_resnet18(tp_layer *out, int64_t n_outputs)
{
    *out = (tp_layer){0};
    const tp_status st = build_resnet18(out, n_outputs);
    if (st != TP_OK)
        tp_layer_clear(out);
    return st;
}
