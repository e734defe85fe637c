/* filters_test.cc - the order of a convolution's filters on the device and in files. */
#include "host/model/filters.h"
#include "tests/model/model_run.h"

namespace
{

TEST(Filters, AreStoredWithTheirChannelsLast)
{
    const int64_t d[] = {4, 3, 2, 5};
    const tp_shape shape = tp_shape_make(4, d);
    std::vector<float> file(4 * 3 * 2 * 5), stored(file.size()), back(file.size());
    for (size_t i = 0; i < file.size(); i++)
        file[i] = static_cast<float>(i);
    const tp_tensor t = {stored.data(), tp_filters_stored_shape(shape), TP_F32};
    EXPECT_EQ(t.shape.d[0], 4);
    EXPECT_EQ(t.shape.d[1], 2);
    EXPECT_EQ(t.shape.d[2], 5);
    EXPECT_EQ(t.shape.d[3], 3);

    ASSERT_EQ(tp_filters_upload(cpu(), &t, shape, 1, file.data()), TP_OK);
    for (size_t m = 0; m < 4; m++)
        for (size_t c = 0; c < 3; c++)
            for (size_t tap = 0; tap < 10; tap++)
                EXPECT_EQ(stored[(m * 10 + tap) * 3 + c], file[(m * 3 + c) * 10 + tap]);
    ASSERT_EQ(tp_filters_download(cpu(), &t, shape, 1, back.data()), TP_OK);
    EXPECT_EQ(back, file);
    tp_filters_to_first(back.data(), stored.data(), shape);
    EXPECT_EQ(back, file);

    ASSERT_EQ(tp_filters_upload(cpu(), &t, shape, 0, file.data()), TP_OK);
    EXPECT_EQ(stored, file) << "everything else is as in files";
}

} // namespace
