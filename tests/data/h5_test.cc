#include "host/core/mem.h"
#include "host/core/parallel.h"
#include "host/data/h5.h"
#include "host/data/h5_index.h"
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <iterator>
#include <random>
#include <set>
#include <sstream>
#include <thread>
#include <unistd.h>

namespace
{

/* The files of tests/golden/make_h5.py, in a folder of their own; each part is made when first asked for. */
class H5Files
{
  public:
    static H5Files &get()
    {
        static H5Files files;
        return files;
    }
    bool make(const std::string &part)
    {
        return parts.count(part) > 0 ||
               (std::system(("/usr/bin/python3 " TEMPER_SOURCE_DIR "/tests/golden/make_h5.py " +
                             folder.string() + " " + part)
                                .c_str()) == 0 &&
                parts.insert(part).second);
    }
    std::string path(const std::string &name) const
    {
        return (folder / name).string();
    }

  private:
    H5Files()
    {
        char name[] = "/tmp/temper-h5-XXXXXX";
        folder = mkdtemp(name) ? name : "/nonexistent";
    }
    ~H5Files()
    {
        std::error_code ignored;
        std::filesystem::remove_all(folder, ignored);
    }
    std::filesystem::path folder;
    std::set<std::string> parts;
};

std::vector<unsigned char> contents(const std::string &path)
{
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

class File
{
  public:
    explicit File(const std::string &path)
    {
        status = tp_h5_open(&f, path.c_str());
    }
    ~File()
    {
        tp_h5_close(f);
    }
    File(const File &) = delete;
    File &operator=(const File &) = delete;
    tp_h5 *f = nullptr;
    tp_status status;
};

/* What make_h5.py says of one dataset. */
struct Expected {
    std::string file, name, dtype;
    std::vector<int64_t> shape;
    size_t offset, row_bytes;
};

class H5 : public testing::Test
{
  protected:
    void TearDown() override
    {
        tp_threads_set(0);
    }
    static std::string path(const std::string &name)
    {
        return H5Files::get().path(name);
    }
    static const std::vector<unsigned char> &bytes()
    {
        static const std::vector<unsigned char> all = contents(path("expected.bin"));
        return all;
    }
    static std::vector<Expected> datasets(const std::string &file)
    {
        std::vector<Expected> all;
        std::ifstream in(path("expected.txt"));
        for (std::string line; std::getline(in, line);) {
            std::istringstream words(line);
            Expected e = {};
            words >> e.file >> e.name >> e.dtype >> e.offset;
            for (int64_t d; words >> d;)
                e.shape.push_back(d);
            if (e.file == file)
                all.push_back(e);
        }
        return all;
    }
    /* The bytes of rows [row, row + n) are as h5py reads them, and nothing beside them is written. */
    static void same(const File &file, const tp_h5_array *a, const Expected &e, int64_t row, int64_t n)
    {
        const size_t size = (size_t)n * a->row_bytes, guard = 16;
        std::vector<unsigned char> got(size + 2 * guard, 0xa5);
        const std::vector<unsigned char> untouched(guard, 0xa5);

        ASSERT_EQ(tp_h5_read(file.f, a, row, n, got.data() + guard), TP_OK) << tp_last_error();
        const auto begin = bytes().begin() + (long)(e.offset + (size_t)row * a->row_bytes);
        EXPECT_TRUE(std::equal(begin, begin + (long)size, got.begin() + (long)guard))
            << e.file << " " << e.name << " rows " << row << " + " << n << ", " << tp_threads() << " threads";
        EXPECT_TRUE(std::equal(untouched.begin(), untouched.end(), got.begin()) &&
                    std::equal(untouched.begin(), untouched.end(), got.end() - (long)guard))
            << e.name;
    }
    static void matches(const File &file, const Expected &e)
    {
        const tp_h5_array *a = tp_h5_find(file.f, e.name.c_str());
        ASSERT_NE(a, nullptr) << e.name;
        EXPECT_STREQ(tp_dtype_name(a->dtype), e.dtype.c_str()) << e.name;
        EXPECT_EQ(std::vector<int64_t>(a->shape.d, a->shape.d + a->shape.nd), e.shape) << e.name;
        EXPECT_GE(a->chunk_rows, 1) << e.name;
        const int64_t rows = e.shape[0];
        std::mt19937 random(5);
        for (int threads = 1; threads <= 3; threads++) {
            tp_threads_set(threads);
            same(file, a, e, 0, rows);
            for (int i = 0; i < (threads == 1 ? 4 : 1) && rows > 0; i++) {
                const int64_t row = (int64_t)random() % rows;
                same(file, a, e, row, 1 + (int64_t)random() % (rows - row));
            }
            if (HasFailure())
                return;
        }
    }
    /* One line that has each of these pieces, and the file's path. */
    static void message(const std::string &file, std::initializer_list<const char *> pieces)
    {
        const std::string line = tp_last_error();
        EXPECT_EQ(line.find('\n'), std::string::npos) << line;
        EXPECT_EQ(line.rfind(file + ": ", 0), 0U) << line;
        for (const char *piece : pieces)
            EXPECT_NE(line.find(piece), std::string::npos) << line << "\nlacks " << piece;
    }
    static void refused(const std::string &name, tp_status want, std::initializer_list<const char *> pieces)
    {
        const File file(path(name));
        EXPECT_EQ(file.status, want) << name << ": " << tp_last_error();
        EXPECT_EQ(file.f, nullptr);
        message(path(name), pieces);
    }
};

/* A file with other contents, for one opening after another. */
class Variant
{
  public:
    Variant(const std::string &name, std::vector<unsigned char> all) : path(name), data(std::move(all))
    {
    }
    void write(size_t n) const
    {
        std::ofstream out(path, std::ios::binary | std::ios::trunc);
        out.write((const char *)data.data(), (std::streamsize)n);
    }
    std::string path;
    std::vector<unsigned char> data;
};

/* ---- what is read ---- */

TEST_F(H5, ReadsEveryLayoutFilterDtypeAndRankAsH5pyDoes)
{
    ASSERT_TRUE(H5Files::get().make("matrix"));
    for (const char *name : {"earliest.h5", "latest.h5"}) {
        const File file(path(name));
        ASSERT_EQ(file.status, TP_OK) << tp_last_error();
        const std::vector<Expected> all = datasets(name);
        EXPECT_GE(all.size(), 180U);
        EXPECT_EQ((size_t)tp_h5_count(file.f), all.size());
        for (const Expected &e : all) {
            matches(file, e);
            if (HasFailure())
                return;
        }
    }
}

TEST_F(H5, IsReadByManyThreadsAtOnce)
{
    ASSERT_TRUE(H5Files::get().make("matrix"));
    const File file(path("latest.h5"));
    ASSERT_EQ(file.status, TP_OK) << tp_last_error();
    const std::vector<Expected> all = datasets("latest.h5");
    std::vector<std::thread> threads;
    std::atomic<int> wrong(0);
    tp_threads_set(1);
    for (size_t t = 0; t < 3; t++)
        threads.emplace_back([&, t] {
            for (size_t i = 0; i < all.size(); i++) {
                const Expected &e = all[(i + t * 50) % all.size()];
                const tp_h5_array *a = tp_h5_find(file.f, e.name.c_str());
                std::vector<unsigned char> got((size_t)e.shape[0] * a->row_bytes);
                const tp_status st = tp_h5_read(file.f, a, 0, e.shape[0], got.data());
                wrong += st != TP_OK || !std::equal(got.begin(), got.end(), bytes().begin() + (long)e.offset);
            }
        });
    for (std::thread &t : threads)
        t.join();
    EXPECT_EQ(wrong, 0);
}

TEST_F(H5, ListsOnlyNumericArrays)
{
    ASSERT_TRUE(H5Files::get().make("good"));
    const File file(path("good.h5"));
    ASSERT_EQ(file.status, TP_OK) << tp_last_error();
    const char *const names[] = {"g/h/y", "none", "none_chunked", "x"};
    ASSERT_EQ((size_t)tp_h5_count(file.f), std::size(names));
    for (int i = 0; i < 4; i++)
        EXPECT_STREQ(tp_h5_at(file.f, i)->name, names[i]);
    EXPECT_EQ(tp_h5_find(file.f, "/x"), tp_h5_at(file.f, 3));
    EXPECT_EQ(tp_h5_find(file.f, "g/h/y"), tp_h5_at(file.f, 0));
    for (const char *none : {"", "/", "g", "y", "text", "compound", "soft", "odd_bias", "x/"})
        EXPECT_EQ(tp_h5_find(file.f, none), nullptr) << none;
}

TEST_F(H5, GivesTextAttributes)
{
    ASSERT_TRUE(H5Files::get().make("good"));
    const File file(path("good.h5"));
    ASSERT_EQ(file.status, TP_OK) << tp_last_error();
    const tp_h5_array *x = tp_h5_find(file.f, "x");
    EXPECT_STREQ(tp_h5_attribute(file.f, nullptr, "about"), "ein Größenmaß");
    EXPECT_STREQ(tp_h5_attribute(file.f, x, "text"), "cats and dogs");
    EXPECT_STREQ(tp_h5_attribute(file.f, x, "fixed"), "exact");
    EXPECT_STREQ(tp_h5_attribute(file.f, x, "empty"), "");
    EXPECT_STREQ(tp_h5_attribute(file.f, x, "list"), "cat\ndog\nbird");
    EXPECT_STREQ(tp_h5_attribute(file.f, x, "fixed_list"), "one\nthree");
    EXPECT_STREQ(tp_h5_attribute(file.f, x, "spaces"), "ab\ncdefgh");
    EXPECT_STREQ(tp_h5_attribute(file.f, x, "long"), std::string(5000, 'x').c_str());
    for (const char *none : {"number", "numbers", "about", "nothing"})
        EXPECT_EQ(tp_h5_attribute(file.f, x, none), nullptr) << none;
    EXPECT_EQ(tp_h5_attribute(file.f, nullptr, "text"), nullptr);
}

TEST_F(H5, RefusesRowsOutOfRange)
{
    ASSERT_TRUE(H5Files::get().make("good"));
    const File file(path("good.h5"));
    ASSERT_EQ(file.status, TP_OK) << tp_last_error();
    unsigned char room[256];
    const tp_h5_array *x = tp_h5_find(file.f, "x");
    const int64_t bad[][2] = {{-1, 2}, {0, 7}, {6, 1}, {7, 0}, {2, -1}, {1, INT64_MAX}, {INT64_MAX, 1}};
    for (const auto &range : bad)
        EXPECT_EQ(tp_h5_read(file.f, x, range[0], range[1], room), TP_EINVAL) << range[0] << " " << range[1];
    message(path("good.h5"), {"x", "1 rows from 9223372036854775807 on"});
    EXPECT_EQ(tp_h5_read(file.f, x, 6, 0, room), TP_OK);
    for (const char *none : {"none", "none_chunked"}) {
        const tp_h5_array *a = tp_h5_find(file.f, none);
        ASSERT_NE(a, nullptr) << none;
        EXPECT_EQ(tp_h5_read(file.f, a, 0, 0, room), TP_OK);
        EXPECT_EQ(tp_h5_read(file.f, a, 0, 1, room), TP_EINVAL);
        message(path("good.h5"), {none, "do not lie in its 0"});
    }
}

TEST_F(H5, IndexesManyChunksInLinearTime)
{
    ASSERT_TRUE(H5Files::get().make("long"));
    for (const char *name : {"long_earliest.h5", "long_latest.h5"}) {
        const auto begin = std::chrono::steady_clock::now();
        const File file(path(name));
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
        ASSERT_EQ(file.status, TP_OK) << tp_last_error();
        EXPECT_LT(took.count(), 5) << name;
        std::vector<int32_t> got(30000), want(30000);
        for (size_t i = 0; i < want.size(); i++)
            want[i] = (int32_t)i;
        ASSERT_EQ(tp_h5_read(file.f, tp_h5_find(file.f, "x"), 0, 30000, got.data()), TP_OK);
        EXPECT_EQ(got, want);
    }
}

TEST_F(H5, TakesNoMemoryForRowsThatAreNotStored)
{
    ASSERT_TRUE(H5Files::get().make("huge"));
    for (const char *name : {"huge_earliest.h5", "huge_latest.h5"}) {
        unsigned char *index = nullptr;
        size_t n = 0;
        const int fd = open(path(name).c_str(), O_RDONLY | O_CLOEXEC);
        EXPECT_EQ(tp_h5_index(fd, name, &index, &n), TP_OK) << tp_last_error();
        EXPECT_LT(n, 2048U);
        tp_free(index);
        close(fd);

        const File file(path(name));
        ASSERT_EQ(file.status, TP_OK) << tp_last_error();
        EXPECT_EQ(tp_h5_count(file.f), 3);
        for (int i = 0; i < tp_h5_count(file.f); i++) {
            const tp_h5_array *a = tp_h5_at(file.f, i);
            const int64_t rows = (int64_t)1 << 40, middle = rows / 2;
            ASSERT_EQ(a->shape.d[0], rows);
            int16_t got[9] = {0};
            EXPECT_EQ(tp_h5_read(file.f, a, rows - 3, 3, got), TP_OK) << tp_last_error();
            EXPECT_EQ(std::count(got, got + 9, 7), 9) << a->name;
            EXPECT_EQ(tp_h5_read(file.f, a, middle - 1, 3, got), TP_OK) << tp_last_error();
            EXPECT_EQ(std::count(got, got + 9, 7), 9) << a->name;
        }
    }
}

/* ---- what is refused ---- */

TEST_F(H5, RefusesWhatIsNoHdf5File)
{
    ASSERT_TRUE(H5Files::get().make("refused"));
    EXPECT_EQ(tp_status_exit_code(TP_EDATA), 65);
    EXPECT_EQ(tp_status_exit_code(TP_ENOENT), 66);
    for (const char *name : {"empty.h5", "text.h5", "signature.h5"})
        refused(name, TP_EDATA, {"is not an HDF5 file"});
    refused("missing.h5", TP_ENOENT, {"no such file"});
    refused("folder.h5", TP_EDATA, {"is not a regular file"});
}

TEST_F(H5, RefusesWhatLeadsElsewhereOrIsNotDecoded)
{
    ASSERT_TRUE(H5Files::get().make("refused"));
    refused("external_storage.h5", TP_EDATA, {"g/outside: external storage is not followed"});
    refused("external_link.h5", TP_EDATA, {"g/elsewhere: an external link is not followed"});
    refused("virtual.h5", TP_EDATA, {"g/view: a virtual dataset is not followed"});
    refused("lzf.h5", TP_EDATA, {"g/packed: filter 32000 is not one of gzip, shuffle, fletcher32"});
    refused("scaleoffset.h5", TP_EDATA, {"g/scaled: filter 6 is not one of"});
    refused("unknown_filter.h5", TP_EDATA, {"g/plugin: filter 333 is not one of"});
    refused("many_filters.h5", TP_EDATA, {"g/deep: more filters than are read (8)"});
    refused("user_block.h5", TP_EDATA, {"a file with a user block is not read"});
    refused("nested.h5", TP_EDATA, {"n/n/n: groups are nested too deep (32)"});
    refused("loop.h5", TP_EDATA, {"g/again/g/again", "groups are nested too deep (32)"});
    refused("two_lines.h5", TP_EDATA, {"g: a name in it has a control character"});
}

TEST_F(H5, NamesTheChunkThatDoesNotDecode)
{
    ASSERT_TRUE(H5Files::get().make("damaged"));
    struct {
        const char *name, *why;
    } const all[] = {
        {"garbage", "it does not inflate"},
        {"cut", "it does not inflate"},
        {"adler", "it does not inflate"},
        {"short", "decodes to 44 bytes, must be 48"},
        {"long", "it does not inflate"},
        {"checksum", "its checksum is wrong"},
        {"no_checksum", "has no checksum"},
        {"bare", "47 bytes cannot hold its 48"},
        {"tiny", "decodes to 0 bytes, must be 48"},
    };
    const File file(path("damaged.h5"));
    ASSERT_EQ(file.status, TP_OK) << tp_last_error();
    EXPECT_EQ((size_t)tp_h5_count(file.f), std::size(all));
    for (const auto &each : all)
        for (int threads = 1; threads <= 3; threads++) {
            const tp_h5_array *a = tp_h5_find(file.f, each.name);
            ASSERT_NE(a, nullptr) << each.name;
            std::vector<int32_t> got(60, 0);
            tp_threads_set(threads);
            EXPECT_EQ(tp_h5_read(file.f, a, 20, 1, got.data()), TP_EINVAL); /* leaves another line behind */
            EXPECT_EQ(tp_h5_read(file.f, a, 0, 20, got.data()), TP_EDATA) << each.name;
            message(path("damaged.h5"), {(std::string(each.name) + ": chunk 2 ").c_str(), each.why});
            EXPECT_EQ(tp_h5_read(file.f, a, 12, 8, got.data()), TP_OK) << tp_last_error();
            EXPECT_EQ(std::count(got.begin(), got.begin() + 24, 1), 24);
        }
}

TEST_F(H5, TakesNoMemoryForAChunkThatCannotBeThatLong)
{
    ASSERT_TRUE(H5Files::get().make("claim"));
    const File file(path("claim.h5"));
    ASSERT_EQ(file.status, TP_OK) << tp_last_error();
    int32_t got = 0;
    EXPECT_EQ(tp_h5_read(file.f, tp_h5_find(file.f, "x"), 0, 1, &got), TP_EDATA);
    message(path("claim.h5"), {"x: chunk 0 ", "bytes cannot hold its 4294967292"});
}

TEST_F(H5, RefusesTruncatedFiles)
{
    ASSERT_TRUE(H5Files::get().make("small"));
    for (const char *name : {"small_earliest.h5", "small_latest.h5"}) {
        const Variant variant(path("cut.h5"), contents(path(name)));
        const size_t size = variant.data.size(), step = size / 60;
        for (size_t n = 0; n < size; n += n < 64 ? 9 : step) {
            variant.write(n);
            refused("cut.h5", TP_EDATA, {});
        }
        variant.write(size - 1);
        refused("cut.h5", TP_EDATA, {});
        variant.write(size);
        EXPECT_EQ(File(variant.path).status, TP_OK) << tp_last_error();
    }
}

TEST_F(H5, NoticesThatAFileBecameShorter)
{
    ASSERT_TRUE(H5Files::get().make("small"));
    const Variant variant(path("shrunk.h5"), contents(path("small_latest.h5")));
    variant.write(variant.data.size());
    const File file(variant.path);
    ASSERT_EQ(file.status, TP_OK) << tp_last_error();
    ASSERT_EQ(truncate(variant.path.c_str(), 100), 0);
    std::vector<unsigned char> got(1024);
    EXPECT_EQ(tp_h5_read(file.f, tp_h5_find(file.f, "plain"), 0, 10, got.data()), TP_EIO);
    message(variant.path, {"plain", "the file ended"});
    EXPECT_EQ(tp_h5_read(file.f, tp_h5_find(file.f, "g/all"), 0, 20, got.data()), TP_EIO);
    message(variant.path, {"g/all", "the file ended"});
}

/* Reads some rows of every dataset; whatever a damaged file says, the answer is bytes or an error. */
void read_some(const File &file, const std::string &path, int *n_read, int *n_refused)
{
    for (int i = 0; i < tp_h5_count(file.f); i++) {
        const tp_h5_array *a = tp_h5_at(file.f, i);
        const size_t most = (size_t)1 << 16;
        const int64_t rows = a->row_bytes == 0 ? 0 : std::min(a->shape.d[0], (int64_t)(most / a->row_bytes));
        std::vector<unsigned char> got((size_t)rows * a->row_bytes);
        for (const int64_t row : {(int64_t)0, a->shape.d[0] - rows}) {
            const tp_status st = tp_h5_read(file.f, a, row, rows, got.data());
            (st == TP_OK ? *n_read : *n_refused)++;
            if (st == TP_OK)
                continue;
            EXPECT_TRUE(st == TP_EDATA || st == TP_ENOMEM) << tp_status_name(st) << " " << tp_last_error();
            EXPECT_NE(std::string(tp_last_error()).find(st == TP_EDATA ? path : "chunk"), std::string::npos)
                << tp_last_error();
        }
    }
}

TEST_F(H5, GivesBytesOrAnErrorWhateverByteIsChanged)
{
    ASSERT_TRUE(H5Files::get().make("small"));
    int n_open = 0, n_refused = 0, n_read = 0, n_bad = 0;
    std::mt19937 random(20);
    tp_threads_set(1);
    for (const char *name : {"small_earliest.h5", "small_latest.h5"}) {
        Variant variant(path("mutated.h5"), contents(path(name)));
        for (int i = 0; i < 160; i++) {
            unsigned char &byte = variant.data[random() % variant.data.size()];
            const unsigned char kept = byte;
            byte ^= (unsigned char)(1 + random() % 255);
            variant.write(variant.data.size());
            byte = kept;
            const File file(variant.path);
            (file.status == TP_OK ? n_open : n_refused)++;
            if (file.status == TP_OK) {
                read_some(file, variant.path, &n_read, &n_bad);
            } else {
                EXPECT_EQ(file.status, TP_EDATA) << tp_last_error();
                message(variant.path, {});
            }
        }
    }
    EXPECT_GT(n_open, 50);
    EXPECT_GT(n_refused, 20);
    EXPECT_GT(n_read, 100);
    EXPECT_GT(n_bad, 0);
}

} // namespace
