/* single.c - one op as a graph of its own: in double through the plain reference, or in float32 through one
 * implementation; and whether the two agree. */
#include "host/bench/bench.h"
#include "host/core/clock.h"
#include "host/core/mem.h"
#include "host/graph/device.h"
#include "host/graph/plan.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- values ---- */

void bench_values_free(bench_values *v)
{
    for (int i = 0; i < v->n && v->v != NULL; i++)
        tp_free(v->v[i]);
    tp_free(v->v);
    tp_free(v->len);
    *v = (bench_values){0};
}

static tp_status values_new(bench_values *v, int n)
{
    *v = (bench_values){.n = n};
    TP_TRY(tp_alloc(&v->v, (size_t)n, sizeof(double *), "values"));
    return tp_alloc(&v->len, (size_t)n, sizeof(int64_t), "values");
}

static tp_status make_inputs(const bench_shape *shape, bench_values *out)
{
    TP_TRY(values_new(out, shape->n_inputs));
    for (int i = 0; i < shape->n_inputs; i++) {
        const tp_tensor *t = &shape->inputs[i];
        out->len[i] = t->dtype == TP_DTYPE_NONE ? 0 : tp_shape_len(t->shape);
        TP_TRY(tp_alloc(&out->v[i], (size_t)out->len[i], sizeof(double), "values"));
        tp_case_values(&shape->c, t, i, shape->seed, out->v[i]);
    }
    return TP_OK;
}

tp_status bench_inputs(const bench_shape *shape, bench_values *out)
{
    const tp_status st = make_inputs(shape, out);
    if (st != TP_OK)
        bench_values_free(out);
    return st;
}

/* ---- one op ---- */

static tp_status upload(bench_single *s, tp_tensor *t, const double *v)
{
    tp_tensor host = *t;
    const size_t bytes = tp_tensor_bytes(t);

    TP_TRY(tp_device_alloc(s->dev, &t->data, bytes, "input of an op"));
    s->bytes += bytes;
    TP_TRY(tp_alloc(&host.data, bytes, 1, "input of an op"));
    tp_case_store(&host, v);
    const tp_status st = tp_device_upload(s->dev, t->data, host.data, bytes);
    tp_free(host.data);
    return st;
}

static tp_status build(bench_single *s, const bench_shape *shape, const bench_values *in, tp_dtype real)
{
    const int n_out = shape->op->n_out;
    tp_val *vals;

    TP_TRY(tp_alloc(&s->inputs, (size_t)shape->n_inputs, sizeof(tp_tensor), "inputs of an op"));
    TP_TRY(tp_alloc(&s->results, (size_t)(n_out + shape->n_inputs), sizeof(tp_val), "results of an op"));
    s->n_inputs = shape->n_inputs;
    s->n_results = n_out + shape->n_inputs;
    vals = s->results + n_out;
    TP_TRY(tp_graph_new(&s->graph));
    for (int i = 0; i < s->n_inputs; i++) {
        s->inputs[i] = shape->inputs[i];
        if (s->inputs[i].dtype == TP_DTYPE_NONE)
            continue;
        s->inputs[i].dtype = tp_case_dtype(s->inputs[i].dtype, real);
        TP_TRY(upload(s, &s->inputs[i], in->v[i]));
        vals[i] = tp_variable(s->graph, "in", s->inputs[i]);
    }
    const tp_val first = tp_graph_add(s->graph, shape->op, s->n_inputs, vals, shape->c.attr);
    for (int k = 0; k < n_out; k++)
        s->results[k] = tp_output(s->graph, first == 0 ? 0 : first + (tp_val)k);
    return tp_graph_status(s->graph);
}

/* The plan's line names op, device and every reason; here the reason of one implementation is wanted. */
static tp_status declined(const tp_impl *impl)
{
    char line[1024], mark[128];

    snprintf(line, sizeof(line), "%s", tp_last_error());
    snprintf(mark, sizeof(mark), ": %s: ", impl->name);
    const char *reason = strstr(line, mark);
    TP_FAIL(TP_EUNSUP, "%s", reason != NULL ? reason + strlen(mark) : line);
}

static tp_status prepare(bench_single *s, const bench_shape *shape, const bench_values *in, tp_dtype real,
                         const tp_impl *impl, tp_precision precision)
{
    tp_plan_opts opts = TP_PLAN_OPTS_INIT;

    TP_TRY(build(s, shape, in, real));
    opts.timed = 1;
    opts.precision = precision;
    if (impl != NULL) {
        opts.force_op = shape->op->name;
        opts.force_impl = impl->name;
    }
    const tp_status st = tp_plan_new(&s->plan, s->graph, s->dev, &opts);
    if (st == TP_EUNSUP && impl != NULL)
        return declined(impl);
    TP_TRY(st);
    s->bytes += tp_plan_arena_bytes(s->plan);
    return TP_OK;
}

tp_status bench_single_new(bench_single *s, tp_device *dev, const bench_shape *shape, const bench_values *in,
                           tp_dtype real, const tp_impl *impl, tp_precision precision)
{
    *s = (bench_single){.dev = dev};
    const tp_status st = prepare(s, shape, in, real, impl, precision);
    if (st != TP_OK)
        bench_single_free(s);
    return st;
}

