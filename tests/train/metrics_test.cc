#include "host/core/mem.h"
#include "temper/metrics.h"
#include <cmath>
#include <cstring>
#include <gtest/gtest.h>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace
{

struct MetricGolden {
    const char *name;
    tp_task task;
    int64_t n, width;
    std::vector<float> outputs;
    std::vector<int64_t> classes; /* task class */
    std::vector<float> values;    /* the other tasks */
    std::vector<float> weights;   /* empty: none */
    std::vector<std::pair<const char *, double>> expected;
    std::vector<double> table; /* precision, recall, f1, support of each class */
};

#include "../golden/metrics.inc"

tp_scores scores_of(const MetricGolden &g)
{
    const void *targets = g.classes.data();
    if (g.task != TP_TASK_CLASS)
        targets = g.values.data();
    return {g.task, g.n, g.width, g.outputs.data(), targets, g.weights.empty() ? nullptr : g.weights.data()};
}

double value_of(const char *name, const tp_scores &s)
{
    double v = -1e300;
    const tp_metric *m = tp_metric_find(name);
    if (m == nullptr) {
        ADD_FAILURE() << "no metric " << name;
        return v;
    }
    EXPECT_EQ(tp_metric_compute(m, &s, &v), TP_OK) << tp_last_error();
    return v;
}

const MetricGolden &golden(const std::string &name)
{
    for (const MetricGolden &g : metric_goldens)
        if (name == g.name)
            return g;
    ADD_FAILURE() << "no case " << name;
    return metric_goldens[0];
}

tp_scores classes(int64_t n, int64_t width, const float *outputs, const int64_t *targets,
                  const float *weights = nullptr)
{
    return {TP_TASK_CLASS, n, width, outputs, targets, weights};
}

} // namespace

/* Double sums of at most 60 terms of float inputs: rounding is below 1e-13 of the result. MAPE of a target of
 * 0 is near 1e15, hence relative. */
TEST(Metrics, AgreeWithScikitLearn)
{
    std::set<std::string> seen;
    for (const MetricGolden &g : metric_goldens) {
        for (const auto &[name, want] : g.expected) {
            const double got = value_of(name, scores_of(g));
            EXPECT_EQ(std::isnan(got), std::isnan(want)) << g.name << " " << name << ": " << got;
            if (!std::isnan(want)) {
                EXPECT_NEAR(got, want, 1e-12 * std::fmax(1.0, std::fabs(want))) << g.name << " " << name;
                seen.insert(name);
            }
        }
    }
    for (const tp_metric *m = tp_metrics; m->name != nullptr; m++)
        EXPECT_EQ(seen.count(m->name), 1u) << m->name << " has no golden value";
}

TEST(Metrics, EveryMetricOfATaskHasAGoldenThere)
{
    for (const tp_task task : {TP_TASK_REGRESSION, TP_TASK_CLASS, TP_TASK_MULTILABEL})
        for (const tp_metric *m = tp_metrics; m->name != nullptr; m++) {
            if ((m->tasks & 1u << task) == 0)
                continue;
            bool found = false;
            for (const MetricGolden &g : metric_goldens)
                for (const auto &e : g.expected)
                    found |= g.task == task && std::strcmp(e.first, m->name) == 0;
            EXPECT_TRUE(found) << m->name << " for task " << task;
        }
}

TEST(Metrics, ClassTableAgreesWithScikitLearn)
{
    for (const MetricGolden &g : metric_goldens) {
        if (g.task == TP_TASK_REGRESSION)
            continue;
        const tp_scores s = scores_of(g);
        std::vector<tp_class_score> rows(static_cast<size_t>(g.width));
        ASSERT_EQ(tp_metric_classes(&s, rows.data()), TP_OK) << tp_last_error();
        ASSERT_EQ(g.table.size(), rows.size() * 4);
        for (size_t k = 0; k < rows.size(); k++) {
            EXPECT_NEAR(rows[k].precision, g.table[4 * k], 1e-12) << g.name << " class " << k;
            EXPECT_NEAR(rows[k].recall, g.table[4 * k + 1], 1e-12) << g.name << " class " << k;
            EXPECT_NEAR(rows[k].f1, g.table[4 * k + 2], 1e-12) << g.name << " class " << k;
            EXPECT_NEAR(rows[k].support, g.table[4 * k + 3], 1e-12) << g.name << " class " << k;
        }
    }
}

