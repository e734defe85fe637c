/* few_channels.cuh - convolution of images with few channels, for the lists of conv.cu. */
#ifndef TP_KERNELS_CONV_FEW_CHANNELS_CUH
#define TP_KERNELS_CONV_FEW_CHANNELS_CUH
#include "kernels/op.h"

extern const tp_impl tp_conv_few, tp_conv_weight_grad_few;

#endif
