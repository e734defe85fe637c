#include "host/graph/graph.h"
#include "host/core/mem.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define POOL_BYTES 65536

struct tp_pool_block {
    tp_pool_block *next;
    size_t used, bytes;
    char *data;
};

static tp_status pool_take(tp_graph *g, void *out_pointer, size_t bytes)
{
    tp_pool_block *b = g->pool;
    const size_t need = tp_round_up(bytes);

    if (b == NULL || b->bytes - b->used < need) {
        TP_TRY(tp_alloc(&b, 1, sizeof(*b), "graph"));
        b->bytes = need > POOL_BYTES ? need : POOL_BYTES;
        const tp_status st = tp_alloc(&b->data, b->bytes, 1, "graph");
        if (st != TP_OK) {
            tp_free(b);
            return st;
        }
        b->next = g->pool;
        g->pool = b;
    }
    void *p = b->data + b->used;
    b->used += need;
    memcpy(out_pointer, &p, sizeof(p));
    return TP_OK;
}

static tp_status pool_copy(tp_graph *g, void *out_pointer, const void *src, size_t bytes)
{
    void *p = NULL;

    if (src != NULL) {
        TP_TRY(pool_take(g, &p, bytes));
        memcpy(p, src, bytes);
    }
    memcpy(out_pointer, &p, sizeof(p));
    return TP_OK;
}

tp_status tp_graph_new(tp_graph **out)
{
    *out = NULL;
    TP_TRY(tp_alloc(out, 1, sizeof(**out), "graph"));
    (*out)->n_values = 1;
    return TP_OK;
}

void tp_graph_free(tp_graph *g)
{
    if (g == NULL)
        return;
    while (g->pool != NULL) {
        tp_pool_block *next = g->pool->next;
        tp_free(g->pool->data);
        tp_free(g->pool);
        g->pool = next;
    }
    tp_free(g->error);
    tp_free(g->values);
    tp_free(g->nodes);
    tp_free(g);
}

tp_status tp_graph_status(const tp_graph *g)
{
    if (g->status != TP_OK)
        TP_FAIL(g->status, "%s", g->error != NULL ? g->error : "graph: no memory");
    return TP_OK;
}

int tp_graph_ok(const tp_graph *g)
{
    return g->status == TP_OK;
}

const tp_node *tp_graph_producer(const tp_graph *g, tp_val v)
{
    const int node = v != 0 ? tp_graph_value(g, v)->node : -1;
    return node >= 0 ? &g->nodes[node] : NULL;
}

/* Keeps the thread's last error as the graph's first one. */
static tp_val graph_stop(tp_graph *g, tp_status st)
{
    if (g->status == TP_OK) {
        g->status = st;
        if (tp_strdup(&g->error, tp_last_error()) != TP_OK)
            g->status = TP_ENOMEM;
    }
    return 0;
}

tp_val tp_graph_fail(tp_graph *g, tp_status st, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return graph_stop(g, tp_error_set(st, __FILE__, __LINE__, "%s", text));
}

static tp_status grow(void *array, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return TP_OK;
    const size_t grown = *cap > 0 ? *cap * 2 : 64;
    TP_TRY(tp_realloc(array, *cap, grown, size, "graph"));
    *cap = grown;
    return TP_OK;
}

static tp_status value_new(tp_graph *g, tp_val *out, tp_value value)
{
    TP_TRY(tp_shape_check(value.shape, value.dtype));
    TP_TRY(grow(&g->values, g->n_values, &g->cap_values, sizeof(*g->values)));
    *out = (tp_val)g->n_values;
    g->values[g->n_values++] = value;
    return TP_OK;
}

static tp_status variable_new(tp_graph *g, tp_val *out, const char *name, tp_tensor t)
{
    tp_value v = {.shape = t.shape, .dtype = t.dtype, .kind = TP_VALUE_VARIABLE, .node = -1, .data = t.data};

    TP_TRY(pool_copy(g, &v.name, name, strlen(name) + 1));
    return value_new(g, out, v);
}

