#include "host/core/mem.h"
#include "host/core/text.h"
#include "host/data/dataset.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- the spec itself ---- */

static tp_status check_input(const tp_input_spec *in, int i)
{
    TP_CHECK(in->name && in->name[0], TP_EINVAL, "data: input %d has no dataset name", i);
    TP_CHECK(in->kind >= TP_INPUT_DENSE && in->kind <= TP_INPUT_IDS, TP_EINVAL,
             "data: input %s: kind %d is none of dense, image, ids", in->name, (int)in->kind);
    TP_CHECK(in->normalize >= TP_NORM_NONE && in->normalize <= TP_NORM_GIVEN, TP_EINVAL,
             "data: input %s: there is no normalisation %d", in->name, (int)in->normalize);
    TP_CHECK(in->kind != TP_INPUT_IDS || in->normalize == TP_NORM_NONE, TP_EINVAL,
             "data: input %s: ids are categories and cannot be normalised", in->name);
    TP_CHECK(in->normalize != TP_NORM_SCALE || (isfinite(in->factor) && in->factor != 0.0), TP_EINVAL,
             "data: input %s: scale factor is %g, want a finite number that is not 0", in->name, in->factor);
    TP_CHECK(in->normalize != TP_NORM_GIVEN || (in->n_norm > 0 && in->shift && in->scale), TP_EINVAL,
             "data: input %s: the given normalisation has %lld values", in->name, (long long)in->n_norm);
    TP_CHECK(in->n_categories >= 0, TP_EINVAL, "data: input %s: n_categories is %lld, want at least 0",
             in->name, (long long)in->n_categories);
    TP_CHECK(in->crop_padding >= 0, TP_EINVAL, "data: input %s: crop padding is %d, want at least 0",
             in->name, in->crop_padding);
    TP_CHECK(in->kind == TP_INPUT_IMAGE || (!in->crop_padding && !in->hflip), TP_EINVAL,
             "data: input %s: crop and flip are for images only", in->name);
    return TP_OK;
}

static tp_status check_split(const tp_data_spec *spec)
{
    const tp_split_spec *s = &spec->split;
    switch (s->kind) {
    case TP_SPLIT_ALL:
        TP_CHECK(s->all >= TP_TRAIN && s->all < TP_PARTS, TP_EINVAL, "data: there is no part %d",
                 (int)s->all);
        return TP_OK;
    case TP_SPLIT_TIME:
        TP_CHECK(spec->time, TP_EINVAL, "data: a split by time needs a time dataset");
        for (int p = 0; p < TP_PARTS; p++) {
            TP_CHECK(s->from[p] <= s->to[p], TP_EINVAL, "data: split: %s goes from %g to %g, want from <= to",
                     tp_part_name((tp_part)p), s->from[p], s->to[p]);
            for (int q = 0; q < p; q++)
                TP_CHECK(s->from[p] == s->to[p] || s->from[q] == s->to[q] || s->to[p] <= s->from[q] ||
                             s->to[q] <= s->from[p],
                         TP_EINVAL, "data: split: %s [%g, %g) overlaps %s [%g, %g)", tp_part_name((tp_part)q),
                         s->from[q], s->to[q], tp_part_name((tp_part)p), s->from[p], s->to[p]);
        }
        return TP_OK;
    case TP_SPLIT_FRACTION:
        TP_CHECK(s->validation >= 0.0 && s->test >= 0.0 && s->validation + s->test < 1.0, TP_EINVAL,
                 "data: split: fractions are %g for validation and %g for test, want both at least 0 and "
                 "their sum "
                 "below 1",
                 s->validation, s->test);
        return TP_OK;
    case TP_SPLIT_DATASET:
        TP_CHECK(s->dataset && s->dataset[0], TP_EINVAL, "data: a split by dataset needs the dataset's name");
        return TP_OK;
    case TP_SPLIT_FILES:
    case TP_SPLIT_GROUPS:
        TP_CHECK(s->source[TP_TRAIN] || s->source[TP_VALIDATION] || s->source[TP_TEST], TP_EINVAL,
                 "data: a split by %s needs at least one", s->kind == TP_SPLIT_FILES ? "files" : "groups");
        return TP_OK;
    }
    TP_FAIL(TP_EINVAL, "data: there is no split %d", (int)s->kind);
}

