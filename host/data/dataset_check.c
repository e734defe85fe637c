#include "host/core/mem.h"
#include "host/data/dataset.h"
#include <math.h>

#define MAX_CLASSES    (INT64_C(1) << 24)
#define MAX_CATEGORIES (INT64_C(1) << 31)
#define SUM_TOLERANCE  1e-3

typedef struct check_ctx {
    tp_data *d;
    const tp_column *c;
    int64_t limit; /* classes or categories; 0: to be found */
    int64_t largest[TP_PARTS], largest_row[TP_PARTS];
    int64_t *count[TP_PARTS]; /* (n_count) */
    int64_t n_count;
    double weight[TP_PARTS]; /* sums */
} check_ctx;

static int in_use(const check_ctx *x, int64_t row)
{
    return x->d->part_of[row] < TP_PARTS;
}

static void note_largest(check_ctx *x, int64_t row, int64_t value)
{
    const int p = x->d->part_of[row];
    if (value > x->largest[p]) {
        x->largest[p] = value;
        x->largest_row[p] = row;
    }
}

static void init_largest(check_ctx *x)
{
    for (int p = 0; p < TP_PARTS; p++)
        x->largest[p] = -1;
}

/* ---- ids ---- */

static tp_status check_ids(void *ctx, int64_t row, int64_t n, const double *values)
{
    check_ctx *x = ctx;
    const double limit = (double)(x->limit ? x->limit : MAX_CATEGORIES);
    for (int64_t k = 0; k < n * x->c->row_len; k++) {
        const int64_t r = row + k / x->c->row_len;
        if (!in_use(x, r))
            continue;
        TP_CHECK(values[k] >= 0.0, TP_EDATA, "%s: id is %.15g, want at least 0",
                 tp_column_place(x->d, x->c, r).text, values[k]);
        TP_CHECK(values[k] < limit, TP_EDATA, "%s: id is %.15g, want below %.15g categories",
                 tp_column_place(x->d, x->c, r).text, values[k], limit);
        note_largest(x, r, (int64_t)values[k]);
    }
    return TP_OK;
}

static tp_status find_categories(tp_data *d, const tp_input_spec *in, int i)
{
    check_ctx x = {.d = d, .c = &d->columns[i], .limit = in->n_categories};
    init_largest(&x);
    TP_TRY(tp_column_numbers(d, x.c, check_ids, &x));
    int64_t n = x.limit;
    for (int p = 0; p < TP_PARTS && x.limit == 0; p++)
        n = x.largest[p] + 1 > n ? x.largest[p] + 1 : n;
    d->inputs[i].n_categories = n;
    return TP_OK;
}

/* ---- targets ---- */

static tp_status grow_counts(check_ctx *x, int64_t n)
{
    if (n <= x->n_count)
        return TP_OK;
    const int64_t room = n > 2 * x->n_count ? n : 2 * x->n_count;
    for (int p = 0; p < TP_PARTS; p++)
        TP_TRY(tp_realloc(&x->count[p], (size_t)x->n_count, (size_t)room, sizeof(int64_t), "class counts"));
    x->n_count = room;
    return TP_OK;
}

static tp_status check_classes(void *ctx, int64_t row, int64_t n, const double *values)
{
    check_ctx *x = ctx;
    const double limit = (double)(x->limit ? x->limit : MAX_CLASSES);
    for (int64_t k = 0; k < n; k++) {
        if (!in_use(x, row + k))
            continue;
        TP_CHECK(values[k] >= 0.0 && values[k] < limit, TP_EDATA, "%s: class is %.15g, want 0 to %.15g",
                 tp_column_place(x->d, x->c, row + k).text, values[k], limit - 1.0);
        const int64_t class_index = (int64_t)values[k];
        TP_TRY(grow_counts(x, class_index + 1));
        x->count[x->d->part_of[row + k]][class_index]++;
        note_largest(x, row + k, class_index);
    }
    return TP_OK;
}

/* Without a number of classes given, the training part sets it and the other parts must keep to it. */
static tp_status finish_classes(check_ctx *x)
{
    if (x->limit)
        return grow_counts(x, x->limit);
    TP_CHECK(x->d->part_rows[TP_TRAIN] > 0, TP_EINVAL,
             "%s: n_classes is found from the train part, and there is none", x->c->name);
    x->limit = x->largest[TP_TRAIN] + 1;
    for (int p = 0; p < TP_PARTS; p++)
        TP_CHECK(x->largest[p] < x->limit, TP_EDATA,
                 "%s: class is %lld, want 0 to %lld, the largest in the train part",
                 tp_column_place(x->d, x->c, x->largest_row[p]).text, (long long)x->largest[p],
                 (long long)(x->limit - 1));
    return TP_OK;
}

