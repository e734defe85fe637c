#include "temper/metrics.h"
#include "host/core/mem.h"
#include "host/core/text.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ECE_BINS 15
#define CLASS    (1u << TP_TASK_CLASS)
#define MULTI    (1u << TP_TASK_MULTILABEL)
#define REGRESS  (1u << TP_TASK_REGRESSION)

enum {
    ACCURACY,
    TOP2,
    TOP3,
    TOP5,
    TOP10,
    BALANCED,
    F1,
    AUROC,
    AVERAGE_PRECISION,
    LOG_LOSS,
    BRIER,
    ECE,
    MAE,
    RMSE,
    MAPE,
    R2
};

#define TOP(k)                                                                                               \
    {                                                                                                        \
        "top" #k, "share of samples whose class is among the " #k " largest outputs", 1, CLASS               \
    }

const tp_metric tp_metrics[] = {
    [ACCURACY] = {"accuracy", "share of samples (multilabel: of labels) that are right", 1, CLASS | MULTI},
    [TOP2] = TOP(2),
    [TOP3] = TOP(3),
    [TOP5] = TOP(5),
    [TOP10] = TOP(10),
    [BALANCED] = {"balanced_accuracy", "mean recall over the classes that occur", 1, CLASS},
    [F1] = {"f1", "mean F1 over the classes that occur or are predicted, or over the labels (macro)", 1,
            CLASS | MULTI},
    [AUROC] = {"auroc", "area under the ROC curve; several classes: one against the rest, mean", 1,
               CLASS | MULTI},
    [AVERAGE_PRECISION] = {"average_precision",
                           "area under the precision-recall steps; several classes: mean", 1, CLASS | MULTI},
    [LOG_LOSS] = {"log_loss", "mean negative log probability of the right class", 0, CLASS | MULTI},
    [BRIER] = {"brier",
               "mean squared error of the probabilities, summed over classes (two classes: of class 1)", 0,
               CLASS},
    [ECE] = {"ece", "expected calibration error of the top class, 15 bins", 0, CLASS},
    [MAE] = {"mae", "mean absolute error", 0, REGRESS},
    [RMSE] = {"rmse", "root of the mean squared error, mean over the outputs", 0, REGRESS},
    [MAPE] = {"mape", "mean absolute error relative to the target (a share, not a percentage)", 0, REGRESS},
    [R2] = {"r2", "1 - residual / total sum of squares, mean over the outputs", 1, REGRESS},
    {NULL, NULL, 0, 0},
};

/* ---- names ---- */

const tp_metric *tp_metric_find(const char *name)
{
    for (const tp_metric *m = tp_metrics; m->name != NULL; m++)
        if (strcmp(m->name, name) == 0)
            return m;
    return NULL;
}

const tp_metric *tp_metric_nearest(const char *name)
{
    const tp_metric *best = tp_metrics;
    for (const tp_metric *m = tp_metrics; m->name != NULL; m++)
        if (tp_text_distance(name, m->name) < tp_text_distance(name, best->name))
            best = m;
    return best;
}

/* ---- rows ---- */

static const float *row(const tp_scores *s, int64_t i)
{
    return s->outputs + i * s->width;
}

static double weight(const tp_scores *s, int64_t i)
{
    return s->weights != NULL ? (double)s->weights[i] : 1.0;
}

static double total_weight(const tp_scores *s)
{
    double sum = 0.0;
    for (int64_t i = 0; i < s->n; i++)
        sum += weight(s, i);
    return sum;
}

static int64_t label(const tp_scores *s, int64_t i)
{
    return ((const int64_t *)s->targets)[i];
}

static double target(const tp_scores *s, int64_t i, int64_t k)
{
    return (double)((const float *)s->targets)[i * s->width + k];
}

/* Is output k of row i to be 1? */
static int is_positive(const tp_scores *s, int64_t i, int64_t k)
{
    return s->task == TP_TASK_CLASS ? label(s, i) == k : target(s, i, k) >= 0.5;
}

/* Of equal outputs the first wins. */
static int64_t argmax(const float *x, int64_t n)
{
    int64_t best = 0;
    for (int64_t k = 1; k < n; k++)
        if (x[k] > x[best])
            best = k;
    return best;
}

static double log_sum_exp(const float *x, int64_t n)
{
    const double m = (double)x[argmax(x, n)];
    double sum = 0.0;
    for (int64_t k = 0; k < n; k++)
        sum += exp((double)x[k] - m);
    return m + log(sum);
}

