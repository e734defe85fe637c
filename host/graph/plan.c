/* plan.c - compile: drop what nobody reads, choose an implementation for each node, find lifetimes, place the
 * arena. */
#include "host/graph/plan.h"
#include "host/core/mem.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- which nodes run ---- */

static tp_status find_live(const tp_graph *g, uint8_t *live)
{
    uint8_t *wanted = NULL;

    TP_TRY(tp_alloc(&wanted, g->n_values, 1, "plan"));
    for (size_t v = 1; v < g->n_values; v++)
        wanted[v] = g->values[v].keep != 0;
    for (size_t i = g->n_nodes; i-- > 0;) {
        const tp_node *node = &g->nodes[i];
        live[i] = (node->op->flags & TP_OP_EFFECT) != 0;
        for (int k = 0; k < node->n_out; k++)
            live[i] |= wanted[node->out[k]];
        for (int k = 0; k < node->n_in && live[i]; k++)
            wanted[node->in[k]] = 1;
    }
    tp_free(wanted);
    return TP_OK;
}

/* ---- implementations ---- */

static tp_status add_reason(tp_step *s, const char *impl)
{
    char *text = NULL;
    TP_TRY(tp_format(&text, "%s%s%s: %s", s->declined != NULL ? s->declined : "",
                     s->declined != NULL ? "; " : "", impl, tp_last_error()));
    tp_free(s->declined);
    s->declined = text;
    return TP_OK;
}

static int is_forced(const tp_plan *p, const tp_op *op)
{
    return p->opts.force_op != NULL && p->opts.force_impl != NULL && strcmp(p->opts.force_op, op->name) == 0;
}

static tp_status no_implementation(const tp_plan *p, const tp_step *s, const tp_op *op)
{
    char shape[TP_SHAPE_TEXT_SIZE];
    const tp_tensor *t = &s->tensors[0];
    TP_FAIL(TP_EUNSUP, "%s: no implementation on this device (%s) takes %s %s%s%s", op->name, p->dev->text,
            tp_dtype_name(t->dtype), tp_shape_text(t->shape, shape, sizeof(shape)),
            s->declined != NULL ? ": " : "", s->declined != NULL ? s->declined : "");
}

static tp_status choose(tp_plan *p, tp_step *s, const tp_op *op)
{
    const tp_impl *const *impls = tp_device_impls(p->dev, op);
    const int forced = is_forced(p, op);

    for (int i = 0; impls != NULL && impls[i] != NULL; i++) {
        if (forced && strcmp(impls[i]->name, p->opts.force_impl) != 0)
            continue;
        s->scratch_bytes = 0;
        s->call.state = NULL;
        const tp_status st = impls[i]->prepare != NULL ? impls[i]->prepare(&s->call, &s->scratch_bytes)
                                                       : tp_accept_f32(&s->call, &s->scratch_bytes);
        if (st == TP_OK) {
            s->impl = impls[i];
            return TP_OK;
        }
        if (st != TP_EUNSUP)
            return st;
        TP_TRY(add_reason(s, impls[i]->name));
    }
    return no_implementation(p, s, op);
}

static tp_status step_new(tp_plan *p, tp_step *s, int node_index)
{
    const tp_graph *g = p->graph;
    const tp_node *node = &g->nodes[node_index];

    s->node = node_index;
    TP_TRY(tp_alloc(&s->tensors, (size_t)(node->n_in + node->n_out), sizeof(tp_tensor), "plan"));
    for (int k = 0; k < node->n_in; k++)
        s->tensors[k] = tp_graph_tensor(g, node->in[k]);
    for (int k = 0; k < node->n_out; k++)
        s->tensors[node->n_in + k] = tp_graph_tensor(g, node->out[k]);
    s->call = (tp_call){.n_in = node->n_in,
                        .n_out = node->n_out,
                        .in = s->tensors,
                        .out = s->tensors + node->n_in,
                        .attr = node->attr,
                        .precision = p->opts.precision,
                        .queue = p->dev->queue};
    return node->op->flags & TP_OP_VIEW ? TP_OK : choose(p, s, node->op);
}

