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

/* Fills variable number `at` of a net, of that shape. */
void put(Net &n, size_t at, const std::vector<double> &values)
{
    const tp_tensor to = {n.storage[at].data(), tp_shape_make(2, shape.data()), n.dtype};
    for (size_t i = 0; i < values.size(); i++)
        tp_set(&to, static_cast<int64_t>(i), values[i]);
}

/* One weight and its optimizer; the gradient is a variable that each step fills anew. */
struct Trained : Net {
    tp_val w, dw, s1, s2 = 0, t, clip;
    tp_plan *plan = nullptr;

    Trained(tp_dtype real, const OptimGolden &c, double scale = 1.0) : Net(real)
    {
        w = filled(shape, 0);
        dw = var(shape, {});
        s1 = var(shape, {});
        if (tp_optimizer_states(c.attr.kind) == 2)
            s2 = var(shape, {});
        t = ints({1}, {0});
        clip = var({2}, {scale, 1.0});
        tp_count(g, t, clip);
        tp_optimize(g, var({1}, {c.lr}), t, clip, var({1, 2}, {1.0, c.decay}), 1, &w, &dw, &s1, &s2, nullptr,
                    nullptr, c.attr);
        EXPECT_EQ(tp_plan_new(&plan, g, cpu_device(), nullptr), TP_OK) << tp_last_error();
    }
    ~Trained()
    {
        tp_plan_free(plan);
    }
    void steps(int n)
    {
        for (int i = 0; i < n; i++) {
            put(*this, 1, golden_fill(21, 10 + i));
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
                EXPECT_NEAR(got[i], c.w[i], dtype == TP_F64 ? 1e-8 : 1e-6) << c.name << " element " << i;
        }
}

/* A whole step whose gradient is not finite, after two good ones: weights, states, average and count keep
 * their bits, dense and by rows. */
TEST(OptimTest, AGradientThatIsNotFiniteChangesNothing)
{
    const double bad[] = {std::numeric_limits<double>::quiet_NaN(), -std::numeric_limits<double>::infinity()};
    for (const OptimGolden &c : optim_goldens)
        for (const tp_dtype dtype : both_dtypes)
            for (const bool by_rows : {false, true}) {
                Net n(dtype);
                const tp_val w = n.filled(shape, 0), dw = n.filled(shape, 10), s1 = n.var(shape, {}),
                             s2 = tp_optimizer_states(c.attr.kind) == 2 ? n.var(shape, {}) : 0,
                             average = n.filled(shape, 5), t = n.ints({1}, {0}), lr = n.var({1}, {c.lr}),
                             table = n.var({1, 2}, {1.0, c.decay});
                const tp_val clip = tp_clip_norm(n.g, 1, &dw, 0, 1.0);
                tp_count(n.g, t, clip);
                if (by_rows)
                    tp_optimize_rows(n.g, lr, t, clip, table, w, n.ints({3}, {0, 1, 2}), dw, s1, s2, c.attr);
                else
                    tp_optimize(n.g, lr, t, clip, table, 1, &w, &dw, &s1, &s2, nullptr, nullptr, c.attr);
                tp_ema(n.g, clip, 1, &average, &w, 0.75);
                tp_plan *p = nullptr;
                ASSERT_EQ(tp_plan_new(&p, n.g, cpu_device(), nullptr), TP_OK) << tp_last_error();
                for (int i = 0; i < 2; i++)
                    ASSERT_EQ(tp_plan_run(p), TP_OK);
                const std::deque<std::vector<uint64_t>> before = n.storage;
                EXPECT_EQ(read_value(p, n.g, t)[0], 2.0);
                for (const double v : bad) {
                    std::vector<double> grad = golden_fill(21, 10);
                    grad[20] = v;
                    put(n, 1, grad);
                    ASSERT_EQ(tp_plan_run(p), TP_OK);
                    for (size_t i = 0; i < before.size(); i++)
                        if (i != 1) {
                            EXPECT_EQ(n.storage[i], before[i])
                                << c.name << (by_rows ? " rows" : "") << " variable " << i;
                        }
                }
                tp_plan_free(p);
            }
}

/* Half the gradient through the clip factor is half the gradient itself. */
TEST(OptimTest, TheClipFactorScalesTheGradient)
{
    for (const OptimGolden &c : optim_goldens) {
        Trained halved(TP_F64, c, 0.5), plain(TP_F64, c);
        std::vector<double> grad = golden_fill(21, 10);
        put(halved, 1, grad);
        for (double &v : grad)
            v *= 0.5;
        put(plain, 1, grad);
        ASSERT_EQ(tp_plan_run(halved.plan), TP_OK);
        ASSERT_EQ(tp_plan_run(plain.plan), TP_OK);
        EXPECT_EQ(halved.read(halved.w), plain.read(plain.w)) << c.name;
    }
}

/* Rows of the batch move as the dense optimizer moves them, states too; the others and their states keep
 * their bits. */
TEST(OptimTest, SparseRowsMoveAloneAndAsDenseOnesDo)
{
    for (const OptimGolden &c : optim_goldens)
        for (const tp_dtype dtype : both_dtypes) {
            Trained dense(dtype, c);
            Net n(dtype);
            const tp_val w = n.filled(shape, 0), row_dw = n.var(shape, {}), s1 = n.var(shape, {});
            const tp_val s2 = tp_optimizer_states(c.attr.kind) == 2 ? n.var(shape, {}) : 0;
            const tp_val t = n.ints({1}, {0}), clip = n.var({2}, {1, 1}), rows = n.ints({3}, {0, 2, -1});
            tp_count(n.g, t, clip);
            tp_optimize_rows(n.g, n.var({1}, {c.lr}), t, clip, n.var({1, 2}, {1.0, c.decay}), w, rows, row_dw,
                             s1, s2, c.attr);
            tp_plan *p = nullptr;
            ASSERT_EQ(tp_plan_new(&p, n.g, cpu_device(), nullptr), TP_OK) << tp_last_error();
            const tp_val sparse_v[] = {w, s1, s2}, dense_v[] = {dense.w, dense.s1, dense.s2};
            std::vector<double> untouched[3];
            const size_t n_values = s2 != 0 ? 3 : 2;
            for (size_t v = 0; v < n_values; v++) {
                if (v > 0) { /* states of an earlier step: variables 2 and 3 of both nets */
                    put(n, v + 1, golden_fill(21, 30, 0.4, 0.5));
                    put(dense, v + 1, golden_fill(21, 30, 0.4, 0.5));
                }
                untouched[v] = read_value(p, n.g, sparse_v[v]);
            }
            for (int step = 0; step < 2; step++) {
                const std::vector<double> grad = golden_fill(21, 10 + step);
                put(dense, 1, grad);
                std::vector<double> row_grad(grad.begin(), grad.begin() + 7);
                row_grad.insert(row_grad.end(), grad.begin() + 14, grad.end());
                row_grad.resize(21, 1e30); /* the row of -1 must not be read */
                put(n, 1, row_grad);
                ASSERT_EQ(tp_plan_run(dense.plan), TP_OK);
                ASSERT_EQ(tp_plan_run(p), TP_OK);
            }
            for (size_t v = 0; v < n_values; v++) {
                const std::vector<double> got = read_value(p, n.g, sparse_v[v]),
                                          want = dense.read(dense_v[v]);
                for (size_t i = 0; i < got.size(); i++)
                    EXPECT_EQ(got[i], i / 7 == 1 ? untouched[v][i] : want[i])
                        << c.name << " value " << v << " element " << i;
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
