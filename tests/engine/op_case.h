/* op_case.h - one test for each case of each op, driven by TP_OPS. */
#ifndef TP_TESTS_OP_CASE_H
#define TP_TESTS_OP_CASE_H
#include "host/graph/device.h"
#include "tests/engine/case_run.h"

struct Param {
    const tp_op *op;
    int index;
};

inline void PrintTo(const Param &p, std::ostream *out)
{
    *out << p.op->name << " case " << p.index;
}

inline std::vector<Param> every_case()
{
    std::vector<Param> all;
    for (int i = 0; i < tp_n_ops; i++)
        for (int k = 0; k < tp_op_table[i]->n_cases; k++)
            all.push_back({tp_op_table[i], k});
    return all;
}

inline std::string case_name(const testing::TestParamInfo<Param> &info)
{
    return std::string(info.param.op->name) + "_" + std::to_string(info.param.index);
}

class OpCase : public testing::TestWithParam<Param>
{
  protected:
    const tp_op *op = GetParam().op;
    const tp_case &c = op->cases[GetParam().index];
    const uint64_t seed = TP_CASE_SEED + static_cast<uint64_t>(GetParam().index);
    const std::vector<tp_tensor> spec = parse_inputs(c.in);
    const std::vector<std::vector<double>> values = make_values(c, spec, seed);

    std::string where(const char *impl) const
    {
        return std::string(op->name) + " case " + std::to_string(GetParam().index) + " (" + c.in + ") " +
               impl + " seed " + std::to_string(seed);
    }

    std::vector<const tp_impl *> impls(tp_device *dev) const
    {
        std::vector<const tp_impl *> list;
        for (const tp_impl *const *p = tp_device_impls(dev, op); p != nullptr && *p != nullptr; p++)
            list.push_back(*p);
        return list;
    }

    /* Runs the case; an empty result means the implementation declined. */
    std::vector<std::vector<double>> run(tp_device *dev, tp_dtype real, const tp_impl *impl,
                                         bool poison = false,
                                         tp_precision precision = TP_PRECISION_FP32) const
    {
        CaseGraph cg(dev, op, c, real, values);
        tp_plan_opts opts = TP_PLAN_OPTS_INIT;
        opts.poison = poison;
        opts.precision = precision;
        if (impl != nullptr) {
            opts.force_op = op->name;
            opts.force_impl = impl->name;
        }
        tp_plan *p = nullptr;
        EXPECT_EQ(tp_graph_status(cg.g), TP_OK) << tp_last_error();
        const tp_status st = tp_plan_new(&p, cg.g, dev, &opts);
        if (st == TP_EUNSUP && impl != nullptr)
            return {};
        EXPECT_EQ(st, TP_OK) << tp_last_error();
        if (st != TP_OK)
            return {};
        EXPECT_EQ(tp_plan_run(p), TP_OK) << tp_last_error();
        auto out = read_results(p, cg);
        tp_plan_free(p);
        return out;
    }

    /* By relative norm; NaN fails first. */
    void expect_close(const char *impl, const std::vector<std::vector<double>> &want,
                      const std::vector<std::vector<double>> &got) const
    {
        for (size_t k = 0; k < want.size(); k++) {
            ASSERT_EQ(got[k].size(), want[k].size());
            double square = 0, size = 0;
            for (size_t i = 0; i < want[k].size(); i++) {
                ASSERT_TRUE(std::isfinite(want[k][i])) << where("ref") << " result " << k << "[" << i << "]";
                ASSERT_TRUE(std::isfinite(got[k][i])) << where(impl) << " result " << k << "[" << i << "]";
                square += (got[k][i] - want[k][i]) * (got[k][i] - want[k][i]);
                size += want[k][i] * want[k][i];
            }
            EXPECT_LE(std::sqrt(square), tolerance() * std::sqrt(size) + 1e-30)
                << where(impl) << " result " << k << ", reference norm " << std::sqrt(size);
        }
    }

    /* What the plain reference gives in double. */
    std::vector<std::vector<double>> reference() const
    {
        const auto list = impls(cpu_device());
        return run(cpu_device(), TP_F64, list.empty() ? nullptr : list.back());
    }

    double tolerance() const
    {
        return tp_case_tolerance(&c, spec.data(), static_cast<int>(spec.size()));
    }
};

#endif