static tp_status make_steps(tp_plan *p)
{
    const tp_graph *g = p->graph;
    uint8_t *live = NULL;
    tp_status st = TP_OK;

    TP_TRY_GOTO(tp_alloc(&live, g->n_nodes, 1, "plan"), st, done);
    TP_TRY_GOTO(tp_alloc(&p->steps, g->n_nodes, sizeof(tp_step), "plan"), st, done);
    TP_TRY_GOTO(find_live(g, live), st, done);
    for (size_t i = 0; i < g->n_nodes; i++)
        if (live[i]) {
            p->n_steps++;
            TP_TRY_GOTO(step_new(p, &p->steps[p->n_steps - 1], (int)i), st, done);
        }
done:
    tp_free(live);
    return st;
}

/* ---- lifetimes ---- */

static size_t value_bytes(const tp_graph *g, tp_val v)
{
    const tp_tensor t = tp_graph_tensor(g, v);
    return tp_tensor_bytes(&t);
}

/* May the node's output take over the slot of its first input? Only if the input ends here and nothing else
 * reads the same memory in another order. */
static int takes_over(const tp_plan *p, const tp_node *node, int step, const int *last_use)
{
    const tp_graph *g = p->graph;
    const int slot = (node->op->flags & TP_OP_INPLACE) && node->n_in > 0 ? p->slot_of[node->in[0]] : -1;

    if (slot < 0 || last_use[slot] != step || value_bytes(g, node->in[0]) != value_bytes(g, node->out[0]))
        return 0;
    for (int k = 1; k < node->n_in; k++)
        if (p->slot_of[node->in[k]] == slot && node->in[k] != node->in[0])
            return 0;
    return 1;
}

/* One slot for each value, views sharing their source's. */
static void assign_slots(tp_plan *p)
{
    const tp_graph *g = p->graph;

    for (size_t v = 0; v < g->n_values; v++)
        p->slot_of[v] = -1;
    for (int i = 0; i < p->n_steps; i++) {
        const tp_node *node = &g->nodes[p->steps[i].node];
        for (int k = 0; k < node->n_out; k++) {
            if (node->op->flags & TP_OP_VIEW) {
                p->slot_of[node->out[k]] = p->slot_of[node->in[0]];
                continue;
            }
            p->slots[p->n_slots] = (tp_slot){.bytes = value_bytes(g, node->out[k]), .first = i, .last = i};
            p->slot_of[node->out[k]] = p->n_slots++;
        }
    }
}

static void find_last_uses(tp_plan *p)
{
    const tp_graph *g = p->graph;

    for (int i = 0; i < p->n_steps; i++) {
        const tp_node *node = &g->nodes[p->steps[i].node];
        for (int k = 0; k < node->n_in; k++)
            if (p->slot_of[node->in[k]] >= 0)
                p->slots[p->slot_of[node->in[k]]].last = i;
        for (int k = 0; k < node->n_out; k++)
            if (p->slot_of[node->out[k]] >= 0 && p->slots[p->slot_of[node->out[k]]].last < i)
                p->slots[p->slot_of[node->out[k]]].last = i;
    }
    for (size_t v = 1; v < g->n_values; v++)
        if (g->values[v].keep && p->slot_of[v] >= 0)
            p->slots[p->slot_of[v]].last = p->n_steps;
}

/* In place is decided while slots are handed out, in program order, so that a chain of in-place nodes shares
 * one slot: last_use is kept per slot and extended as views and results join it. */
