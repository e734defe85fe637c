#include "dataset_files.h"
#include "host/core/mem.h"
#include "host/data/stream.h"
#include <algorithm>
#include <cstring>
#include <gtest/gtest.h>
#include <numeric>
#include <set>
#include <vector>

/* stream.h5: row r has x = 8 r + j, id = r, y = r mod 11, weight = r + 1; r is in part 1 when 3 divides it.
 */
static const int N = 1003, WIDE = 8;

struct Batch {
    std::vector<int64_t> rows;
    bool operator==(const Batch &b) const
    {
        return rows == b.rows;
    }
};

class Stream : public testing::Test
{
  protected:
    void SetUp() override
    {
        ASSERT_TRUE(DatasetFiles::get().made) << "make_datasets.py did not run";
        path = DatasetFiles::get().path("stream.h5");
        in[0].name = "x";
        in[1].name = "id";
        in[1].kind = TP_INPUT_IDS;
        spec.path = path.c_str();
        spec.n_inputs = 2;
        spec.inputs = in;
        spec.target_kind = TP_TARGET_CLASS;
        spec.target = "y";
        spec.weight = "weight";
        spec.resident_bytes = -1;
        options.batch = 64;
        options.shuffle = 1;
        options.seed = 3;
        options.window_bytes = 5 * 32 * 46; /* some chunks: many windows an epoch */
    }
    /* n batches, each array of which is checked against the row numbers. */
    std::vector<Batch> take(tp_stream *s, int64_t n)
    {
        std::vector<Batch> all;
        const size_t b = (size_t)options.batch;
        std::vector<float> x(b * WIDE);
        std::vector<int32_t> id(b);
        std::vector<int16_t> y(b);
        std::vector<double> weight(b);
        void *const slots[] = {x.data(), id.data(), y.data(), weight.data()};
        for (int64_t step = 0; step < n; step++) {
            Batch batch;
            batch.rows.resize(b);
            int64_t got = 0;
            EXPECT_EQ(tp_stream_next(s, slots, batch.rows.data(), &got), TP_OK) << tp_last_error();
            batch.rows.resize((size_t)got);
            for (size_t k = 0; k < batch.rows.size(); k++) {
                const int64_t r = batch.rows[k];
                EXPECT_EQ(x[k * WIDE + 5], (float)(8 * r + 5));
                EXPECT_EQ(id[k], r);
                EXPECT_EQ(y[k], r % 11);
                EXPECT_EQ(weight[k], (double)(r + 1));
            }
            all.push_back(batch);
        }
        return all;
    }
    std::vector<Batch> epochs(const tp_data *d, int64_t n)
    {
        tp_stream *s = nullptr;
        EXPECT_EQ(tp_stream_open(&s, d, &options), TP_OK) << tp_last_error();
        std::vector<Batch> all;
        if (s)
            all = take(s, n * tp_stream_steps(s) - options.step);
        tp_stream_close(s);
        return all;
    }
    static std::vector<int64_t> flat(const std::vector<Batch> &batches, size_t from, size_t to)
    {
        std::vector<int64_t> rows;
        for (size_t i = from; i < to; i++)
            rows.insert(rows.end(), batches[i].rows.begin(), batches[i].rows.end());
        return rows;
    }
    static std::vector<int64_t> part(const tp_data *d, tp_part p)
    {
        return std::vector<int64_t>(tp_data_part_table(d, p),
                                    tp_data_part_table(d, p) + tp_data_part_rows(d, p));
    }
    std::string path;
    tp_input_spec in[2] = {};
    tp_data_spec spec = {};
    tp_stream_spec options = {};
};

TEST_F(Stream, EveryEpochVisitsEveryRowOnce)
{
    const Data data(spec);
    ASSERT_EQ(data.status, TP_OK) << tp_last_error();
    ASSERT_FALSE(tp_data_resident(data.d));
    const std::vector<Batch> all = epochs(data.d, 3);
    ASSERT_EQ(all.size(), 3u * 16);
    EXPECT_EQ(all[15].rows.size(), (size_t)(N - 15 * 64));
    std::vector<int64_t> first;
    for (size_t e = 0; e < 3; e++) {
        std::vector<int64_t> rows = flat(all, 16 * e, 16 * (e + 1));
        EXPECT_NE(rows, first) << "epochs have the same order";
        first = rows;
        std::sort(rows.begin(), rows.end());
        EXPECT_EQ(rows, part(data.d, TP_TRAIN));
    }
}

