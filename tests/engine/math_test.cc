/* math_test.cc - the float32 functions of kernels/math.h against double: over their whole ranges by steps of
 * bits, and at the edges. */
#include "kernels/math.h"
#include <cmath>
#include <cstring>
#include <functional>
#include <gtest/gtest.h>
#include <limits>

namespace
{

float from_bits(uint32_t bits)
{
    float f;
    std::memcpy(&f, &bits, sizeof f);
    return f;
}

/* Distance to the right value in units of the last place of the right value. */
double ulps(float got, double want)
{
    const float near = static_cast<float>(want);
    const double unit =
        std::fabs(static_cast<double>(std::nextafterf(near, std::numeric_limits<float>::infinity())) -
                  static_cast<double>(near));
    return std::fabs(static_cast<double>(got) - want) / unit;
}

/* The largest of `measure` over floats in [lo, hi], a few million of them, and where. */
void sweep(const char *name, float lo, float hi, double limit, const std::function<double(float)> &measure)
{
    double worst = 0.0;
    float at = lo;
    for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 1499) {
        const float x = from_bits(static_cast<uint32_t>(bits));
        if (!(x >= lo && x <= hi))
            continue;
        const double m = measure(x);
        if (!(m <= worst)) {
            worst = m;
            at = x;
        }
    }
    EXPECT_LE(worst, limit) << name << "(" << at << ")";
}

TEST(MathTest, ExpIsWithinTwoUlps)
{
    sweep("exp", -87.3f, 88.7f, 2.0,
          [](float x) { return ulps(tp_expf(x), std::exp(static_cast<double>(x))); });
    sweep("exp_fused", -87.3f, 0.0f, 2.0,
          [](float x) { return ulps(tp_exp_fused(x), std::exp(static_cast<double>(x))); });
    sweep("exp_down", -87.3f, 0.0f, 2.0,
          [](float x) { return ulps(tp_exp_downf(x), std::exp(static_cast<double>(x))); });
}

TEST(MathTest, LogIsWithinTwoUlps)
{
    sweep("log", 1e-45f, 3.4e38f, 2.0,
          [](float x) { return ulps(tp_logf(x), std::log(static_cast<double>(x))); });
}

TEST(MathTest, TanhAndSigmoidAreWithinFourUlps)
{
    sweep("tanh", -100.0f, 100.0f, 4.0,
          [](float x) { return ulps(tp_tanhf(x), std::tanh(static_cast<double>(x))); });
    sweep("sigmoid", -80.0f, 100.0f, 4.0,
          [](float x) { return ulps(tp_sigmoidf(x), 1.0 / (1.0 + std::exp(-static_cast<double>(x)))); });
}

double normal_cdf(double x)
{
    return std::erfc(-x * std::sqrt(0.5)) / 2;
}

TEST(MathTest, NormalDistributionIsWithinItsAbsoluteBound)
{
    sweep("normal_cdf", -15.0f, 15.0f, 1.3e-7, [](float x) {
        return std::fabs(static_cast<double>(tp_normal_cdff(x)) - normal_cdf(static_cast<double>(x)));
    });
}

TEST(MathTest, NormalDistributionKeepsItsDigitsInTheTail)
{
    sweep("normal_cdf", -12.7f, 15.0f, 1e-5, [](float x) {
        const double want = normal_cdf(static_cast<double>(x));
        return std::fabs(static_cast<double>(tp_normal_cdff(x)) - want) / want;
    });
}

TEST(MathTest, GaussianKeepsItsDigits)
{
    sweep("gauss", -12.7f, 12.7f, 1e-5, [](float x) {
        const double want = std::exp(-static_cast<double>(x) * static_cast<double>(x) / 2);
        return std::fabs(static_cast<double>(tp_gaussf(x)) - want) / want;
    });
}

TEST(MathTest, SoftplusIsWithinFourUlps)
{
    sweep("softplus", -80.0f, 1e30f, 4.0, [](float x) {
        const double d = static_cast<double>(x);
        return ulps(tp_softplusf(x), std::fmax(d, 0.0) + std::log1p(std::exp(-std::fabs(d))));
    });
}

TEST(MathTest, EdgesAreAsInC)
{
    const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ(tp_expf(-inf), 0.0f);
    EXPECT_EQ(tp_expf(inf), inf);
    EXPECT_EQ(tp_expf(200.0f), inf);
    EXPECT_EQ(tp_expf(0.0f), 1.0f);
    EXPECT_EQ(tp_exp_fused(-inf), 0.0f);
    EXPECT_EQ(tp_exp_fused(-88.0f), 0.0f);
    EXPECT_EQ(tp_exp_fused(0.0f), 1.0f);
    EXPECT_EQ(tp_exp_downf(-inf), 0.0f);
    EXPECT_EQ(tp_exp_downf(-88.0f), 0.0f);
    EXPECT_EQ(tp_logf(1.0f), 0.0f);
    EXPECT_EQ(tp_logf(0.0f), -inf);
    EXPECT_EQ(tp_logf(inf), inf);
    EXPECT_TRUE(std::isnan(tp_logf(-1.0f)));
    EXPECT_EQ(tp_tanhf(inf), 1.0f);
    EXPECT_EQ(tp_tanhf(-inf), -1.0f);
    EXPECT_EQ(tp_tanhf(0.0f), 0.0f);
    EXPECT_EQ(tp_sigmoidf(inf), 1.0f);
    EXPECT_EQ(tp_sigmoidf(-inf), 0.0f);
    EXPECT_EQ(tp_normal_cdff(inf), 1.0f);
    EXPECT_EQ(tp_normal_cdff(-inf), 0.0f);
    EXPECT_EQ(tp_gaussf(0.0f), 1.0f);
    EXPECT_EQ(tp_gaussf(-inf), 0.0f);
    EXPECT_EQ(tp_softplusf(-inf), 0.0f);
    EXPECT_EQ(tp_softplusf(inf), inf);
    for (float (*f)(float) : {tp_expf, tp_exp_fused, tp_exp_downf, tp_logf, tp_tanhf, tp_sigmoidf, tp_gaussf,
                              tp_normal_cdff, tp_softplusf})
        EXPECT_TRUE(std::isnan(f(nan)));
}

} // namespace