static tp_status check_indicators(void *ctx, int64_t row, int64_t n, const double *values)
{
    check_ctx *x = ctx;
    const int onehot = x->d->target.kind == TP_TARGET_ONEHOT;
    for (int64_t k = 0; k < n; k++) {
        if (!in_use(x, row + k))
            continue;
        int64_t *count = x->count[x->d->part_of[row + k]];
        const double *v = values + k * x->limit;
        double sum = 0.0;
        int64_t best = 0;
        for (int64_t j = 0; j < x->limit; j++) {
            TP_CHECK(v[j] >= 0.0 && v[j] <= 1.0, TP_EDATA, "%s, class %lld is %.15g, want a value in [0, 1]",
                     tp_column_place(x->d, x->c, row + k).text, (long long)j, v[j]);
            sum += v[j];
            best = v[j] > v[best] ? j : best;
            count[j] += !onehot && v[j] >= 0.5;
        }
        TP_CHECK(!onehot || fabs(sum - 1.0) <= SUM_TOLERANCE, TP_EDATA, "%s sums to %.15g, want 1 within %g",
                 tp_column_place(x->d, x->c, row + k).text, sum, SUM_TOLERANCE);
        count[best] += onehot;
    }
    return TP_OK;
}

static tp_status check_target(tp_data *d, const tp_data_spec *spec)
{
    check_ctx x = {.d = d, .c = d->target_column, .limit = spec->n_classes};
    tp_status st = TP_OK;
    init_largest(&x);
    if (spec->target_kind == TP_TARGET_REGRESSION) {
        d->target.n_outputs = x.c->row_len;
        return TP_OK;
    }
    if (spec->target_kind == TP_TARGET_CLASS) {
        TP_CHECK(x.limit <= MAX_CLASSES, TP_EINVAL, "data: n_classes is %lld, limit %lld", (long long)x.limit,
                 (long long)MAX_CLASSES);
        TP_TRY_GOTO(tp_column_numbers(d, x.c, check_classes, &x), st, done);
        TP_TRY_GOTO(finish_classes(&x), st, done);
    } else {
        TP_CHECK(x.limit == 0 || x.limit == x.c->row_len, TP_EDATA,
                 "%s: %s has %lld columns, want %lld classes", d->sources[0].path, x.c->name,
                 (long long)x.c->row_len, (long long)x.limit);
        x.limit = x.c->row_len;
        TP_TRY_GOTO(grow_counts(&x, x.limit), st, done);
        TP_TRY_GOTO(tp_column_numbers(d, x.c, check_indicators, &x), st, done);
    }
    d->target.n_classes = d->target.n_outputs = x.limit;
done:
    for (int p = 0; p < TP_PARTS; p++)
        d->class_count[p] = x.count[p];
    return st;
}

/* ---- weights ---- */

static tp_status check_weights(void *ctx, int64_t row, int64_t n, const double *values)
{
    check_ctx *x = ctx;
    for (int64_t k = 0; k < n; k++) {
        if (!in_use(x, row + k))
            continue;
        TP_CHECK(values[k] >= 0.0, TP_EDATA, "%s: weight is %.15g, want at least 0",
                 tp_column_place(x->d, x->c, row + k).text, values[k]);
        x->weight[x->d->part_of[row + k]] += values[k];
    }
    return TP_OK;
}

static tp_status check_weight(tp_data *d)
{
    check_ctx x = {.d = d, .c = d->weight_column};
    TP_TRY(tp_column_numbers(d, x.c, check_weights, &x));
    for (int p = 0; p < TP_PARTS; p++)
        TP_CHECK(d->part_rows[p] == 0 || x.weight[p] > 0.0, TP_EDATA,
                 "%s: the weights %s of the %s part are all 0, want a sum above 0", d->sources[0].path,
                 x.c->name, tp_part_name((tp_part)p));
    return TP_OK;
}

tp_status tp_dataset_check(tp_data *d, const tp_data_spec *spec)
{
    for (int i = 0; i < d->n_inputs; i++)
        if (spec->inputs[i].kind == TP_INPUT_IDS)
            TP_TRY(find_categories(d, &spec->inputs[i], i));
    if (d->target_column)
        TP_TRY(check_target(d, spec));
    return d->weight_column ? check_weight(d) : TP_OK;
}
