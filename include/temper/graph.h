/* graph.h - a training job as a program: a linear list of op nodes over value ids.
 *
 * Order of nodes is order of execution. A builder (ops.h) appends one node and returns its value; value 0
 * means "none, or the graph has failed": the first error sticks, later builders return 0, and one
 * tp_graph_status at the end names the op, the shapes and the place. Gradients are ordinary values made of
 * ordinary nodes. Threads: one graph, one thread at a time. */
#ifndef TP_GRAPH_H
#define TP_GRAPH_H
#include "temper/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tp_graph tp_graph;
typedef uint32_t tp_val;

TP_API tp_status tp_graph_new(tp_graph **out) TP_MUST_USE;
TP_API void tp_graph_free(tp_graph *g); /* NULL is fine */

/* TP_OK, or the first error; its line is then tp_last_error() too. */
TP_API tp_status tp_graph_status(const tp_graph *g) TP_MUST_USE;

/* A value that lives outside the plan, in storage.data on the device the plan will be made for: a parameter,
 * an input slot, an optimizer moment. The storage is borrowed and must outlive every plan of the graph. The
 * name is copied. */
TP_API tp_val tp_variable(tp_graph *g, const char *name, tp_tensor storage);

/* A constant; the data (host memory) is copied. */
TP_API tp_val tp_constant(tp_graph *g, tp_dtype dtype, tp_shape shape, const void *data);

/* A constant of shape () from a double; dtype TP_F32 or TP_F64. */
TP_API tp_val tp_scalar(tp_graph *g, tp_dtype dtype, double value);

/* Marks a value to be kept until the end of a run, so that it can be read with tp_plan_read. Returns v. */
TP_API tp_val tp_output(tp_graph *g, tp_val v);

/* Shape and dtype of a value; a scalar of TP_DTYPE_NONE for value 0. */
TP_API tp_shape tp_val_shape(const tp_graph *g, tp_val v);
TP_API tp_dtype tp_val_dtype(const tp_graph *g, tp_val v);

/* Names the part of the model that the next nodes belong to (shown in dumps and errors); NULL ends it.
 * Copied. */
TP_API void tp_graph_scope(tp_graph *g, const char *name);

/* Appends the nodes that compute d loss / d wrt[i] for a loss of one element, and stores them in out[i]; a
 * wrt that the loss does not depend on gives 0. Only what wrt asks for is built: a gradient of an input holds
 * no gradient of a weight. wrt may hold variables and any other value of the graph. Fails (sticky) if an op
 * on the way has none. */
TP_API void tp_grad(tp_graph *g, tp_val loss, int n, const tp_val *wrt, tp_val *out);

/* Number of nodes, and the op name of node i ("" if out of range): what the proofs about a program look at.
 */
TP_API int tp_graph_size(const tp_graph *g);
TP_API const char *tp_graph_op_name(const tp_graph *g, int i);

#ifdef __cplusplus
}
#endif
#endif
