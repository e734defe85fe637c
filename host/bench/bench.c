/* bench.c - checks and times every implementation of every shape, a group of rows at a time: all rows of a
 * group share the flush before a round of cold runs. */
#include "host/bench/bench.h"
#include "host/core/io.h"
#include "host/core/mem.h"
#include "host/core/parallel.h"
#include "host/graph/device.h"
#include <math.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HOT_SECONDS   0.1  /* hot runs go on for so long, if more than the fewest fit */
#define MAX_HOT_RUNS  1000 /* and at most so many */
#define ROW_SECONDS   5e-4 /* a timed run of a GPU is a row of runs that takes about as long */
#define MAX_ROW       256
#define MAX_RUNS      10000 /* the most that can be asked for */
#define SLOW_SECONDS  60.0  /* a row that would take longer is skipped */
#define SLOW_FALLBACK 1.0   /* the same for the plain reference beside a faster implementation */
#define GROUP_ROWS    64
#define GROUP_BYTES   (size_t)(512 << 20)
#define GEMM_SIDE     1024 /* on the CPU; a GPU of many multiprocessors takes the larger, others the smaller */
#define GEMM_LARGE    8192
#define GEMM_SMALL    128
#define MANY_UNITS    8
#define ROOF_RUNS     10

typedef struct row {
    const bench_shape *shape;
    const tp_impl *impl;
    bench_single single;
    tp_bench_row out;
    char why[512], attr[TP_BENCH_TEXT];
    double first;    /* seconds of the run that was checked */
    double *seconds; /* of the timed runs */
    int n;
} row;

typedef struct bench {
    const tp_bench_opts *opts;
    tp_device *dev, *cpu; /* the reference runs on cpu */
    bench_single flush;   /* a copy larger than the last-level cache */
    double flush_bytes, copy_rate, gemm_rate;
    char machine[160];
    row rows[GROUP_ROWS];
    int n_rows;
    size_t bytes;
    int n_wrong;
    char first_wrong[TP_BENCH_TEXT];
} bench;

/* ---- the roofline of the device ---- */

static size_t cache_bytes(const bench *b)
{
    const int units = b->dev->multiprocessors;

    if (units > 0)
        return units < MANY_UNITS ? (size_t)1 << 20 : (size_t)512 << 20; /* L2 caches are under 128 MiB */
    const long n = sysconf(_SC_LEVEL3_CACHE_SIZE);
    const size_t least = (size_t)32 << 20, most = (size_t)512 << 20;
    return n < (long)least ? least : ((size_t)n > most ? most : (size_t)n);
}

/* The best of some runs of an op on these inputs, through the implementation a plan would choose. */
static tp_status best_of(const bench *b, const char *line, bench_single *keep, double *seconds)
{
    bench_shapes shapes = {0};
    bench_values in = {0};
    tp_status st;

    *seconds = INFINITY;
    TP_TRY_GOTO(bench_shapes_text(&shapes, line, "roofline", NULL), st, done);
    TP_TRY_GOTO(bench_inputs(&shapes.list[0], &in), st, done);
    TP_TRY_GOTO(bench_single_new(keep, b->dev, &shapes.list[0], &in, TP_F32, NULL, b->opts->precision), st,
                done);
    for (int i = 0; i < ROOF_RUNS; i++) {
        double now;
        TP_TRY_GOTO(bench_single_run(keep, &now), st, done);
        *seconds = fmin(*seconds, now);
    }
done:
    bench_values_free(&in);
    bench_shapes_free(&shapes);
    return st;
}

static int gemm_side(const bench *b)
{
    const int units = b->dev->multiprocessors;
    return units == 0 ? GEMM_SIDE : (units < MANY_UNITS ? GEMM_SMALL : GEMM_LARGE);
}

