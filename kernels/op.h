/* op.h - what an op is: one descriptor in one place, from which the op table, the plan, the tests, the
 * gradient checks and the benchmark are all derived.
 *
 * To add an op: kernels/<group>/<op>.c (descriptor, builder, CPU implementations), kernels/<group>/<op>.cu,
 * and one line plus one documented builder in include/temper/ops.h. */
#ifndef TP_KERNELS_OP_H
#define TP_KERNELS_OP_H
#include "host/core/float16.h"
#include "temper/device.h"
#include "temper/graph.h"
#include "temper/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tp_op tp_op;

/* One node of a graph. in[i] = 0 where an optional input is absent. attr is the op's own struct or NULL. */
typedef struct tp_node {
    const tp_op *op;
    int n_in, n_out;
    const tp_val *in, *out;
    const void *attr;
    const char *scope;
} tp_node;

/* What infer reads and fills. Outputs start as copies of in[0]'s shape and dtype. An absent input has dtype
 * NONE. */
typedef struct tp_infer {
    int n_in, n_out;
    const tp_shape *shape;
    const tp_dtype *dtype;
    const void *attr;
    tp_shape *out_shape;
    tp_dtype *out_dtype;
} tp_infer;

/* One call of an implementation. Data pointers are valid in run only; prepare sees shapes, dtypes and attr.
 * An absent input has dtype NONE and data NULL. */
typedef struct tp_call {
    int n_in, n_out;
    const tp_tensor *in;
    const tp_tensor *out;
    const void *attr;
    void *scratch; /* scratch bytes asked by prepare: undefined content, valid during one run */
    void *state;   /* what prepare left: library handles, packed descriptors; freed by release */
    tp_precision precision;
    const void *queue; /* what a GPU's implementations launch on (cuda.cuh); NULL on the CPU */
} tp_call;

typedef struct tp_impl {
    const char *name;
    /* At compile time: accepts (TP_OK) or declines (TP_EUNSUP with the reason as its line); books scratch
     * bytes and may leave a state. NULL accepts float32 data with no scratch. */
    tp_status (*prepare)(tp_call *c, size_t *scratch);
    /* No allocation, no host sync, no decision. */
    tp_status (*run)(const tp_call *c);
    void (*release)(void *state); /* NULL if prepare leaves none */
    unsigned flags;
} tp_impl;

/* tp_impl flags */
#define TP_IMPL_LIBRARY 1u /* somebody else's code: same bits for any thread count are not promised */

typedef struct tp_cost {
    double flops, bytes;
} tp_cost;

/* A test and benchmark case. `in` gives the inputs: "4x3,5x3" are float inputs, "6:i64" integers, "4x3:bf16"
 * floats that only the double reference takes in another dtype, "-" an absent optional input, "()" a scalar,
 * "2*4x3" repeats an entry. Float inputs are uniform in [lo, hi), integers in [0, ihi) as far as their dtype
 * goes. */
typedef struct tp_case {
    const char *in;
    double lo, hi;
    int64_t ihi;
    const void *attr;
    double
        tolerance; /* relative norm error allowed in float32; 0: 4 * sqrt(longest reduction) * 2^-24 + 1e-6 */
    unsigned flags;
} tp_case;

/* tp_case flags */
#define TP_CASE_NO_GRAD  1u  /* piecewise constant here, or inputs are not differentiable */
#define TP_CASE_DISTINCT 2u  /* float inputs are a shuffled grid without near ties (max, pooling, sorting) */
#define TP_CASE_AWAY     4u  /* float inputs keep 0.05 away from 0 (kinks) */
#define TP_CASE_ROWSUM1  8u  /* float inputs are rows of a probability distribution */
#define TP_CASE_WHOLE    16u /* float inputs are whole numbers: many are equal (ties) */
#define TP_CASE_UNIQUE   32u /* no integer of an input comes twice: those beyond the ihi-th are -1 */

struct tp_op {
    const char *name; /* as in TP_OPS */
    const char *onnx; /* ONNX operator with these semantics, or NULL */
    int min_in, max_in, n_out;
    unsigned flags;
    uint32_t
        constant_in; /* bit i: input i is a float that no gradient flows to (targets, weights, statistics) */
    size_t attr_size;
    tp_status (*infer)(tp_infer *x);
    /* Appends nodes for d loss / d in[i] into din[i] where need[i]; dout[k] = 0 where nothing flows in. NULL:
     * no gradient. */
    void (*grad)(tp_graph *g, const tp_node *n, const tp_val *dout, const uint8_t *need, tp_val *din);
    tp_cost (*cost)(const tp_call *c);
    const tp_impl *const *cpu; /* NULL-terminated, fastest first, plain reference last; those of a GPU are in
                                  its module (cuda_module.h) */
    const tp_case *cases;
    int n_cases;
};

