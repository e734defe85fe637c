#include "temper/schedule.h"
#include <cmath>
#include <cstring>
#include <gtest/gtest.h>
#include <set>
#include <vector>

namespace
{

struct ScheduleGolden {
    const char *name;
    tp_schedule schedule;
    int64_t per_epoch;
    std::vector<double> factors; /* of every step of the run */
};

struct PlateauGolden {
    const char *name;
    tp_plateau plateau;
    std::vector<double> values, scales;
};

#include "../golden/schedules.inc"

} // namespace

/* PyTorch computes some schedules step from step, which rounds up to 40 times. */
TEST(Schedule, AgreesWithPyTorchAtEveryStep)
{
    std::set<int> kinds;
    for (const ScheduleGolden &g : schedule_goldens) {
        const int64_t total = static_cast<int64_t>(g.factors.size());
        for (int64_t i = 0; i < total; i++)
            EXPECT_NEAR(tp_schedule_factor(&g.schedule, i, total, g.per_epoch),
                        g.factors[static_cast<size_t>(i)], 1e-13)
                << g.name << " step " << i;
        kinds.insert(g.schedule.kind);
    }
    EXPECT_EQ(kinds.size(), 5u);
}

TEST(Schedule, DefaultIsConstant)
{
    const tp_schedule s = TP_SCHEDULE_INIT;
    for (int64_t i = 0; i < 5; i++)
        EXPECT_EQ(tp_schedule_factor(&s, i, 5, 2), 1.0);
}

/* Whatever the length of the run: finite, above 0 and at most 1, and a warm-up that only rises. */
TEST(Schedule, StaysBetweenZeroAndOneForAnyLength)
{
    for (int kind = TP_SCHEDULE_CONSTANT; kind <= TP_SCHEDULE_ONE_CYCLE; kind++)
        for (const double warmup : {0.0, 0.1, 0.5, 1.0})
            for (const double pct : {0.0, 0.25, 0.5, 1.0})
                for (int64_t total = 1; total <= 24; total++) {
                    tp_schedule s = TP_SCHEDULE_INIT;
                    s.kind = static_cast<tp_schedule_kind>(kind);
                    s.warmup = warmup;
                    s.pct_start = pct;
                    double last = 0.0;
                    for (int64_t i = 0; i < total; i++) {
                        const double f = tp_schedule_factor(&s, i, total, 3);
                        ASSERT_TRUE(std::isfinite(f) && f > 0.0 && f <= 1.0)
                            << "kind " << kind << " warmup " << warmup << " pct " << pct << " step " << i
                            << " of " << total << ": " << f;
                        if (kind != TP_SCHEDULE_ONE_CYCLE &&
                            static_cast<double>(i) < std::floor(warmup * static_cast<double>(total))) {
                            ASSERT_GT(f, last);
                        }
                        last = f;
                    }
                }
}

TEST(Plateau, AgreesWithPyTorch)
{
    for (const PlateauGolden &g : plateau_goldens) {
        tp_plateau_state s = tp_plateau_start(&g.plateau);
        for (size_t i = 0; i < g.values.size(); i++)
            EXPECT_NEAR(tp_plateau_update(&g.plateau, &s, g.values[i]), g.scales[i], 1e-15)
                << g.name << " value " << i;
        EXPECT_LT(s.scale, 1.0) << g.name << ": never cut, so this shows nothing";
    }
}

/* Stopped after any value and read back from its doubles, it goes on as if it had not stopped. */
TEST(Plateau, StateIsItsDoubles)
{
    ASSERT_EQ(sizeof(tp_plateau_state), TP_PLATEAU_STATE_DOUBLES * sizeof(double));
    for (const PlateauGolden &g : plateau_goldens)
        for (size_t stop = 0; stop < g.values.size(); stop++) {
            tp_plateau_state s = tp_plateau_start(&g.plateau);
            for (size_t i = 0; i < g.values.size(); i++) {
                if (i == stop) {
                    double saved[TP_PLATEAU_STATE_DOUBLES];
                    std::memcpy(saved, &s, sizeof saved);
                    s = {-1.0, -1.0, -1.0, -1.0};
                    std::memcpy(&s, saved, sizeof saved);
                }
                ASSERT_NEAR(tp_plateau_update(&g.plateau, &s, g.values[i]), g.scales[i], 1e-15) << g.name;
            }
        }
}

