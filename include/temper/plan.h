/* plan.h - compiles a graph for a device: lifetimes, one arena, one implementation for each node; then runs
 * it many times with no allocation and no decision left to take.
 *
 * Lifetime: a plan borrows its graph, its device and the storage of the graph's variables.
 * Threads: one plan, one thread at a time; the ops themselves use every thread of the device. */
#ifndef TP_PLAN_H
#define TP_PLAN_H
#include "temper/device.h"
#include "temper/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tp_plan tp_plan;

typedef struct tp_plan_opts {
    int poison; /* fill the arena with NaN before a run and every value with NaN after its last use */
    int timed;  /* measure each node; tp_plan_text then shows it */
    const char *force_op;   /* this op (by name) must use ... */
    const char *force_impl; /* ... this implementation: TP_EUNSUP with its reason if it declines */
    tp_precision precision;
} tp_plan_opts;
#define TP_PLAN_OPTS_INIT                                                                                    \
    {                                                                                                        \
        0, 0, NULL, NULL, TP_PRECISION_FP32                                                                  \
    }

/* opts may be NULL. Errors: the graph's own; TP_ENOMEM (bytes asked); TP_EUNSUP naming op, shapes, device and
 * why each implementation declined. Free with tp_plan_free. */
TP_API tp_status tp_plan_new(tp_plan **out, const tp_graph *g, tp_device *dev, const tp_plan_opts *opts)
    TP_MUST_USE;
TP_API void tp_plan_free(tp_plan *p); /* NULL is fine */

/* Runs every node once. A GPU is not waited for: tp_plan_read and tp_device_download wait, and a failure of a
 * kernel may show only there. The first run on a GPU captures the plan, which takes memory; after it a run
 * makes no allocation of its own (oneDNN makes some inside). Errors: TP_EDEVICE, TP_EINTERNAL; TP_ENOMEM
 * where a plan is captured. */
TP_API tp_status tp_plan_run(tp_plan *p) TP_MUST_USE;

/* The same `times` times, one after another with nothing of the host in between: on a GPU a few launches of
 * captured steps. The first run of a larger `times` than any before captures too. Errors: also TP_EINVAL
 * (times below 0). */
TP_API tp_status tp_plan_run_times(tp_plan *p, int64_t times) TP_MUST_USE;

/* Copies a variable or a value marked with tp_output to host memory (tp_tensor_bytes of it). */
TP_API tp_status tp_plan_read(tp_plan *p, tp_val v, void *host) TP_MUST_USE;

/* Bytes of the arena: every temporary value and scratch space. */
TP_API size_t tp_plan_arena_bytes(const tp_plan *p);

/* The program as text, a line a node: number, scope, op, shapes, implementation, why faster ones declined,
 * bytes, FLOPs, arena offset and (timed) microseconds of the last run. Caller frees with tp_text_free. */
TP_API tp_status tp_plan_text(const tp_plan *p, char **out) TP_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
