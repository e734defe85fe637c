/* init_test.cc - first weights: PyTorch's bounds and deviations, drawn alike everywhere from one seed. */
#include "host/core/parallel.h"
#include "host/model/init.h"
#include "tests/model/model_run.h"
#include <algorithm>
#include <cmath>

namespace
{

struct Golden {
    const char *name;
    int nd;
    int64_t weight[4];
    int64_t groups, fan_in, fan_out;
    double default_bound, xavier_bound, kaiming_std;
};

const Golden goldens[] = {
#include "tests/golden/init.inc"
};

struct Moments {
    double mean = 0, std = 0, kurtosis = 0, largest = 0, neighbours = 0;
};

Moments moments(const std::vector<float> &floats)
{
    const std::vector<double> v(floats.begin(), floats.end());
    Moments m;
    const double n = static_cast<double>(v.size());
    for (const double x : v) {
        m.mean += x / n;
        m.largest = std::max(m.largest, std::fabs(x));
    }
    double second = 0, fourth = 0;
    for (size_t i = 0; i < v.size(); i++) {
        const double d = v[i] - m.mean;
        second += d * d / n;
        fourth += d * d * d * d / n;
        m.neighbours += i > 0 ? d * (v[i - 1] - m.mean) / n : 0;
    }
    m.std = std::sqrt(second);
    m.kurtosis = second > 0 ? fourth / (second * second) : 0;
    m.neighbours = second > 0 ? m.neighbours / second : 0;
    return m;
}

/* Uniform in [-bound, bound), by bound, mean, deviation, fourth moment and independence of neighbours: each
 * within five standard errors. */
void expect_uniform(const std::vector<float> &v, double bound)
{
    const Moments m = moments(v);
    const double n = static_cast<double>(v.size()), std = bound / std::sqrt(3.0);
    EXPECT_LE(m.largest, bound * (1 + 1e-6));
    EXPECT_GT(m.largest, bound * (1 - 15 / n));
    EXPECT_NEAR(m.mean, 0, 5 * std / std::sqrt(n));
    EXPECT_NEAR(m.std / std, 1, 5 * std::sqrt(0.2 / n));
    EXPECT_NEAR(m.kurtosis, 1.8, 10 / std::sqrt(n));
    EXPECT_NEAR(m.neighbours, 0, 5 / std::sqrt(n));
}

void expect_normal(const std::vector<float> &v, double std)
{
    const Moments m = moments(v);
    const double n = static_cast<double>(v.size());
    EXPECT_NEAR(m.mean, 0, 5 * std / std::sqrt(n));
    EXPECT_NEAR(m.std / std, 1, 5 / std::sqrt(2 * n));
    EXPECT_NEAR(m.kurtosis, 3, 5 * std::sqrt(24 / n));
    EXPECT_NEAR(m.neighbours, 0, 5 / std::sqrt(n));
    EXPECT_GT(m.largest, 3 * std);
}

/* A model of one layer with the golden's weight. */
Model one_layer(const Golden &g, const std::string &init, uint64_t seed = 1)
{
    const auto text = [](int64_t v) { return std::to_string(v); };
    if (g.nd == 2)
        return build("[dense: {units: " + text(g.weight[0]) + ", init: " + init + "}]",
                     {input("x", TP_INPUT_DENSE, {g.weight[1]})}, g.weight[0], seed);
    const std::string kernel = g.nd == 3 ? text(g.weight[2]) : text(g.weight[2]) + ", " + text(g.weight[3]);
    std::vector<int64_t> shape = {g.weight[1] * g.groups, 8, 8};
    shape.resize(static_cast<size_t>(g.nd) - 1);
    return build("[conv: {filters: " + text(g.weight[0]) + ", kernel: [" + kernel +
                     "], groups: " + text(g.groups) + ", init: " + init + "}, global_avg_pool]",
                 {input("x", TP_INPUT_IMAGE, shape)}, g.weight[0], seed);
}

TEST(Init, WeightsAndBiasesAreDrawnAsPyTorchDraws)
{
    for (const Golden &g : goldens) {
        SCOPED_TRACE(g.name);
        for (const std::string init : {"default", "xavier", "kaiming", "zeros"}) {
            SCOPED_TRACE(init);
            const Model m = one_layer(g, init);
            ASSERT_NE(m, nullptr) << tp_last_error();
            ASSERT_EQ(tp_model_n_params(m.get()), 2);
            const tp_param *weight = tp_model_param(m.get(), 0), *bias = tp_model_param(m.get(), 1);
            EXPECT_TRUE(tp_shape_equal(weight->shape, tp_shape_make(g.nd, g.weight)));
            EXPECT_TRUE(tp_shape_equal(bias->tensor.shape, tp_shape_make(1, g.weight)));
            const std::vector<float> w = values(weight), b = values(bias);
            if (init == "default") {
                expect_uniform(w, g.default_bound);
                expect_uniform(b, g.default_bound);
                continue;
            }
            EXPECT_EQ(moments(b).largest, 0);
            if (init == "xavier")
                expect_uniform(w, g.xavier_bound);
            else if (init == "kaiming")
                expect_normal(w, g.kaiming_std);
            else
                EXPECT_EQ(moments(w).largest, 0);
        }
    }
}

TEST(Init, RulesAreThoseOfTheFans)
{
    for (const Golden &g : goldens) {
        const tp_init_rule u = tp_init_weight(TP_INIT_DEFAULT, g.fan_in, g.fan_out),
                           x = tp_init_weight(TP_INIT_XAVIER, g.fan_in, g.fan_out),
                           k = tp_init_weight(TP_INIT_KAIMING, g.fan_in, g.fan_out);
        EXPECT_EQ(u.fill, TP_FILL_UNIFORM);
        EXPECT_EQ(u.a, -u.b);
        EXPECT_NEAR(u.b / g.default_bound, 1, 1e-8) << g.name;
        EXPECT_EQ(x.fill, TP_FILL_UNIFORM);
        EXPECT_NEAR(x.b / g.xavier_bound, 1, 1e-8) << g.name;
        EXPECT_EQ(k.fill, TP_FILL_NORMAL);
        EXPECT_NEAR(k.b / g.kaiming_std, 1, 1e-8) << g.name;
    }
    EXPECT_TRUE(std::isfinite(tp_init_weight(TP_INIT_KAIMING, 0, 0).b)) << "an input without features";
    EXPECT_TRUE(std::isfinite(tp_init_bias(TP_INIT_DEFAULT, 0).b));
}

TEST(Init, Embeddings)
{
    const std::vector<std::pair<const char *, double>> deviations = {
        {"default", 1.0}, {"kaiming", 0.1}, {"xavier", 0.25}, {"zeros", 0.0}};
    for (const auto &[init, std] : deviations) {
        SCOPED_TRACE(init);
        const Model m = build(std::string("[embedding: {input: id, dim: 16, init: ") + init + "}]",
                              {input("id", TP_INPUT_IDS, {}, 2000)}, 16);
        ASSERT_NE(m, nullptr) << tp_last_error();
        if (std > 0)
            expect_normal(values(tp_model_param(m.get(), 0)), std);
        else
            EXPECT_EQ(moments(values(tp_model_param(m.get(), 0))).largest, 0);
    }
}

TEST(Init, NormsBeginAsTheIdentity)
{
    const Model m =
        build("[batch_norm, layer_norm, {group_norm: {groups: 2}}]", {input("x", TP_INPUT_DENSE, {6})}, 6);
    ASSERT_NE(m, nullptr) << tp_last_error();
    ASSERT_EQ(tp_model_n_params(m.get()), 8);
    for (int i = 0; i < 8; i++) {
        const tp_param *p = tp_model_param(m.get(), i);
        const std::string name = p->name;
        const bool one = name.find("weight") != std::string::npos || name.find("var") != std::string::npos;
        EXPECT_EQ(values(p), std::vector<float>(6, one ? 1.0f : 0.0f)) << name;
        EXPECT_EQ(p->trained, name.find("running") == std::string::npos) << name;
        EXPECT_FALSE(p->decay) << name;
    }
}

TEST(Init, OneSeedOneSetOfBits)
{
    for (const std::string init : {"default", "xavier", "kaiming"}) {
        tp_threads_set(1);
        const Model a = one_layer(goldens[0], init, 7);
        tp_threads_set(2);
        const Model b = one_layer(goldens[0], init, 7);
        tp_threads_set(0);
        const Model c = one_layer(goldens[0], init, 8);
        for (int i = 0; i < 2; i++) {
            EXPECT_EQ(values(tp_model_param(a.get(), i)), values(tp_model_param(b.get(), i)));
            const auto x = values(tp_model_param(a.get(), i)), y = values(tp_model_param(c.get(), i));
            if (i == 1 && init != "default")
                continue; /* zeros */
            int same = 0;
            for (size_t k = 0; k < x.size(); k++)
                same += x[k] == y[k];
            EXPECT_LE(same, static_cast<int>(x.size() / 100)) << "another seed, other weights";
        }
    }
}

TEST(Init, AnElementDependsOnSeedParameterAndPlaceAlone)
{
    for (const tp_init_rule &rule :
         {tp_init_rule{TP_FILL_UNIFORM, -1, 1}, tp_init_rule{TP_FILL_NORMAL, 0, 1}}) {
        std::vector<float> few(7), many(1000), other(1000);
        tp_init_fill(few.data(), 7, &rule, 3, 5);
        tp_init_fill(many.data(), 1000, &rule, 3, 5);
        tp_init_fill(other.data(), 1000, &rule, 3, 6);
        EXPECT_TRUE(std::equal(few.begin(), few.end(), many.begin()));
        int same = 0;
        for (size_t i = 0; i < many.size(); i++)
            same += many[i] == other[i];
        EXPECT_LE(same, 1);
        std::sort(many.begin(), many.end());
        EXPECT_EQ(std::adjacent_find(many.begin(), many.end()), many.end()) << "no number is drawn twice";
    }
}

} // namespace