/* ---- classification ---- */

static double accuracy(const tp_scores *s)
{
    double right = 0.0;
    for (int64_t i = 0; i < s->n; i++)
        if (s->task == TP_TASK_CLASS)
            right += weight(s, i) * (argmax(row(s, i), s->width) == label(s, i));
        else
            for (int64_t k = 0; k < s->width; k++)
                right += weight(s, i) * ((row(s, i)[k] > 0.0f) == is_positive(s, i, k)) / (double)s->width;
    return right / total_weight(s);
}

/* Of equal outputs the first comes first, so that top 1 is accuracy. */
static double top_k(const tp_scores *s, int64_t most)
{
    double right = 0.0;
    for (int64_t i = 0; i < s->n; i++) {
        const float *x = row(s, i), mine = x[label(s, i)];
        int64_t above = 0;
        for (int64_t k = 0; k < s->width; k++)
            above += x[k] > mine || (x[k] == mine && k < label(s, i));
        right += weight(s, i) * (above < most);
    }
    return right / total_weight(s);
}

typedef struct tally {
    double hit, missed, wrong; /* true positives, false negatives, false positives */
} tally;

/* One tally for each class or label. */
static tp_status tally_classes(const tp_scores *s, tally **out)
{
    TP_TRY(tp_alloc(out, (size_t)s->width, sizeof(**out), "tally of the classes"));
    for (int64_t i = 0; i < s->n; i++) {
        const double w = weight(s, i);
        if (s->task == TP_TASK_CLASS) {
            const int64_t said = argmax(row(s, i), s->width), is = label(s, i);
            if (said == is)
                (*out)[is].hit += w;
            else {
                (*out)[is].missed += w;
                (*out)[said].wrong += w;
            }
        } else
            for (int64_t k = 0; k < s->width; k++) {
                const int said = row(s, i)[k] > 0.0f, is = is_positive(s, i, k);
                (*out)[k].hit += said && is ? w : 0.0;
                (*out)[k].missed += is && !said ? w : 0.0;
                (*out)[k].wrong += said && !is ? w : 0.0;
            }
    }
    return TP_OK;
}

static double ratio(double a, double b)
{
    return b > 0.0 ? a / b : 0.0;
}

static tp_class_score class_score(const tally *t)
{
    return (tp_class_score){.precision = ratio(t->hit, t->hit + t->wrong),
                            .recall = ratio(t->hit, t->hit + t->missed),
                            .f1 = ratio(2.0 * t->hit, 2.0 * t->hit + t->missed + t->wrong),
                            .support = t->hit + t->missed};
}

/* As scikit-learn: recall over the classes that occur; F1 over those that occur or are predicted, or over all
 * labels. */
static tp_status class_mean(const tp_scores *s, int is_f1, double *value)
{
    tally *t = NULL;
    double sum = 0.0, classes = 0.0;

    TP_TRY(tally_classes(s, &t));
    for (int64_t k = 0; k < s->width; k++) {
        const tp_class_score c = class_score(&t[k]);
        const int counts = is_f1 ? s->task == TP_TASK_MULTILABEL || t[k].hit + t[k].missed + t[k].wrong > 0.0
                                 : c.support > 0.0;
        sum += counts ? (is_f1 ? c.f1 : c.recall) : 0.0;
        classes += counts;
    }
    tp_free(t);
    *value = sum / classes;
    return TP_OK;
}

static double log_loss(const tp_scores *s)
{
    double sum = 0.0;
    for (int64_t i = 0; i < s->n; i++) {
        double loss = 0.0;
        if (s->task == TP_TASK_CLASS)
            loss = log_sum_exp(row(s, i), s->width) - (double)row(s, i)[label(s, i)];
        else
            for (int64_t k = 0; k < s->width; k++) {
                const double x = (double)row(s, i)[k];
                loss += (fmax(x, 0.0) - (is_positive(s, i, k) ? x : 0.0) + log1p(exp(-fabs(x)))) /
                        (double)s->width;
            }
        sum += weight(s, i) * loss;
    }
    return sum / total_weight(s);
}

