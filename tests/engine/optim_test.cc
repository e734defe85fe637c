/* optim_test.cc - optimizers and clipping against PyTorch over several steps, and what must hold for them. */
#include "tests/engine/net.h"
#include <limits>

namespace
{

struct OptimGolden {
    const char *name;
    tp_optimizer_attr attr;
    double lr, decay;
    std::vector<double> w; /* after five steps */
};

struct ClipGolden {
    double limit, norm, factor;
};

#include "tests/golden/optim.inc"

const Dims shape = {3, 7};

/* One weight and its optimizer; the gradient is a variable that each step fills anew. */
struct Trained : Net {
    tp_val w, dw, s1, s2 = 0, t, clip;
    tp_plan *plan = nullptr;

    Trained(tp_dtype real, const OptimGolden &c, double scale = 1.0, double ok = 1.0) : Net(real)
    {
        w = filled(shape, 0);
        dw = var(shape, {});
        s1 = var(shape, {});
        if (tp_optimizer_states(c.attr.kind) == 2)
            s2 = var(shape, {});
        t = ints({1}, {0});
        clip = var({2}, {scale, ok});
        tp_count(g, t, clip);
        tp_optimize(g, var({1}, {c.lr}), t, clip, var({1, 2}, {1.0, c.decay}), 1, &w, &dw, &s1, &s2, c.attr);
        EXPECT_EQ(tp_plan_new(&plan, g, cpu_device(), nullptr), TP_OK) << tp_last_error();
    }
    ~Trained()
    {
        tp_plan_free(plan);
    }
    void set(size_t at, const std::vector<double> &values)
    {
        tp_tensor to = {storage[at].data(), tp_shape_make(2, shape.data()), dtype};
        for (size_t i = 0; i < values.size(); i++)
            tp_set(&to, static_cast<int64_t>(i), values[i]);
    }
    void steps(int n)
    {
        for (int i = 0; i < n; i++) {
            set(1, golden_fill(21, 10 + i));
            ASSERT_EQ(tp_plan_run(plan), TP_OK) << tp_last_error();
        }
    }
    std::vector<double> read(tp_val v)
    {
        return read_value(plan, g, v);
    }
};

TEST(OptimTest, FiveStepsMatchPyTorch)
{
    for (const OptimGolden &c : optim_goldens)
        for (const tp_dtype dtype : both_dtypes) {
            Trained r(dtype, c);
            r.steps(5);
            const std::vector<double> got = r.read(r.w);
            for (size_t i = 0; i < got.size(); i++)
                EXPECT_NEAR(got[i], c.w[i], dtype == TP_F64 ? 1e-8 : 3e-6) << c.name << " element " << i;
        }
}

TEST(OptimTest, AStepThatIsNotOkWritesNothing)
{
    for (const OptimGolden &c : optim_goldens) {
        Trained r(TP_F32, c, 1.0, 0.0);
        const std::vector<double> w = r.read(r.w), s = r.read(r.s1);
        r.set(1, std::vector<double>(21, std::numeric_limits<double>::quiet_NaN()));
        ASSERT_EQ(tp_plan_run(r.plan), TP_OK);
        EXPECT_EQ(r.read(r.w), w) << c.name;
        EXPECT_EQ(r.read(r.s1), s) << c.name;
        EXPECT_EQ(r.read(r.t)[0], 0.0) << c.name;
    }
}

/* Half the gradient through the clip factor is half the gradient itself. */
TEST(OptimTest, TheClipFactorScalesTheGradient)
{
    for (const OptimGolden &c : optim_goldens) {
        Trained halved(TP_F64, c, 0.5), plain(TP_F64, c);
        std::vector<double> grad = golden_fill(21, 10);
        halved.set(1, grad);
        for (double &v : grad)
            v *= 0.5;
        plain.set(1, grad);
        ASSERT_EQ(tp_plan_run(halved.plan), TP_OK);
        ASSERT_EQ(tp_plan_run(plain.plan), TP_OK);
        EXPECT_EQ(halved.read(halved.w), plain.read(plain.w)) << c.name;
    }
}

/* Rows of the batch move as the dense optimizer moves them; the others and their states keep their bits. */
TEST(OptimTest, SparseRowsMoveAloneAndAsDenseOnesDo)
{
    for (const OptimGolden &c : optim_goldens)
        for (const tp_dtype dtype : both_dtypes) {
            Trained dense(dtype, c);
            dense.set(1, golden_fill(21, 10));
            ASSERT_EQ(tp_plan_run(dense.plan), TP_OK);
            const std::vector<double> grad = golden_fill(21, 10), before = golden_fill(21, 0);
            Net n(dtype);
            const tp_val w = n.filled(shape, 0), s1 = n.var(shape, {});
            const tp_val s2 = tp_optimizer_states(c.attr.kind) == 2 ? n.var(shape, {}) : 0;
            const tp_val t = n.ints({1}, {0}), clip = n.var({2}, {1, 1}), rows = n.ints({3}, {0, 2, -1});
            std::vector<double> row_grad(grad.begin(), grad.begin() + 7);
            row_grad.insert(row_grad.end(), grad.begin() + 14, grad.end());
            row_grad.resize(21, 1e30); /* the row of -1 must not be read */
            tp_count(n.g, t, clip);
            tp_optimize_rows(n.g, n.var({1}, {c.lr}), t, clip, n.var({1, 2}, {1.0, c.decay}), w, rows,
                             n.var(shape, row_grad), s1, s2, c.attr);
            tp_plan *p = nullptr;
            ASSERT_EQ(tp_plan_new(&p, n.g, cpu_device(), nullptr), TP_OK) << tp_last_error();
            const std::vector<double> untouched = read_value(p, n.g, w);
            ASSERT_EQ(tp_plan_run(p), TP_OK);
            const std::vector<double> got = read_value(p, n.g, w), want = dense.read(dense.w),
                                      state = read_value(p, n.g, s1);
            for (size_t i = 0; i < got.size(); i++) {
                EXPECT_EQ(got[i], i / 7 == 1 ? untouched[i] : want[i]) << c.name << " element " << i;
                if (i / 7 == 1) {
                    EXPECT_EQ(state[i], 0.0) << c.name;
                }
            }
            tp_plan_free(p);
        }
}

TEST(OptimTest, ClippingMatchesPyTorch)
{
    for (const ClipGolden &c : clip_goldens)
        for (const tp_dtype dtype : both_dtypes) {
            Net n(dtype);
            const tp_val dw[2] = {n.filled({4, 5}, 1), n.filled({3}, 2)};
            const tp_val clip = tp_output(n.g, tp_clip_norm(n.g, 2, dw, 0, c.limit));
            tp_output(n.g, clip + 1);
            tp_plan *p = nullptr;
            ASSERT_EQ(tp_plan_new(&p, n.g, cpu_device(), nullptr), TP_OK) << tp_last_error();
            ASSERT_EQ(tp_plan_run(p), TP_OK);
            EXPECT_NEAR(read_value(p, n.g, clip)[0], c.factor, 2e-7);
            EXPECT_EQ(read_value(p, n.g, clip)[1], 1.0);
            EXPECT_NEAR(read_value(p, n.g, clip + 1)[0], c.norm, 2e-7 * c.norm);
            tp_plan_free(p);
        }
}

TEST(OptimTest, ClippingRefusesWhatIsNotFinite)
{
    const double bad[] = {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()};
    for (const double v : bad)
        for (const bool in_loss : {false, true}) {
            Net n(TP_F32);
            const tp_val dw = n.var({3}, {1.0, in_loss ? 2.0 : v, 3.0}),
                         loss = n.var({}, {in_loss ? v : 1.0});
            const tp_val clip = tp_output(n.g, tp_clip_norm(n.g, 1, &dw, loss, 1.0));
            tp_plan *p = nullptr;
            ASSERT_EQ(tp_plan_new(&p, n.g, cpu_device(), nullptr), TP_OK) << tp_last_error();
            ASSERT_EQ(tp_plan_run(p), TP_OK);
            EXPECT_EQ(read_value(p, n.g, clip)[1], 0.0) << v << (in_loss ? " in the loss" : " in a gradient");
            tp_plan_free(p);
        }
}

TEST(OptimTest, AveragesFollowTheWeights)
{
    Net n(TP_F32);
    const tp_val average = n.var({4}, {0, 0, 0, 0}), w = n.var({4}, {1, 2, 3, 4}), ok = n.var({2}, {1, 1});
    tp_ema(n.g, ok, 1, &average, &w, 0.75);
    tp_plan *p = nullptr;
    ASSERT_EQ(tp_plan_new(&p, n.g, cpu_device(), nullptr), TP_OK) << tp_last_error();
    for (int i = 0; i < 2; i++)
        ASSERT_EQ(tp_plan_run(p), TP_OK);
    const double share = 1.0 - 0.75 * 0.75;
    EXPECT_EQ(read_value(p, n.g, average), (std::vector<double>{share, 2 * share, 3 * share, 4 * share}));
    tp_plan_free(p);
}

} // namespace
