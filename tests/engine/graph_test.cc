/* graph_test.cc - values, sticky errors, gradients of whole graphs, lifetimes, and what a plan promises. */
#include "host/core/mem.h"
#include "host/graph/plan.h"
#include "tests/engine/case_run.h"

namespace
{

struct Graph {
    tp_graph *g = nullptr;
    std::vector<std::vector<float>> storage;
    Graph()
    {
        EXPECT_EQ(tp_graph_new(&g), TP_OK);
        storage.reserve(64);
    }
    ~Graph()
    {
        tp_graph_free(g);
    }
    Graph(const Graph &) = delete;
    Graph &operator=(const Graph &) = delete;

    tp_val var(const char *name, std::vector<int64_t> d, std::vector<float> v)
    {
        storage.push_back(std::move(v));
        const tp_tensor t = {storage.back().data(), tp_shape_make(static_cast<int>(d.size()), d.data()),
                             TP_F32};
        EXPECT_EQ(static_cast<size_t>(tp_shape_len(t.shape)), storage.back().size());
        return tp_variable(g, name, t);
    }
    std::vector<double> run(tp_val v, const tp_plan_opts *opts = nullptr)
    {
        tp_plan *p = nullptr;
        EXPECT_EQ(tp_plan_new(&p, g, cpu_device(), opts), TP_OK) << tp_last_error();
        EXPECT_EQ(tp_plan_run(p), TP_OK) << tp_last_error();
        auto out = read_value(p, g, v);
        tp_plan_free(p);
        return out;
    }
};

TEST(GraphTest, FirstErrorSticksAndNamesOpShapesAndScope)
{
    Graph t;
    const tp_val a = t.var("a", {4, 5}, std::vector<float>(20)), b = t.var("b", {3}, std::vector<float>(3));
    tp_graph_scope(t.g, "encoder");
    const tp_val bad = tp_add(t.g, a, b);
    EXPECT_EQ(bad, 0u);
    EXPECT_EQ(tp_relu(t.g, tp_exp(t.g, bad)), 0u);
    ASSERT_EQ(tp_graph_status(t.g), TP_ESHAPE);
    const std::string line = tp_last_error();
    EXPECT_NE(line.find("add in encoder"), std::string::npos) << line;
    EXPECT_NE(line.find("(4,5)"), std::string::npos) << line;
    EXPECT_NE(line.find("(3)"), std::string::npos) << line;
    tp_plan *p = nullptr;
    EXPECT_EQ(tp_plan_new(&p, t.g, cpu_device(), nullptr), TP_ESHAPE);
    EXPECT_EQ(p, nullptr);
}

TEST(GraphTest, GradientsOfAValueUsedTwiceAreSummed)
{
    /* f = sum(x * x * x + 2 x): df = 3 x^2 + 2, which needs three contributions added up */
    Graph t;
    const tp_val x = t.var("x", {3}, {1, -2, 3});
    const tp_val cube = tp_mul(t.g, tp_mul(t.g, x, x), x);
    const tp_val f = tp_reduce_sum(t.g, tp_add(t.g, cube, tp_mul(t.g, x, tp_scalar(t.g, TP_F32, 2))), 0, 0);
    tp_val dx = 0;
    tp_grad(t.g, f, 1, &x, &dx);
    tp_output(t.g, dx);
    EXPECT_EQ(t.run(dx), (std::vector<double>{5, 14, 29}));
}

TEST(GraphTest, GradientOfAnIntermediateValueAndOfAGradient)
{
    Graph t;
    const tp_val x = t.var("x", {2}, {3, 4});
    const tp_val h = tp_mul(t.g, x, x);
    const tp_val f = tp_reduce_sum(t.g, tp_mul(t.g, h, h), 0, 0);
    tp_val dh = 0, d2 = 0;
    tp_grad(t.g, f, 1, &h, &dh); /* 2 h */
    const tp_val penalty = tp_reduce_sum(t.g, dh, 0, 0);
    tp_grad(t.g, penalty, 1, &x, &d2); /* 4 x */
    tp_output(t.g, dh);
    tp_output(t.g, d2);
    EXPECT_EQ(t.run(dh), (std::vector<double>{18, 32}));
    EXPECT_EQ(t.run(d2), (std::vector<double>{12, 16}));
}

TEST(GraphTest, DetachStopsTheGradientAndIndependentValuesHaveNone)
{
    Graph t;
    const tp_val x = t.var("x", {2}, {3, 4}), other = t.var("other", {2}, {1, 1});
    const tp_val f = tp_reduce_sum(t.g, tp_mul(t.g, tp_detach(t.g, x), x), 0, 0);
    const tp_val wrt[2] = {x, other};
    tp_val dx[2];
    tp_grad(t.g, f, 2, wrt, dx);
    EXPECT_EQ(dx[1], 0u);
    tp_output(t.g, dx[0]);
    EXPECT_EQ(t.run(dx[0]), (std::vector<double>{3, 4}));
}

TEST(GraphTest, GradientNeedsAScalarLoss)
{
    Graph t;
    const tp_val x = t.var("x", {2}, {3, 4});
    tp_val dx = 7;
    tp_grad(t.g, tp_exp(t.g, x), 1, &x, &dx);
    EXPECT_EQ(dx, 0u);
    EXPECT_EQ(tp_graph_status(t.g), TP_ESHAPE);
}

TEST(GraphTest, NodesNobodyReadsAreNotRun)
{
    Graph t;
    const tp_val x = t.var("x", {2}, {1, 2});
    for (int i = 0; i < 5; i++)
        (void)tp_exp(t.g, x);
    const tp_val y = tp_output(t.g, tp_neg(t.g, x));
    tp_plan *p = nullptr;
    ASSERT_EQ(tp_plan_new(&p, t.g, cpu_device(), nullptr), TP_OK);
    EXPECT_EQ(p->n_steps, 1);
    EXPECT_EQ(tp_plan_run(p), TP_OK);
    EXPECT_EQ(read_value(p, t.g, y), (std::vector<double>{-1, -2}));
    tp_plan_free(p);
}

TEST(GraphTest, AChainSharesOneSlotAndAKeptValueIsNotOverwritten)
{
    Graph t;
    tp_val v = t.var("x", {1000}, std::vector<float>(1000, 0.5f));
    const tp_val first = tp_output(t.g, tp_neg(t.g, v));
    v = first;
    for (int i = 0; i < 20; i++)
        v = tp_tanh(t.g, v);
    tp_output(t.g, v);
    tp_plan *p = nullptr;
    ASSERT_EQ(tp_plan_new(&p, t.g, cpu_device(), nullptr), TP_OK);
    EXPECT_LE(p->arena_bytes, 2 * 4096u);
    EXPECT_EQ(tp_plan_run(p), TP_OK);
    EXPECT_EQ(read_value(p, t.g, first)[999], -0.5);
    tp_plan_free(p);
}

/* A random graph of in-place ops, views and broadcasts gives the same bits with its memory shared and
 * poisoned as with every value kept apart. */
TEST(GraphTest, SharedMemoryNeverChangesAResult)
{
    for (uint64_t seed = 0; seed < 60; seed++) {
        std::vector<std::vector<double>> results;
        for (int keep_all = 0; keep_all < 2; keep_all++) {
            Graph t;
            std::mt19937_64 rng(seed);
            std::vector<tp_val> pool;
            for (int i = 0; i < 3; i++) {
                std::vector<float> v(24);
                for (float &x : v)
                    x = static_cast<float>(rng() % 1000) / 500.0f - 1.0f;
                pool.push_back(t.var("x", {4, 6}, v));
            }
            for (int i = 0; i < 30; i++) {
                const tp_val a = pool[rng() % pool.size()], b = pool[rng() % pool.size()];
                const int64_t flat[] = {24}, square[] = {4, 6};
                switch (rng() % 6) {
                case 0:
                    pool.push_back(tp_tanh(t.g, a));
                    break;
                case 1:
                    pool.push_back(tp_sub(t.g, a, b));
                    break;
                case 2:
                    pool.push_back(tp_reshape(t.g, tp_neg(t.g, tp_reshape(t.g, a, tp_shape_make(1, flat))),
                                              tp_shape_make(2, square)));
                    break;
                case 3:
                    pool.push_back(tp_mul(t.g, a, tp_reduce_mean(t.g, b, 2, 1)));
                    break;
                case 4: {
                    const int perm[] = {1, 0};
                    pool.push_back(tp_reshape(t.g, tp_transpose(t.g, a, perm), tp_shape_make(2, square)));
                    break;
                }
                default:
                    pool.push_back(tp_max(t.g, a, tp_detach(t.g, b)));
                }
                if (keep_all)
                    tp_output(t.g, pool.back());
            }
            tp_plan_opts opts = TP_PLAN_OPTS_INIT;
            opts.poison = !keep_all;
            results.push_back(t.run(tp_output(t.g, pool.back()), &opts));
        }
        ASSERT_EQ(results[0], results[1]) << "seed " << seed;
    }
}

TEST(PlanTest, PlacedSlotsNeverOverlapInTimeAndSpace)
{
    std::mt19937_64 rng(5);
    for (int round = 0; round < 200; round++) {
        std::vector<tp_slot> slots(1 + rng() % 40);
        for (tp_slot &s : slots) {
            s.first = static_cast<int>(rng() % 30);
            s.last = s.first + static_cast<int>(rng() % 10);
            s.bytes = rng() % 5000;
        }
        std::vector<int> order(slots.size());
        const size_t total = tp_slots_place(slots.data(), static_cast<int>(slots.size()), order.data());
        for (size_t i = 0; i < slots.size(); i++) {
            EXPECT_LE(slots[i].offset + slots[i].bytes, total);
            EXPECT_EQ(slots[i].offset % TP_ALIGN, 0u);
            for (size_t k = 0; k < i; k++) {
                const bool time = slots[i].first <= slots[k].last && slots[k].first <= slots[i].last;
                const bool space = slots[i].offset < slots[k].offset + slots[k].bytes &&
                                   slots[k].offset < slots[i].offset + slots[i].bytes;
                ASSERT_FALSE(time && space) << "round " << round << " slots " << i << " and " << k;
            }
        }
    }
}

TEST(PlanTest, ARunMakesNoAllocation)
{
    Graph t;
    const tp_val x = t.var("x", {300, 70}, std::vector<float>(21000, 0.1f));
    const tp_val f = tp_reduce_sum(t.g, tp_gelu(t.g, tp_mul(t.g, x, x)), 0, 0);
    tp_val dx = 0;
    tp_grad(t.g, f, 1, &x, &dx);
    tp_output(t.g, dx);
    tp_plan *p = nullptr;
    ASSERT_EQ(tp_plan_new(&p, t.g, cpu_device(), nullptr), TP_OK);
    const uint64_t before = tp_alloc_count();
    for (int i = 0; i < 100; i++)
        ASSERT_EQ(tp_plan_run(p), TP_OK);
    EXPECT_EQ(tp_alloc_count(), before);
    tp_plan_free(p);
}

TEST(PlanTest, EveryFailedAllocationIsAnErrorAndLeavesNothing)
{
    uint64_t n = 1;
    for (;; n++) {
        ASSERT_LT(n, 200u);
        tp_graph *g = nullptr;
        tp_plan *p = nullptr;
        float data[6] = {1, 2, 3, 4, 5, 6};
        const int64_t d[] = {6};
        tp_alloc_fail_at(n, 0);
        tp_status st = tp_graph_new(&g);
        if (st == TP_OK) {
            const tp_val x = tp_variable(g, "x", {data, tp_shape_make(1, d), TP_F32});
            const tp_val f = tp_reduce_sum(g, tp_exp(g, x), 0, 0);
            tp_val dx = 0;
            tp_grad(g, f, 1, &x, &dx);
            tp_output(g, dx);
            st = tp_plan_new(&p, g, cpu_device(), nullptr);
        }
        tp_alloc_fail_at(0, 0);
        tp_plan_free(p);
        tp_graph_free(g);
        if (st == TP_OK)
            break;
        EXPECT_EQ(st, TP_ENOMEM) << "allocation " << n;
        EXPECT_EQ(p, nullptr);
    }
    EXPECT_GT(n, 10u);
}

TEST(PlanTest, TextNamesNodesImplementationsAndReasons)
{
    Graph t;
    std::vector<double> data(4, 0.5);
    const int64_t d[] = {4};
    const tp_val x = tp_variable(t.g, "x", {data.data(), tp_shape_make(1, d), TP_F64});
    tp_graph_scope(t.g, "head");
    tp_output(t.g, tp_exp(t.g, x));
    tp_plan_opts opts = TP_PLAN_OPTS_INIT;
    opts.timed = 1;
    tp_plan *p = nullptr;
    ASSERT_EQ(tp_plan_new(&p, t.g, cpu_device(), &opts), TP_OK);
    ASSERT_EQ(tp_plan_run(p), TP_OK);
    char *text = nullptr;
    ASSERT_EQ(tp_plan_text(p, &text), TP_OK);
    const std::string s = text;
    for (const char *part :
         {"head", "exp", "[ref]", "declined: simd: dtype float64, want float32", "us", "64 B"})
        EXPECT_NE(s.find(part), std::string::npos) << part << " in " << s;
    tp_text_free(text);
    tp_plan_free(p);
}

TEST(PlanTest, ForcingAnImplementationThatDeclinesSaysWhy)
{
    Graph t;
    std::vector<double> data(4, 0.5);
    const int64_t d[] = {4};
    tp_output(t.g, tp_exp(t.g, tp_variable(t.g, "x", {data.data(), tp_shape_make(1, d), TP_F64})));
    tp_plan_opts opts = TP_PLAN_OPTS_INIT;
    opts.force_op = "exp";
    opts.force_impl = "simd";
    tp_plan *p = nullptr;
    EXPECT_EQ(tp_plan_new(&p, t.g, cpu_device(), &opts), TP_EUNSUP);
    EXPECT_NE(std::string(tp_last_error()).find("want float32"), std::string::npos) << tp_last_error();
}

TEST(PlanTest, ReadingAnUnmarkedValueIsRefused)
{
    Graph t;
    const tp_val x = t.var("x", {2}, {1, 2});
    const tp_val hidden = tp_exp(t.g, x);
    tp_output(t.g, tp_neg(t.g, hidden));
    tp_plan *p = nullptr;
    ASSERT_EQ(tp_plan_new(&p, t.g, cpu_device(), nullptr), TP_OK);
    float out[2];
    EXPECT_EQ(tp_plan_read(p, hidden, out), TP_EINVAL);
    tp_plan_free(p);
}

TEST(Device, UnknownAndAbsentDevicesSayWhatIsWrong)
{
    tp_device *dev = nullptr;
    EXPECT_EQ(tp_device_open(&dev, "gpu"), TP_EINVAL);
    EXPECT_NE(std::string(tp_last_error()).find("auto, cpu, cuda"), std::string::npos);
    EXPECT_EQ(tp_device_open(&dev, "cuda:x"), TP_EINVAL);
    EXPECT_EQ(tp_device_open(&dev, "cuda:1x"), TP_EINVAL);
    EXPECT_EQ(tp_device_open(&dev, "cuda:99"), TP_EDEVICE);
    EXPECT_EQ(dev, nullptr);
}

} // namespace