/* A weight of 2 is the sample twice, and a weight of 0 the sample not there. */
TEST(Metrics, WeightsAreCopies)
{
    for (const char *base : {"five", "binary", "labels", "three_outputs"}) {
        const MetricGolden &g = golden(base);
        MetricGolden copied = g;
        copied.n = 0;
        copied.outputs.clear();
        copied.classes.clear();
        copied.values.clear();
        std::vector<float> w;
        for (int64_t i = 0; i < g.n; i++) {
            w.push_back(static_cast<float>((i * 5) % 3));
            for (int64_t c = 0; c < (i * 5) % 3; c++, copied.n++) {
                copied.outputs.insert(copied.outputs.end(), g.outputs.begin() + i * g.width,
                                      g.outputs.begin() + (i + 1) * g.width);
                if (g.task == TP_TASK_CLASS)
                    copied.classes.push_back(g.classes[static_cast<size_t>(i)]);
                else
                    copied.values.insert(copied.values.end(), g.values.begin() + i * g.width,
                                         g.values.begin() + (i + 1) * g.width);
            }
        }
        tp_scores weighted = scores_of(g);
        weighted.weights = w.data();
        for (const auto &e : g.expected) {
            const double a = value_of(e.first, weighted), b = value_of(e.first, scores_of(copied));
            EXPECT_NEAR(a, b, 1e-12 * std::fmax(1.0, std::fabs(b))) << base << " " << e.first;
        }
        EXPECT_GT(
            std::fabs(value_of(g.expected[0].first, weighted) - value_of(g.expected[0].first, scores_of(g))),
            1e-6)
            << base << ": the weights change nothing, so this shows nothing";
    }
}

/* Shifting every logit of a row changes no class metric. */
TEST(Metrics, ClassMetricsIgnoreAShiftOfTheLogits)
{
    const MetricGolden &g = golden("five");
    MetricGolden shifted = g;
    for (size_t i = 0; i < shifted.outputs.size(); i++)
        shifted.outputs[i] += 512.0f;
    for (const auto &e : g.expected)
        EXPECT_NEAR(value_of(e.first, scores_of(shifted)), e.second, 1e-3) << e.first;
}

TEST(Metrics, AurocTurnsAroundWithTheScores)
{
    MetricGolden g = golden("binary_ties");
    const double before = value_of("auroc", scores_of(g));
    for (float &x : g.outputs)
        x = -x;
    EXPECT_NEAR(value_of("auroc", scores_of(g)), 1.0 - before, 1e-12);
    EXPECT_GT(std::fabs(before - 0.5), 0.05);
    EXPECT_DOUBLE_EQ(value_of("auroc", scores_of(golden("binary_all_tied"))), 0.5);
}

/* A softmax in double gives 1 for both rows; the ranking still sees which is surer. */
TEST(Metrics, RankingDoesNotSaturate)
{
    const float outputs[] = {0, 60, 0, 50};
    const int64_t targets[] = {1, 0};
    EXPECT_DOUBLE_EQ(value_of("auroc", classes(2, 2, outputs, targets)), 1.0);
}

TEST(Metrics, EqualOutputsAreTakenInOrder)
{
    const float outputs[] = {1, 1, 1, 1, 1, 1};
    const int64_t first[] = {0}, third[] = {2}, fifth[] = {4}, last[] = {5};
    EXPECT_EQ(value_of("accuracy", classes(1, 6, outputs, first)), 1.0);
    EXPECT_EQ(value_of("accuracy", classes(1, 6, outputs, third)), 0.0);
    EXPECT_EQ(value_of("top2", classes(1, 6, outputs, third)), 0.0);
    EXPECT_EQ(value_of("top3", classes(1, 6, outputs, third)), 1.0);
    EXPECT_EQ(value_of("top5", classes(1, 6, outputs, fifth)), 1.0);
    EXPECT_EQ(value_of("top5", classes(1, 6, outputs, last)), 0.0);
    EXPECT_EQ(value_of("top10", classes(1, 6, outputs, last)), 1.0);
}

