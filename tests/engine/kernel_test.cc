/* kernel_test.cc - what the cases of the ops cannot say of their kernels: values that are not finite, shapes
 * too large to be tried in every order, and inputs that are refused. */
#include "tests/engine/emulated.h"
#include "tests/engine/op_case.h"
#include <limits>

namespace
{

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

typedef std::vector<std::vector<double>> Values;

/* The results of one implementation of an op for these inputs; empty if it declines. */
Values run_op(tp_device *dev, const char *op, const tp_impl *impl, const tp_case &c, tp_dtype real,
              const Values &values)
{
    CaseGraph cg(dev, tp_op_find(op), c, real, values);
    tp_plan_opts opts = TP_PLAN_OPTS_INIT;
    opts.force_op = op;
    opts.force_impl = impl->name;
    tp_plan *p = nullptr;
    const tp_status st = tp_plan_new(&p, cg.g, dev, &opts);
    if (st == TP_EUNSUP)
        return {};
    EXPECT_EQ(st, TP_OK) << tp_last_error();
    EXPECT_EQ(tp_plan_run(p), TP_OK) << tp_last_error();
    Values out = read_results(p, cg);
    tp_plan_free(p);
    return out;
}

std::vector<const tp_impl *> impls_of(tp_device *dev, const char *op)
{
    std::vector<const tp_impl *> list;
    for (const tp_impl *const *p = tp_device_impls(dev, tp_op_find(op)); *p != nullptr; p++)
        list.push_back(*p);
    return list;
}

/* Every implementation on both devices gives these values for results 0, 1, ...; an empty one is not looked
 * at. */
void expect_everywhere(const char *op, const tp_case &c, const Values &in, const Values &want,
                       double tolerance)
{
    for (tp_device *dev : {cpu_device(), gpu()})
        for (const tp_impl *impl : impls_of(dev, op)) {
            const Values got = run_op(dev, op, impl, c, TP_F32, in);
            for (size_t k = 0; !got.empty() && k < want.size(); k++)
                for (size_t i = 0; i < want[k].size(); i++)
                    EXPECT_TRUE(std::isnan(want[k][i])
                                    ? std::isnan(got[k][i])
                                    : std::fabs(got[k][i] - want[k][i]) <= tolerance * std::fabs(want[k][i]))
                        << op << " " << c.in << " " << impl->name << ": result " << k << "[" << i << "] is "
                        << got[k][i] << ", not " << want[k][i];
        }
}

/* Rows of weight 0 in front, one of them of `odd`; the others are 1, 2 and 3 again and again. */
Values rows_behind(double odd, int64_t before, int64_t counting, int64_t run)
{
    Values in = {{}, {1}, {0}, {0.5}, {2}, {}};
    for (int64_t i = 0; i < before + counting; i++)
        for (int64_t k = 0; k < run; k++)
            in[0].push_back(i < before ? odd : static_cast<double>(1 + (i - before) % 3));
    for (int64_t i = 0; i < before + counting; i++)
        in[5].push_back(i < before ? 0 : 1);
    return in;
}

TEST(Kernels, ARowOfWeight0ChangesNoStatisticWhateverItHolds)
{
    const tp_norm_attr attr = {1e-5, 0.1, 1, TP_ACT_NONE};
    const double var = 2.0 / 3.0, rstd = 1 / std::sqrt(var + 1e-5);
    for (const double odd : {nan, 1e6})
        for (const int64_t before : {1, 75, 5000})
            for (const int64_t run : {1, 2}) {
                const int64_t rows = before + 300;
                const std::string text = std::to_string(rows) + "x1" + (run > 1 ? "x2" : "") + ",1,1,1,1," +
                                         std::to_string(rows) + ":i32";
                const tp_case c = {text.c_str(), 0, 0, 0, &attr, 0, 0};
                const double n = static_cast<double>(300 * run);
                /* y of the first row; mean, 1 / deviation; x, gamma and beta as they were; running statistics
                 */
                expect_everywhere("batch_norm", c, rows_behind(odd, before, 300, run),
                                  {{odd != odd ? nan : (odd - 2) * rstd},
                                   {2},
                                   {rstd},
                                   {},
                                   {},
                                   {},
                                   {0.9 * 0.5 + 0.1 * 2},
                                   {0.9 * 2 + 0.1 * var * n / (n - 1)}},
                                  1e-5);
            }
}

TEST(Kernels, BatchNormTakesTwoMillionChannelsLong)
{
    const int64_t channels = 2097153;
    const tp_norm_attr attr = {1e-5, 0.1, 1, TP_ACT_NONE};
    const std::string per = std::to_string(channels), text = "2x" + per + ",4*" + per + ",-";
    const tp_case c = {text.c_str(), 0, 0, 0, &attr, 0, 0};
    Values in(6, std::vector<double>(static_cast<size_t>(channels), 1));
    in[0] = std::vector<double>(static_cast<size_t>(2 * channels));
    in[5].clear();
    for (size_t i = 0; i < static_cast<size_t>(channels); i++) {
        in[0][i] = static_cast<double>(i % 1000);
        in[0][i + static_cast<size_t>(channels)] = static_cast<double>(i % 1000 + 2); /* a variance of 1 */
    }
    const Values got = run_op(gpu(), "batch_norm", impls_of(gpu(), "batch_norm")[0], c, TP_F32, in);
    ASSERT_FALSE(got.empty()) << tp_last_error();
    for (size_t i = 0; i < static_cast<size_t>(channels); i += 1 + i % 7) {
        ASSERT_NEAR(got[0][i], 0, 1e-4) << i; /* beta is 1 */
        ASSERT_NEAR(got[0][i + static_cast<size_t>(channels)], 2, 1e-4) << i;
        ASSERT_NEAR(got[1][i], static_cast<double>(i % 1000 + 1), 1e-3) << i;
    }
}

/* Gradients of the sum of y^2 of batch_norm_eval by x, gamma and beta. */
Values frozen_gradients(const char *inputs, const Values &values)
{
    const tp_norm_attr attr = {1e-5, 0.1, 1, TP_ACT_NONE};
    const tp_case c = {inputs, 0, 0, 0, &attr, 0, 0};
    const CaseGraph cg(cpu_device(), tp_op_find("batch_norm_eval"), c, TP_F32, values);
    const tp_val y = tp_cast(cg.g, cg.out[0], TP_F32);
    const tp_val f = tp_reduce_sum(cg.g, tp_mul(cg.g, y, y), 0, 0);
    tp_val grads[3] = {};
    tp_grad(cg.g, f, 3, cg.in.data(), grads);
    for (tp_val v : grads)
        tp_output(cg.g, v);
    tp_plan *p = nullptr;
    EXPECT_EQ(tp_plan_new(&p, cg.g, cpu_device(), nullptr), TP_OK) << tp_last_error();
    EXPECT_EQ(tp_plan_run(p), TP_OK) << tp_last_error();
    Values out;
    for (tp_val v : grads)
        out.push_back(read_value(p, cg.g, v));
    tp_plan_free(p);
    return out;
}

TEST(Kernels, AFrozenBatchNormOfBfloat16HasAGradient)
{
    const tp_case fill = {"", 0.2, 2.0, 0, nullptr, 0, 0};
    const Values values = make_values(fill, parse_inputs("41x12:bf16,4*12"), 7);
    const Values got = frozen_gradients("41x12:bf16,4*12", values),
                 want = frozen_gradients("41x12,4*12", values);
    for (size_t k = 0; k < want.size(); k++) {
        double square = 0, size = 0;
        for (size_t i = 0; i < want[k].size(); i++) {
            square += (got[k][i] - want[k][i]) * (got[k][i] - want[k][i]);
            size += want[k][i] * want[k][i];
        }
        EXPECT_LE(std::sqrt(square), 4e-3 * std::sqrt(size)) << k;
        EXPECT_GT(size, 0) << k;
    }
}

/* The message of an op that does not take its inputs. */
std::string refused(const char *op, const char *inputs, const void *attr)
{
    const tp_case c = {inputs, 0, 0, 0, attr, 0, 0};
    Values values;
    for (const tp_tensor &in : parse_inputs(inputs))
        values.emplace_back(in.dtype == TP_DTYPE_NONE ? 0 : static_cast<size_t>(tp_shape_len(in.shape)));
    const CaseGraph cg(cpu_device(), tp_op_find(op), c, TP_F32, values);
    EXPECT_EQ(tp_graph_status(cg.g), TP_ESHAPE) << op << " " << inputs;
    return tp_last_error();
}

TEST(Kernels, InputsThatNoKernelTakesAreRefusedWhenTheGraphIsBuilt)
{
    const tp_norm_attr norm = {1e-5, 0.1, 1, TP_ACT_NONE};
    const tp_reduce_attr last = {2, 1};

    EXPECT_NE(refused("reduce_max_grad", "3x0,3x1,3x1", &last).find("no elements"), std::string::npos);
    EXPECT_NE(refused("reduce_max_grad", "0x3,0x1,0x1", &last).find("no elements"), std::string::npos);
    EXPECT_NE(refused("batch_norm", "4x3,3,3,3,3,4:bf16", &norm).find("weight is bfloat16"),
              std::string::npos);
    EXPECT_NE(refused("batch_norm_grad", "4x3,3,3,3,4x3,4:f16", &norm).find("weight is float16"),
              std::string::npos);
}

} // namespace
