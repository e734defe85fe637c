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

/* ---- reduce on plateau ---- */

tp_plateau_state tp_plateau_start(const tp_plateau *p)
{
    return (tp_plateau_state){.scale = 1.0, .best = p->higher_is_better ? -HUGE_VAL : HUGE_VAL};
}

static int is_better(const tp_plateau *p, double value, double best)
{
    const double sign = p->higher_is_better ? 1.0 : -1.0;
    const double bar = p->absolute ? best + sign * p->threshold : best * (1.0 + sign * p->threshold);
    return p->higher_is_better ? value > bar : value < bar;
}

#define LEAST_CUT 1e-8 /* PyTorch's eps: a smaller cut is not made */

double tp_plateau_update(const tp_plateau *p, tp_plateau_state *state, double value)
{
    if (is_better(p, value, state->best)) {
        state->best = value;
        state->bad = 0.0;
    } else
        state->bad += 1.0;
    if (state->cooldown_left > 0.0) {
        state->cooldown_left -= 1.0;
        state->bad = 0.0;
    }
    if (state->bad > (double)p->patience) {
        const double scale = fmax(state->scale * p->factor, p->min_factor);
        if (state->scale - scale > LEAST_CUT)
            state->scale = scale;
        state->cooldown_left = (double)p->cooldown;
        state->bad = 0.0;
    }
    return state->scale;
}

/* ---- early stopping ---- */

tp_early_stop_state tp_early_stop_start(void)
{
    return (tp_early_stop_state){.best_step = -1.0};
}

int tp_early_stop_update(const tp_early_stop *e, tp_early_stop_state *state, int64_t step, double value)
{
    const double gain = e->higher_is_better ? value - state->best : state->best - value;
    const int is_best = !isnan(value) && (state->best_step < 0.0 || gain > e->min_delta);

    state->since_best = is_best ? 0.0 : state->since_best + 1.0;
    if (is_best) {
        state->best = value;
        state->best_step = (double)step;
    }
    return is_best;
}

int tp_early_stop_reached(const tp_early_stop *e, const tp_early_stop_state *state)
{
    return e->patience > 0 && state->since_best >= (double)e->patience;
}