static double brier(const tp_scores *s)
{
    double sum = 0.0;
    for (int64_t i = 0; i < s->n; i++) {
        const double lse = log_sum_exp(row(s, i), s->width);
        for (int64_t k = s->width == 2 ? 1 : 0; k < s->width; k++) {
            const double d = exp((double)row(s, i)[k] - lse) - (double)is_positive(s, i, k);
            sum += weight(s, i) * d * d;
        }
    }
    return sum / total_weight(s);
}

/* Guo et al. 2017: bins (a, b] of equal width over the confidence of the top class. */
static double ece(const tp_scores *s)
{
    double confidence[ECE_BINS] = {0}, right[ECE_BINS] = {0}, gap = 0.0;
    for (int64_t i = 0; i < s->n; i++) {
        const int64_t top = argmax(row(s, i), s->width);
        const double p = exp((double)row(s, i)[top] - log_sum_exp(row(s, i), s->width));
        int bin = (int)ceil(p * ECE_BINS) - 1;
        bin = bin < 0 ? 0 : bin >= ECE_BINS ? ECE_BINS - 1 : bin;
        confidence[bin] += weight(s, i) * p;
        right[bin] += weight(s, i) * (top == label(s, i));
    }
    for (int b = 0; b < ECE_BINS; b++)
        gap += fabs(confidence[b] - right[b]);
    return gap / total_weight(s);
}

/* ---- ranking: samples sorted by score, ties taken together ---- */

typedef struct ranked {
    double score, weight;
    int positive;
} ranked;

static int by_score(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    return (x->score < y->score) - (x->score > y->score);
}

/* Orders rows as the probability of output k does, without saturating where that rounds to 1. */
static double ranking_score(const tp_scores *s, int64_t i, int64_t k, const double *lse)
{
    const float *x = row(s, i);
    if (s->task != TP_TASK_CLASS)
        return (double)x[k];
    return s->width == 2 ? (double)x[k] - (double)x[1 - k] : (double)x[k] - lse[i];
}

static double rank_one(const tp_scores *s, ranked *r, const double *lse, int64_t k, int is_auroc)
{
    double positives = 0.0, negatives = 0.0, hits = 0.0, seen = 0.0, area = 0.0;

    for (int64_t i = 0; i < s->n; i++) {
        r[i] = (ranked){ranking_score(s, i, k, lse), weight(s, i), is_positive(s, i, k)};
        *(r[i].positive ? &positives : &negatives) += r[i].weight;
    }
    if (positives == 0.0 || (is_auroc && negatives == 0.0))
        return (double)NAN;
    qsort(r, (size_t)s->n, sizeof(*r), by_score);
    for (int64_t i = 0; i < s->n;) {
        double p = 0.0, all = 0.0;
        for (const double score = r[i].score; i < s->n && r[i].score == score; i++) {
            p += r[i].positive ? r[i].weight : 0.0;
            all += r[i].weight;
        }
        if (is_auroc) /* trapezoid over the step of false positives */
            area += (all - p) * (hits + 0.5 * p);
        hits += p;
        seen += all;
        if (!is_auroc)
            area += p * ratio(hits, seen);
    }
    return is_auroc ? area / (positives * negatives) : area / positives;
}

static tp_status ranking(const tp_scores *s, int is_auroc, double *value)
{
    ranked *r = NULL;
    double *lse = NULL, sum = 0.0;
    tp_status st = TP_OK;
    const int64_t first = s->task == TP_TASK_CLASS && s->width == 2 ? 1 : 0;

    TP_TRY_GOTO(tp_alloc(&r, (size_t)s->n, sizeof(*r), "ranking"), st, done);
    TP_TRY_GOTO(tp_alloc(&lse, (size_t)s->n, sizeof(*lse), "ranking"), st, done);
    for (int64_t i = 0; i < s->n && s->task == TP_TASK_CLASS; i++)
        lse[i] = log_sum_exp(row(s, i), s->width);
    for (int64_t k = first; k < s->width; k++)
        sum += rank_one(s, r, lse, k, is_auroc);
    *value = sum / (double)(s->width - first);
done:
    tp_free(r);
    tp_free(lse);
    return st;
}

/* ---- regression ---- */

/* A target of 0 counts as the smallest step of a double from 1, as in scikit-learn. */
static double error_of(const tp_scores *s, int64_t i, int64_t k, int kind)
{
    const double y = target(s, i, k), d = (double)row(s, i)[k] - y;
    return kind == RMSE ? d * d : kind == MAE ? fabs(d) : fabs(d) / fmax(fabs(y), 2.220446049250313e-16);
}

