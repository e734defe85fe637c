/* rng.h is C; its compound literals are an extension in C++. */
#pragma GCC diagnostic ignored "-Wpedantic"
#include "host/core/order.h"
#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>
#include <vector>

static std::vector<int64_t> order(uint64_t seed, uint64_t epoch, int64_t n)
{
    std::vector<int64_t> p;
    for (int64_t i = 0; i < n; i++)
        p.push_back(tp_order_at(seed, epoch, n, i));
    return p;
}

static void expect_permutation(std::vector<int64_t> p)
{
    std::sort(p.begin(), p.end());
    for (size_t i = 0; i < p.size(); i++)
        ASSERT_EQ(p[i], (int64_t)i) << "n = " << p.size();
}

TEST(Order, IsAPermutationForEveryN)
{
    for (int64_t n = 1; n <= 300; n++)
        expect_permutation(order(1, 0, n));
    for (int64_t n : {511, 512, 513, 1000, 4095, 4097, 60000})
        expect_permutation(order(42, 3, n));
}

/* Frozen: a change here changes every training run. */
TEST(Order, KnownAnswers)
{
    EXPECT_EQ(order(1, 0, 10), (std::vector<int64_t>{3, 9, 1, 0, 5, 2, 7, 6, 8, 4}));
    EXPECT_EQ(order(42, 7, 10), (std::vector<int64_t>{5, 3, 8, 1, 4, 9, 0, 2, 6, 7}));
    EXPECT_EQ(tp_order_at(42, 7, 60000, 0), 2824);
    EXPECT_EQ(tp_order_at(42, 7, 60000, 59999), 38239);
    EXPECT_EQ(tp_order_at(42, 7, INT64_C(1) << 40, 123456789), 505781228662);
}

TEST(Order, DiffersByEpochSeedAndPurpose)
{
    const std::vector<int64_t> a = order(5, 0, 1000);
    EXPECT_EQ(a, order(5, 0, 1000));
    for (const std::vector<int64_t> &b : {order(5, 1, 1000), order(6, 0, 1000)}) {
        int64_t same = 0;
        for (size_t i = 0; i < a.size(); i++)
            same += a[i] == b[i];
        EXPECT_LT(same, 12); /* 1 expected; 12 has probability below 1e-9 */
    }
    EXPECT_NE(tp_order_permute(5, TP_RNG_SPLIT, 0, 1000000, 0), tp_order_at(5, 0, 1000000, 0));
}

TEST(Order, LargeRangesStayInRange)
{
    const int64_t n = (INT64_C(1) << 40) + 1;
    for (int64_t i = 0; i < 1000; i++) {
        const int64_t at = tp_order_at(9, 1, n, i * 1000003);
        ASSERT_GE(at, 0);
        ASSERT_LT(at, n);
    }
}

/* Counts of (position, value) over many epochs against the uniform expectation. */
static double chi_square(int64_t n, int64_t epochs)
{
    std::vector<int64_t> count((size_t)(n * n));
    for (int64_t e = 0; e < epochs; e++)
        for (int64_t i = 0; i < n; i++)
            count[(size_t)(i * n + tp_order_at(11, (uint64_t)e, n, i))]++;
    const double expected = (double)epochs / (double)n;
    double chi = 0;
    for (int64_t c : count)
        chi += ((double)c - expected) * ((double)c - expected) / expected;
    return chi;
}

TEST(Order, EveryPositionIsUniform)
{
    for (int64_t n : {3, 5, 10, 16, 33}) {
        const double freedom = (double)((n - 1) * (n - 1));
        EXPECT_LT(chi_square(n, 4000), freedom + 5 * std::sqrt(2 * freedom) + 10) << n;
    }
}

/* Neighbours must not stay neighbours: the correlation of p(i) and p(i + 1) is about 0. */
TEST(Order, NeighboursAreIndependent)
{
    const std::vector<int64_t> p = order(3, 2, 10000);
    double sum = 0;
    for (size_t i = 0; i + 1 < p.size(); i++)
        sum += ((double)p[i] - 4999.5) * ((double)p[i + 1] - 4999.5);
    const double variance = 1e8 / 12;
    EXPECT_LT(std::fabs(sum / 9999 / variance), 0.04); /* 4 standard deviations */
}