static tp_status check_spec(const tp_data_spec *spec)
{
    TP_CHECK(spec->n_inputs > 0 && spec->inputs, TP_EINVAL, "data: %d inputs, want at least 1",
             spec->n_inputs);
    TP_CHECK(spec->split.kind == TP_SPLIT_FILES || (spec->path && spec->path[0]), TP_EINVAL,
             "data: no file given");
    for (int i = 0; i < spec->n_inputs; i++)
        TP_TRY(check_input(&spec->inputs[i], i));
    TP_CHECK(spec->target_kind >= TP_TARGET_NONE && spec->target_kind <= TP_TARGET_MULTILABEL, TP_EINVAL,
             "data: there is no target kind %d", (int)spec->target_kind);
    TP_CHECK(spec->target_kind == TP_TARGET_NONE || (spec->target && spec->target[0]), TP_EINVAL,
             "data: the target has no dataset name");
    TP_CHECK(spec->target_normalize == TP_NORM_NONE ||
                 (spec->target_kind == TP_TARGET_REGRESSION && spec->target_normalize <= TP_NORM_GIVEN &&
                  spec->target_normalize != TP_NORM_SCALE),
             TP_EINVAL,
             "data: target %s: only a regression target is normalised, and only by standard or minmax",
             spec->target);
    TP_CHECK(spec->n_classes >= 0, TP_EINVAL, "data: n_classes is %lld, want at least 0",
             (long long)spec->n_classes);
    TP_CHECK(spec->nonfinite == TP_NONFINITE_REFUSE || spec->nonfinite == TP_NONFINITE_DROP, TP_EINVAL,
             "data: there is no non-finite policy %d", (int)spec->nonfinite);
    return check_split(spec);
}

/* ---- files and sources ---- */

static tp_status add_source(tp_data *d, const char *path, const char *prefix, int part)
{
    tp_source *s = &d->sources[d->n_sources++];
    s->part = part;
    for (int i = 0; i < d->n_sources - 1 && !s->file; i++)
        if (strcmp(d->sources[i].path, path) == 0)
            s->file = d->sources[i].file;
    TP_TRY(tp_strdup(&s->path, path));
    TP_TRY(tp_strdup(&s->prefix, prefix));
    if (s->file)
        return TP_OK;
    TP_TRY(tp_h5_open(&d->files[d->n_files], path));
    s->file = d->files[d->n_files++];
    return TP_OK;
}

static tp_status open_sources(tp_data *d, const tp_data_spec *spec)
{
    const tp_split_spec *s = &spec->split;
    if (s->kind != TP_SPLIT_FILES && s->kind != TP_SPLIT_GROUPS)
        return add_source(d, spec->path, NULL, s->kind == TP_SPLIT_ALL ? (int)s->all : -1);
    for (int p = 0; p < TP_PARTS; p++)
        if (s->source[p] && s->kind == TP_SPLIT_FILES)
            TP_TRY(add_source(d, s->source[p], NULL, p));
        else if (s->source[p])
            TP_TRY(add_source(d, spec->path, s->source[p], p));
    return TP_OK;
}

/* ---- one dataset ---- */

