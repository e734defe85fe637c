/* shapes.c - which shapes are measured: the cases of an op, or the lines of a shapes file:
 *     gemm 128x864,128x864,128 trans_b=1   # op, inputs as in tp_case, attributes
 *     embedding 9066x32,512:i64 below=9066 # integers are drawn from [0, below)
 * Floats are drawn as in the op's first case. */
#include "host/bench/bench.h"
#include "host/core/mem.h"
#include "host/core/text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- op names ---- */

tp_status bench_op_find(const tp_op **out, const char *name)
{
    int best = 0;

    *out = tp_op_find(name);
    if (*out != NULL)
        return TP_OK;
    for (int i = 1; i < tp_n_ops; i++)
        if (tp_text_distance(name, tp_op_table[i]->name) < tp_text_distance(name, tp_op_table[best]->name))
            best = i;
    TP_FAIL(TP_EINVAL, "no op '%s': nearest is '%s'", name, tp_op_table[best]->name);
}

/* ---- the list ---- */

static void shape_clear(bench_shape *s)
{
    tp_free(s->inputs);
    tp_free(s->text);
    tp_free(s->attr);
}

void bench_shapes_free(bench_shapes *s)
{
    for (size_t i = 0; i < s->n; i++)
        shape_clear(&s->list[i]);
    tp_free(s->list);
    *s = (bench_shapes){0};
}

/* A new last entry, owned by the list. */
static tp_status append(bench_shapes *s, bench_shape **out)
{
    TP_TRY(tp_realloc(&s->list, s->n, s->n + 1, sizeof(bench_shape), "shapes"));
    *out = &s->list[s->n++];
    return TP_OK;
}

tp_status bench_shapes_cases(bench_shapes *s, const tp_op *op)
{
    for (int i = 0; i < op->n_cases; i++) {
        bench_shape *shape;
        TP_TRY(append(s, &shape));
        shape->op = op;
        shape->c = op->cases[i];
        shape->seed = TP_CASE_SEED + (uint64_t)i;
        snprintf(shape->from, sizeof(shape->from), "case %d", i);
        TP_TRY(tp_case_inputs(shape->c.in, &shape->inputs, &shape->n_inputs));
    }
    return TP_OK;
}

/* ---- the lines of a file ---- */

/* Would the op take these inputs? */
static tp_status check_op(const bench_shape *s)
{
    tp_graph *g = NULL;
    tp_val *in = NULL;
    tp_status st;

    TP_TRY(tp_graph_new(&g));
    TP_TRY_GOTO(tp_alloc(&in, (size_t)s->n_inputs, sizeof(tp_val), "inputs of a shape"), st, done);
    for (int i = 0; i < s->n_inputs; i++)
        in[i] = s->inputs[i].dtype == TP_DTYPE_NONE ? 0 : tp_variable(g, "in", s->inputs[i]);
    (void)tp_graph_add(g, s->op, s->n_inputs, in, s->c.attr);
    st = tp_graph_status(g);
done:
    tp_free(in);
    tp_graph_free(g);
    return st;
}

static tp_status read_key(bench_shape *s, char *word)
{
    char *value = strchr(word, '='), *end;

    TP_CHECK(value != NULL, TP_EDATA, "'%s' is no attribute: want name=value", word);
    *value++ = '\0';
    if (strcmp(word, "below") != 0)
        return bench_attr_set(s->op, s->attr, word, value);
    s->c.ihi = strtoll(value, &end, 10);
    TP_CHECK(end != value && *end == '\0' && s->c.ihi > 0, TP_EDATA,
             "below is '%s', want a whole number above 0", value);
    return TP_OK;
}

static int in_bf16(const char *inputs)
{
    return strstr(inputs, ":bf16") != NULL;
}

/* One line, which strtok_r cuts up: "op inputs key=value ...". */
static tp_status read_line(bench_shape *s, const tp_op *op, const char *inputs, char **rest)
{
    char *word;

    TP_CHECK(inputs != NULL, TP_EDATA, "%s has no inputs", op->name);
    s->op = op;
    s->c = op->cases[0];
    s->seed = TP_CASE_SEED;
    TP_TRY(tp_strdup(&s->text, inputs));
    TP_TRY(tp_alloc(&s->attr, 1, op->attr_size, "attributes of a shape"));
    TP_TRY(tp_case_inputs(s->text, &s->inputs, &s->n_inputs));
    s->c.in = s->text;
    s->c.attr = op->attr_size > 0 ? s->attr : NULL;
    /* Larger shapes round no better than the loosest case that is stored as they are. */
    for (int i = 0; i < op->n_cases; i++)
        if (op->cases[i].tolerance > s->c.tolerance && in_bf16(op->cases[i].in) == in_bf16(s->text))
            s->c.tolerance = op->cases[i].tolerance;
    const double by_length = tp_case_tolerance(&(tp_case){0}, s->inputs, s->n_inputs);
    if (s->c.tolerance > 0 && by_length > s->c.tolerance)
        s->c.tolerance = by_length;
    while ((word = strtok_r(NULL, " \t\r", rest)) != NULL)
        TP_TRY(read_key(s, word));
    return check_op(s);
}

static tp_status take_line(bench_shapes *s, char *line, const char *name, const tp_op *only)
{
    bench_shape shape = {0}, *last;
    const tp_op *op;
    char *rest = NULL;

    line[strcspn(line, "#")] = '\0';
    const char *word = strtok_r(line, " \t\r", &rest);
    if (word == NULL)
        return TP_OK;
    TP_TRY(bench_op_find(&op, word));
    snprintf(shape.from, sizeof(shape.from), "%s", name);
    const tp_status st = read_line(&shape, op, strtok_r(NULL, " \t\r", &rest), &rest);
    if (st != TP_OK || (only != NULL && only != op)) {
        shape_clear(&shape);
        return st;
    }
    const tp_status added = append(s, &last);
    if (added == TP_OK)
        *last = shape;
    else
        shape_clear(&shape);
    return added;
}

/* Puts the place before the message; what is wrong with the line is bad data, whoever found it. */
static tp_status at_line(tp_status st, const char *name, int line)
{
    char why[1024];

    if (st == TP_OK || st == TP_ENOMEM)
        return st;
    snprintf(why, sizeof(why), "%s", tp_last_error());
    TP_FAIL(TP_EDATA, "%s:%d: %s", name, line, why);
}

tp_status bench_shapes_text(bench_shapes *s, const char *text, const char *name, const tp_op *op)
{
    char *copy = NULL, *at;
    tp_status st = TP_OK;
    int number = 0;

    TP_TRY(tp_strdup(&copy, text));
    at = copy;
    for (char *line; st == TP_OK && (line = strsep(&at, "\n")) != NULL;)
        st = at_line(take_line(s, line, name, op), name, ++number);
    tp_free(copy);
    return st;
}