static tp_status measure_roofline(bench *b)
{
    const int side = gemm_side(b);
    const long long rows = (long long)(cache_bytes(b) / sizeof(float) / 65536);
    char line[TP_BENCH_TEXT];
    bench_single gemm;
    double seconds;

    snprintf(line, sizeof(line), "slice %lldx65536 end=%lld", rows, rows);
    TP_TRY(best_of(b, line, &b->flush, &seconds));
    TP_CHECK(seconds > 0.0, TP_EUNSUP, "bench: %s has no clock", tp_device_text(b->dev));
    b->flush_bytes = bench_single_cost(&b->flush).bytes;
    b->copy_rate = b->flush_bytes / seconds;
    snprintf(line, sizeof(line), "gemm %dx%d,%dx%d", side, side, side, side);
    gemm = (bench_single){0};
    const tp_status st = best_of(b, line, &gemm, &seconds);
    if (st == TP_OK)
        b->gemm_rate = bench_single_cost(&gemm).flops / seconds;
    bench_single_free(&gemm);
    return st;
}

/* ---- timing ---- */

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static tp_bench_time summary(const bench *b, row *r)
{
    const double *s = r->seconds;
    const int n = r->n;
    tp_bench_time t = {.n = n};

    qsort(r->seconds, (size_t)n, sizeof(double), by_value);
    t.median = n % 2 ? s[n / 2] : (s[n / 2 - 1] + s[n / 2]) / 2;
    t.low = s[n / 4];
    t.high = s[n - 1 - n / 4];
    if (t.median > 0) { /* a clock may be too coarse for the smallest rows */
        t.bytes_per_second = r->out.bytes / t.median;
        t.flops_per_second = r->out.flops / t.median;
        t.share = fmax(t.bytes_per_second / b->copy_rate, t.flops_per_second / b->gemm_rate);
    }
    return t;
}

static void skip(row *r, const char *why)
{
    r->out.state = TP_BENCH_SKIPPED;
    snprintf(r->why, sizeof(r->why), "%s", why);
}

/* Has an implementation before this one been timed on the same shape? */
static int faster_before(const bench *b, int i)
{
    for (int k = i - 1; k >= 0 && b->rows[k].shape == b->rows[i].shape; k--)
        if (b->rows[k].out.state == TP_BENCH_TIMED)
            return 1;
    return 0;
}

/* Would the fewest runs, each of so many seconds, take too long? Then the row is skipped. */
static int too_slow(const bench *b, row *r, double once, int has_faster)
{
    const double all = 2 * b->opts->runs * once, limit = has_faster ? SLOW_FALLBACK : SLOW_SECONDS;
    char why[TP_BENCH_TEXT];

    if (all <= limit)
        return 0;
    snprintf(why, sizeof(why), "%d runs hot and cold take %.1f s, the limit%s is %g s", b->opts->runs, all,
             has_faster ? " beside a faster implementation" : "", limit);
    skip(r, why);
    return 1;
}

/* How often a row runs hot. */
static int hot_runs(const bench *b, double once)
{
    const double fit = once * MAX_HOT_RUNS < HOT_SECONDS ? MAX_HOT_RUNS : HOT_SECONDS / once;
    return fit < b->opts->runs ? b->opts->runs : (int)fit;
}

static int64_t row_length(double once)
{
    return once * MAX_ROW < ROW_SECONDS ? MAX_ROW : 1 + (int64_t)(ROW_SECONDS / once);
}

static tp_status time_hot(const bench *b, row *r, int has_faster)
{
    double once;

    if (too_slow(b, r, r->first, has_faster))
        return TP_OK;
    TP_TRY(bench_single_run(&r->single, &once)); /* the check was the first run, this is the warm-up */
    const int64_t length = row_length(once);
    TP_TRY(bench_single_run_row(&r->single, length, &once));
    const int runs = hot_runs(b, once * (tp_device_kind_of(b->dev) == TP_CPU ? 1.0 : (double)length));
    TP_TRY(tp_alloc(&r->seconds, (size_t)runs, sizeof(double), "times of a row"));
    for (r->n = 0; r->n < runs; r->n++)
        TP_TRY(bench_single_run_row(&r->single, length, &r->seconds[r->n]));
    r->out.hot = summary(b, r);
    r->n = 0;
    return TP_OK;
}

/* A round: flush, then each row once. What one row reads no other has touched. */
static tp_status time_cold(bench *b)
{
    double ignored;

    for (int i = 0; i < b->opts->runs; i++) {
        TP_TRY(bench_single_run(&b->flush, &ignored));
        for (row *r = b->rows; r < b->rows + b->n_rows; r++)
            if (r->out.state == TP_BENCH_TIMED)
                TP_TRY(bench_single_run(&r->single, &r->seconds[r->n++]));
    }
    for (row *r = b->rows; r < b->rows + b->n_rows; r++)
        if (r->out.state == TP_BENCH_TIMED)
            r->out.cold = summary(b, r);
    return TP_OK;
}