static tp_status find(const tp_source *s, const char *name, const tp_h5_array **out)
{
    char full[1024];
    const int length = s->prefix ? snprintf(full, sizeof full, "%s/%s", s->prefix, name)
                                 : snprintf(full, sizeof full, "%s", name);
    TP_CHECK(length > 0 && (size_t)length < sizeof full, TP_EINVAL,
             "data: dataset name of %d bytes, limit %d", length, (int)sizeof full - 1);
    *out = tp_h5_find(s->file, full);
    if (*out)
        return TP_OK;
    const char *nearest = NULL;
    int best = 0;
    for (int i = 0; i < tp_h5_count(s->file); i++) {
        const char *other = tp_h5_at(s->file, i)->name;
        const int far = tp_text_distance(full, other);
        if (!nearest || far < best) {
            nearest = other;
            best = far;
        }
    }
    TP_CHECK(nearest, TP_EDATA, "%s: there is no dataset '%s'; the file has no numeric dataset", s->path,
             full);
    TP_FAIL(TP_EDATA, "%s: there is no dataset '%s'; the nearest is '%s'", s->path, full, nearest);
}

typedef struct want {
    const char *shapes; /* for the message */
    int min_nd, max_nd;
    int scalar;  /* one value a row, shape () */
    int integer; /* integers only */
} want;

static want wanted(const tp_column *c, const tp_data_spec *spec)
{
    if (c->role == TP_ROLE_INPUT) {
        switch (spec->inputs[c->index].kind) {
        case TP_INPUT_IMAGE:
            return (want){"(N,H,W) or (N,C,H,W) for images", 3, 4, 0, 0};
        case TP_INPUT_IDS:
            return (want){"(N) or (N,K) for ids", 1, 2, 0, 1};
        default:
            return (want){"(N,...) for numbers", 1, TP_MAX_DIMS, 0, 0};
        }
    }
    if (c->role == TP_ROLE_TARGET) {
        switch (spec->target_kind) {
        case TP_TARGET_CLASS:
            return (want){"(N) or (N,1) for a class index", 1, 2, 1, 1};
        case TP_TARGET_ONEHOT:
            return (want){"(N,classes) for a one-hot target", 2, 2, 0, 0};
        case TP_TARGET_MULTILABEL:
            return (want){"(N,classes) for a multi-label target", 2, 2, 0, 0};
        default:
            return (want){"(N,...) for a regression target", 1, TP_MAX_DIMS, 0, 0};
        }
    }
    return (want){"(N) or (N,1), one number a row", 1, 2, 1, c->role >= TP_ROLE_SLICE};
}

/* The shape of one row as a model sees it. */
static tp_shape sample_shape(const tp_h5_array *a, const want *w, int image)
{
    if (w->scalar)
        return tp_shape_scalar();
    if (a->shape.nd == 1)
        return tp_shape_make(1, (const int64_t[]){1});
    if (image && a->shape.nd == 3)
        return tp_shape_make(3, (const int64_t[]){1, a->shape.d[1], a->shape.d[2]});
    return tp_shape_make(a->shape.nd - 1, a->shape.d + 1);
}

static tp_status check_array(const tp_source *s, const tp_h5_array *a, const want *w)
{
    char text[TP_SHAPE_TEXT_SIZE];
    tp_shape_text(a->shape, text, sizeof text);
    TP_CHECK(a->shape.nd >= w->min_nd && a->shape.nd <= w->max_nd &&
                 (!w->scalar || a->shape.nd == 1 || a->shape.d[1] == 1),
             TP_EDATA, "%s: %s has shape %s, want %s", s->path, a->name, text, w->shapes);
    TP_CHECK(a->shape.d[0] > 0, TP_EDATA, "%s: %s has no rows", s->path, a->name);
    TP_CHECK(tp_shape_len(a->shape) > 0, TP_EDATA, "%s: %s has shape %s, want no dimension of 0", s->path,
             a->name, text);
    TP_CHECK(!w->integer || !tp_dtype_is_float(a->dtype), TP_EDATA, "%s: %s is %s, want an integer type",
             s->path, a->name, tp_dtype_name(a->dtype));
    return TP_OK;
}