static tp_status share_slots(tp_plan *p)
{
    const tp_graph *g = p->graph;
    int *last_of_value = NULL, *last_use = NULL;
    tp_status st = TP_OK;

    TP_TRY_GOTO(tp_alloc(&last_of_value, g->n_values, sizeof(int), "plan"), st, done);
    TP_TRY_GOTO(tp_alloc(&last_use, (size_t)p->n_slots + 1, sizeof(int), "plan"), st, done);
    /* With one slot for each value and its views, a slot's last step is its values' last step. */
    for (size_t v = 1; v < g->n_values; v++)
        last_of_value[v] = p->slot_of[v] >= 0 ? p->slots[p->slot_of[v]].last : -1;
    p->n_slots = 0;
    for (size_t v = 0; v < g->n_values; v++)
        p->slot_of[v] = -1;
    for (int i = 0; i < p->n_steps; i++) {
        const tp_node *node = &g->nodes[p->steps[i].node];
        for (int k = 0; k < node->n_out; k++) {
            const tp_val v = node->out[k];
            const int shared = node->op->flags & TP_OP_VIEW || (k == 0 && takes_over(p, node, i, last_use));
            if (shared)
                p->slot_of[v] = p->slot_of[node->in[0]];
            else {
                p->slots[p->n_slots] = (tp_slot){.bytes = value_bytes(g, v), .first = i};
                p->slot_of[v] = p->n_slots++;
            }
            if (p->slot_of[v] >= 0 && last_of_value[v] > last_use[p->slot_of[v]])
                last_use[p->slot_of[v]] = last_of_value[v];
        }
    }
done:
    tp_free(last_of_value);
    tp_free(last_use);
    return st;
}

static tp_status make_slots(tp_plan *p)
{
    size_t n_outs = 0;

    for (int i = 0; i < p->n_steps; i++)
        n_outs += (size_t)p->steps[i].call.n_out + 1;
    TP_TRY(tp_alloc(&p->slots, n_outs + 1, sizeof(tp_slot), "plan"));
    TP_TRY(tp_alloc(&p->slot_of, p->graph->n_values, sizeof(int), "plan"));
    assign_slots(p);
    find_last_uses(p);
    TP_TRY(share_slots(p));
    find_last_uses(p);
    for (int i = 0; i < p->n_steps; i++)
        if (p->steps[i].scratch_bytes > 0)
            p->slots[p->n_slots++] = (tp_slot){.bytes = p->steps[i].scratch_bytes, .first = i, .last = i};
    return TP_OK;
}

/* ---- memory ---- */

static int by_last(const void *a, const void *b, void *slots)
{
    const tp_slot *s = slots;
    const int i = *(const int *)a, j = *(const int *)b;
    return s[i].last != s[j].last ? (s[i].last < s[j].last ? -1 : 1) : i - j;
}

static void find_dying(tp_plan *p)
{
    int k = 0;

    for (int i = 0; i < p->n_slots; i++)
        p->dying[i] = i;
    qsort_r(p->dying, (size_t)p->n_slots, sizeof(int), by_last, p->slots);
    for (int i = 0; i < p->n_steps; i++) {
        p->steps[i].first_dying = k;
        while (k < p->n_slots && p->slots[p->dying[k]].last == i)
            k++;
        p->steps[i].n_dying = k - p->steps[i].first_dying;
    }
}

static tp_status upload_constants(tp_plan *p)
{
    const tp_graph *g = p->graph;
    size_t at = 0;

    for (size_t v = 1; v < g->n_values; v++)
        if (g->values[v].kind == TP_VALUE_CONSTANT)
            p->constant_bytes += tp_round_up(value_bytes(g, (tp_val)v));
    TP_TRY(tp_device_alloc(p->dev, (void **)&p->constants, p->constant_bytes, "constants of a plan"));
    for (size_t v = 1; v < g->n_values; v++)
        if (g->values[v].kind == TP_VALUE_CONSTANT) {
            p->data[v] = p->constants + at;
            TP_TRY(tp_device_upload(p->dev, p->data[v], g->values[v].data, value_bytes(g, (tp_val)v)));
            at += tp_round_up(value_bytes(g, (tp_val)v));
        }
    return TP_OK;
}

static void bind(tp_plan *p)
{
    const tp_graph *g = p->graph;
    int next_scratch = p->n_slots;

    for (int i = p->n_steps; i-- > 0;)
        if (p->steps[i].scratch_bytes > 0)
            p->steps[i].scratch_offset = p->slots[--next_scratch].offset;
    for (size_t v = 1; v < g->n_values; v++) {
        if (g->values[v].kind == TP_VALUE_VARIABLE)
            p->data[v] = g->values[v].data;
        else if (p->slot_of[v] >= 0)
            p->data[v] = p->arena + p->slots[p->slot_of[v]].offset;
    }
    for (int i = 0; i < p->n_steps; i++) { /* in program order: a view of a variable takes its pointer */
        tp_step *s = &p->steps[i];
        const tp_node *node = &g->nodes[s->node];
        if (node->op->flags & TP_OP_VIEW)
            p->data[node->out[0]] = p->data[node->in[0]];
        for (int k = 0; k < node->n_in; k++)
            s->tensors[k].data = p->data[node->in[k]];
        for (int k = 0; k < node->n_out; k++)
            s->tensors[node->n_in + k].data = p->data[node->out[k]];
        s->call.scratch = s->scratch_bytes > 0 ? p->arena + s->scratch_offset : NULL;
    }
}

