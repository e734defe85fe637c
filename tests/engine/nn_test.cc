/* nn_test.cc - linear, convolution, pooling and norm ops against PyTorch (golden values) and against what
 * must hold for them by algebra. Each golden case runs in float32 through the implementation the plan chooses
 * and in float64 through the plain reference. */
#include "host/core/mem.h"
#include "tests/engine/net.h"
#include <algorithm>
#include <limits>

namespace
{

struct ConvGolden {
    const char *name;
    Dims x, w;
    int bias;
    tp_conv_attr attr;
    Results want; /* y, dx, dw, db */
};

struct PoolGolden {
    const char *name;
    int is_max;
    Dims x;
    tp_pool_attr attr;
    Results want; /* y, dx */
};

enum NormKind { BATCH, EVAL, LAYER, GROUP };

struct NormGolden {
    const char *name;
    NormKind kind;
    Dims x;
    int64_t groups;
    double epsilon;
    Results want;                  /* y, dx, dgamma, dbeta */
    std::vector<double> mean, var; /* running statistics afterwards */
};

#include "tests/golden/nn.inc"

/* (N,C,...) to (N,...,C), and back. */
tp_val to_last(Net &n, tp_val x)
{
    const int nd = tp_val_shape(n.g, x).nd, perm[2][4] = {{0, 2, 1, 0}, {0, 2, 3, 1}};
    return tp_transpose(n.g, x, perm[nd == 4]);
}

tp_val to_first(Net &n, tp_val x)
{
    const int nd = tp_val_shape(n.g, x).nd, perm[2][4] = {{0, 2, 1, 0}, {0, 3, 1, 2}};
    return tp_transpose(n.g, x, perm[nd == 4]);
}

TEST(NnTest, ConvolutionAndItsGradientsMatchPyTorch)
{
    for (const ConvGolden &c : conv_goldens)
        for (tp_dtype dtype : both_dtypes)
            for (int last : {0, 1}) {
                Net n(dtype);
                std::vector<tp_val> in = {n.filled(c.x, 0), n.filled(c.w, 1)};
                if (c.bias)
                    in.push_back(n.filled({c.w[0]}, 2));
                tp_conv_attr attr = c.attr;
                attr.channels_last = last;
                const tp_val x = last ? to_last(n, in[0]) : in[0], w = last ? to_last(n, in[1]) : in[1];
                const tp_val y = tp_conv(n.g, x, w, c.bias ? in[2] : 0, attr);
                expect_golden(n.run(last ? to_first(n, y) : y, in), c.want, dtype, c.name);
            }
}

TEST(NnTest, PoolingAndItsGradientsMatchPyTorch)
{
    for (const PoolGolden &c : pool_goldens)
        for (tp_dtype dtype : both_dtypes)
            for (int last : {0, 1}) {
                Net n(dtype);
                const tp_val in = n.filled(c.x, 0), x = last ? to_last(n, in) : in;
                tp_pool_attr attr = c.attr;
                attr.channels_last = last;
                const tp_val y = c.is_max ? tp_max_pool(n.g, x, attr) : tp_avg_pool(n.g, x, attr);
                expect_golden(n.run(last ? to_first(n, y) : y, {in}), c.want, dtype, c.name);
            }
}

tp_val add_norm(Net &n, const NormGolden &c, const std::vector<tp_val> &in, tp_val mean, tp_val var)
{
    switch (c.kind) {
    case BATCH:
        return tp_batch_norm(n.g, in[0], in[1], in[2], mean, var, 0, 0, c.epsilon, 0.1, TP_ACT_NONE);
    case EVAL:
        return tp_batch_norm_eval(n.g, in[0], in[1], in[2], mean, var, c.epsilon);
    case LAYER:
        return tp_layer_norm(n.g, in[0], in[1], in[2], c.epsilon);
    default:
        return tp_group_norm(n.g, in[0], in[1], in[2], c.groups, c.epsilon);
    }
}

TEST(NnTest, NormsTheirGradientsAndRunningStatisticsMatchPyTorch)
{
    for (const NormGolden &c : norm_goldens)
        for (tp_dtype dtype : both_dtypes) {
            Net n(dtype);
            const Dims per = {c.kind == LAYER ? c.x.back() : c.x[1]};
            const std::vector<tp_val> in = {n.filled(c.x, 0, 2, 3), n.filled(per, 1), n.filled(per, 2)};
            const tp_val mean = n.filled(per, 5), var = n.filled(per, 6, 1, 2);
            Results want = c.want;
            want.push_back(c.mean);
            want.push_back(c.var);
            expect_golden(n.run(add_norm(n, c, in, mean, var), in, {mean, var}), want, dtype, c.name);
        }
}

/* Rows of weight 0 must change neither the statistics nor the gradients of the others. */
TEST(NnTest, BatchNormWithMaskedRowsIsBatchNormOfTheOthers)
{
    for (tp_dtype dtype : both_dtypes)
        for (const Dims &tail : {Dims{5}, Dims{3, 4, 2}}) {
            Results got[2];
            size_t row = 0;
            for (int padded = 0; padded < 2; padded++) {
                Net n(dtype);
                Dims d = {padded ? 6 : 4};
                d.insert(d.end(), tail.begin(), tail.end());
                row = length(tail);
                std::vector<double> x = golden_fill(4 * row, 0, 2, 1), r = golden_fill(4 * row, 9);
                if (padded) { /* in front and in the middle, and large enough to show */
                    x.insert(x.begin() + static_cast<int64_t>(2 * row), row, 50.0);
                    x.insert(x.begin(), row, -70.0);
                    r.insert(r.begin() + static_cast<int64_t>(2 * row), row, 0.0);
                    r.insert(r.begin(), row, 0.0);
                }
                const Dims per = {tail[0]};
                const tp_val vx = n.var(d, x), gamma = n.filled(per, 1), beta = n.filled(per, 2),
                             mean = n.filled(per, 5), var = n.filled(per, 6, 1, 2);
                const tp_val weight = padded ? n.var({6}, {0, 1, 1, 0, 1, 1}) : 0;
                const tp_val y = tp_mul(
                    n.g, tp_batch_norm(n.g, vx, gamma, beta, mean, var, weight, 0, 1e-5, 0.1, TP_ACT_NONE),
                    n.var(d, r));
                const tp_val f = tp_reduce_sum(n.g, tp_mul(n.g, y, y), 0, 0);
                const tp_val wrt[] = {vx, gamma, beta};
                tp_val grads[3];
                tp_grad(n.g, f, 3, wrt, grads);
                tp_plan *p = nullptr;
                tp_output(n.g, y);
                for (tp_val v : grads)
                    tp_output(n.g, v);
                ASSERT_EQ(tp_plan_new(&p, n.g, cpu_device(), nullptr), TP_OK) << tp_last_error();
                ASSERT_EQ(tp_plan_run(p), TP_OK) << tp_last_error();
                for (tp_val v : {y, grads[0], grads[1], grads[2], mean, var})
                    got[padded].push_back(read_value(p, n.g, v));
                tp_plan_free(p);
            }
            for (size_t k = 0; k < 2; k++) /* y and dx: take the padding out again */
            {
                auto &v = got[1][k];
                for (size_t i = 0; k == 1 && i < row; i++) { /* no loss there, so no gradient */
                    EXPECT_EQ(v[i], 0.0);
                    EXPECT_EQ(v[3 * row + i], 0.0);
                }
                v.erase(v.begin() + static_cast<int64_t>(3 * row), v.begin() + static_cast<int64_t>(4 * row));
                v.erase(v.begin(), v.begin() + static_cast<int64_t>(row));
            }
            for (size_t k = 0; k < got[0].size(); k++)
                expect_near(got[1][k], got[0][k], 2e-6, "result " + std::to_string(k));
        }
}

TEST(NnTest, BatchNormOfOneElementOrNoneKeepsItsRunningStatisticsFinite)
{
    for (double weight : {1.0, 0.0}) {
        Net n(TP_F32);
        const tp_val mean = n.var({1}, {0.5}), var = n.var({1}, {2});
        const tp_val y = tp_batch_norm(n.g, n.var({1, 1}, {3}), n.var({1}, {2}), n.var({1}, {0.25}), mean,
                                       var, n.var({1}, {weight}), 0, 1e-5, 0.1, TP_ACT_NONE);
        const Results got = n.run(y, {}, {mean, var});
        ASSERT_EQ(got.size(), 3u);
        EXPECT_TRUE(std::isfinite(got[0][0]));
        EXPECT_NEAR(got[1][0], weight > 0 ? 0.75 : 0.5, 1e-6);
        EXPECT_NEAR(got[2][0], weight > 0 ? 1.8 : 2.0, 1e-6);
    }
}

/* A diverged step is not applied: the running statistics must survive it too. */
TEST(NnTest, BatchNormKeepsItsRunningStatisticsWhenABatchIsNotFinite)
{
    for (const Dims &d : {Dims{3, 2}, Dims{3, 2, 2}})
        for (tp_dtype dtype : both_dtypes) {
            Net n(dtype);
            std::vector<double> x = golden_fill(length(d), 0);
            x[0] = std::numeric_limits<double>::infinity(); /* channel 0 only */
            const tp_val mean = n.var({2}, {0.5, 0.5}), var = n.var({2}, {2, 2});
            const Results got = n.run(tp_batch_norm(n.g, n.var(d, x), n.var({2}, {1, 1}), n.var({2}, {0, 0}),
                                                    mean, var, 0, 0, 1e-5, 0.1, TP_ACT_NONE),
                                      {}, {mean, var});
            EXPECT_TRUE(std::isnan(got[0][0]));
            EXPECT_EQ(got[1][0], 0.5);
            EXPECT_EQ(got[2][0], 2.0);
            EXPECT_NE(got[1][1], 0.5);
            EXPECT_NE(got[2][1], 2.0);
        }
}

/* float32 keeps 7 digits: a mean 4000 times the deviation must cost none of them. */
TEST(NnTest, NormsKeepSmallDeviationsAroundALargeMean)
{
    for (const Dims &d : {Dims{8, 40}, Dims{2, 40, 5}})
        for (int kind = 0; kind < 3; kind++) {
            Net a(TP_F32), b(TP_F64);
            Results got[2];
            const size_t per = static_cast<size_t>(kind == 0 ? d.back() : d[1]);
            for (Net *n : {&a, &b}) {
                std::vector<double> x = golden_fill(length(d), 0);
                for (double &v : x)
                    v = static_cast<double>(static_cast<float>(v + 4000));
                const Dims c = {static_cast<int64_t>(per)};
                const std::vector<double> zeros(per);
                const tp_val vx = n->var(d, x), one = n->var(c, std::vector<double>(per, 1.0)),
                             zero = n->var(c, zeros);
                const tp_val y = kind == 0   ? tp_layer_norm(n->g, vx, one, zero, 1e-5)
                                 : kind == 1 ? tp_group_norm(n->g, vx, one, zero, 4, 1e-5)
                                             : tp_batch_norm(n->g, vx, one, zero, n->var(c, zeros),
                                                             n->var(c, zeros), 0, 0, 1e-5, 0.1, TP_ACT_NONE);
                got[n == &b] = n->run(y, {vx});
            }
            expect_near(got[0][0], got[1][0], 1e-6, "y of norm " + std::to_string(kind));
        }
}

TEST(NnTest, GemmIsMatmulPlusBiasAndActivation)
{
    for (int t = 0; t < 4; t++)
        for (tp_activation act : {TP_ACT_NONE, TP_ACT_RELU, TP_ACT_TANH, TP_ACT_SIGMOID}) {
            Net n(TP_F32);
            const int ta = t & 1, tb = t >> 1;
            const tp_val a = n.filled(ta ? Dims{11, 9} : Dims{9, 11}, 0),
                         b = n.filled(tb ? Dims{21, 11} : Dims{11, 21}, 1), c = n.filled({21}, 2);
            tp_val z = tp_add(n.g, tp_matmul(n.g, a, b, ta, tb), c);
            z = act == TP_ACT_RELU      ? tp_relu(n.g, z)
                : act == TP_ACT_TANH    ? tp_tanh(n.g, z)
                : act == TP_ACT_SIGMOID ? tp_sigmoid(n.g, z)
                                        : z;
            const Results want = n.run(z, {a, b, c});
            const Results got = n.run(tp_gemm(n.g, a, b, c, {ta, tb, act}), {a, b, c});
            for (size_t k = 0; k < want.size(); k++)
                expect_near(got[k], want[k], 2e-6,
                            "transposes " + std::to_string(t) + " act " + std::to_string(act) + " result " +
                                std::to_string(k));
        }
}

/* <conv(x, w), y> = <x, conv_input_grad(w, y)> = <w, conv_weight_grad(x, y)>, at a size where every library
 * layout is in play. */
TEST(NnTest, ConvolutionGradientsAreItsAdjoints)
{
    for (int64_t kernel : {1, 3})
        for (int64_t channels : {3, 16, 40}) {
            Net n(TP_F32);
            const tp_conv_attr attr = {{1, 1}, {kernel / 2, kernel / 2}, {1, 1}, 1, TP_ACT_NONE, 0};
            const Dims xd = {2, channels, 13, 11}, wd = {24, channels, kernel, kernel}, yd = {2, 24, 13, 11};
            const tp_val x = n.filled(xd, 0), w = n.filled(wd, 1), y = n.filled(yd, 2);
            const tp_val a = tp_reduce_sum(n.g, tp_mul(n.g, tp_conv(n.g, x, w, 0, attr), y), 0, 0);
            const tp_val b = tp_reduce_sum(
                n.g, tp_mul(n.g, tp_conv_input_grad(n.g, tp_val_shape(n.g, x), w, y, attr), x), 0, 0);
            const tp_val c = tp_reduce_sum(
                n.g, tp_mul(n.g, tp_conv_weight_grad(n.g, x, tp_val_shape(n.g, w), y, attr), w), 0, 0);
            tp_output(n.g, b);
            tp_output(n.g, c);
            const Results got = n.run(a, {}, {b, c});
            ASSERT_EQ(got.size(), 3u);
            const double slack = 1e-5 * std::sqrt(static_cast<double>(length(xd) * length(wd)));
            EXPECT_NEAR(got[1][0], got[0][0], slack);
            EXPECT_NEAR(got[2][0], got[0][0], slack);
            EXPECT_GT(std::fabs(got[0][0]), 10 * slack);
        }
}

/* A fused activation must not hide a NaN: the checks for divergence look at what comes out in the end. */
TEST(NnTest, FusedActivationsPassNanOnInEveryImplementation)
{
    const double nan = std::numeric_limits<double>::quiet_NaN();
    for (const tp_op *op : {&tp_op_gemm, &tp_op_conv})
        for (const tp_impl *const *impl = op->cpu; *impl != nullptr; impl++)
            for (tp_activation act : {TP_ACT_NONE, TP_ACT_RELU, TP_ACT_TANH, TP_ACT_SIGMOID}) {
                Net n(TP_F32);
                std::vector<double> x = golden_fill(2 * 16, 0), w = golden_fill(9 * 16, 1);
                x[3] = nan;
                const tp_val y =
                    op == &tp_op_gemm
                        ? tp_gemm(n.g, n.var({2, 16}, x), n.var({9, 16}, w), n.filled({9}, 2), {0, 1, act})
                        : tp_conv(n.g, n.var({2, 16, 1, 1}, x), n.var({9, 16, 1, 1}, w), n.filled({9}, 2),
                                  {{1, 1}, {0, 0}, {1, 1}, 1, act, 0});
                tp_plan_opts opts = TP_PLAN_OPTS_INIT;
                opts.force_op = op->name;
                opts.force_impl = (*impl)->name;
                const auto got = n.run(y, {}, {}, &opts)[0];
                for (size_t i = 0; i < got.size(); i++)
                    EXPECT_EQ(std::isnan(got[i]), i < 9)
                        << op->name << " " << (*impl)->name << " activation " << act << " element " << i;
            }
}

TEST(NnTest, MaxPoolGivesTiesToTheFirstAndPassesNanOn)
{
    const tp_pool_attr two = {{2, 2}, {0, 0}, {0, 0}, 0};
    for (int64_t stride : {1, 2, 3}) {
        const tp_pool_attr attr = {{2, 2}, {stride, stride}, {0, 0}, 0};
        std::vector<double> v(81, -1);
        v[3 * 9 + 3] = std::numeric_limits<double>::quiet_NaN();
        Net n(TP_F32);
        const tp_val x = n.var({1, 1, 9, 9}, v);
        const auto got = n.run(tp_max_pool(n.g, x, attr), {})[0];
        EXPECT_EQ(std::count_if(got.begin(), got.end(), [](double y) { return std::isnan(y); }),
                  stride == 1 ? 4 : 1);
    }
    Net n(TP_F32);
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const tp_val x = n.var({1, 2, 2, 2}, {1, 1, 1, 1, 3, nan, 4, 5});
    const tp_val y = tp_max_pool(n.g, x, two);
    const tp_val dx = tp_max_pool_grad(n.g, x, y, n.var({1, 2, 1, 1}, {7, 0}), two);
    tp_output(n.g, dx);
    const Results got = n.run(y, {}, {dx});
    EXPECT_EQ(got[0][0], 1.0);
    EXPECT_TRUE(std::isnan(got[0][1]));
    EXPECT_EQ(got[1], (std::vector<double>{7, 0, 0, 0, 0, 0, 0, 0}));
}

TEST(NnTest, GlobalAveragePoolIsTheMeanOfEachChannel)
{
    Net n(TP_F32);
    const Results got = n.run(tp_global_avg_pool(n.g, n.var({1, 2, 2, 2}, {1, 2, 3, 6, -1, 1, 0, 2}), 0), {});
    EXPECT_EQ(got[0], (std::vector<double>{3, 0.5}));
}

/* A plan must give the same values when the number of threads has changed since it was made, and its steps
 * must not allocate. */
TEST(NnTest, LibraryStepsRunWithAnotherNumberOfThreadsAndWithoutAllocating)
{
    const int threads = tp_threads();
    for (int at_compile : {1, 3})
        for (int at_run : {1, 2, 4}) {
            tp_threads_set(at_compile);
            Net n(TP_F32);
            const tp_conv_attr attr = {{1, 1}, {1, 1}, {1, 1}, 1, TP_ACT_RELU, 0};
            const tp_val x = n.filled({3, 16, 9, 8}, 0), w = n.filled({20, 16, 3, 3}, 1);
            const tp_val y = tp_conv(n.g, x, w, 0, attr);
            const tp_val f = tp_reduce_sum(n.g, tp_mul(n.g, y, y), 0, 0);
            const tp_val wrt[] = {x, w};
            tp_val grads[2];
            tp_grad(n.g, f, 2, wrt, grads);
            tp_output(n.g, grads[0]);
            tp_output(n.g, grads[1]);
            tp_plan *p = nullptr;
            ASSERT_EQ(tp_plan_new(&p, n.g, cpu_device(), nullptr), TP_OK) << tp_last_error();
            ASSERT_EQ(tp_plan_run(p), TP_OK);
            const auto dx = read_value(p, n.g, grads[0]), dw = read_value(p, n.g, grads[1]);
            tp_threads_set(at_run);
            const uint64_t before = tp_alloc_count();
            ASSERT_EQ(tp_plan_run(p), TP_OK);
            EXPECT_EQ(tp_alloc_count(), before);
            expect_near(read_value(p, n.g, grads[0]), dx, 1e-6, "dx");
            expect_near(read_value(p, n.g, grads[1]), dw, 1e-6, "dw");
            tp_plan_free(p);
        }
    tp_threads_set(threads);
}

/* One refusal: what was asked, and a piece of the line it must leave. */
template <typename Build> void expect_refused(Build build, const char *piece)
{
    Net n(TP_F32);
    EXPECT_EQ(build(n), 0u) << piece;
    ASSERT_EQ(tp_graph_status(n.g), TP_ESHAPE) << piece;
    EXPECT_NE(std::string(tp_last_error()).find(piece), std::string::npos) << tp_last_error();
}

TEST(NnTest, BadConvolutionsAreRefusedWithAReason)
{
    const auto conv = [](Dims x, Dims w, tp_conv_attr attr, Dims b = {}) {
        return [=](Net &n) {
            return tp_conv(n.g, n.filled(x, 0), n.filled(w, 1), b.empty() ? 0 : n.filled(b, 2), attr);
        };
    };
    const tp_conv_attr plain = {{1, 1}, {0, 0}, {1, 1}, 1, TP_ACT_NONE, 0};
    tp_conv_attr a = plain;
    expect_refused(conv({1, 4, 4, 4}, {2, 3, 3, 3}, plain), "4 channels");
    expect_refused(conv({1, 4, 4, 4}, {2, 4, 5, 3}, plain), "kernel of 5 does not fit");
    expect_refused(conv({1, 4, 4}, {2, 4, 3, 3}, plain), "dimensions");
    expect_refused(conv({1, 4, 4, 4}, {2, 4, 3, 3}, plain, {3}), "bias must have 2 values");
    expect_refused(conv({1, 4, 4, 4}, {2, 4, 0, 3}, plain), "kernel of 0");
    a.groups = 3;
    expect_refused(conv({1, 4, 4, 4}, {2, 4, 3, 3}, a), "3 groups");
    a = plain;
    a.stride[1] = -1;
    expect_refused(conv({1, 4, 4, 4}, {2, 4, 3, 3}, a), "stride -1");
    a = plain;
    a.dilation[0] = std::numeric_limits<int64_t>::max();
    expect_refused(conv({1, 4, 4, 4}, {2, 4, 3, 3}, a), "dilation 9223372036854775807");
    a = plain;
    a.act = static_cast<tp_activation>(9);
    expect_refused(conv({1, 4, 4, 4}, {2, 4, 3, 3}, a), "activation 9");
}

TEST(NnTest, BadMatricesPoolsAndNormsAreRefusedWithAReason)
{
    expect_refused(
        [](Net &n) {
            return tp_matmul(n.g, n.filled({2, 3}, 0), n.filled({4, 5}, 1), 0, 0);
        },
        "3 columns but b has 4 rows");
    expect_refused(
        [](Net &n) {
            return tp_matmul(n.g, n.filled({3}, 0), n.filled({3, 5}, 1), 0, 0);
        },
        "at least 2");
    expect_refused(
        [](Net &n) {
            return tp_gemm(n.g, n.filled({2, 3}, 0), n.filled({3, 5}, 1), n.filled({4}, 2),
                           {0, 0, TP_ACT_NONE});
        },
        "c must have shape (5)");
    expect_refused(
        [](Net &n) {
            return tp_gemm(n.g, n.filled({2, 3}, 0), n.filled({3, 5}, 1), 0,
                           {0, 0, static_cast<tp_activation>(-1)});
        },
        "activation -1");
    expect_refused(
        [](Net &n) {
            return tp_max_pool(n.g, n.filled({1, 1, 4, 4}, 0), {{2, 2}, {0, 0}, {2, 2}, 0});
        },
        "padding 2");
    expect_refused(
        [](Net &n) {
            return tp_avg_pool(n.g, n.filled({1, 1, 4, 4}, 0), {{5, 5}, {0, 0}, {0, 0}, 0});
        },
        "does not fit");
    expect_refused([](Net &n) { return tp_global_avg_pool(n.g, n.filled({4, 4}, 0), 0); }, "2 dimensions");
    expect_refused(
        [](Net &n) {
            return tp_group_norm(n.g, n.filled({2, 6, 3}, 0), n.filled({6}, 1), n.filled({6}, 2), 4, 1e-5);
        },
        "4 groups do not divide 6");
    expect_refused(
        [](Net &n) {
            return tp_layer_norm(n.g, n.filled({2, 6}, 0), n.filled({5}, 1), n.filled({6}, 2), 1e-5);
        },
        "must have 6 values");
    expect_refused(
        [](Net &n) {
            return tp_batch_norm(n.g, n.filled({2, 6}, 0), n.filled({6}, 1), n.filled({6}, 2),
                                 n.filled({6}, 3), n.filled({6}, 4), n.filled({3}, 5), 0, 1e-5, 0.1,
                                 TP_ACT_NONE);
        },
        "weight must have 2 values");
}

/* The gradient of a dense layer's gradient, where both weight and bias go on. */
TEST(Nn, GemmWeightGradIsTwoOpsInOneAlsoInItsGradient)
{
    for (const tp_dtype dtype : both_dtypes) {
        Net together(dtype), apart(dtype);
        Results results[2];
        for (Net *n : {&together, &apart}) {
            const tp_val dy = n->filled({5, 3}, 1), x = n->filled({5, 4}, 2);
            const tp_val fused = tp_gemm_weight_grad(n->g, dy, x);
            const tp_val dw = n == &together ? fused : tp_matmul(n->g, dy, x, 1, 0),
                         db = n == &together ? fused + 1 : tp_reduce_sum(n->g, dy, 1, 0);
            const tp_val y = tp_mul(n->g, dw, tp_reshape(n->g, db, {2, {3, 1}}));
            results[n == &apart] = n->run(y, {dy, x});
        }
        expect_golden(results[0], results[1], dtype, "gemm_weight_grad");
    }
}

} // namespace
