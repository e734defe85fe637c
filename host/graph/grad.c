/* grad.c - reverse-mode differentiation that appends nodes: a walk from the loss back, each op adding its own
 * rule. */
#include "host/core/mem.h"
#include "host/graph/graph.h"
#include <string.h>

typedef struct grad_walk {
    uint8_t *need; /* per value: does it depend on something in wrt? */
    tp_val *grad;  /* per value: the gradient gathered so far */
    tp_val *dout, *din;
    uint8_t *need_in;
} grad_walk;

static void mark_needed(const tp_graph *g, int last_node, int n, const tp_val *wrt, uint8_t *need)
{
    for (int i = 0; i < n; i++)
        need[wrt[i]] = 1;
    need[0] = 0;
    for (int i = 0; i <= last_node; i++) {
        const tp_node *node = &g->nodes[i];
        int any = 0;
        for (int k = 0; k < node->n_in && !(node->op->flags & TP_OP_STOP); k++)
            any |= need[node->in[k]];
        for (int k = 0; k < node->n_out && any; k++)
            if (tp_is_float(g->values[node->out[k]].dtype))
                need[node->out[k]] = 1;
    }
}

static void walk_node(tp_graph *g, const tp_node *node, grad_walk *w)
{
    int any_out = 0, any_in = 0;

    if (node->op->flags & TP_OP_STOP)
        return;
    for (int k = 0; k < node->n_out; k++) {
        w->dout[k] = w->grad[node->out[k]];
        any_out |= w->dout[k] != 0;
    }
    for (int k = 0; k < node->n_in; k++) {
        w->din[k] = 0;
        w->need_in[k] = w->need[node->in[k]];
        any_in |= w->need_in[k];
    }
    if (!any_out || !any_in)
        return;
    if (node->op->grad == NULL) {
        (void)tp_graph_fail(g, TP_ESHAPE, "grad: %s has no gradient", node->op->name);
        return;
    }
    node->op->grad(g, node, w->dout, w->need_in, w->din);
    for (int k = 0; k < node->n_in && tp_graph_ok(g); k++) {
        const tp_val v = node->in[k];
        if (w->din[k] != 0 && w->need[v])
            w->grad[v] = w->grad[v] != 0 ? tp_add(g, w->grad[v], w->din[k]) : w->din[k];
    }
}

static int widest_node(const tp_graph *g)
{
    int most = 1;
    for (size_t i = 0; i < g->n_nodes; i++) {
        most = g->nodes[i].n_in > most ? g->nodes[i].n_in : most;
        most = g->nodes[i].n_out > most ? g->nodes[i].n_out : most;
    }
    return most;
}

static tp_val ones_like(tp_graph *g, tp_val loss)
{
    const tp_val one = tp_scalar(g, tp_val_dtype(g, loss), 1.0);
    return tp_val_shape(g, loss).nd == 0 ? one : tp_reshape(g, one, tp_val_shape(g, loss));
}

static tp_status walk(tp_graph *g, tp_val loss, int n, const tp_val *wrt, tp_val *out, grad_walk *w)
{
    const int last_node = g->values[loss].node;
    const size_t widest = (size_t)widest_node(g);

    TP_TRY(tp_alloc(&w->need, g->n_values, 1, "gradient"));
    TP_TRY(tp_alloc(&w->grad, g->n_values, sizeof(tp_val), "gradient"));
    TP_TRY(tp_alloc(&w->dout, widest, sizeof(tp_val), "gradient"));
    TP_TRY(tp_alloc(&w->din, widest, sizeof(tp_val), "gradient"));
    TP_TRY(tp_alloc(&w->need_in, widest, 1, "gradient"));
    mark_needed(g, last_node, n, wrt, w->need);
    if (w->need[loss])
        w->grad[loss] = ones_like(g, loss);
    const char *scope = g->scope;
    for (int i = last_node; i >= 0 && tp_graph_ok(g); i--) {
        const tp_node node = g->nodes[i]; /* a copy: rules append nodes and may move the array */
        g->scope = node.scope;
        walk_node(g, &node, w);
    }
    g->scope = scope;
    for (int i = 0; i < n && tp_graph_ok(g); i++)
        out[i] = w->grad[wrt[i]];
    return TP_OK;
}

void tp_grad(tp_graph *g, tp_val loss, int n, const tp_val *wrt, tp_val *out)
{
    grad_walk w = {0};

    for (int i = 0; i < n; i++)
        out[i] = 0;
    if (!tp_graph_ok(g))
        return;
    if (loss == 0 || tp_shape_len(tp_val_shape(g, loss)) != 1 || !tp_is_float(tp_val_dtype(g, loss))) {
        char text[TP_SHAPE_TEXT_SIZE];
        (void)tp_graph_fail(g, TP_ESHAPE, "grad: the loss has shape %s, want one float element",
                            tp_shape_text(tp_val_shape(g, loss), text, sizeof(text)));
        return;
    }
    if (walk(g, loss, n, wrt, out, &w) != TP_OK)
        (void)tp_graph_fail(g, TP_ENOMEM, "grad: no memory");
    tp_free(w.need);
    tp_free(w.grad);
    tp_free(w.dout);
    tp_free(w.din);
    tp_free(w.need_in);
}