void bench_single_free(bench_single *s)
{
    tp_plan_free(s->plan);
    tp_graph_free(s->graph);
    for (int i = 0; i < s->n_inputs; i++)
        tp_device_release(s->dev, s->inputs[i].data);
    tp_free(s->inputs);
    tp_free(s->results);
    *s = (bench_single){0};
}

tp_status bench_single_run(bench_single *s, double *seconds)
{
    TP_TRY(tp_plan_run(s->plan));
    *seconds = s->plan->steps[0].seconds;
    return TP_OK;
}

tp_status bench_single_run_row(bench_single *s, int64_t n, double *seconds)
{
    tp_plan *p = s->plan;

    if (s->dev->kind == TP_CPU)
        return bench_single_run(s, seconds);
    p->opts.timed = 0;
    const double start = tp_seconds();
    tp_status st = tp_plan_run_times(p, n);
    if (st == TP_OK)
        st = tp_device_mark(s->dev, TP_QUEUE_RUN, 0);
    if (st == TP_OK)
        st = tp_device_await(s->dev, 0);
    *seconds = (tp_seconds() - start) / (double)n;
    p->opts.timed = 1;
    return st;
}

tp_cost bench_single_cost(const bench_single *s)
{
    const tp_step *step = &s->plan->steps[0];
    const tp_op *op = s->graph->nodes[step->node].op;
    return op->cost != NULL ? op->cost(&step->call) : tp_cost_stream(&step->call);
}

static tp_status read_result(const bench_single *s, tp_val v, double **out, int64_t *len)
{
    tp_tensor t = {NULL, tp_val_shape(s->graph, v), tp_val_dtype(s->graph, v)};

    *len = tp_shape_len(t.shape);
    TP_TRY(tp_alloc(out, (size_t)*len, sizeof(double), "result of an op"));
    TP_TRY(tp_alloc(&t.data, tp_tensor_bytes(&t), 1, "result of an op"));
    const tp_status st = tp_plan_read(s->plan, v, t.data);
    for (int64_t i = 0; st == TP_OK && i < *len; i++)
        (*out)[i] = tp_get(&t, i);
    tp_free(t.data);
    return st;
}

tp_status bench_single_read(const bench_single *s, bench_values *out)
{
    tp_status st = values_new(out, s->n_results);

    for (int k = 0; st == TP_OK && k < s->n_results; k++)
        if (s->results[k] != 0)
            st = read_result(s, s->results[k], &out->v[k], &out->len[k]);
    if (st != TP_OK)
        bench_values_free(out);
    return st;
}

tp_status bench_reference(tp_device *cpu, const bench_shape *shape, const bench_values *in, bench_values *out,
                          double *seconds)
{
    const tp_impl *const *impl = shape->op->cpu;
    bench_single s;

    while (impl[1] != NULL)
        impl++;
    TP_TRY(bench_single_new(&s, cpu, shape, in, TP_F64, impl[0], TP_PRECISION_FP32));
    tp_status st = bench_single_run(&s, seconds);
    if (st == TP_OK)
        st = bench_single_read(&s, out);
    bench_single_free(&s);
    return st;
}

/* ---- do they agree? ---- */

/* One wrong draw of a random op must show, however many are right. */
static int same_elements(const double *want, const double *got, int64_t n, double tolerance)
{
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(got[i] - want[i]) <= tolerance * fmax(1.0, fabs(want[i]))))
            return 0;
    return 1;
}

/* Factors rounded to 11 bits of mantissa (tf32), or 8 (bf16): a product errs by up to twice half a last
 * place. */
double bench_tolerance(const bench_shape *shape, tp_precision precision)
{
    static const char *const products[] = {"matmul", "gemm", "conv"};
    const double exact = tp_case_tolerance(&shape->c, shape->inputs, shape->n_inputs);

    for (int i = 0; i < TP_COUNT(products); i++)
        if (strncmp(shape->op->name, products[i], strlen(products[i])) == 0 && precision != TP_PRECISION_FP32)
            return fmax(exact, precision == TP_PRECISION_TF32 ? 0x1p-10 : 0x1p-7);
    return exact;
}

int bench_same(const bench_shape *shape, tp_precision precision, const bench_values *want,
               const bench_values *got, double *error, char *why, size_t size)
{
    const double tolerance = bench_tolerance(shape, precision);

    *error = 0;
    for (int k = 0; k < want->n; k++) {
        double diff = 0, norm = 0;
        if (got->len[k] != want->len[k]) {
            snprintf(why, size, "result %d has %lld elements, the reference %lld", k, (long long)got->len[k],
                     (long long)want->len[k]);
            return 0;
        }
        for (int64_t i = 0; i < want->len[k]; i++) {
            const double d = got->v[k][i] - want->v[k][i];
            diff += d * d;
            norm += want->v[k][i] * want->v[k][i];
        }
        const double relative = sqrt(diff) / (sqrt(norm) + 1e-30);
        *error = diff == 0 || relative <= *error ? *error : relative; /* NaN counts as larger */
        if (!(diff == 0 || relative <= tolerance)) {
            snprintf(why, size, "result %d is off by %.3g of the reference's norm, at most %.3g is allowed",
                     k, relative, tolerance);
            return 0;
        }
        if ((shape->op->flags & TP_OP_RANDOM) &&
            !same_elements(want->v[k], got->v[k], want->len[k], tolerance)) {
            snprintf(why, size, "result %d has an element that is not the reference's", k);
            return 0;
        }
    }
    return 1;
}
