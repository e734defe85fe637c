/* case.h - the inputs of a tp_case: what its text says, the numbers, and how near a result must be. The tests
 * and the benchmark share it, so that both check an implementation on the same grounds. */
#ifndef TP_KERNELS_CASE_H
#define TP_KERNELS_CASE_H
#include "kernels/op.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Reads "4x3,6:i64,-,(),2*4x3" (see tp_case) as tensors without data; an absent input has dtype NONE. Free
 * *out with tp_free. Errors: TP_EDATA naming the entry that is not understood. */
tp_status tp_case_inputs(const char *text, tp_tensor **out, int *n) TP_MUST_USE;

/* The seed of case i of an op is TP_CASE_SEED + i. Every case must pass with it: a float32 result that
 * cancels to nearly nothing, a kink within a finite difference or a step count of 0 would not. */
#define TP_CASE_SEED 3000

/* The numbers of input i, as the case asks for them, into v (tp_shape_len of it): the same for every dtype
 * the case is run in, floats exact in float32. */
void tp_case_values(const tp_case *c, const tp_tensor *input, int i, uint64_t seed, double *v);

/* The dtype of an input in a run in float32 or float64 (real), given that of the case. */
tp_dtype tp_case_dtype(tp_dtype asked, tp_dtype real);

/* Writes v to host memory t->data in t's dtype. */
void tp_case_store(const tp_tensor *t, const double *v);

/* The relative norm error allowed in float32. */
double tp_case_tolerance(const tp_case *c, const tp_tensor *inputs, int n);

#ifdef __cplusplus
}
#endif
#endif