static void clear_rows(bench *b)
{
    for (int i = 0; i < b->n_rows; i++) {
        bench_single_free(&b->rows[i].single);
        tp_free(b->rows[i].seconds);
    }
    b->n_rows = 0;
    b->bytes = 0;
}

static tp_status time_group(bench *b)
{
    for (int i = 0; i < b->n_rows; i++)
        if (b->rows[i].out.state == TP_BENCH_TIMED)
            TP_TRY(time_hot(b, &b->rows[i], faster_before(b, i)));
    TP_TRY(time_cold(b));
    for (int i = 0; i < b->n_rows; i++)
        b->opts->row(b->opts->user, &b->rows[i].out);
    clear_rows(b);
    return TP_OK;
}

/* ---- checking ---- */

static tp_status check(bench *b, row *r, const bench_values *want)
{
    bench_values got;

    TP_TRY(bench_single_run(&r->single, &r->first));
    TP_TRY(bench_single_read(&r->single, &got));
    r->out.state = TP_BENCH_TIMED;
    if (!bench_same(r->shape, b->opts->precision, want, &got, &r->out.error, r->why, sizeof(r->why))) {
        r->out.state = TP_BENCH_WRONG;
        if (b->n_wrong++ == 0)
            snprintf(b->first_wrong, sizeof(b->first_wrong), "%s %s %s", r->shape->op->name, r->impl->name,
                     r->shape->c.in);
    }
    bench_values_free(&got);
    return TP_OK;
}

/* What an implementation is checked with. */
typedef struct truth {
    bench_values in, want;
    double seconds; /* that the reference took */
} truth;

static tp_status add_row(bench *b, const bench_shape *shape, const tp_impl *impl, const truth *t)
{
    row *r = &b->rows[b->n_rows++];

    *r = (row){.shape = shape, .impl = impl};
    r->out = (tp_bench_row){.op = shape->op->name,
                            .impl = impl->name,
                            .from = shape->from,
                            .shape = shape->c.in,
                            .attr = bench_attr_text(shape->op, shape->c.attr, r->attr, sizeof(r->attr)),
                            .why = r->why,
                            .tolerance = bench_tolerance(shape, b->opts->precision)};
    if (strcmp(impl->name, "ref") == 0 && faster_before(b, b->n_rows - 1) && too_slow(b, r, t->seconds, 1))
        return TP_OK;
    const tp_status st =
        bench_single_new(&r->single, b->dev, shape, &t->in, TP_F32, impl, b->opts->precision);
    if (st == TP_EUNSUP) {
        skip(r, tp_last_error());
        return TP_OK;
    }
    TP_TRY(st);
    const tp_cost cost = bench_single_cost(&r->single);
    r->out.flops = cost.flops;
    r->out.bytes = cost.bytes;
    b->bytes += r->single.bytes;
    return check(b, r, &t->want);
}

/* Every implementation of one shape. */
static tp_status add_shape(bench *b, const bench_shape *shape)
{
    const tp_impl *const *impls = tp_device_impls(b->dev, shape->op);
    truth t = {0};
    tp_status st;

    TP_TRY_GOTO(bench_inputs(shape, &t.in), st, done);
    TP_TRY_GOTO(bench_reference(b->cpu, shape, &t.in, &t.want, &t.seconds), st, done);
    for (int i = 0; impls != NULL && impls[i] != NULL; i++)
        TP_TRY_GOTO(add_row(b, shape, impls[i], &t), st, done);
done:
    bench_values_free(&t.in);
    bench_values_free(&t.want);
    return st;
}

static int n_impls(const tp_impl *const *impls)
{
    int n = 0;
    while (impls != NULL && impls[n] != NULL)
        n++;
    return n;
}