TEST(Plateau, NanIsNeverBetter)
{
    tp_plateau p = TP_PLATEAU_INIT;
    p.patience = 1;
    tp_plateau_state s = tp_plateau_start(&p);
    EXPECT_EQ(tp_plateau_update(&p, &s, NAN), 1.0);
    EXPECT_DOUBLE_EQ(tp_plateau_update(&p, &s, NAN), 0.1);
    EXPECT_DOUBLE_EQ(tp_plateau_update(&p, &s, 3.0), 0.1);
    EXPECT_EQ(s.best, 3.0);
}

TEST(EarlyStop, StopsAfterPatienceValuesWithoutABetterOne)
{
    const tp_early_stop e = {0, 2, 0.1};
    tp_early_stop_state s = tp_early_stop_start();
    const double values[] = {5.0, 4.95, 4.85, 4.8, 4.76};
    const int best[] = {1, 0, 1, 0, 0}, stop[] = {0, 0, 0, 0, 1};
    for (int i = 0; i < 5; i++) {
        EXPECT_EQ(tp_early_stop_update(&e, &s, 10 * i, values[i]), best[i]) << i;
        EXPECT_EQ(tp_early_stop_reached(&e, &s), stop[i]) << i;
    }
    EXPECT_EQ(s.best, 4.85);
    EXPECT_EQ(s.best_step, 20.0);
}

TEST(EarlyStop, HigherCanBeBetterAndAnEqualValueIsNot)
{
    const tp_early_stop e = {1, 1, 0.0};
    tp_early_stop_state s = tp_early_stop_start();
    EXPECT_EQ(tp_early_stop_update(&e, &s, 0, -3.0), 1);
    EXPECT_EQ(tp_early_stop_update(&e, &s, 1, -2.0), 1);
    EXPECT_EQ(tp_early_stop_reached(&e, &s), 0);
    EXPECT_EQ(tp_early_stop_update(&e, &s, 2, -2.0), 0);
    EXPECT_EQ(tp_early_stop_reached(&e, &s), 1);
}

/* A first value of NaN must not stand as the best that nothing can beat. */
TEST(EarlyStop, NanIsNeverTheBest)
{
    const tp_early_stop e = {0, 3, 0.0};
    tp_early_stop_state s = tp_early_stop_start();
    EXPECT_EQ(tp_early_stop_update(&e, &s, 0, NAN), 0);
    EXPECT_EQ(s.best_step, -1.0);
    EXPECT_EQ(tp_early_stop_update(&e, &s, 1, 9.0), 1);
    EXPECT_EQ(tp_early_stop_update(&e, &s, 2, NAN), 0);
    EXPECT_EQ(s.best, 9.0);
    EXPECT_EQ(s.since_best, 1.0);
}

TEST(EarlyStop, NoPatienceNeverStopsAndStateIsItsDoubles)
{
    const tp_early_stop e = {0, 0, 0.0};
    tp_early_stop_state s = tp_early_stop_start();
    for (int i = 0; i < 100; i++) {
        tp_early_stop_update(&e, &s, i, i);
        ASSERT_EQ(tp_early_stop_reached(&e, &s), 0);
    }
    EXPECT_EQ(s.best_step, 0.0);
    EXPECT_EQ(s.since_best, 99.0);
    EXPECT_EQ(sizeof(tp_early_stop_state), TP_EARLY_STOP_STATE_DOUBLES * sizeof(double));
}