/* tp_op flags */
#define TP_OP_VIEW 1u /* out[0] is in[0]'s memory under another shape: no implementation runs */
#define TP_OP_INPLACE                                                                                        \
    2u /* element i of out[0] depends on in[0] only through its element i: may share memory */
#define TP_OP_EFFECT 4u  /* writes some of its inputs: never removed, never reordered */
#define TP_OP_RANDOM 8u  /* reads a counter value (see ops.h) */
#define TP_OP_STOP   16u /* gradient is zero by definition */

#define TP_COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))
#define TP_IMPLS(...)   ((const tp_impl *const[]){__VA_ARGS__, NULL})

/* Every op, in the order of TP_OPS. */
extern const tp_op *const tp_op_table[];
extern const int tp_n_ops;
const tp_op *tp_op_find(const char *name); /* NULL if there is none */

#define TP_DECLARE_OP(name) extern const tp_op tp_op_##name;
TP_OPS(TP_DECLARE_OP)
#undef TP_DECLARE_OP

/* Appends a node and returns its first output (outputs have consecutive ids); 0 if the graph has failed or
 * infer refuses. The error line reads "<op>: <what infer says>" with the scope and the input shapes added.
 * attr is copied. */
tp_val tp_graph_add(tp_graph *g, const tp_op *op, int n_in, const tp_val *in, const void *attr);

/* Fails the graph (sticky) with a message; returns 0. For builders. */
tp_val tp_graph_fail(tp_graph *g, tp_status st, const char *format, ...) TP_PRINTF(3, 4);

int tp_graph_ok(const tp_graph *g);

/* The node that gives v; NULL for a variable or a constant. */
const tp_node *tp_graph_producer(const tp_graph *g, tp_val v);
const tp_node *tp_graph_node(const tp_graph *g, int i);

/* ---- for implementations ---- */

static inline const float *tp_in_f32(const tp_call *c, int i)
{
    return (const float *)c->in[i].data;
}
static inline float *tp_out_f32(const tp_call *c, int i)
{
    return (float *)c->out[i].data;
}
static inline int64_t tp_len(const tp_tensor *t)
{
    return tp_shape_len(t->shape);
}

/* Reads and writes an element as double whatever the dtype: plain references only. */
static inline double tp_get(const tp_tensor *t, int64_t i)
{
    switch (t->dtype) {
    case TP_F32:
        return (double)((const float *)t->data)[i];
    case TP_F64:
        return ((const double *)t->data)[i];
    case TP_BF16:
        return (double)tp_bf16_to_f32(((const uint16_t *)t->data)[i]);
    case TP_I64:
        return (double)((const int64_t *)t->data)[i];
    case TP_I32:
        return (double)((const int32_t *)t->data)[i];
    case TP_I16:
        return (double)((const int16_t *)t->data)[i];
    case TP_I8:
        return (double)((const int8_t *)t->data)[i];
    case TP_U64:
        return (double)((const uint64_t *)t->data)[i];
    case TP_U32:
        return (double)((const uint32_t *)t->data)[i];
    case TP_U16:
        return (double)((const uint16_t *)t->data)[i];
    case TP_U8:
        return (double)((const uint8_t *)t->data)[i];
    default:
        return 0.0;
    }
}
static inline void tp_set(const tp_tensor *t, int64_t i, double v)
{
    if (t->dtype == TP_F32)
        ((float *)t->data)[i] = (float)v;
    else if (t->dtype == TP_F64)
        ((double *)t->data)[i] = v;
    else if (t->dtype == TP_BF16)
        ((uint16_t *)t->data)[i] = tp_bf16_from_f32((float)v);
    else if (t->dtype == TP_I64)
        ((int64_t *)t->data)[i] = (int64_t)v;
}
/* An integer element: ids, labels, rows. */
static inline int64_t tp_get_int(const tp_tensor *t, int64_t i)
{
    switch (t->dtype) {
    case TP_I64:
        return ((const int64_t *)t->data)[i];
    case TP_I32:
        return ((const int32_t *)t->data)[i];
    default:
        return (int64_t)tp_get(t, i);
    }
}

/* prepare of plain references: every float dtype, no scratch. */
tp_status tp_accept_float(tp_call *c, size_t *scratch);
/* prepare of fast loops: every float input and output is float32. */
tp_status tp_accept_f32(tp_call *c, size_t *scratch);
/* The same for kernels that compute in float32 what is stored in float32 or bfloat16. */
tp_status tp_accept_stored(tp_call *c, size_t *scratch);

/* cost of ops that stream their inputs and outputs once, one operation for each output element. */
tp_cost tp_cost_stream(const tp_call *c);

/* infer helpers. Floats are what an op computes with: float32, float64, bfloat16. */
int tp_is_float(tp_dtype dtype);
int tp_is_int(tp_dtype dtype);
tp_dtype
tp_sums_dtype(tp_dtype dtype); /* of vectors, statistics and sums beside x: x's, float32 for bfloat16 */

#ifdef __cplusplus
}
#endif
#endif
