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

static tp_status given(const tp_data *d, const tp_column *c, const tp_input_spec *in, int64_t n_norm,
                       float *shift, float *scale)
{
    TP_CHECK(in->n_norm == n_norm, TP_EDATA, "%s: %s has %lld %s, want the %lld of the normalisation given",
             d->sources[0].path, c->name, (long long)n_norm,
             in->kind == TP_INPUT_IMAGE ? "channels" : "features", (long long)in->n_norm);
    for (int64_t j = 0; j < n_norm; j++) {
        shift[j] = in->shift[j];
        scale[j] = in->scale[j];
    }
    return TP_OK;
}

tp_status tp_stats_fit(tp_data *d, const tp_data_spec *spec)
{
    int64_t total = 0;
    for (int i = 0; i < d->n_inputs; i++) {
        const tp_input_spec *in = &spec->inputs[i];
        const tp_column *c = &d->columns[i];
        if (in->normalize != TP_NORM_NONE)
            d->inputs[i].n_norm = in->kind == TP_INPUT_IMAGE ? c->sample.d[0] : c->row_len;
        total += d->inputs[i].n_norm;
    }
    TP_TRY(tp_alloc(&d->norm, (size_t)total, 2 * sizeof(float), "normalisation"));
    float *next = d->norm;
    for (int i = 0; i < d->n_inputs; i++) {
        const tp_input_spec *in = &spec->inputs[i];
        const int64_t n = d->inputs[i].n_norm;
        if (n == 0)
            continue;
        float *shift = next, *scale = next + n;
        next += 2 * n;
        d->inputs[i].shift = shift;
        d->inputs[i].scale = scale;
        if (in->normalize == TP_NORM_GIVEN)
            TP_TRY(given(d, &d->columns[i], in, n, shift, scale));
        else if (in->normalize != TP_NORM_SCALE)
            TP_TRY(fit(d, &d->columns[i], in->normalize, n, shift, scale));
        else
            for (int64_t j = 0; j < n; j++)
                scale[j] = (float)in->factor;
    }
    return TP_OK;
}
