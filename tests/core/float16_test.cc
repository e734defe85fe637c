/* float16_test.cc - floats of 16 bits, and float32. */
#include "host/core/float16.h"
#include <cmath>
#include <cstring>
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

TEST(F16, EveryNumberIsItsMantissaTimesAPowerOfTwo)
{
    for (int v = 0; v < 0x10000; v++) {
        const int exponent = v >> 10 & 31, mantissa = v & 1023;
        const float f = tp_f16_to_f32(static_cast<uint16_t>(v));
        EXPECT_EQ(std::signbit(f), v >> 15 != 0) << v;
        if (exponent == 31 && mantissa != 0)
            EXPECT_TRUE(std::isnan(f)) << v;
        else if (exponent == 31)
            EXPECT_TRUE(std::isinf(f)) << v;
        else
            EXPECT_EQ(std::fabs(f), exponent > 0
                                        ? std::ldexp(1024.0f + static_cast<float>(mantissa), exponent - 25)
                                        : std::ldexp(static_cast<float>(mantissa), -24))
                << v;
    }
}

TEST(Bf16, EveryBf16NumberComesBack)
{
    for (uint32_t v = 0; v < 0x10000; v++) {
        const float f = tp_bf16_to_f32(static_cast<uint16_t>(v));
        if (std::isnan(f))
            EXPECT_TRUE(std::isnan(tp_bf16_to_f32(tp_bf16_from_f32(f)))) << v;
        else
            EXPECT_EQ(tp_bf16_from_f32(f), v);
    }
}

TEST(Bf16, RoundsToTheNearestAndTiesToEven)
{
    EXPECT_EQ(tp_bf16_from_f32(from_bits(0x3f807fff)), 0x3f80);
    EXPECT_EQ(tp_bf16_from_f32(from_bits(0x3f808000)), 0x3f80);
    EXPECT_EQ(tp_bf16_from_f32(from_bits(0x3f808001)), 0x3f81);
    EXPECT_EQ(tp_bf16_from_f32(from_bits(0x3f818000)), 0x3f82);
    EXPECT_EQ(tp_bf16_from_f32(from_bits(0xbf818000)), 0xbf82);
    EXPECT_EQ(tp_bf16_from_f32(std::numeric_limits<float>::max()), 0x7f80);
    EXPECT_EQ(tp_bf16_from_f32(from_bits(1)), 0);
}

TEST(Bf16, ANanInTheLowerHalfStaysOne)
{
    EXPECT_TRUE(std::isnan(tp_bf16_to_f32(tp_bf16_from_f32(from_bits(0x7f800001)))));
    EXPECT_TRUE(std::isnan(tp_bf16_to_f32(tp_bf16_from_f32(from_bits(0xffffffff)))));
}

} // namespace
