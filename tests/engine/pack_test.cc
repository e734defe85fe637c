/* pack_test.cc - stored elements as floats and back (kernels/pack.cuh). */
#include "kernels/pack.cuh"
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

TEST(PackTest, EveryBf16NumberComesBack)
{
    for (uint32_t v = 0; v < 0x10000; v++) {
        const float f = tp_bf16_float(static_cast<uint16_t>(v));
        if (std::isnan(f))
            EXPECT_TRUE(std::isnan(tp_bf16_float(tp_bf16_of(f)))) << v;
        else
            EXPECT_EQ(tp_bf16_of(f), v);
    }
}

TEST(PackTest, Bf16RoundsToTheNearestAndTiesToEven)
{
    EXPECT_EQ(tp_bf16_of(from_bits(0x3f807fff)), 0x3f80);
    EXPECT_EQ(tp_bf16_of(from_bits(0x3f808000)), 0x3f80);
    EXPECT_EQ(tp_bf16_of(from_bits(0x3f808001)), 0x3f81);
    EXPECT_EQ(tp_bf16_of(from_bits(0x3f818000)), 0x3f82);
    EXPECT_EQ(tp_bf16_of(from_bits(0xbf818000)), 0xbf82);
    EXPECT_EQ(tp_bf16_of(std::numeric_limits<float>::max()), 0x7f80);
    EXPECT_EQ(tp_bf16_of(from_bits(1)), 0);
}

TEST(PackTest, ANanInTheLowerHalfStaysOne)
{
    EXPECT_TRUE(std::isnan(tp_bf16_float(tp_bf16_of(from_bits(0x7f800001)))));
    EXPECT_TRUE(std::isnan(tp_bf16_float(tp_bf16_of(from_bits(0xffffffff)))));
}

template <typename T> void expect_packs_keep(int n)
{
    alignas(16) T from[8], to[8] = {};
    for (int i = 0; i < 8; i++)
        tp_float_to(&from[i], static_cast<float>(i) - 2.5f);
    for (int i = 0; i < 8; i += n)
        if (n == 4)
            tp_store_pack(to + i, tp_load_pack<4>(from + i));
        else
            tp_store_pack(to + i, tp_load_pack<8>(from + i));
    EXPECT_EQ(std::memcmp(from, to, sizeof from), 0);
}

TEST(PackTest, PacksKeepTheirElementsInOrder)
{
    static_assert(tp_pack_len<float> == 4 && tp_pack_len<uint16_t> == 8, "packs of 16 bytes");
    expect_packs_keep<float>(4);
    expect_packs_keep<uint16_t>(4);
    expect_packs_keep<uint16_t>(8);
}

} // namespace
