#include "temper/schedule.h"
#include <math.h>

#define PI 3.14159265358979324

/* From a at p = 0 to b at p = 1 along a half cosine. */
static double anneal(double a, double b, double p)
{
    return b + (a - b) * 0.5 * (1.0 + cos(PI * p));
}

static double one_cycle(const tp_schedule *s, int64_t step, int64_t total)
{
    const double low = 1.0 / s->div_factor, last = low / s->final_div_factor;
    const double up = s->pct_start * (double)total - 1.0, end = (double)total - 1.0;

    if ((double)step <= up && up > 0.0)
        return anneal(low, 1.0, (double)step / up);
    return end > up ? anneal(1.0, last, ((double)step - up) / (end - up)) : 1.0;
}

double tp_schedule_factor(const tp_schedule *s, int64_t step, int64_t total, int64_t steps_per_epoch)
{
    const double warm = floor(s->warmup * (double)total);
    const double span = (double)total - warm, p = span > 0.0 ? ((double)step - warm) / span : 1.0;

    if (s->kind == TP_SCHEDULE_ONE_CYCLE)
        return one_cycle(s, step, total);
    if ((double)step < warm)
        return ((double)step + 1.0) / (warm + 1.0);
    switch (s->kind) {
    case TP_SCHEDULE_STEP:
        return pow(s->gamma, floor((double)step / (s->step_epochs * (double)steps_per_epoch)));
    case TP_SCHEDULE_COSINE:
        return anneal(1.0, s->final, p);
    case TP_SCHEDULE_LINEAR:
        return 1.0 + (s->final - 1.0) * p;
    default:
        return 1.0;
    }
}