static tp_status run_shapes(bench *b, const bench_shapes *shapes)
{
    for (size_t i = 0; i < shapes->n; i++) {
        const bench_shape *s = &shapes->list[i];
        if (s->op->flags & TP_OP_VIEW) /* nothing runs */
            continue;
        if (b->n_rows + n_impls(tp_device_impls(b->dev, s->op)) > GROUP_ROWS)
            TP_TRY(time_group(b));
        TP_TRY(add_shape(b, s));
        if (b->bytes > GROUP_BYTES)
            TP_TRY(time_group(b));
    }
    if (b->n_rows > 0)
        TP_TRY(time_group(b));
    return TP_OK;
}

/* ---- public ---- */

static void tell_head(bench *b)
{
    const dnnl_version_t *v = dnnl_version();
    char library[48];

    snprintf(library, sizeof(library), "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
    tp_device_cpu_model(b->machine, sizeof(b->machine));
    if (b->opts->head != NULL)
        b->opts->head(b->opts->user,
                      &(const tp_bench_head){.version = TEMPER_VERSION,
                                             .library = library,
                                             .machine = b->machine,
                                             .device = tp_device_text(b->dev),
                                             .device_note = tp_device_note(b->dev),
                                             .precision = tp_precision_name(b->opts->precision),
                                             .threads = tp_threads(),
                                             .flush_bytes = b->flush_bytes,
                                             .copy_bytes_per_second = b->copy_rate,
                                             .gemm_flops_per_second = b->gemm_rate});
}

static tp_status run(bench *b, const bench_shapes *shapes)
{
    TP_TRY(tp_device_open(&b->dev, b->opts->device));
    TP_TRY(tp_device_open(&b->cpu, "cpu"));
    TP_TRY(measure_roofline(b));
    tell_head(b);
    TP_TRY(run_shapes(b, shapes));
    TP_CHECK(b->n_wrong == 0, TP_EINTERNAL, "%d row%s wrong and not timed, first %s", b->n_wrong,
             b->n_wrong == 1 ? " is" : "s are", b->first_wrong);
    return TP_OK;
}

tp_status bench_run(const tp_bench_opts *opts, const bench_shapes *shapes)
{
    bench *b = NULL;

    TP_CHECK(opts->runs >= 20 && opts->runs <= MAX_RUNS, TP_EINVAL, "runs is %d, want 20 to %d", opts->runs,
             MAX_RUNS);
    TP_TRY(tp_alloc(&b, 1, sizeof(*b), "benchmark"));
    b->opts = opts;
    const tp_status st = run(b, shapes);
    clear_rows(b);
    bench_single_free(&b->flush);
    tp_device_close(b->dev);
    tp_device_close(b->cpu);
    tp_free(b);
    return st;
}

static tp_status add_file(bench_shapes *s, const char *path, const tp_op *op)
{
    unsigned char *text = NULL;
    size_t n;

    TP_TRY(tp_io_read(path, &text, &n));
    const tp_status st = bench_shapes_text(s, (const char *)text, path, op);
    tp_free(text);
    return st;
}

/* The shapes of one op: those of the file, or its cases and those of the shipped models. */
static tp_status add_op(bench_shapes *s, const tp_bench_opts *opts, const tp_op *op)
{
    if (opts->shapes != NULL)
        return add_file(s, opts->shapes, op);
    TP_TRY(bench_shapes_cases(s, op));
    for (const bench_shipped *f = bench_shipped_files; f->name != NULL; f++)
        TP_TRY(bench_shapes_text(s, f->text, f->name, op));
    return TP_OK;
}

static tp_status collect(bench_shapes *s, const tp_bench_opts *opts)
{
    const tp_op *op = NULL;

    for (int i = 0; i < opts->n_ops; i++) {
        TP_TRY(bench_op_find(&op, opts->ops[i]));
        TP_TRY(add_op(s, opts, op));
    }
    if (opts->n_ops == 0 && opts->shapes != NULL)
        return add_file(s, opts->shapes, NULL);
    for (int i = 0; opts->n_ops == 0 && i < tp_n_ops; i++)
        TP_TRY(add_op(s, opts, tp_op_table[i]));
    return TP_OK;
}

tp_status tp_bench(const tp_bench_opts *opts)
{
    bench_shapes shapes = {0};
    tp_status st = collect(&shapes, opts);

    if (st == TP_OK)
        st = bench_run(opts, &shapes);
    bench_shapes_free(&shapes);
    return st;
}
