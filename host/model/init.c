#include "host/model/init.h"
#include "host/core/rng.h"
#include <math.h>

#define TWO_PI 6.28318530717958648

tp_init_rule tp_init_weight(tp_init init, int64_t fan_in, int64_t fan_out)
{
    const double in = fan_in > 0 ? (double)fan_in : 1.0;
    const double bound = init == TP_INIT_XAVIER ? sqrt(6.0 / (in + (double)fan_out)) : 1.0 / sqrt(in);

    if (init == TP_INIT_ZEROS)
        return (tp_init_rule){TP_FILL_CONSTANT, 0.0, 0.0};
    if (init == TP_INIT_KAIMING)
        return (tp_init_rule){TP_FILL_NORMAL, 0.0, sqrt(2.0 / in)};
    return (tp_init_rule){TP_FILL_UNIFORM, -bound, bound};
}

tp_init_rule tp_init_bias(tp_init init, int64_t fan_in)
{
    const double bound = 1.0 / sqrt(fan_in > 0 ? (double)fan_in : 1.0);

    if (init != TP_INIT_DEFAULT)
        return (tp_init_rule){TP_FILL_CONSTANT, 0.0, 0.0};
    return (tp_init_rule){TP_FILL_UNIFORM, -bound, bound};
}

tp_init_rule tp_init_embedding(tp_init init, int64_t width)
{
    switch (init) {
    case TP_INIT_ZEROS:
        return (tp_init_rule){TP_FILL_CONSTANT, 0.0, 0.0};
    case TP_INIT_KAIMING:
        return (tp_init_rule){TP_FILL_NORMAL, 0.0, 0.1};
    case TP_INIT_XAVIER:
        return (tp_init_rule){TP_FILL_NORMAL, 0.0, 1.0 / sqrt((double)width)};
    default:
        return (tp_init_rule){TP_FILL_NORMAL, 0.0, 1.0};
    }
}

/* Box-Muller on two of the four numbers, in double. */
static double normal(const tp_rng4 *r, size_t pair)
{
    const double u = ((double)r->v[2 * pair] + 0.5) * 0x1p-32,
                 v = ((double)r->v[2 * pair + 1] + 0.5) * 0x1p-32;
    return sqrt(-2.0 * log(u)) * cos(TWO_PI * v);
}

void tp_init_fill(float *out, int64_t n, const tp_init_rule *rule, uint64_t seed, uint32_t parameter)
{
    for (int64_t i = 0; i < n; i++) {
        double v = rule->a;
        if (rule->fill == TP_FILL_UNIFORM) {
            const tp_rng4 r = tp_rng_draw(seed, TP_RNG_INIT, (uint64_t)(i / 4), parameter);
            v = rule->a + (rule->b - rule->a) * (double)tp_rng_uniform(r.v[i % 4]);
        } else if (rule->fill == TP_FILL_NORMAL) {
            const tp_rng4 r = tp_rng_draw(seed, TP_RNG_INIT, (uint64_t)(i / 2), parameter);
            v = rule->a + rule->b * normal(&r, (size_t)i % 2);
        }
        out[i] = (float)v;
    }
}