tp_val tp_variable(tp_graph *g, const char *name, tp_tensor storage)
{
    tp_val v = 0;

    if (g->status != TP_OK)
        return 0;
    const tp_status st = variable_new(g, &v, name, storage);
    return st == TP_OK ? v : graph_stop(g, st);
}

static tp_status constant_new(tp_graph *g, tp_val *out, tp_tensor t)
{
    tp_value v = {.shape = t.shape, .dtype = t.dtype, .kind = TP_VALUE_CONSTANT, .node = -1};

    TP_TRY(tp_shape_check(t.shape, t.dtype));
    TP_TRY(pool_copy(g, &v.data, t.data, tp_tensor_bytes(&t)));
    return value_new(g, out, v);
}

tp_val tp_constant(tp_graph *g, tp_dtype dtype, tp_shape shape, const void *data)
{
    tp_val v = 0;
    void *bytes = NULL;

    if (g->status != TP_OK)
        return 0;
    memcpy(&bytes, &data, sizeof(bytes));
    const tp_status st = constant_new(g, &v, (tp_tensor){bytes, shape, dtype});
    return st == TP_OK ? v : graph_stop(g, st);
}

tp_val tp_scalar(tp_graph *g, tp_dtype dtype, double value)
{
    const float f = (float)value;

    if (dtype == TP_F32)
        return tp_constant(g, dtype, tp_shape_scalar(), &f);
    if (dtype == TP_F64)
        return tp_constant(g, dtype, tp_shape_scalar(), &value);
    return tp_graph_ok(g) ? tp_graph_fail(g, TP_ESHAPE, "scalar: dtype %s, want float32 or float64",
                                          tp_dtype_name(dtype))
                          : 0;
}

tp_val tp_output(tp_graph *g, tp_val v)
{
    if (v != 0)
        g->values[v].keep = 1;
    return v;
}

tp_shape tp_val_shape(const tp_graph *g, tp_val v)
{
    return v != 0 ? g->values[v].shape : tp_shape_scalar();
}

tp_dtype tp_val_dtype(const tp_graph *g, tp_val v)
{
    return v != 0 ? g->values[v].dtype : TP_DTYPE_NONE;
}

tp_tensor tp_graph_tensor(const tp_graph *g, tp_val v)
{
    return (tp_tensor){NULL, tp_val_shape(g, v), tp_val_dtype(g, v)};
}

void tp_graph_scope(tp_graph *g, const char *name)
{
    const char *copy = NULL;

    if (g->status != TP_OK)
        return;
    const tp_status st = pool_copy(g, &copy, name, name != NULL ? strlen(name) + 1 : 0);
    if (st != TP_OK)
        (void)graph_stop(g, st);
    g->scope = copy;
}

int tp_graph_size(const tp_graph *g)
{
    return (int)g->n_nodes;
}

const char *tp_graph_op_name(const tp_graph *g, int i)
{
    return i >= 0 && (size_t)i < g->n_nodes ? g->nodes[i].op->name : "";
}

const tp_node *tp_graph_node(const tp_graph *g, int i)
{
    return &g->nodes[i];
}

/* ---- appending a node ---- */

static tp_status check_inputs(const tp_graph *g, const tp_op *op, int n_in, const tp_val *in)
{
    TP_CHECK(n_in >= op->min_in && (op->max_in < 0 || n_in <= op->max_in), TP_ESHAPE,
             "has %d inputs, want %d to %d", n_in, op->min_in, op->max_in);
    for (int i = 0; i < n_in; i++) {
        TP_CHECK(in[i] < g->n_values, TP_ESHAPE, "input %d is value %u, but there are only %zu", i, in[i],
                 g->n_values - 1);
        TP_CHECK(in[i] != 0 || i >= op->min_in, TP_ESHAPE, "input %d is missing", i);
    }
    return TP_OK;
}