static double regression(const tp_scores *s, int kind)
{
    const double total = total_weight(s);
    double sum = 0.0;

    for (int64_t k = 0; k < s->width; k++) {
        double error = 0.0;
        for (int64_t i = 0; i < s->n; i++)
            error += weight(s, i) * error_of(s, i, k, kind);
        sum += kind == RMSE ? sqrt(error / total) : error / total;
    }
    return sum / (double)s->width;
}

/* A constant target gives 1 when met exactly and 0 otherwise, as in scikit-learn. */
static double r2(const tp_scores *s)
{
    const double all = total_weight(s);
    double sum = 0.0;

    if (s->n < 2)
        return (double)NAN;
    for (int64_t k = 0; k < s->width; k++) {
        double mean = 0.0, residual = 0.0, total = 0.0;
        for (int64_t i = 0; i < s->n; i++)
            mean += weight(s, i) * target(s, i, k) / all;
        for (int64_t i = 0; i < s->n; i++) {
            const double d = (double)row(s, i)[k] - target(s, i, k), m = target(s, i, k) - mean;
            residual += weight(s, i) * d * d;
            total += weight(s, i) * m * m;
        }
        sum += total > 0.0 ? 1.0 - residual / total : (residual == 0.0 ? 1.0 : 0.0);
    }
    return sum / (double)s->width;
}

/* ---- one metric ---- */

static tp_status check_scores(const char *name, const tp_scores *s)
{
    TP_CHECK(s->n > 0 && s->width > 0, TP_EINVAL, "metric %s: there are no samples", name);
    for (int64_t i = 0; i < s->n && s->weights != NULL; i++)
        TP_CHECK(s->weights[i] >= 0.0f && isfinite(s->weights[i]), TP_EINVAL,
                 "metric %s: the weight of sample %lld is %g, want >= 0", name, (long long)i,
                 (double)s->weights[i]);
    for (int64_t i = 0; i < s->n && s->task == TP_TASK_CLASS; i++)
        TP_CHECK(label(s, i) >= 0 && label(s, i) < s->width, TP_EINVAL,
                 "metric %s: the class of sample %lld is %lld, want 0 to %lld", name, (long long)i,
                 (long long)label(s, i), (long long)(s->width - 1));
    return TP_OK;
}

static int is_defined(const tp_scores *s)
{
    for (int64_t i = 0; i < s->n * s->width; i++)
        if (!isfinite(s->outputs[i]))
            return 0;
    return total_weight(s) > 0.0;
}

tp_status tp_metric_compute(const tp_metric *m, const tp_scores *s, double *value)
{
    static const int64_t most[] = {[TOP2] = 2, [TOP3] = 3, [TOP5] = 5, [TOP10] = 10};
    const int kind = (int)(m - tp_metrics);

    *value = (double)NAN;
    TP_CHECK(m->tasks & 1u << s->task, TP_EINVAL, "metric %s is not for this kind of target", m->name);
    TP_TRY(check_scores(m->name, s));
    if (!is_defined(s))
        return TP_OK;
    switch (kind) {
    case ACCURACY:
        *value = accuracy(s);
        return TP_OK;
    case TOP2:
    case TOP3:
    case TOP5:
    case TOP10:
        *value = top_k(s, most[kind]);
        return TP_OK;
    case BALANCED:
    case F1:
        return class_mean(s, kind == F1, value);
    case AUROC:
    case AVERAGE_PRECISION:
        return ranking(s, kind == AUROC, value);
    case LOG_LOSS:
        *value = log_loss(s);
        return TP_OK;
    case BRIER:
        *value = brier(s);
        return TP_OK;
    case ECE:
        *value = ece(s);
        return TP_OK;
    case R2:
        *value = r2(s);
        return TP_OK;
    default:
        *value = regression(s, kind);
        return TP_OK;
    }
}

/* ---- tables ---- */

tp_status tp_metric_classes(const tp_scores *s, tp_class_score *rows)
{
    tally *t = NULL;

    TP_CHECK(s->task != TP_TASK_REGRESSION, TP_EINVAL, "a table of classes needs classes, not regression");
    TP_TRY(check_scores("per class", s));
    TP_TRY(tally_classes(s, &t));
    for (int64_t k = 0; k < s->width; k++) {
        rows[k] = class_score(&t[k]);
        if (!is_defined(s))
            rows[k].precision = rows[k].recall = rows[k].f1 = (double)NAN;
    }
    tp_free(t);
    return TP_OK;
}