TEST_F(Stream, EveryWindowAndBatchSizeVisitsEveryRowOnce)
{
    const Data data(spec);
    for (int64_t window : {1, 1000, 10000, 0})
        for (int64_t batch : {1, 7, N, 5000}) {
            options.window_bytes = window;
            options.batch = batch;
            const std::vector<Batch> all = epochs(data.d, 2);
            std::vector<int64_t> rows = flat(all, all.size() / 2, all.size());
            std::sort(rows.begin(), rows.end());
            EXPECT_EQ(rows, part(data.d, TP_TRAIN)) << "window " << window << ", batch " << batch;
        }
}

TEST_F(Stream, ResumesAtEveryStep)
{
    const Data data(spec);
    const std::vector<Batch> all = epochs(data.d, 3);
    for (options.epoch = 0; options.epoch < 2; options.epoch++)
        for (options.step = 0; options.step < 16; options.step++) {
            const std::vector<Batch> rest = epochs(data.d, 2);
            const auto at = all.begin() + 16 * options.epoch + options.step;
            ASSERT_TRUE(std::equal(rest.begin(), rest.end(), at))
                << "epoch " << options.epoch << ", step " << options.step;
        }
}

TEST_F(Stream, RowsAreMixed)
{
    const Data data(spec);
    options.window_bytes = 0; /* one window: a full shuffle */
    const std::vector<Batch> all = epochs(data.d, 1);
    const std::vector<int64_t> rows = flat(all, 0, all.size());
    int64_t neighbours = 0;
    for (size_t i = 1; i < rows.size(); i++)
        neighbours += rows[i] == rows[i - 1] + 1;
    EXPECT_LT(neighbours, 12);
    const double mean = std::accumulate(rows.begin(), rows.begin() + 500, 0.0) / 500;
    EXPECT_NEAR(mean, 501, 50); /* the standard deviation is about 9 */
}

TEST_F(Stream, EveryWindowHasAnOrderOfItsOwn)
{
    const Data data(spec);
    options.window_bytes = 32 * 46; /* one block of 32 rows */
    const std::vector<Batch> all = epochs(data.d, 1);
    const std::vector<int64_t> rows = flat(all, 0, all.size());
    std::set<std::vector<int64_t>> orders;
    std::vector<int64_t> blocks;
    for (size_t i = 0; i < rows.size();) {
        std::vector<int64_t> order;
        blocks.push_back(rows[i] / 32);
        for (; i < rows.size() && rows[i] / 32 == blocks.back(); i++)
            order.push_back(rows[i] % 32);
        orders.insert(order);
    }
    EXPECT_EQ(blocks.size(), 32u);
    EXPECT_EQ(orders.size(), 32u);
    EXPECT_FALSE(std::is_sorted(blocks.begin(), blocks.end()));
}

TEST_F(Stream, WithoutShuffleRowsComeInOrder)
{
    const Data data(spec);
    options.shuffle = 0;
    const std::vector<Batch> all = epochs(data.d, 1);
    EXPECT_EQ(flat(all, 0, all.size()), part(data.d, TP_TRAIN));
}

TEST_F(Stream, ScatteredRowsOfAPart)
{
    spec.split.kind = TP_SPLIT_DATASET;
    spec.split.dataset = "part";
    const Data data(spec);
    ASSERT_EQ(data.status, TP_OK) << tp_last_error();
    for (tp_part p : {TP_TRAIN, TP_VALIDATION}) {
        options.part = p;
        const std::vector<Batch> all = epochs(data.d, 1);
        std::vector<int64_t> rows = flat(all, 0, all.size());
        std::sort(rows.begin(), rows.end());
        EXPECT_EQ(rows, part(data.d, p));
        EXPECT_EQ(rows.size(), p == TP_TRAIN ? 668u : 335u);
    }
}

TEST_F(Stream, ResidentAndStreamedGiveTheSameBatches)
{
    const Data streamed(spec);
    spec.resident_bytes = 0;
    const Data resident(spec);
    ASSERT_TRUE(tp_data_resident(resident.d));
    EXPECT_TRUE(epochs(streamed.d, 2) == epochs(resident.d, 2));
    EXPECT_STREQ(tp_data_hash(streamed.d), tp_data_hash(resident.d));
}

