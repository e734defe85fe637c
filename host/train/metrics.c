#include "temper/metrics.h"
#include "host/core/mem.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ECE_BINS 15
#define CLASS    (1u << TP_TASK_CLASS)
#define MULTI    (1u << TP_TASK_MULTILABEL)
#define REGRESS  (1u << TP_TASK_REGRESSION)

enum { ACCURACY, TOP5, BALANCED, F1, AUROC, AVERAGE_PRECISION, LOG_LOSS, BRIER, ECE, MAE, RMSE, MAPE, R2 };

const tp_metric tp_metrics[] = {
    [ACCURACY] = {"accuracy", "share of samples (multilabel: of labels) that are right", 1, CLASS | MULTI},
    [TOP5] = {"top5", "share of samples whose class is among the 5 largest outputs", 1, CLASS},
    [BALANCED] = {"balanced_accuracy", "mean recall over the classes that occur", 1, CLASS},
    [F1] = {"f1", "mean F1 over the classes (macro)", 1, CLASS | MULTI},
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
    [RMSE] = {"rmse", "root of the mean squared error", 0, REGRESS},
    [MAPE] = {"mape", "mean absolute error relative to the target", 0, REGRESS},
    [R2] = {"r2", "1 - residual / total sum of squares, mean over the outputs", 1, REGRESS},
    {NULL, NULL, 0, 0},
};

const tp_metric *tp_metric_find(const char *name)
{
    for (const tp_metric *m = tp_metrics; m->name != NULL; m++)
        if (strcmp(m->name, name) == 0)
            return m;
    return NULL;
}

/* ---- rows ---- */

static const float *row(const tp_scores *s, int64_t i)
{
    return s->outputs + i * s->width;
}

static int64_t label(const tp_scores *s, int64_t i)
{
    return ((const int64_t *)s->targets)[i];
}

/* Is output k of row i to be 1? */
static int is_positive(const tp_scores *s, int64_t i, int64_t k)
{
    return s->task == TP_TASK_CLASS ? label(s, i) == k
                                    : ((const float *)s->targets)[i * s->width + k] >= 0.5f;
}

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
    double m = (double)x[argmax(x, n)], sum = 0.0;
    for (int64_t k = 0; k < n; k++)
        sum += exp((double)x[k] - m);
    return m + log(sum);
}

/* Probability of output k of row i: softmax for classes, sigmoid for labels. */
static double probability(const tp_scores *s, int64_t i, int64_t k)
{
    const double x = (double)row(s, i)[k];
    return s->task == TP_TASK_CLASS ? exp(x - log_sum_exp(row(s, i), s->width)) : 1.0 / (1.0 + exp(-x));
}

static int predicted(const tp_scores *s, int64_t i, int64_t k)
{
    return s->task == TP_TASK_CLASS ? argmax(row(s, i), s->width) == k : row(s, i)[k] > 0.0f;
}

/* ---- classification ---- */

static double accuracy(const tp_scores *s)
{
    double right = 0.0;
    for (int64_t i = 0; i < s->n; i++)
        if (s->task == TP_TASK_CLASS)
            right += argmax(row(s, i), s->width) == label(s, i);
        else
            for (int64_t k = 0; k < s->width; k++)
                right += predicted(s, i, k) == is_positive(s, i, k);
    return right / (double)(s->task == TP_TASK_CLASS ? s->n : s->n * s->width);
}

static double top_k(const tp_scores *s, int64_t most)
{
    double right = 0.0;
    for (int64_t i = 0; i < s->n; i++) {
        const float *x = row(s, i), mine = x[label(s, i)];
        int64_t above = 0;
        for (int64_t k = 0; k < s->width; k++)
            above += x[k] > mine || (x[k] == mine && k < label(s, i));
        right += above < most;
    }
    return right / (double)s->n;
}

typedef struct confusion {
    double hit, missed, wrong; /* true positives, false negatives, false positives */
} confusion;

static confusion count(const tp_scores *s, int64_t k)
{
    confusion c = {0};
    for (int64_t i = 0; i < s->n; i++) {
        const int is = is_positive(s, i, k), said = predicted(s, i, k);
        c.hit += is && said;
        c.missed += is && !said;
        c.wrong += !is && said;
    }
    return c;
}

static double balanced_accuracy(const tp_scores *s)
{
    double sum = 0.0, classes = 0.0;
    for (int64_t k = 0; k < s->width; k++) {
        const confusion c = count(s, k);
        if (c.hit + c.missed > 0.0) {
            sum += c.hit / (c.hit + c.missed);
            classes += 1.0;
        }
    }
    return sum / classes;
}

/* scikit-learn's macro F1 runs over the classes that occur or are predicted. */
static double f1(const tp_scores *s)
{
    double sum = 0.0, classes = 0.0;
    for (int64_t k = 0; k < s->width; k++) {
        const confusion c = count(s, k);
        if (c.hit + c.missed + c.wrong > 0.0)
            sum += 2.0 * c.hit / (2.0 * c.hit + c.missed + c.wrong);
        classes += c.hit + c.missed + c.wrong > 0.0 || s->task == TP_TASK_MULTILABEL;
    }
    return sum / classes;
}

static double log_loss(const tp_scores *s)
{
    double sum = 0.0;
    for (int64_t i = 0; i < s->n; i++)
        if (s->task == TP_TASK_CLASS)
            sum += log_sum_exp(row(s, i), s->width) - (double)row(s, i)[label(s, i)];
        else
            for (int64_t k = 0; k < s->width; k++) {
                const double x = (double)row(s, i)[k];
                sum += fmax(x, 0.0) - (is_positive(s, i, k) ? x : 0.0) + log1p(exp(-fabs(x)));
            }
    return sum / (double)(s->task == TP_TASK_CLASS ? s->n : s->n * s->width);
}

