/* op_test.cc - every op x case x implementation, driven by TP_OPS: nothing here names an op. */
#include "tests/engine/op_case.h"

namespace
{

TEST_P(OpCase, EveryImplementationMatchesTheDoubleReference)
{
    const auto list = impls(cpu_device());
    const auto want = reference();
    ASSERT_FALSE(want.empty()) << where("ref") << ": the reference declined float64: " << tp_last_error();
    int compared = 0;
    for (const tp_impl *impl : list) {
        const auto got = run(cpu_device(), TP_F32, impl);
        if (got.empty())
            continue;
        compared++;
        expect_close(impl->name, want, got);
    }
    EXPECT_TRUE(compared > 0 || list.empty()) << where("no implementation accepts float32");
}

TEST_P(OpCase, RepeatsBitwiseWithAPoisonedArenaAndAnyThreadCount)
{
    for (const tp_impl *impl : impls(cpu_device())) {
        const auto first = run(cpu_device(), TP_F32, impl);
        if (first.empty())
            continue;
        EXPECT_EQ(first, run(cpu_device(), TP_F32, impl, true))
            << where(impl->name) << " reads what nobody wrote";
        if (impl->flags & TP_IMPL_LIBRARY)
            continue;
        const int threads = tp_threads();
        for (int t = 1; t <= 3; t++) {
            tp_threads_set(t);
            EXPECT_EQ(first, run(cpu_device(), TP_F32, impl))
                << where(impl->name) << " with " << t << " threads";
        }
        tp_threads_set(threads);
    }
}

/* f = <r, y> with random r, in double, through the reference implementations. */
struct Probe {
    CaseGraph cg;
    tp_val f = 0;
    std::vector<tp_val> wrt, grads;
    std::vector<size_t> input;
    tp_plan *plan = nullptr;

    Probe(const tp_op *op, const tp_case &c, const std::vector<std::vector<double>> &values,
          std::mt19937_64 &rng)
        : cg(cpu_device(), op, c, TP_F64, values)
    {
        const tp_tensor t = {nullptr, tp_val_shape(cg.g, cg.out[0]), TP_F64};
        std::vector<double> r(static_cast<size_t>(tp_shape_len(t.shape)));
        std::normal_distribution<double> normal;
        for (double &x : r)
            x = normal(rng);
        f = tp_output(
            cg.g,
            tp_reduce_sum(cg.g, tp_mul(cg.g, cg.out[0], tp_constant(cg.g, TP_F64, t.shape, r.data())), 0, 0));
        for (size_t i = 0; i < cg.in.size(); i++)
            if (cg.in[i] != 0 && tp_is_float(cg.spec[i].dtype) && !((op->constant_in >> i) & 1u)) {
                wrt.push_back(cg.in[i]);
                input.push_back(i);
            }
        grads.resize(wrt.size());
        tp_grad(cg.g, f, static_cast<int>(wrt.size()), wrt.data(), grads.data());
        for (tp_val v : grads)
            tp_output(cg.g, v);
        EXPECT_EQ(tp_plan_new(&plan, cg.g, cpu_device(), nullptr), TP_OK) << tp_last_error();
    }
    ~Probe()
    {
        tp_plan_free(plan);
    }
    double at(const std::vector<std::vector<double>> &values)
    {
        cg.fill(values);
        EXPECT_EQ(tp_plan_run(plan), TP_OK) << tp_last_error();
        return read_value(plan, cg.g, f)[0];
    }
};

TEST_P(OpCase, GradientMatchesARandomDirection)
{
    if (op->grad == nullptr || (c.flags & TP_CASE_NO_GRAD))
        return;
    std::mt19937_64 rng(seed + 77);
    Probe probe(op, c, values, rng);
    ASSERT_NE(probe.plan, nullptr);
    ASSERT_FALSE(probe.wrt.empty()) << where("no differentiable input");
    (void)probe.at(values);
    auto plus = values, minus = values;
    std::normal_distribution<double> normal;
    const double eps = 1e-5;
    double analytic = 0;
    for (size_t k = 0; k < probe.wrt.size(); k++) {
        ASSERT_NE(probe.grads[k], 0u) << where("no gradient for input ") << probe.input[k];
        const auto grad = read_value(probe.plan, probe.cg.g, probe.grads[k]);
        for (size_t i = 0; i < grad.size(); i++) {
            const double d = normal(rng);
            analytic += grad[i] * d;
            plus[probe.input[k]][i] += eps * d;
            minus[probe.input[k]][i] -= eps * d;
        }
    }
    const double numeric = (probe.at(plus) - probe.at(minus)) / (2 * eps);
    ASSERT_TRUE(std::isfinite(analytic) && std::isfinite(numeric)) << where("gradient");
    ASSERT_GT(std::fabs(numeric), 1e-8) << where("vacuous case");
    EXPECT_NEAR(analytic, numeric, 2e-6 * (std::fabs(analytic) + std::fabs(numeric)) + 1e-8)
        << where("gradient");
}

INSTANTIATE_TEST_SUITE_P(Ops, OpCase, testing::ValuesIn(every_case()), case_name);

TEST(OpTable, EveryOpHasAReferenceAndACase)
{
    for (int i = 0; i < tp_n_ops; i++) {
        const tp_op *op = tp_op_table[i];
        EXPECT_GT(op->n_cases, 0) << op->name;
        EXPECT_EQ(tp_op_find(op->name), op);
        if (op->flags & TP_OP_VIEW)
            continue;
        ASSERT_NE(op->cpu, nullptr) << op->name;
        int n = 0;
        while (op->cpu[n] != nullptr)
            n++;
        ASSERT_GT(n, 0) << op->name;
        EXPECT_STREQ(op->cpu[n - 1]->name, "ref") << op->name;
    }
}

} // namespace