TEST_F(Stream, SeveralFiles)
{
    tp_input_spec x = {};
    x.name = "x";
    const std::string train = DatasetFiles::get().path("train.h5"),
                      test = DatasetFiles::get().path("test.h5");
    spec = {};
    spec.n_inputs = 1;
    spec.inputs = &x;
    spec.split.kind = TP_SPLIT_FILES;
    spec.split.source[TP_TRAIN] = train.c_str();
    spec.split.source[TP_TEST] = test.c_str();
    spec.resident_bytes = -1;
    const Data data(spec);
    ASSERT_EQ(data.status, TP_OK) << tp_last_error();
    options.part = TP_TEST;
    options.batch = 30;
    options.shuffle = 0;
    tp_stream *s = nullptr;
    ASSERT_EQ(tp_stream_open(&s, data.d, &options), TP_OK) << tp_last_error();
    EXPECT_EQ(tp_stream_n_arrays(s), 1);
    std::vector<float> got(30 * 5);
    std::vector<int64_t> rows(30);
    void *const slots[] = {got.data()};
    int64_t n = 0;
    ASSERT_EQ(tp_stream_next(s, slots, rows.data(), &n), TP_OK) << tp_last_error();
    tp_stream_close(s);
    ASSERT_EQ(n, 30);
    EXPECT_EQ(rows[0], 50);
    spec.resident_bytes = 0;
    const Data whole(spec);
    const float *want = static_cast<const float *>(tp_data_input_at(whole.d, 0)->array.values.data) + 50 * 5;
    EXPECT_EQ(std::memcmp(got.data(), want, got.size() * sizeof(float)), 0);
}

TEST_F(Stream, ClosesAtOnceAndSkipsWhatIsNotWanted)
{
    const Data data(spec);
    tp_stream *s = nullptr;
    ASSERT_EQ(tp_stream_open(&s, data.d, &options), TP_OK);
    tp_stream_close(s);
    ASSERT_EQ(tp_stream_open(&s, data.d, &options), TP_OK);
    std::vector<int32_t> id(64);
    void *const slots[] = {nullptr, id.data(), nullptr, nullptr};
    int64_t n = 0;
    EXPECT_EQ(tp_stream_n_arrays(s), 4);
    ASSERT_EQ(tp_stream_next(s, slots, nullptr, &n), TP_OK);
    EXPECT_EQ(n, 64);
    tp_stream_close(s);
}

/* The file shrinks while it is used: the reader thread's error reaches the caller, again and again. */
TEST_F(Stream, ReadErrorsReachTheCaller)
{
    const std::string copy = DatasetFiles::get().path("shrinks.h5");
    std::filesystem::copy_file(path, copy, std::filesystem::copy_options::overwrite_existing);
    spec.path = copy.c_str();
    const Data data(spec);
    ASSERT_EQ(data.status, TP_OK) << tp_last_error();
    std::filesystem::resize_file(copy, 2048);
    tp_stream *s = nullptr;
    ASSERT_EQ(tp_stream_open(&s, data.d, &options), TP_OK);
    void *const slots[] = {nullptr, nullptr, nullptr, nullptr};
    int64_t n = 0;
    tp_status st = TP_OK;
    for (int i = 0; i < 16 && st == TP_OK; i++)
        st = tp_stream_next(s, slots, nullptr, &n);
    EXPECT_TRUE(st == TP_EIO || st == TP_EDATA) << tp_status_name(st);
    EXPECT_EQ(tp_stream_next(s, slots, nullptr, &n), st);
    EXPECT_STRNE(tp_last_error(), "");
    tp_stream_close(s);
}

TEST_F(Stream, RefusesWhatIsOutOfRange)
{
    const Data data(spec);
    const tp_stream_spec good = options;
    const auto refused = [&](const char *piece) {
        tp_stream *s = nullptr;
        EXPECT_EQ(tp_stream_open(&s, data.d, &options), TP_EINVAL);
        EXPECT_EQ(s, nullptr);
        EXPECT_NE(std::strstr(tp_last_error(), piece), nullptr) << tp_last_error();
        options = good;
    };
    options.batch = 0;
    refused("batch is 0");
    options.step = 16;
    refused("step is 16, want 0 to 15");
    options.epoch = -1;
    refused("epoch is -1");
    options.part = TP_TEST;
    refused("test part has no rows");
    options.part = (tp_part)9;
    refused("no part 9");
    options.window_bytes = -1;
    refused("window is -1");
}

TEST_F(Stream, OutOfMemoryAtEveryAllocation)
{
    spec.resident_bytes = 0; /* so that only the stream's own allocations fail */
    const Data data(spec);
    int n = 1;
    for (tp_status st = TP_ENOMEM; st == TP_ENOMEM && n < 1000; n++) {
        tp_stream *s = nullptr;
        tp_alloc_fail_at((uint64_t)n, 1);
        st = tp_stream_open(&s, data.d, &options);
        tp_alloc_fail_at(0, 0);
        tp_stream_close(s);
    }
    EXPECT_GT(n, 10);
    EXPECT_LT(n, 1000);
}