/* What lies in a slot: the first of the values that share it, or what an op computes in. */
static void slot_text(const tp_plan *p, int slot, char *text, size_t size)
{
    const tp_graph *g = p->graph;
    const tp_step *s = &p->steps[p->slots[slot].first];
    const tp_node *node = &g->nodes[s->node];
    char shape[TP_SHAPE_TEXT_SIZE] = "";

    for (size_t v = 1; v < g->n_values; v++)
        if (p->slot_of[v] == slot) {
            const tp_tensor t = tp_graph_tensor(g, (tp_val)v);
            snprintf(text, size, "%s%s of %zu bytes", g->nodes[g->values[v].node].op->name,
                     tp_shape_text(t.shape, shape, sizeof(shape)), tp_tensor_bytes(&t));
            return;
        }
    if (s->call.n_out > 0)
        (void)tp_shape_text(s->call.out[0].shape, shape, sizeof(shape));
    snprintf(text, size, "scratch of %s%s of %zu bytes", node->op->name, shape, s->scratch_bytes);
}

/* Names the three largest pieces of the arena, after what the device has said. */
static tp_status no_memory(const tp_plan *p)
{
    char line[1024], text[256];
    int largest[3] = {-1, -1, -1};
    int n = snprintf(line, sizeof(line), "%.500s; largest values:", tp_last_error());

    for (int i = 0; i < p->n_slots; i++)
        for (int k = 0, at = i; k < 3 && at >= 0; k++)
            if (largest[k] < 0 || p->slots[at].bytes > p->slots[largest[k]].bytes) {
                const int swap = largest[k];
                largest[k] = at;
                at = swap;
            }
    for (int k = 0; k < 3 && largest[k] >= 0 && n > 0 && (size_t)n < sizeof(line); k++) {
        slot_text(p, largest[k], text, sizeof(text));
        n += snprintf(line + n, sizeof(line) - (size_t)n, "%s %s", k > 0 ? "," : "", text);
    }
    TP_FAIL(TP_ENOMEM, "%s", line);
}

static tp_status take_memory(tp_plan *p)
{
    TP_TRY(tp_device_alloc(p->dev, (void **)&p->arena, p->arena_bytes, "arena of a plan"));
    return upload_constants(p);
}

static tp_status compile(tp_plan *p)
{
    int *order = NULL;

    TP_TRY(tp_graph_status(p->graph));
    TP_TRY(make_steps(p));
    TP_TRY(make_slots(p));
    TP_TRY(tp_alloc(&p->data, p->graph->n_values, sizeof(void *), "plan"));
    TP_TRY(tp_alloc(&p->dying, (size_t)p->n_slots + 1, sizeof(int), "plan"));
    TP_TRY(tp_alloc(&order, (size_t)p->n_slots + 1, sizeof(int), "plan"));
    p->arena_bytes = tp_slots_place(p->slots, p->n_slots, order);
    tp_free(order);
    find_dying(p);
    const tp_status st = take_memory(p);
    if (st == TP_ENOMEM)
        return no_memory(p);
    TP_TRY(st);
    bind(p);
    return TP_OK;
}

/* ---- public ---- */

tp_status tp_plan_new(tp_plan **out, const tp_graph *g, tp_device *dev, const tp_plan_opts *opts)
{
    const tp_plan_opts defaults = TP_PLAN_OPTS_INIT;
    tp_plan *p = NULL;

    *out = NULL;
    TP_TRY(tp_alloc(&p, 1, sizeof(*p), "plan"));
    p->graph = g;
    p->dev = dev;
    p->opts = opts != NULL ? *opts : defaults;
    const tp_status st = compile(p);
    if (st != TP_OK) {
        tp_plan_free(p);
        return st;
    }
    *out = p;
    return TP_OK;
}

