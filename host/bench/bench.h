/* bench.h - the inside of the op benchmark: shapes, the check of an implementation, and its timing. */
#ifndef TP_BENCH_INTERNAL_H
#define TP_BENCH_INTERNAL_H
#include "kernels/case.h"
#include "temper/bench.h"
#include "temper/plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- attributes (attr.c): "stride=1,1 act=relu" <-> the op's own struct ---- */

#define TP_BENCH_TEXT 256

/* Sets one attribute; attr has the op's attr_size bytes. Errors: TP_EDATA naming key, value and what is
 * wanted. */
tp_status bench_attr_set(const tp_op *op, void *attr, const char *key, const char *value) TP_MUST_USE;
/* Every attribute that is not zero, as a shapes file has them. Returns buf. */
const char *bench_attr_text(const tp_op *op, const void *attr, char *buf, size_t size);

/* ---- shapes (shapes.c) ---- */

typedef struct bench_shape {
    const tp_op *op;
    tp_case c;
    char from[TP_BENCH_TEXT];
    uint64_t seed;
    tp_tensor *inputs; /* no data */
    int n_inputs;
    char *text; /* owned by the shapes of a file: c.in and c.attr */
    void *attr;
} bench_shape;

typedef struct bench_shapes {
    bench_shape *list;
    size_t n;
} bench_shapes;

/* A shapes file that is part of the library. */
typedef struct bench_shipped {
    const char *name, *text;
} bench_shipped;
extern const bench_shipped bench_shipped_files[]; /* ends with a NULL name; made from benchmarks/shapes */

/* The op of that name. Errors: TP_EINVAL with the nearest name. */
tp_status bench_op_find(const tp_op **out, const char *name) TP_MUST_USE;
/* Append: the cases of an op; the lines of a text for op (every op if NULL). */
tp_status bench_shapes_cases(bench_shapes *s, const tp_op *op) TP_MUST_USE;
tp_status bench_shapes_text(bench_shapes *s, const char *text, const char *name, const tp_op *op) TP_MUST_USE;
void bench_shapes_free(bench_shapes *s);

/* ---- one op on its own (single.c) ---- */

/* A graph of one node with its inputs on the device. */
typedef struct bench_single {
    tp_device *dev;
    tp_graph *graph;
    tp_plan *plan;
    tp_tensor *inputs;
    int n_inputs, n_results;
    tp_val *results; /* the outputs, then the inputs (an effect may have written them); 0: an absent input */
    size_t bytes;
} bench_single;

/* Every result of a run as doubles. */
typedef struct bench_values {
    int n;
    double **v;
    int64_t *len;
} bench_values;

/* Floats take dtype real. Errors: TP_EUNSUP with the reason if the implementation declines. */
tp_status bench_single_new(bench_single *s, tp_device *dev, const bench_shape *shape, const bench_values *in,
                           tp_dtype real, const tp_impl *impl, tp_precision precision) TP_MUST_USE;
void bench_single_free(bench_single *s);
tp_status bench_single_read(const bench_single *s, bench_values *out) TP_MUST_USE;
/* One run; its seconds as the device measures them. */
tp_status bench_single_run(bench_single *s, double *seconds) TP_MUST_USE;
/* Seconds of one run among n in a row: on a GPU n nodes of one graph, so that the host has no part in it; on
 * the CPU one run. The first row of a length is captured and must not count. */
tp_status bench_single_run_row(bench_single *s, int64_t n, double *seconds) TP_MUST_USE;
/* What one run costs. */
tp_cost bench_single_cost(const bench_single *s);

tp_status bench_inputs(const bench_shape *shape, bench_values *out) TP_MUST_USE;
/* The plain reference in double, on the CPU, and the seconds it took. */
tp_status bench_reference(tp_device *cpu, const bench_shape *shape, const bench_values *in, bench_values *out,
                          double *seconds) TP_MUST_USE;
void bench_values_free(bench_values *v);

/* Is got the reference's result? *error: the largest relative norm error. If not, why (size bytes) says it.
 */
int bench_same(const bench_shape *shape, tp_precision precision, const bench_values *want,
               const bench_values *got, double *error, char *why, size_t size);

/* The relative error that is allowed. */
double bench_tolerance(const bench_shape *shape, tp_precision precision);

/* ---- the benchmark (bench.c) ---- */

/* Times every implementation of every shape; what tp_bench does once it knows the shapes. */
tp_status bench_run(const tp_bench_opts *opts, const bench_shapes *shapes) TP_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
