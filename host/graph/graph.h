/* graph.h - the inside of a graph, for the files of host/graph only. */
#ifndef TP_GRAPH_INTERNAL_H
#define TP_GRAPH_INTERNAL_H
#include "kernels/op.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tp_value_kind { TP_VALUE_TEMP, TP_VALUE_VARIABLE, TP_VALUE_CONSTANT } tp_value_kind;

typedef struct tp_value {
    tp_shape shape;
    tp_dtype dtype;
    tp_value_kind kind;
    int node;         /* producer; -1 for variables and constants */
    int keep;         /* marked by tp_output */
    void *data;       /* variable: borrowed device storage; constant: host copy in the pool */
    const char *name; /* variables only */
} tp_value;

typedef struct tp_pool_block tp_pool_block;

struct tp_graph {
    tp_status status;
    char *error;
    tp_value *values; /* value id v is values[v]; entry 0 is unused */
    size_t n_values, cap_values;
    tp_node *nodes;
    size_t n_nodes, cap_nodes;
    const char *scope;
    tp_pool_block *pool; /* every small copy a graph makes, freed together */
};

static inline const tp_value *tp_graph_value(const tp_graph *g, tp_val v)
{
    return &g->values[v];
}

/* The tensor of a value with its data pointer unset; dtype NONE for value 0. */
tp_tensor tp_graph_tensor(const tp_graph *g, tp_val v);

#ifdef __cplusplus
}
#endif

#endif
