/* activation.h - what gemm and conv share about the activations that fuse into them. */
#ifndef TP_KERNELS_ACTIVATION_H
#define TP_KERNELS_ACTIVATION_H
#include "kernels/op.h"

/* TP_ESHAPE unless act is one of tp_activation. */
tp_status tp_activation_check(tp_activation act);

/* act(v), for references. */
double tp_activate(double v, tp_activation act);

#endif