static tp_status bind_source(tp_data *d, tp_column *c, int i, const want *w, int image)
{
    tp_source *s = &d->sources[i];
    const tp_h5_array *a = NULL;
    TP_TRY(find(s, c->name, &a));
    TP_TRY(check_array(s, a, w));
    c->in[i] = a;
    if (c == d->columns)
        s->n = a->shape.d[0];
    TP_CHECK(a->shape.d[0] == s->n, TP_EDATA, "%s: %s has %lld rows, want the %lld of %s", s->path, a->name,
             (long long)a->shape.d[0], (long long)s->n, d->columns[0].in[i]->name);
    const tp_shape sample = sample_shape(a, w, image);
    if (i == 0) {
        c->dtype = a->dtype;
        c->sample = sample;
        c->row_len = tp_shape_len(sample);
        c->row_bytes = a->row_bytes;
        return TP_OK;
    }
    char text[TP_SHAPE_TEXT_SIZE], first[TP_SHAPE_TEXT_SIZE];
    TP_CHECK(a->dtype == c->dtype, TP_EDATA, "%s: %s is %s, want %s as %s of %s", s->path, a->name,
             tp_dtype_name(a->dtype), tp_dtype_name(c->dtype), c->in[0]->name, d->sources[0].path);
    TP_CHECK(tp_shape_equal(sample, c->sample), TP_EDATA, "%s: rows of %s have shape %s, want %s as %s of %s",
             s->path, a->name, tp_shape_text(sample, text, sizeof text),
             tp_shape_text(c->sample, first, sizeof first), c->in[0]->name, d->sources[0].path);
    return TP_OK;
}

static tp_status add_column(tp_data *d, const tp_data_spec *spec, tp_role role, int index, const char *name,
                            tp_column **out)
{
    tp_column *c = &d->columns[d->n_columns++];
    while (name[0] == '/')
        name++;
    c->role = role;
    c->index = index;
    TP_TRY(tp_strdup(&c->name, name));
    const want w = wanted(c, spec);
    const int image = role == TP_ROLE_INPUT && spec->inputs[index].kind == TP_INPUT_IMAGE;
    for (int i = 0; i < d->n_sources; i++)
        TP_TRY(bind_source(d, c, i, &w, image));
    if (out)
        *out = c;
    return TP_OK;
}

tp_status tp_dataset_bind(tp_data *d, const tp_data_spec *spec)
{
    TP_TRY(check_spec(spec));
    TP_TRY(open_sources(d, spec));
    d->n_inputs = spec->n_inputs;
    TP_TRY(tp_alloc(&d->columns, (size_t)spec->n_inputs + 5, sizeof *d->columns, "list of datasets"));
    for (int i = 0; i < spec->n_inputs; i++)
        TP_TRY(add_column(d, spec, TP_ROLE_INPUT, i, spec->inputs[i].name, NULL));
    if (spec->target_kind != TP_TARGET_NONE)
        TP_TRY(add_column(d, spec, TP_ROLE_TARGET, 0, spec->target, &d->target_column));
    if (spec->weight)
        TP_TRY(add_column(d, spec, TP_ROLE_WEIGHT, 0, spec->weight, &d->weight_column));
    if (spec->time)
        TP_TRY(add_column(d, spec, TP_ROLE_TIME, 0, spec->time, &d->time_column));
    if (spec->slice)
        TP_TRY(add_column(d, spec, TP_ROLE_SLICE, 0, spec->slice, &d->slice_column));
    if (spec->split.kind == TP_SPLIT_DATASET)
        TP_TRY(add_column(d, spec, TP_ROLE_SPLIT, 0, spec->split.dataset, &d->split_column));
    for (int i = 0; i < d->n_sources; i++) {
        d->sources[i].first = d->n_rows;
        d->n_rows += d->sources[i].n;
    }
    TP_CHECK(d->n_rows <= INT64_C(1) << 40, TP_EDATA, "%s: %lld rows, limit 2^40", d->sources[0].path,
             (long long)d->n_rows);
    return TP_OK;
}