static tp_status infer_outputs(tp_graph *g, const tp_op *op, int n_in, const tp_val *in, const void *attr,
                               tp_infer *x)
{
    tp_shape *shapes = NULL;
    tp_dtype *dtypes = NULL;

    TP_TRY(pool_take(g, &shapes, sizeof(tp_shape) * (size_t)(n_in + op->n_out)));
    TP_TRY(pool_take(g, &dtypes, sizeof(tp_dtype) * (size_t)(n_in + op->n_out)));
    for (int i = 0; i < n_in; i++) {
        shapes[i] = tp_val_shape(g, in[i]);
        dtypes[i] = tp_val_dtype(g, in[i]);
    }
    for (int i = 0; i < op->n_out; i++) {
        shapes[n_in + i] = n_in > 0 ? shapes[0] : tp_shape_scalar();
        dtypes[n_in + i] = n_in > 0 ? dtypes[0] : TP_F32;
    }
    *x = (tp_infer){n_in, op->n_out, shapes, dtypes, attr, shapes + n_in, dtypes + n_in};
    return op->infer != NULL ? op->infer(x) : TP_OK;
}

static tp_status node_new(tp_graph *g, const tp_op *op, int n_in, const tp_val *in, const void *attr,
                          tp_val *first)
{
    tp_infer x;
    tp_node node = {.op = op, .n_in = n_in, .n_out = op->n_out, .scope = g->scope};
    tp_val *outs = NULL;

    TP_TRY(check_inputs(g, op, n_in, in));
    TP_TRY(infer_outputs(g, op, n_in, in, attr, &x));
    TP_TRY(pool_copy(g, &node.in, in, sizeof(tp_val) * (size_t)n_in));
    TP_TRY(pool_copy(g, &node.attr, attr, op->attr_size));
    TP_TRY(pool_take(g, &outs, sizeof(tp_val) * (size_t)(op->n_out + 1)));
    for (int i = 0; i < op->n_out; i++) {
        const tp_value v = {.shape = x.out_shape[i], .dtype = x.out_dtype[i], .node = (int)g->n_nodes};
        TP_TRY(value_new(g, &outs[i], v));
    }
    node.out = outs;
    TP_TRY(grow(&g->nodes, g->n_nodes, &g->cap_nodes, sizeof(*g->nodes)));
    g->nodes[g->n_nodes++] = node;
    *first = op->n_out > 0 ? outs[0] : 0;
    return TP_OK;
}

/* Rewrites the thread's line as "op [scope]: line; inputs (..) (..)". */
static void explain(const tp_graph *g, const tp_op *op, int n_in, const tp_val *in, tp_status st)
{
    char text[1024];
    char shape[TP_SHAPE_TEXT_SIZE];
    size_t at = (size_t)snprintf(text, sizeof(text), "%s%s%s: %s", op->name, g->scope != NULL ? " in " : "",
                                 g->scope != NULL ? g->scope : "", tp_last_error());
    for (int i = 0; i < n_in && i < 8 && at < sizeof(text); i++)
        if (in[i] != 0 && in[i] < g->n_values)
            at += (size_t)snprintf(text + at, sizeof(text) - at, "%s %s", i == 0 ? "; inputs" : "",
                                   tp_shape_text(tp_val_shape(g, in[i]), shape, sizeof(shape)));
    (void)tp_error_set(st, __FILE__, __LINE__, "%s", text);
}

tp_val tp_graph_add(tp_graph *g, const tp_op *op, int n_in, const tp_val *in, const void *attr)
{
    tp_val first = 0;

    if (g->status != TP_OK)
        return 0;
    const tp_status st = node_new(g, op, n_in, in, attr, &first);
    if (st != TP_OK) {
        explain(g, op, n_in, in, st);
        return graph_stop(g, st);
    }
    return first;
}