void tp_plan_free(tp_plan *p)
{
    if (p == NULL)
        return;
    for (int i = 0; i < p->n_steps; i++) {
        tp_step *s = &p->steps[i];
        if (s->impl != NULL && s->impl->release != NULL && s->call.state != NULL)
            s->impl->release(s->call.state);
        tp_free(s->tensors);
        tp_free(s->declined);
    }
    p->dev->ops->forget(p->dev, p);
    tp_device_release(p->dev, p->arena);
    tp_device_release(p->dev, p->constants);
    tp_free(p->steps);
    tp_free(p->slots);
    tp_free(p->slot_of);
    tp_free(p->dying);
    tp_free(p->data);
    tp_free(p);
}

tp_status tp_plan_run(tp_plan *p)
{
    return tp_plan_run_times(p, 1);
}

tp_status tp_plan_run_times(tp_plan *p, int64_t times)
{
    TP_CHECK(times >= 0, TP_EINVAL, "plan: run %lld times, want >= 0", (long long)times);
    const tp_status st = p->dev->ops->run(p->dev, p, times);
    return st == TP_ENOMEM ? no_memory(p) : st;
}

tp_status tp_plan_read(tp_plan *p, tp_val v, void *host)
{
    const tp_graph *g = p->graph;

    TP_CHECK(v != 0 && v < g->n_values && (g->values[v].keep || g->values[v].kind != TP_VALUE_TEMP),
             TP_EINVAL, "plan: value %u was not marked with tp_output", v);
    return tp_device_download(p->dev, host, p->data[v], value_bytes(g, v));
}

size_t tp_plan_arena_bytes(const tp_plan *p)
{
    return p->arena_bytes;
}

/* ---- the program as text ---- */

static void print_step(FILE *f, const tp_plan *p, int i)
{
    const tp_step *s = &p->steps[i];
    const tp_node *node = &p->graph->nodes[s->node];
    char text[TP_SHAPE_TEXT_SIZE];
    const tp_cost cost = node->op->cost != NULL ? node->op->cost(&s->call) : tp_cost_stream(&s->call);

    fprintf(f, "%4d %-24s %-26s", i, node->scope != NULL ? node->scope : "-", node->op->name);
    for (int k = 0; k < node->n_in && k < 6; k++)
        fprintf(f, " %%%u%s", node->in[k], tp_shape_text(s->tensors[k].shape, text, sizeof(text)));
    if (node->n_in > 6)
        fprintf(f, " +%d more", node->n_in - 6);
    fprintf(f, " ->");
    for (int k = 0; k < node->n_out; k++)
        fprintf(f, " %%%u%s", node->out[k], tp_shape_text(s->call.out[k].shape, text, sizeof(text)));
    fprintf(f, "  [%s]", s->impl != NULL ? s->impl->name : "view");
    if (s->impl != NULL)
        fprintf(f, " %.0f B %.0f FLOP", cost.bytes, cost.flops);
    if (node->n_out > 0 && p->slot_of[node->out[0]] >= 0)
        fprintf(f, " @%zu", p->slots[p->slot_of[node->out[0]]].offset);
    if (p->opts.timed && s->impl != NULL)
        fprintf(f, " %.1f us", s->seconds * 1e6);
    if (s->declined != NULL)
        fprintf(f, " (declined: %s)", s->declined);
    fputc('\n', f);
}

tp_status tp_plan_text(const tp_plan *p, char **out)
{
    size_t size = 0;
    FILE *f = open_memstream(out, &size);

    TP_CHECK(f != NULL, TP_ENOMEM, "plan: no memory for its text");
    fprintf(f, "plan: %d nodes, arena %zu bytes, constants %zu bytes, %s\n", p->n_steps, p->arena_bytes,
            p->constant_bytes, p->dev->text);
    for (int i = 0; i < p->n_steps; i++)
        print_step(f, p, i);
    TP_CHECK(fclose(f) == 0, TP_ENOMEM, "plan: no memory for its text");
    return TP_OK;
}
