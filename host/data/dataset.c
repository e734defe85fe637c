#include "host/data/dataset.h"
#include "host/core/mem.h"
#include <sodium.h>
#include <string.h>
#include <unistd.h>

static int fits(const tp_data *d, int64_t limit)
{
    if (limit < 0)
        return 0;
    if (limit == 0)
        limit = (int64_t)sysconf(_SC_PHYS_PAGES) / 2 * (int64_t)sysconf(_SC_PAGESIZE);
    double bytes = 0.0; /* exact below 2^53, and no product overflows */
    for (int i = 0; i < d->n_columns; i++)
        if (d->columns[i].role <= TP_ROLE_WEIGHT)
            bytes += (double)d->n_rows * (double)d->columns[i].row_bytes;
    return bytes <= (double)limit;
}

/* Time and split first: a row without a part is not checked. */
static tp_status load(tp_data *d, const tp_data_spec *spec)
{
    TP_TRY(tp_alloc(&d->part_of, (size_t)d->n_rows, 1, "part of each row"));
    if (d->time_column)
        TP_TRY(tp_dataset_load(d, d->time_column, spec->nonfinite));
    if (d->slice_column)
        TP_TRY(tp_dataset_load(d, d->slice_column, spec->nonfinite));
    if (d->split_column)
        TP_TRY(tp_dataset_load(d, d->split_column, spec->nonfinite));
    TP_TRY(tp_split_assign(d, spec));
    for (int i = 0; i < d->n_columns; i++)
        if (d->columns[i].role <= TP_ROLE_WEIGHT)
            TP_TRY(tp_dataset_load(d, &d->columns[i], spec->nonfinite));
    tp_dataset_hash(d);
    return tp_split_tables(d, spec);
}

static void view(const tp_data *d, const tp_column *c, tp_data_array *a)
{
    a->name = c->name;
    a->dtype = c->dtype;
    a->sample = c->sample;
    a->row_bytes = c->row_bytes;
    a->values.data = c->values;
    a->values.dtype = c->dtype;
    a->values.shape.nd = c->sample.nd + 1;
    a->values.shape.d[0] = d->n_rows;
    for (int i = 0; i < c->sample.nd; i++)
        a->values.shape.d[i + 1] = c->sample.d[i];
}

static void describe(tp_data *d, const tp_data_spec *spec)
{
    for (int i = 0; i < d->n_inputs; i++) {
        tp_data_input *in = &d->inputs[i];
        view(d, &d->columns[i], &in->array);
        in->kind = spec->inputs[i].kind;
        in->crop_padding = spec->inputs[i].crop_padding;
        in->hflip = spec->inputs[i].hflip;
    }
    d->target.kind = spec->target_kind;
    if (d->target_column)
        view(d, d->target_column, &d->target.array);
    if (d->weight_column)
        view(d, d->weight_column, &d->weight);
}

static tp_status open_all(tp_data *d, const tp_data_spec *spec)
{
    TP_CHECK(sodium_init() >= 0, TP_EINTERNAL, "libsodium does not start");
    TP_TRY(tp_dataset_bind(d, spec));
    TP_TRY(tp_alloc(&d->inputs, (size_t)d->n_inputs, sizeof *d->inputs, "list of inputs"));
    d->resident = fits(d, spec->resident_bytes);
    TP_TRY(load(d, spec));
    describe(d, spec);
    TP_TRY(tp_dataset_check(d, spec));
    for (int p = 0; p < TP_PARTS; p++)
        d->target.class_count[p] = d->class_count[p];
    return tp_stats_fit(d, spec);
}

tp_status tp_data_open(tp_data **out, const tp_data_spec *spec)
{
    *out = NULL;
    tp_data *d = NULL;
    TP_TRY(tp_alloc(&d, 1, sizeof *d, "data set"));
    const tp_status st = open_all(d, spec);
    if (st == TP_OK)
        *out = d;
    else
        tp_data_free(d);
    return st;
}

void tp_data_free(tp_data *d)
{
    if (!d)
        return;
    for (int i = 0; i < d->n_columns; i++) {
        tp_free(d->columns[i].name);
        tp_free(d->columns[i].values);
        tp_free(d->columns[i].numbers);
    }
    for (int i = 0; i < TP_PARTS; i++) {
        tp_free(d->sources[i].path);
        tp_free(d->sources[i].prefix);
        tp_h5_close(d->files[i]);
        tp_free(d->part_table[i]);
        tp_free(d->class_count[i]);
    }
    tp_free(d->columns);
    tp_free(d->inputs);
    tp_free(d->part_of);
    tp_free(d->norm);
    tp_free(d);
}

int64_t tp_data_rows(const tp_data *d)
{
    return d->n_rows;
}

int tp_data_resident(const tp_data *d)
{
    return d->resident;
}

int tp_data_n_inputs(const tp_data *d)
{
    return d->n_inputs;
}

const tp_data_input *tp_data_input_at(const tp_data *d, int i)
{
    return &d->inputs[i];
}

const tp_data_target *tp_data_target_of(const tp_data *d)
{
    return d->target_column ? &d->target : NULL;
}

const tp_data_array *tp_data_weight(const tp_data *d)
{
    return d->weight_column ? &d->weight : NULL;
}

const double *tp_data_time(const tp_data *d)
{
    return d->time_column ? d->time_column->numbers : NULL;
}

const double *tp_data_slice(const tp_data *d)
{
    return d->slice_column ? d->slice_column->numbers : NULL;
}

int64_t tp_data_part_rows(const tp_data *d, tp_part part)
{
    return d->part_rows[part];
}

const int64_t *tp_data_part_table(const tp_data *d, tp_part part)
{
    return d->part_table[part];
}

int64_t tp_data_dropped(const tp_data *d)
{
    return d->dropped;
}

const char *tp_data_hash(const tp_data *d)
{
    return d->hash;
}
