#include "host/core/mem.h"
#include "host/core/order.h"
#include "host/core/parallel.h"
#include "host/data/dataset.h"
#include <math.h>

const char *tp_part_name(tp_part part)
{
    static const char *const names[TP_PARTS] = {"train", "validation", "test"};
    return part >= 0 && part < TP_PARTS ? names[part] : "";
}

static void assign(tp_data *d, int64_t row, uint8_t part)
{
    if (d->part_of[row] != TP_ROW_DROPPED)
        d->part_of[row] = part;
}

static void split_sources(tp_data *d)
{
    for (int i = 0; i < d->n_sources; i++) {
        const tp_source *s = &d->sources[i];
        d->requested[s->part] = 1;
        for (int64_t row = s->first; row < s->first + s->n; row++)
            assign(d, row, (uint8_t)s->part);
    }
}

static void split_time(tp_data *d, const tp_split_spec *s)
{
    const double *time = d->time_column->numbers;
    for (int p = 0; p < TP_PARTS; p++)
        d->requested[p] = s->from[p] < s->to[p];
    for (int64_t row = 0; row < d->n_rows; row++) {
        uint8_t part = TP_ROW_UNUSED;
        for (int p = 0; p < TP_PARTS; p++)
            if (time[row] >= s->from[p] && time[row] < s->to[p])
                part = (uint8_t)p;
        assign(d, row, part);
    }
}

typedef struct fraction_ctx {
    tp_data *d;
    uint64_t seed;
    int64_t test, validation; /* rows */
} fraction_ctx;

static void split_fraction_rows(void *ctx, int64_t begin, int64_t end)
{
    const fraction_ctx *x = ctx;
    for (int64_t row = begin; row < end; row++) {
        const int64_t place = tp_order_permute(x->seed, TP_RNG_SPLIT, 0, x->d->n_rows, row);
        const int held_out = place < x->test ? TP_TEST : TP_VALIDATION;
        assign(x->d, row, (uint8_t)(place < x->test + x->validation ? held_out : TP_TRAIN));
    }
}

static void split_fraction(tp_data *d, const tp_split_spec *s)
{
    fraction_ctx x = {d, s->seed, llround((double)d->n_rows * s->test),
                      llround((double)d->n_rows * s->validation)};
    d->requested[TP_TRAIN] = 1;
    d->requested[TP_VALIDATION] = s->validation > 0.0;
    d->requested[TP_TEST] = s->test > 0.0;
    tp_parallel(d->n_rows, 4096, split_fraction_rows, &x);
}

static tp_status split_dataset(tp_data *d)
{
    const tp_column *c = d->split_column;
    d->requested[TP_TRAIN] = 1;
    for (int64_t row = 0; row < d->n_rows; row++) {
        const double part = c->numbers[row];
        TP_CHECK(part >= 0.0 && part < TP_PARTS, TP_EDATA,
                 "%s is %.15g, want 0 (train), 1 (validation) or 2 (test)", tp_column_place(d, c, row).text,
                 part);
        assign(d, row, (uint8_t)part);
    }
    return TP_OK;
}

tp_status tp_split_assign(tp_data *d, const tp_data_spec *spec)
{
    switch (spec->split.kind) {
    case TP_SPLIT_TIME:
        split_time(d, &spec->split);
        return TP_OK;
    case TP_SPLIT_FRACTION:
        split_fraction(d, &spec->split);
        return TP_OK;
    case TP_SPLIT_DATASET:
        return split_dataset(d);
    case TP_SPLIT_ALL:
    case TP_SPLIT_FILES:
    case TP_SPLIT_GROUPS:
        break;
    }
    split_sources(d);
    return TP_OK;
}

static tp_status empty_part(const tp_data *d, const tp_data_spec *spec, int p)
{
    const char *path = d->sources[0].path, *name = tp_part_name((tp_part)p);
    const tp_split_spec *s = &spec->split;
    if (s->kind != TP_SPLIT_TIME)
        TP_FAIL(TP_EDATA, "%s: the %s part has no rows (%lld rows in the file, %lld left out as not finite)",
                path, name, (long long)d->n_rows, (long long)d->dropped);
    double low = INFINITY, high = -INFINITY;
    for (int64_t row = 0; row < d->n_rows; row++) {
        low = fmin(low, d->time_column->numbers[row]);
        high = fmax(high, d->time_column->numbers[row]);
    }
    TP_FAIL(TP_EDATA,
            "%s: the %s part has no rows: it wants %s in [%.15g, %.15g), the file has [%.15g, %.15g]", path,
            name, d->time_column->name, s->from[p], s->to[p], low, high);
}

tp_status tp_split_tables(tp_data *d, const tp_data_spec *spec)
{
    for (int64_t row = 0; row < d->n_rows; row++)
        if (d->part_of[row] < TP_PARTS)
            d->part_rows[d->part_of[row]]++;
    for (int p = 0; p < TP_PARTS; p++) {
        if (d->part_rows[p] == 0 && d->requested[p])
            return empty_part(d, spec, p);
        if (d->part_rows[p] == 0)
            continue;
        TP_TRY(tp_alloc(&d->part_table[p], (size_t)d->part_rows[p], sizeof(int64_t), "table of rows"));
        int64_t k = 0;
        for (int64_t row = 0; row < d->n_rows; row++)
            if (d->part_of[row] == p)
                d->part_table[p][k++] = row;
    }
    TP_CHECK(d->part_rows[TP_TRAIN] + d->part_rows[TP_VALIDATION] + d->part_rows[TP_TEST] > 0, TP_EDATA,
             "%s: the split leaves no part with rows", d->sources[0].path);
    return TP_OK;
}
