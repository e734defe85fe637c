/* regression.h - the regression losses of one difference d = x - t and their slopes, once for the loops of
 * the CPU and the kernels of a GPU. */
#ifndef TP_KERNELS_REGRESSION_H
#define TP_KERNELS_REGRESSION_H
#include "host/core/hd.h"
#include "kernels/op.h"
#include <math.h>

TP_HD double tp_regression_value(double d, const tp_regression_attr *a)
{
    switch (a->kind) {
    case TP_REGRESSION_MSE:
        return d * d;
    case TP_REGRESSION_MAE:
        return fabs(d);
    case TP_REGRESSION_HUBER:
        return fabs(d) <= a->param ? 0.5 * d * d : a->param * (fabs(d) - 0.5 * a->param);
    default: /* pinball: d = x - t */
        return d < 0.0 ? -a->param * d : (1.0 - a->param) * d;
    }
}

TP_HD double tp_regression_slope(double d, const tp_regression_attr *a)
{
    const double sign = (double)((d > 0.0) - (d < 0.0));
    switch (a->kind) {
    case TP_REGRESSION_MSE:
        return 2.0 * d;
    case TP_REGRESSION_MAE:
        return sign;
    case TP_REGRESSION_HUBER:
        return fabs(d) <= a->param ? d : a->param * sign;
    default:
        return d < 0.0 ? -a->param : (d > 0.0 ? 1.0 - a->param : 0.0);
    }
}

#endif