TEST(Metrics, UndefinedIsNan)
{
    for (const char *name : {"binary_one_class", "binary_other_class", "binary_one_sample", "absent_class"})
        EXPECT_TRUE(std::isnan(value_of("auroc", scores_of(golden(name))))) << name;
    EXPECT_TRUE(std::isnan(value_of("average_precision", scores_of(golden("binary_other_class")))));
    EXPECT_DOUBLE_EQ(value_of("average_precision", scores_of(golden("binary_one_class"))), 1.0);
    EXPECT_TRUE(std::isnan(value_of("r2", scores_of(golden("regression_one_sample")))));

    const std::vector<float> none(static_cast<size_t>(golden("five").n), 0.0f);
    tp_scores s = scores_of(golden("five"));
    s.weights = none.data();
    EXPECT_TRUE(std::isnan(value_of("accuracy", s)));
}

/* A network that diverged must give NaN, at once, for every metric. */
TEST(Metrics, OutputsThatAreNotFiniteGiveNan)
{
    for (const char *base : {"five", "binary", "labels", "one_output"})
        for (const float bad : {NAN, INFINITY, -INFINITY}) {
            MetricGolden g = golden(base);
            g.outputs[3] = bad;
            for (const auto &e : g.expected)
                EXPECT_TRUE(std::isnan(value_of(e.first, scores_of(g))))
                    << base << " " << e.first << " " << bad;
        }
    MetricGolden g = golden("five");
    g.outputs[3] = NAN;
    const tp_scores s = scores_of(g);
    tp_class_score rows[5];
    ASSERT_EQ(tp_metric_classes(&s, rows), TP_OK);
    EXPECT_TRUE(std::isnan(rows[0].precision) && std::isnan(rows[4].f1));
}

TEST(Metrics, RefuseWhatCannotBeMeasured)
{
    double v = 0.0;
    const float outputs[] = {0, 1, 0, 1};
    const int64_t good[] = {0, 1}, above[] = {0, 2}, below[] = {-1, 0};
    const float negative[] = {1, -0.5f}, nan[] = {NAN, 1};

    tp_scores s = classes(2, 2, outputs, above);
    for (const char *name : {"accuracy", "top5", "f1", "auroc", "log_loss", "brier", "ece"})
        EXPECT_EQ(tp_metric_compute(tp_metric_find(name), &s, &v), TP_EINVAL) << name;
    EXPECT_STREQ(tp_last_error(), "metric ece: the class of sample 1 is 2, want 0 to 1");
    s = classes(2, 2, outputs, below);
    EXPECT_EQ(tp_metric_compute(tp_metric_find("top5"), &s, &v), TP_EINVAL);
    s = classes(2, 2, outputs, good, negative);
    EXPECT_EQ(tp_metric_compute(tp_metric_find("accuracy"), &s, &v), TP_EINVAL);
    EXPECT_STREQ(tp_last_error(), "metric accuracy: the weight of sample 1 is -0.5, want >= 0");
    s = classes(2, 2, outputs, good, nan);
    EXPECT_EQ(tp_metric_compute(tp_metric_find("accuracy"), &s, &v), TP_EINVAL);
    s = classes(0, 2, outputs, good);
    EXPECT_EQ(tp_metric_compute(tp_metric_find("accuracy"), &s, &v), TP_EINVAL);
    s = classes(2, 2, outputs, good);
    EXPECT_EQ(tp_metric_compute(tp_metric_find("mae"), &s, &v), TP_EINVAL);
    EXPECT_NE(std::strstr(tp_last_error(), "mae"), nullptr);
    EXPECT_TRUE(std::isnan(v));
}

