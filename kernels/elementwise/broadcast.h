/* broadcast.h - shapes against each other, as in NumPy and ONNX; used by every op group. */
#ifndef TP_KERNELS_BROADCAST_H
#define TP_KERNELS_BROADCAST_H
#include "kernels/op.h"

/* The shape a and b broadcast to. TP_ESHAPE naming the dimension if they do not. */
tp_status tp_broadcast_shapes(tp_shape a, tp_shape b, tp_shape *out);

/* The gradient of a broadcast: sums v over the dimensions that shape lacks or has as 1, giving a value of
 * `shape`. */
tp_val tp_sum_to(tp_graph *g, tp_val v, tp_shape shape);

#endif
