/* plan.h - the inside of a plan, for the planner and the devices. */
#ifndef TP_PLAN_INTERNAL_H
#define TP_PLAN_INTERNAL_H
#include "host/graph/device.h"
#include "host/graph/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tp_step {
    int node; /* index in the graph */
    const tp_impl *impl;
    tp_call call;
    tp_tensor *tensors; /* inputs, then outputs */
    size_t scratch_bytes, scratch_offset;
    char *declined; /* "onednn: reason; simd: reason", or NULL */
    double seconds; /* of the last timed run */
    int first_dying, n_dying;
} tp_step;

/* Storage of one temporary (views and in-place results share one). */
typedef struct tp_slot {
    size_t bytes, offset;
    size_t breadth;  /* most bytes alive together with it; for placing */
    int first, last; /* steps */
} tp_slot;

struct tp_plan {
    const tp_graph *graph;
    tp_device *dev;
    tp_plan_opts opts;
    tp_step *steps;
    int n_steps;
    tp_slot *slots;
    int n_slots;
    int *slot_of; /* per value: its slot, or -1 */
    int *dying;   /* slots ordered by last step (poison) */
    void **data;  /* per value: device memory */
    char *arena;
    size_t arena_bytes;
    char *constants;
    size_t constant_bytes;
    void *captured; /* what the device keeps with the plan (its forget frees it) */
};

/* Places slots [0, n) so that slots alive at the same step never overlap; returns the arena size. `order` has
 * room for n. */
size_t tp_slots_place(tp_slot *slots, int n, int *order);

#ifdef __cplusplus
}
#endif

#endif