TEST(Metrics, NamesAreFoundOrTheNearestIsTold)
{
    EXPECT_EQ(tp_metric_find("acuracy"), nullptr);
    EXPECT_EQ(tp_metric_find(""), nullptr);
    EXPECT_STREQ(tp_metric_nearest("acuracy")->name, "accuracy");
    EXPECT_STREQ(tp_metric_nearest("logloss")->name, "log_loss");
    EXPECT_STREQ(tp_metric_nearest("top-5")->name, "top5");
    EXPECT_STREQ(tp_metric_nearest("aucroc")->name, "auroc");
    EXPECT_NE(tp_metric_nearest(std::string(1000, 'x').c_str()), nullptr);
    for (const tp_metric *m = tp_metrics; m->name != nullptr; m++) {
        EXPECT_EQ(tp_metric_find(m->name), m);
        EXPECT_EQ(tp_metric_nearest(m->name), m);
        EXPECT_NE(m->tasks, 0u);
        EXPECT_GT(std::strlen(m->help), 0u);
    }
    EXPECT_EQ(tp_metric_find("auroc")->higher_is_better, 1);
    EXPECT_EQ(tp_metric_find("mae")->higher_is_better, 0);
}

/* Each slice is what its rows give when they are all there is. */
TEST(Metrics, SlicesAreTheMetricsOfTheirRows)
{
    for (const char *base : {"five_weighted", "labels_weighted_ties", "three_outputs"}) {
        const MetricGolden &g = golden(base);
        const int64_t of[] = {7, -3, 40};
        std::vector<int64_t> slice;
        for (int64_t i = 0; i < g.n; i++)
            slice.push_back(of[(i * i + 1) % 3 == 2 ? 1 : i % 2 * 2]);
        const tp_metric *metrics[] = {tp_metric_find(g.expected[0].first),
                                      tp_metric_find(g.expected[1].first)};
        const tp_scores s = scores_of(g);
        tp_slices t;
        ASSERT_EQ(tp_metric_slices(&t, &s, slice.data(), 2, metrics), TP_OK) << tp_last_error();
        ASSERT_EQ(t.n, 3);
        for (int64_t j = 0; j < t.n; j++) {
            MetricGolden part = g;
            part.n = 0;
            part.outputs.clear(), part.classes.clear(), part.values.clear(), part.weights.clear();
            for (int64_t i = 0; i < g.n; i++) {
                if (slice[static_cast<size_t>(i)] != t.ids[j])
                    continue;
                part.n++;
                part.outputs.insert(part.outputs.end(), g.outputs.begin() + i * g.width,
                                    g.outputs.begin() + (i + 1) * g.width);
                if (g.task == TP_TASK_CLASS)
                    part.classes.push_back(g.classes[static_cast<size_t>(i)]);
                else
                    part.values.insert(part.values.end(), g.values.begin() + i * g.width,
                                       g.values.begin() + (i + 1) * g.width);
                if (!g.weights.empty())
                    part.weights.push_back(g.weights[static_cast<size_t>(i)]);
            }
            EXPECT_EQ(t.support[j], part.n) << base;
            for (int m = 0; m < 2; m++)
                EXPECT_EQ(t.values[j * 2 + m], value_of(metrics[m]->name, scores_of(part)))
                    << base << " " << j;
        }
        EXPECT_TRUE(t.ids[0] == -3 && t.ids[1] == 7 && t.ids[2] == 40);
        EXPECT_NE(t.values[0], t.values[2]);
        tp_slices_clear(&t);
        EXPECT_EQ(t.values, nullptr);
    }
}

TEST(Metrics, TablesRefuseAndCleanUp)
{
    const tp_scores r = scores_of(golden("one_output")), s = scores_of(golden("binary"));
    tp_class_score rows[2];
    const tp_metric *metrics[] = {tp_metric_find("auroc")}, *wrong[] = {tp_metric_find("mae")};
    const std::vector<int64_t> slice(static_cast<size_t>(s.n), 1);
    tp_slices t;

    EXPECT_EQ(tp_metric_classes(&r, rows), TP_EINVAL);
    EXPECT_EQ(tp_metric_slices(&t, &s, slice.data(), 1, wrong), TP_EINVAL);
    EXPECT_EQ(t.n, 0);
    int failures = 0;
    for (uint64_t k = 1; k < 50; k++) {
        tp_alloc_fail_at(k, 0);
        const tp_status st = tp_metric_slices(&t, &s, slice.data(), 1, metrics);
        tp_alloc_fail_at(0, 0);
        tp_slices_clear(&t);
        if (st == TP_OK)
            break;
        EXPECT_EQ(st, TP_ENOMEM);
        failures++;
    }
    EXPECT_EQ(failures, 9); /* order, outputs, targets, weights; ids, support, values; ranking, lse */
}