typedef struct placed {
    int64_t slice, row;
} placed;

static int by_slice(const void *a, const void *b)
{
    const placed *x = a, *y = b;
    return x->slice != y->slice ? (x->slice > y->slice) - (x->slice < y->slice)
                                : (x->row > y->row) - (x->row < y->row);
}

/* The samples in the order of their slices, copied, so that each slice is one range of rows. */
typedef struct sorted {
    placed *order;
    float *outputs, *weights;
    unsigned char *targets;
    size_t target_bytes; /* of one sample */
} sorted;

static void sorted_clear(sorted *o)
{
    tp_free(o->order);
    tp_free(o->outputs);
    tp_free(o->weights);
    tp_free(o->targets);
}

static tp_status sort_by_slice(const tp_scores *s, const int64_t *slice, sorted *o)
{
    const size_t n = (size_t)s->n, width = (size_t)s->width;

    o->target_bytes = s->task == TP_TASK_CLASS ? sizeof(int64_t) : width * sizeof(float);
    TP_TRY(tp_alloc(&o->order, n, sizeof(*o->order), "slices: order"));
    TP_TRY(tp_alloc(&o->outputs, n, width * sizeof(float), "slices: outputs"));
    TP_TRY(tp_alloc(&o->targets, n, o->target_bytes, "slices: targets"));
    TP_TRY(tp_alloc(&o->weights, n, sizeof(float), "slices: weights"));
    for (size_t i = 0; i < n; i++)
        o->order[i] = (placed){slice[i], (int64_t)i};
    qsort(o->order, n, sizeof(*o->order), by_slice);
    for (size_t i = 0; i < n; i++) {
        const size_t from = (size_t)o->order[i].row;
        memcpy(o->outputs + i * width, s->outputs + from * width, width * sizeof(float));
        memcpy(o->targets + i * o->target_bytes, (const unsigned char *)s->targets + from * o->target_bytes,
               o->target_bytes);
        o->weights[i] = (float)weight(s, (int64_t)from);
    }
    return TP_OK;
}

static tp_status fill_slices(tp_slices *out, const tp_scores *s, const sorted *o,
                             const tp_metric *const *metrics)
{
    int64_t begin = 0;

    for (int64_t j = 0; j < out->n; j++) {
        int64_t end = begin;
        while (end < s->n && o->order[end].slice == o->order[begin].slice)
            end++;
        const tp_scores part = {s->task,
                                end - begin,
                                s->width,
                                o->outputs + begin * s->width,
                                o->targets + (size_t)begin * o->target_bytes,
                                o->weights + begin};
        out->ids[j] = o->order[begin].slice;
        out->support[j] = end - begin;
        for (int i = 0; i < out->n_metrics; i++)
            TP_TRY(tp_metric_compute(metrics[i], &part, &out->values[j * out->n_metrics + i]));
        begin = end;
    }
    return TP_OK;
}

tp_status tp_metric_slices(tp_slices *out, const tp_scores *s, const int64_t *slice, int n_metrics,
                           const tp_metric *const *metrics)
{
    tp_status st = TP_OK;
    sorted o = {0};

    *out = (tp_slices){.n_metrics = n_metrics};
    TP_TRY(check_scores("per slice", s));
    TP_TRY_GOTO(sort_by_slice(s, slice, &o), st, done);
    for (int64_t i = 0; i < s->n; i++)
        out->n += i == 0 || o.order[i].slice != o.order[i - 1].slice;
    TP_TRY_GOTO(tp_alloc(&out->ids, (size_t)out->n, sizeof(*out->ids), "slices"), st, done);
    TP_TRY_GOTO(tp_alloc(&out->support, (size_t)out->n, sizeof(*out->support), "slices"), st, done);
    TP_TRY_GOTO(tp_alloc(&out->values, (size_t)out->n * (size_t)n_metrics, sizeof(double), "slices"), st,
                done);
    TP_TRY_GOTO(fill_slices(out, s, &o, metrics), st, done);
done:
    sorted_clear(&o);
    if (st != TP_OK)
        tp_slices_clear(out);
    return st;
}

void tp_slices_clear(tp_slices *t)
{
    tp_free(t->ids);
    tp_free(t->support);
    tp_free(t->values);
    *t = (tp_slices){0};
}