static double brier(const tp_scores *s)
{
    double sum = 0.0;
    for (int64_t i = 0; i < s->n; i++)
        for (int64_t k = s->width == 2 ? 1 : 0; k < s->width; k++) {
            const double d = probability(s, i, k) - (double)is_positive(s, i, k);
            sum += d * d;
        }
    return sum / (double)s->n;
}

static double ece(const tp_scores *s)
{
    double confidence[ECE_BINS] = {0}, right[ECE_BINS] = {0}, gap = 0.0;
    for (int64_t i = 0; i < s->n; i++) {
        const int64_t top = argmax(row(s, i), s->width);
        const double p = probability(s, i, top);
        int bin = (int)ceil(p * ECE_BINS) - 1;
        bin = bin < 0 ? 0 : bin >= ECE_BINS ? ECE_BINS - 1 : bin;
        confidence[bin] += p;
        right[bin] += top == label(s, i);
    }
    for (int b = 0; b < ECE_BINS; b++)
        gap += fabs(confidence[b] - right[b]);
    return gap / (double)s->n;
}

/* ---- ranking: samples sorted by score, ties taken together ---- */

typedef struct ranked {
    double score;
    int positive;
} ranked;

static int by_score(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    return x->score < y->score ? 1 : x->score > y->score ? -1 : 0;
}

static double rank_one(const tp_scores *s, ranked *r, int64_t k, int is_auroc)
{
    double positives = 0.0, hits = 0.0, seen = 0.0, area = 0.0;

    for (int64_t i = 0; i < s->n; i++) {
        r[i] = (ranked){s->task == TP_TASK_CLASS ? probability(s, i, k) : (double)row(s, i)[k],
                        is_positive(s, i, k)};
        positives += r[i].positive;
    }
    const double negatives = (double)s->n - positives;
    if (positives == 0.0 || (is_auroc && negatives == 0.0))
        return (double)NAN;
    qsort(r, (size_t)s->n, sizeof(*r), by_score);
    for (int64_t i = 0; i < s->n;) {
        double p = 0.0, all = 0.0;
        for (const double score = r[i].score; i < s->n && r[i].score == score; i++) {
            p += r[i].positive;
            all += 1.0;
        }
        if (is_auroc) /* trapezoid over the step of false positives */
            area += (all - p) * (hits + 0.5 * p);
        hits += p;
        seen += all;
        if (!is_auroc)
            area += p * hits / seen;
    }
    return is_auroc ? area / (positives * negatives) : area / positives;
}

static tp_status ranking(const tp_scores *s, int is_auroc, double *value)
{
    ranked *r = NULL;
    double sum = 0.0, classes = 0.0;

    TP_TRY(tp_alloc(&r, (size_t)s->n + 1, sizeof(*r), "ranking"));
    if (s->task == TP_TASK_CLASS && s->width == 2)
        sum = rank_one(s, r, 1, is_auroc), classes = 1.0;
    else
        for (int64_t k = 0; k < s->width; k++) {
            sum += rank_one(s, r, k, is_auroc);
            classes += 1.0;
        }
    tp_free(r);
    *value = sum / classes;
    return TP_OK;
}

/* ---- regression ---- */

static double regression(const tp_scores *s, int kind)
{
    const float *y = s->targets;
    const int64_t n = s->n * s->width;
    double sum = 0.0;

    for (int64_t i = 0; i < n; i++) {
        const double d = (double)s->outputs[i] - (double)y[i];
        sum += kind == RMSE  ? d * d
               : kind == MAE ? fabs(d)
                             : fabs(d) / fmax(fabs((double)y[i]), 2.220446049250313e-16);
    }
    return kind == RMSE ? sqrt(sum / (double)n) : sum / (double)n;
}

static double r2(const tp_scores *s)
{
    const float *y = s->targets;
    double sum = 0.0;

    for (int64_t k = 0; k < s->width; k++) {
        double mean = 0.0, residual = 0.0, total = 0.0;
        for (int64_t i = 0; i < s->n; i++)
            mean += (double)y[i * s->width + k] / (double)s->n;
        for (int64_t i = 0; i < s->n; i++) {
            const double d = (double)row(s, i)[k] - (double)y[i * s->width + k],
                         m = (double)y[i * s->width + k] - mean;
            residual += d * d;
            total += m * m;
        }
        sum += total > 0.0 ? 1.0 - residual / total : (residual == 0.0 ? 1.0 : 0.0);
    }
    return sum / (double)s->width;
}

tp_status tp_metric_compute(const tp_metric *m, const tp_scores *s, double *value)
{
    TP_CHECK(m->tasks & 1u << s->task, TP_EINVAL, "metric %s is not for this kind of target", m->name);
    TP_CHECK(s->n > 0 && s->width > 0, TP_EINVAL, "metric %s: there are no samples", m->name);
    switch ((int)(m - tp_metrics)) {
    case ACCURACY:
        *value = accuracy(s);
        return TP_OK;
    case TOP5:
        *value = top_k(s, 5);
        return TP_OK;
    case BALANCED:
        *value = balanced_accuracy(s);
        return TP_OK;
    case F1:
        *value = f1(s);
        return TP_OK;
    case AUROC:
        return ranking(s, 1, value);
    case AVERAGE_PRECISION:
        return ranking(s, 0, value);
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
        *value = regression(s, (int)(m - tp_metrics));
        return TP_OK;
    }
}
