#include "host/core/mem.h"
#include "host/data/dataset.h"
#include <math.h>

/* Sums over the training rows in row order and in double, so that they depend on nothing but the data. Values
 * are taken relative to the first training row's, which keeps the variance of a column far from 0 accurate
 * and makes that of a constant column exactly 0. */
typedef struct fit_ctx {
    const tp_data *d;
    int64_t n_norm, run; /* values j * run ... (j + 1) * run - 1 of a row belong to feature j */
    int64_t rows;
    double *origin, *sum, *sum2, *low, *high; /* (n_norm) */
} fit_ctx;

static void add_run(fit_ctx *x, int64_t j, const double *v)
{
    const double origin = x->origin[j];
    double sum = 0.0, sum2 = 0.0, low = x->low[j], high = x->high[j];
    for (int64_t k = 0; k < x->run; k++) {
        const double e = v[k] - origin;
        sum += e;
        sum2 += e * e;
        low = v[k] < low ? v[k] : low;
        high = v[k] > high ? v[k] : high;
    }
    x->sum[j] += sum;
    x->sum2[j] += sum2;
    x->low[j] = low;
    x->high[j] = high;
}

/* As add_run with runs of 1, features in the inner loop. */
static void add_features(fit_ctx *x, const double *restrict v)
{
    const double *restrict origin = x->origin;
    double *restrict sum = x->sum, *restrict sum2 = x->sum2, *restrict low = x->low, *restrict high = x->high;
    for (int64_t j = 0; j < x->n_norm; j++) {
        const double e = v[j] - origin[j];
        sum[j] += e;
        sum2[j] += e * e;
        low[j] = v[j] < low[j] ? v[j] : low[j];
        high[j] = v[j] > high[j] ? v[j] : high[j];
    }
}

static void add_row(fit_ctx *x, const double *values)
{
    for (int64_t j = 0; j < x->n_norm && x->rows == 0; j++)
        x->origin[j] = x->low[j] = x->high[j] = values[j * x->run];
    if (x->run == 1)
        add_features(x, values);
    else
        for (int64_t j = 0; j < x->n_norm; j++)
            add_run(x, j, values + j * x->run);
    x->rows++;
}

static tp_status add_piece(void *ctx, int64_t row, int64_t n, const double *values)
{
    fit_ctx *x = ctx;
    for (int64_t k = 0; k < n; k++)
        if (x->d->part_of[row + k] == TP_TRAIN)
            add_row(x, values + k * x->n_norm * x->run);
    return TP_OK;
}

/* A constant feature, or one so narrow that the scale is beyond float32, is only shifted. */
static float scale_of(double width)
{
    const float scale = (float)(1.0 / width);
    return width > 0.0 && isfinite(scale) && scale > 0.0f ? scale : 1.0f;
}

static tp_status finish(const fit_ctx *x, const tp_column *c, tp_norm_kind kind, float *shift, float *scale)
{
    const double n = (double)x->rows * (double)x->run;
    for (int64_t j = 0; j < x->n_norm; j++) {
        const double mean = x->sum[j] / n;
        const double variance = x->sum2[j] / n - mean * mean;
        const double from = kind == TP_NORM_MINMAX ? x->low[j] : x->origin[j] + mean;
        TP_CHECK(fabs(from) <= 3.4e38, TP_EDATA, "%s: feature %lld is about %g, beyond float32", c->name,
                 (long long)j, from);
        shift[j] = (float)from;
        scale[j] = scale_of(kind == TP_NORM_MINMAX ? x->high[j] - x->low[j] : sqrt(fmax(variance, 0.0)));
    }
    return TP_OK;
}

static tp_status fit(const tp_data *d, const tp_column *c, tp_norm_kind kind, int64_t n_norm, float *shift,
                     float *scale)
{
    TP_CHECK(d->part_rows[TP_TRAIN] > 0, TP_EINVAL,
             "%s: a normalisation is fitted on the train part, and there is none", c->name);
    double *room = NULL;
    TP_TRY(tp_alloc(&room, (size_t)n_norm, 5 * sizeof(double), "sums of the features"));
    fit_ctx x = {d,
                 n_norm,
                 c->row_len / n_norm,
                 0,
                 room,
                 room + n_norm,
                 room + 2 * n_norm,
                 room + 3 * n_norm,
                 room + 4 * n_norm};
    tp_status st = tp_column_numbers(d, c, add_piece, &x);
    if (st == TP_OK)
        st = finish(&x, c, kind, shift, scale);
    tp_free(room);
    return st;
}

/* One array to normalise: how, and where its values belong. */
typedef struct norm_plan {
    const tp_column *c;
    tp_norm_kind kind;
    double factor;
    const float *shift, *scale; /* TP_NORM_GIVEN */
    int64_t n_given;
    const char *unit; /* "features", ... for messages */
    int64_t n;        /* values wanted */
} norm_plan;

static norm_plan plan_input(const tp_data *d, const tp_data_spec *spec, int i)
{
    const tp_input_spec *in = &spec->inputs[i];
    const int image = in->kind == TP_INPUT_IMAGE;
    const tp_column *c = &d->columns[i];
    return (norm_plan){c,
                       in->normalize,
                       in->factor,
                       in->shift,
                       in->scale,
                       in->n_norm,
                       image ? "channels" : "features",
                       in->normalize == TP_NORM_NONE ? 0 : (image ? c->sample.d[0] : c->row_len)};
}

static norm_plan plan_target(const tp_data *d, const tp_data_spec *spec)
{
    return (norm_plan){d->target_column,
                       spec->target_normalize,
                       1.0,
                       spec->target_shift,
                       spec->target_scale,
                       spec->target_n_norm,
                       "outputs",
                       spec->target_normalize == TP_NORM_NONE ? 0 : d->target_column->row_len};
}

static tp_status fill(const tp_data *d, const norm_plan *p, float *shift, float *scale)
{
    TP_CHECK(p->kind != TP_NORM_GIVEN || p->n_given == p->n, TP_EDATA,
             "%s: %s has %lld %s, want the %lld of the normalisation given", d->sources[0].path, p->c->name,
             (long long)p->n, p->unit, (long long)p->n_given);
    if (p->kind != TP_NORM_GIVEN && p->kind != TP_NORM_SCALE)
        return fit(d, p->c, p->kind, p->n, shift, scale);
    for (int64_t j = 0; j < p->n; j++) {
        shift[j] = p->kind == TP_NORM_GIVEN ? p->shift[j] : 0.0f;
        scale[j] = p->kind == TP_NORM_GIVEN ? p->scale[j] : (float)p->factor;
    }
    return TP_OK;
}

tp_status tp_stats_fit(tp_data *d, const tp_data_spec *spec)
{
    const norm_plan target = plan_target(d, spec);
    int64_t total = target.n;

    for (int i = 0; i < d->n_inputs; i++)
        total += plan_input(d, spec, i).n;
    TP_TRY(tp_alloc(&d->norm, (size_t)total, 2 * sizeof(float), "normalisation"));
    float *next = d->norm;
    for (int i = 0; i < d->n_inputs; i++) {
        const norm_plan p = plan_input(d, spec, i);
        if (p.n == 0)
            continue;
        TP_TRY(fill(d, &p, next, next + p.n));
        d->inputs[i].n_norm = p.n;
        d->inputs[i].shift = next;
        d->inputs[i].scale = next + p.n;
        next += 2 * p.n;
    }
    if (target.n == 0)
        return TP_OK;
    TP_TRY(fill(d, &target, next, next + target.n));
    d->target.n_norm = target.n;
    d->target.shift = next;
    d->target.scale = next + target.n;
    return TP_OK;
}
