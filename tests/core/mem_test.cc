#include "host/core/mem.h"
#include "temper/tensor.h"
#include <cstring>
#include <gtest/gtest.h>

TEST(Mem, AllocZeroesAndAligns)
{
    float *p = nullptr;
    ASSERT_EQ(tp_alloc(&p, 7, sizeof(float), "seven floats"), TP_OK);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % TP_ALIGN, 0u);
    for (int i = 0; i < 7; i++)
        EXPECT_EQ(p[i], 0.0f);
    tp_free(p);
}

TEST(Mem, OverflowIsAnErrorThatNamesTheThing)
{
    void *p = nullptr;
    ASSERT_EQ(tp_alloc(&p, SIZE_MAX / 2, 8, "huge table"), TP_ENOMEM);
    EXPECT_EQ(p, nullptr);
    EXPECT_NE(std::strstr(tp_last_error(), "huge table"), nullptr) << tp_last_error();
}

TEST(Mem, FailsAtTheAllocationAsked)
{
    void *a = nullptr, *b = nullptr;
    tp_alloc_fail_at(2, 0);
    EXPECT_EQ(tp_alloc(&a, 1, 1, "first"), TP_OK);
    EXPECT_EQ(tp_alloc(&b, 1, 1, "second"), TP_ENOMEM);
    tp_alloc_fail_at(0, 0);
    tp_free(a);
}

TEST(Shape, TextAndLength)
{
    const int64_t d[] = {2, 3, 5};
    const tp_shape s = tp_shape_make(3, d);
    char text[TP_SHAPE_TEXT_SIZE];
    EXPECT_STREQ(tp_shape_text(s, text, sizeof text), "(2,3,5)");
    EXPECT_EQ(tp_shape_len(s), 30);
    EXPECT_EQ(tp_shape_len(tp_shape_scalar()), 1);
}

TEST(Shape, CheckRefusesWhatDoesNotFit)
{
    const int64_t negative[] = {2, -1}, huge[] = {INT64_C(1) << 40, INT64_C(1) << 40};
    EXPECT_EQ(tp_shape_check(tp_shape_make(2, negative), TP_F32), TP_ESHAPE);
    EXPECT_EQ(tp_shape_check(tp_shape_make(2, huge), TP_F32), TP_ESHAPE);
    EXPECT_EQ(tp_shape_check(tp_shape_scalar(), TP_DTYPE_NONE), TP_ESHAPE);
}
