/* safetensors_test.cc - what is written is what any reader finds; a damaged or lying file is refused. */
#include "host/core/io.h"
#include "host/core/mem.h"
#include "temper/safetensors.h"
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <gtest/gtest.h>
#include <iterator>
#include <memory>
#include <string>
#include <unistd.h>
#include <vector>

namespace
{

using Tensors = std::unique_ptr<tp_tensors, decltype(&tp_tensors_free)>;

Tensors make()
{
    tp_tensors *t = nullptr;
    EXPECT_EQ(tp_tensors_new(&t), TP_OK);
    return {t, tp_tensors_free};
}

bool says(const std::string &part)
{
    return std::string(tp_last_error()).find(part) != std::string::npos;
}

void *add(tp_tensors *t, const char *name, tp_dtype dtype, const std::vector<int64_t> &d)
{
    void *data = nullptr;
    EXPECT_EQ(tp_tensors_add(t, name, dtype, tp_shape_make(static_cast<int>(d.size()), d.data()), &data),
              TP_OK)
        << tp_last_error();
    return data;
}

/* Element i becomes i + k in the tensor's own dtype; small numbers, which every dtype holds. */
void count_up(const tp_tensor *t, int k)
{
    static const uint16_t halves[] = {0,      0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600,
                                      0x4700, 0x4800, 0x4880, 0x4900, 0x4980, 0x4a00, 0x4a80,
                                      0x4b00, 0x4b80, 0x4c00, 0x4c40, 0x4c80, 0x4cc0};
    for (int64_t i = 0; i < tp_shape_len(t->shape); i++) {
        const float f = static_cast<float>(i + k);
        const double wide = static_cast<double>(i + k);
        const uint64_t whole =
            static_cast<uint64_t>(i + k); /* little endian: its low bytes are every integer */
        uint32_t bits;
        std::memcpy(&bits, &f, 4);
        const uint16_t brain = static_cast<uint16_t>(bits >> 16);
        const void *src = &whole;
        if (t->dtype == TP_F16)
            src = &halves[i + k];
        else if (t->dtype == TP_BF16)
            src = &brain;
        else if (t->dtype == TP_F32)
            src = &f;
        else if (t->dtype == TP_F64)
            src = &wide;
        const size_t size = tp_dtype_size(t->dtype);
        std::memcpy(static_cast<char *>(t->data) + static_cast<size_t>(i) * size, src, size);
    }
}

const tp_dtype all_dtypes[] = {TP_F64, TP_F32, TP_F16, TP_BF16, TP_I64, TP_I32,
                               TP_I16, TP_I8,  TP_U64, TP_U32,  TP_U16, TP_U8};

/* A tensor of every dtype, counting up. */
Tensors one_of_each()
{
    Tensors t = make();
    for (int k = 0; k < 12; k++)
        add(t.get(), (std::string("t.") + tp_dtype_name(all_dtypes[k])).c_str(), all_dtypes[k], {2, 3});
    for (int k = 0; k < 12; k++)
        count_up(tp_tensors_at(t.get(), k), k);
    EXPECT_EQ(tp_tensors_meta_set(t.get(), "k", "v \xc3\xa9 \"k\""), TP_OK);
    return t;
}

std::string hash_of(const tp_tensors *t)
{
    char hex[65];
    EXPECT_EQ(tp_tensors_hash(t, hex), TP_OK);
    return hex;
}

class Safetensors : public testing::Test
{
  protected:
    std::string dir, path;

    void SetUp() override
    {
        char name[] = "/tmp/temper-safetensors-XXXXXX";
        ASSERT_NE(mkdtemp(name), nullptr);
        dir = name;
        path = dir + "/x.safetensors";
    }
    void TearDown() override
    {
        ASSERT_EQ(std::system(("rm -rf " + dir).c_str()), 0);
    }
    void save(const Tensors &t)
    {
        ASSERT_EQ(tp_tensors_save(t.get(), path.c_str()), TP_OK) << tp_last_error();
    }
    std::string bytes() const
    {
        std::ifstream f(path, std::ios::binary);
        return {std::istreambuf_iterator<char>(f), {}};
    }
    void put(const std::string &s) const
    {
        std::ofstream(path, std::ios::binary) << s;
    }
    tp_status load(Tensors &out) const
    {
        tp_tensors *t = nullptr;
        const tp_status st = tp_tensors_load(&t, path.c_str());
        EXPECT_EQ(st == TP_OK, t != nullptr);
        out = Tensors(t, tp_tensors_free);
        return st;
    }
    /* Loads a file of this header and this many data bytes. */
    tp_status load_header(const std::string &header, size_t data, uint64_t size) const
    {
        std::string s;
        for (int i = 0; i < 8; i++)
            s += static_cast<char>(size >> (8 * i));
        put(s + header + std::string(data, 'd'));
        Tensors t(nullptr, tp_tensors_free);
        return load(t);
    }
    tp_status load_header(const std::string &header, size_t data) const
    {
        return load_header(header, data, header.size());
    }
    std::string python(const std::string &what) const
    {
        const std::string command = std::string("/usr/bin/python3 ") + TEMPER_SOURCE_DIR +
                                    "/tests/golden/safetensors_io.py " + what + " " + path;
        std::array<char, 256> line{};
        std::string out;
        FILE *f = popen(command.c_str(), "r");
        while (std::fgets(line.data(), line.size(), f) != nullptr)
            out += line.data();
        EXPECT_EQ(pclose(f), 0) << command;
        return out;
    }
};

TEST_F(Safetensors, BorrowedMemoryIsWrittenAndLeftToItsOwner)
{
    float values[3] = {1.0f, 2.0f, 4.0f};
    auto t = make();
    ASSERT_EQ(tp_tensors_borrow(t.get(), "x", {values, {1, {3}}, TP_F32}), TP_OK) << tp_last_error();
    EXPECT_EQ(tp_tensors_borrow(t.get(), "x", {values, {1, {3}}, TP_F32}), TP_EINVAL);
    EXPECT_EQ(tp_tensors_borrow(t.get(), "y", {nullptr, {1, {3}}, TP_F32}), TP_EINVAL);
    EXPECT_NE(std::string(tp_last_error()).find("'y': there is no memory to borrow"), std::string::npos);
    values[2] = 8.0f;
    ASSERT_EQ(tp_tensors_save(t.get(), path.c_str()), TP_OK) << tp_last_error();
    t.reset();
    tp_tensors *back = nullptr;
    ASSERT_EQ(tp_tensors_load(&back, path.c_str()), TP_OK) << tp_last_error();
    EXPECT_EQ(std::memcmp(tp_tensors_find(back, "x")->data, values, sizeof(values)), 0);
    tp_tensors_free(back);
}

TEST_F(Safetensors, EveryDtypeNameAndTextComesBack)
{
    const Tensors t = one_of_each();
    save(t);
    Tensors back = make();
    ASSERT_EQ(load(back), TP_OK) << tp_last_error();
    ASSERT_EQ(tp_tensors_count(back.get()), 12);
    for (int k = 0; k < 12; k++) {
        const tp_tensor *a = tp_tensors_at(t.get(), k);
        const tp_tensor *b = tp_tensors_find(back.get(), tp_tensors_name(t.get(), k));
        ASSERT_NE(b, nullptr) << tp_tensors_name(t.get(), k);
        EXPECT_EQ(a->dtype, b->dtype);
        EXPECT_TRUE(tp_shape_equal(a->shape, b->shape));
        for (int i = 0; i < 6; i++)
            EXPECT_EQ(tp_tensor_get(b, i), i + k) << tp_tensors_name(t.get(), k);
    }
    EXPECT_STREQ(tp_tensors_meta(back.get(), "k"), "v \xc3\xa9 \"k\"");
    EXPECT_EQ(tp_tensors_meta(back.get(), "none"), nullptr);
    EXPECT_EQ(tp_tensors_find(back.get(), "none"), nullptr);
    EXPECT_EQ(hash_of(t.get()), hash_of(back.get()));
    const std::string first = bytes();
    save(back);
    EXPECT_EQ(bytes(), first) << "written again it is another file";
}

TEST_F(Safetensors, AnIndependentReaderFindsWhatWasWritten)
{
    save(one_of_each());
    EXPECT_EQ(python("check"),
              "t.float64 F64 2,3\nt.float32 F32 2,3\nt.float16 F16 2,3\nt.bfloat16 BF16 2,3\n"
              "t.int64 I64 2,3\nt.int32 I32 2,3\nt.int16 I16 2,3\nt.int8 I8 2,3\n"
              "t.uint64 U64 2,3\nt.uint32 U32 2,3\nt.uint16 U16 2,3\nt.uint8 U8 2,3\n");
}

TEST_F(Safetensors, AFileOfAnIndependentWriterIsRead)
{
    static const char *const names[] = {"F64", "F32", "F16", "I64", "I32",  "I16", "I8",
                                        "U64", "U32", "U16", "U8",  "BOOL", "BF16"};
    python("write");
    Tensors t = make();
    ASSERT_EQ(load(t), TP_OK) << tp_last_error();
    ASSERT_EQ(tp_tensors_count(t.get()), 13);
    for (int k = 0; k < 13; k++) {
        const tp_tensor *x = tp_tensors_find(t.get(), (std::string("t.") + names[k]).c_str());
        ASSERT_NE(x, nullptr) << names[k];
        for (int i = 0; i < 6; i++)
            EXPECT_EQ(tp_tensor_get(x, i), i + k) << names[k];
    }
    EXPECT_STREQ(tp_tensors_meta(t.get(), "k"), "v \xc3\xa9 \"k\"");
}

TEST_F(Safetensors, EmptyScalarAndManyDimensions)
{
    Tensors t = make(), back = make();
    save(t);
    ASSERT_EQ(load(back), TP_OK) << tp_last_error();
    EXPECT_EQ(tp_tensors_count(back.get()), 0);
    add(t.get(), "none", TP_F32, {0, 3});
    *static_cast<double *>(add(t.get(), "scalar", TP_F64, {})) = 2.5;
    add(t.get(), "", TP_U8, {1, 1, 1, 1, 1, 1, 1, 2}); /* even an empty name */
    save(t);
    ASSERT_EQ(load(back), TP_OK) << tp_last_error();
    EXPECT_EQ(tp_tensors_find(back.get(), "none")->shape.d[1], 3);
    EXPECT_EQ(tp_tensor_get(tp_tensors_find(back.get(), "scalar"), 0), 2.5);
    EXPECT_EQ(tp_tensors_find(back.get(), "")->shape.nd, 8);
}

TEST_F(Safetensors, LongNamesThatDifferAtTheEndOnly)
{
    const std::string stem(1000, 'n');
    Tensors t = make(), back = make();
    *static_cast<float *>(add(t.get(), (stem + "a").c_str(), TP_F32, {1})) = 1.0f;
    *static_cast<float *>(add(t.get(), (stem + "b").c_str(), TP_F32, {1})) = 2.0f;
    save(t);
    ASSERT_EQ(load(back), TP_OK) << tp_last_error();
    EXPECT_EQ(tp_tensor_get(tp_tensors_find(back.get(), (stem + "b").c_str()), 0), 2.0);
}

TEST_F(Safetensors, NamesThatCannotBeWrittenAreRefused)
{
    Tensors t = make();
    void *data = nullptr;
    add(t.get(), "a", TP_F32, {1});
    EXPECT_EQ(tp_tensors_add(t.get(), "a", TP_F64, tp_shape_scalar(), &data), TP_EINVAL);
    EXPECT_TRUE(says("'a' is there twice")) << tp_last_error();
    EXPECT_EQ(tp_tensors_add(t.get(), "__metadata__", TP_F32, tp_shape_scalar(), &data), TP_EINVAL);
    EXPECT_EQ(tp_tensors_add(t.get(), "\xff", TP_F32, tp_shape_scalar(), &data), TP_EINVAL);
    EXPECT_EQ(tp_tensors_add(t.get(), "b", TP_DTYPE_NONE, tp_shape_scalar(), &data), TP_ESHAPE);
    const int64_t huge[] = {INT64_C(1) << 40, INT64_C(1) << 40};
    EXPECT_EQ(tp_tensors_add(t.get(), "b", TP_F32, tp_shape_make(2, huge), &data), TP_ESHAPE);
    EXPECT_EQ(data, nullptr);
    EXPECT_EQ(tp_tensors_meta_set(t.get(), "k", "\xff"), TP_EINVAL);
    EXPECT_EQ(tp_tensors_meta_set(t.get(), "hash", "x"), TP_EINVAL);
    EXPECT_EQ(tp_tensors_meta_set(t.get(), "hash.a", "x"), TP_EINVAL);
    EXPECT_EQ(tp_tensors_count(t.get()), 1);
    Tensors back = make();
    EXPECT_EQ(load(back), TP_ENOENT);
}

TEST_F(Safetensors, TheHashSeesNamesDtypesShapesAndBytesButNotTheOrder)
{
    const Tensors ab = make(), ba = make();
    add(ab.get(), "a", TP_I8, {4});
    add(ab.get(), "b", TP_I8, {4});
    add(ba.get(), "b", TP_I8, {4});
    void *data = add(ba.get(), "a", TP_I8, {4});
    EXPECT_EQ(hash_of(ab.get()), hash_of(ba.get()));
    static_cast<char *>(data)[3] = 1;
    EXPECT_NE(hash_of(ab.get()), hash_of(ba.get()));
    std::vector<std::string> seen;
    for (const auto &[name, dtype, d] :
         std::vector<std::tuple<const char *, tp_dtype, std::vector<int64_t>>>{{"a", TP_I8, {4}},
                                                                               {"c", TP_I8, {4}},
                                                                               {"a", TP_U8, {4}},
                                                                               {"a", TP_I8, {2, 2}},
                                                                               {"a", TP_I16, {2}}}) {
        const Tensors t = make();
        add(t.get(), name, dtype, d);
        for (const std::string &other : seen)
            EXPECT_NE(hash_of(t.get()), other);
        seen.push_back(hash_of(t.get()));
    }
}

/* A small checkpoint, with metadata that a wrong byte would change. */
Tensors checkpoint()
{
    Tensors t = make();
    add(t.get(), "0.weight", TP_F32, {2, 2});
    add(t.get(), "0.bias", TP_U8, {3});
    add(t.get(), "empty", TP_F32, {0, 3});
    for (int k = 0; k < 3; k++)
        count_up(tp_tensors_at(t.get(), k), k);
    EXPECT_EQ(tp_tensors_meta_set(t.get(), "step", "1234"), TP_OK);
    return t;
}

TEST_F(Safetensors, EveryWrongByteIsFound)
{
    save(checkpoint());
    const std::string good = bytes();
    for (size_t i = 0; i < good.size(); i++)
        for (const int flip : {0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff}) {
            std::string bad = good;
            bad[i] = static_cast<char>(bad[i] ^ flip);
            put(bad);
            Tensors t = make();
            const tp_status st = load(t);
            if (st == TP_OK) { /* JSON has more than one way to write some things: then all is as it was */
                EXPECT_EQ(hash_of(t.get()), hash_of(checkpoint().get())) << "byte " << i << " xor " << flip;
                const char *step = tp_tensors_meta(t.get(), "step");
                EXPECT_STREQ(step, "1234") << "byte " << i << " xor " << flip;
            } else {
                EXPECT_EQ(st, TP_EDATA) << "byte " << i << ": " << tp_last_error();
                EXPECT_TRUE(says(path)) << tp_last_error();
            }
        }
}

TEST_F(Safetensors, EveryTruncationAndAByteTooMuchIsFound)
{
    save(checkpoint());
    const std::string good = bytes();
    for (size_t n = 0; n < good.size(); n++) {
        put(good.substr(0, n));
        Tensors t = make();
        EXPECT_EQ(load(t), TP_EDATA) << n;
    }
    put(good + "x");
    Tensors t = make();
    EXPECT_EQ(load(t), TP_EDATA);
    EXPECT_TRUE(says("data bytes")) << tp_last_error();
}

TEST_F(Safetensors, AHeaderThatLiesAboutItsLength)
{
    const std::string header = R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})";
    ASSERT_EQ(load_header(header, 8), TP_OK) << tp_last_error();
    for (const uint64_t size :
         {UINT64_C(0), UINT64_C(1), header.size() - 1, header.size() + 1, header.size() + 8,
          header.size() + 9, UINT64_C(100) << 20, (UINT64_C(100) << 20) + 1, UINT64_MAX, UINT64_MAX - 7,
          UINT64_MAX - 8, UINT64_C(1) << 63, UINT64_C(1) << 32}) {
        EXPECT_EQ(load_header(header, 8, size), TP_EDATA) << size;
        EXPECT_TRUE(says(size > header.size() + 8 ? "is not a safetensors file" : "header is not JSON"))
            << size << ": " << tp_last_error();
    }
}

TEST_F(Safetensors, AHeaderOverTheLimit)
{
    const uint64_t limit = UINT64_C(100) << 20;
    std::string s;
    for (int i = 0; i < 8; i++)
        s += static_cast<char>((limit + 1) >> (8 * i));
    put(s);
    ASSERT_EQ(truncate(path.c_str(), static_cast<off_t>(limit + 100)), 0); /* a file with a hole is cheap */
    Tensors t = make();
    EXPECT_EQ(load(t), TP_EDATA);
    EXPECT_TRUE(says(std::to_string(limit + 1) + " bytes")) << tp_last_error();
}

TEST_F(Safetensors, AHeaderOfVeryManyTensorsIsReadInTime)
{
    std::string header = "{";
    for (int i = 0; i < 60000; i++)
        header += (i > 0 ? ",\"t" : "\"t") + std::to_string(i) +
                  R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
    ASSERT_EQ(load_header(header + "}", 0), TP_OK) << tp_last_error();
}

struct Refused {
    const char *header, *says;
};

TEST_F(Safetensors, HeadersThatAreRefused)
{
    const Refused table[] = {
        {"", "not JSON"},
        {"nonsense", "not JSON"},
        {"[]", "not a map"},
        {"\"text\"", "not JSON"},
        {"{", "not JSON"},
        {"{} {}", "not JSON"},
        {"{\"a\":\"\xff\"}", "not JSON"},
        {R"({"a":[]})", "tensor 'a' has an unknown dtype"},
        {R"({"a":null})", "tensor 'a' has an unknown dtype"},
        {R"({"a":{"shape":[8],"data_offsets":[0,8]}})", "unknown dtype"},
        {R"({"a":{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}})", "unknown dtype 'F8_E4M3'"},
        {R"({"a":{"dtype":"u8","shape":[8],"data_offsets":[0,8]}})", "unknown dtype 'u8'"},
        {R"({"a":{"dtype":8,"shape":[8],"data_offsets":[0,8]}})", "unknown dtype"},
        {R"({"a":{"dtype":"U8","data_offsets":[0,8]}})", "has no shape"},
        {R"({"a":{"dtype":"U8","shape":8,"data_offsets":[0,8]}})", "has no shape"},
        {R"({"a":{"dtype":"U8","shape":[-8],"data_offsets":[0,8]}})", "dimension 0"},
        {R"({"a":{"dtype":"U8","shape":[8.0],"data_offsets":[0,8]}})", "dimension 0"},
        {R"({"a":{"dtype":"U8","shape":[8,"1"],"data_offsets":[0,8]}})", "dimension 1"},
        {R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,8],"data_offsets":[0,8]}})", "at most 8 dimensions"},
        {R"({"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,8]}})", "too large"},
        {R"({"a":{"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,8]}})", "not JSON"},
        {R"({"a":{"dtype":"U8","shape":[8]}})", "does not lie within"},
        {R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[8]}})", "does not lie within"},
        {R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8,8]}})", "does not lie within"},
        {R"({"a":{"dtype":"U8","shape":[8],"data_offsets":"0,8"}})", "does not lie within"},
        {R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8.0]}})", "does not lie within"},
        {R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[-8,0]}})", "does not lie within"},
        {R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[8,0]}})", "does not lie within"},
        {R"({"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}})",
         "does not lie within the file's 8 data bytes"},
        {R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[9223372036854775800,9223372036854775807]}})",
         "does not lie within"},
        {R"({"a":{"dtype":"U8","shape":[7],"data_offsets":[0,8]}})", "has 8 bytes, its shape needs 7"},
        {R"({"a":{"dtype":"U16","shape":[8],"data_offsets":[0,8]}})", "has 8 bytes, its shape needs 16"},
        {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", "has 8 data bytes, its tensors 4"},
        {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})", "leave a hole at byte 0"},
        {"{}", "has 8 data bytes, its tensors 0"},
        {R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})",
         "overlap"},
        {R"({"a":{"dtype":"U8","shape":[5],"data_offsets":[0,5]},"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
         "overlap"},
        {R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})",
         "duplicate"},
        {R"({"__metadata__":[],"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})",
         "__metadata__ is not a map"},
        {R"({"__metadata__":{"k":1},"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})",
         "metadata 'k' is not text"},
        {R"({"__metadata__":{"hash.a":"00"},"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})",
         "its hash is missing"},
    };
    for (const Refused &r : table) {
        EXPECT_EQ(load_header(r.header, 8), TP_EDATA) << r.header;
        EXPECT_TRUE(says(r.says)) << r.header << " says: " << tp_last_error();
        EXPECT_TRUE(says(path)) << tp_last_error();
        EXPECT_EQ(std::strchr(tp_last_error(), '\n'), nullptr) << tp_last_error();
    }
    const std::string deep(50 << 10, '[');
    EXPECT_EQ(load_header("{\"a\":" + deep, 8), TP_EDATA);
    EXPECT_TRUE(says("not JSON")) << tp_last_error();
}

TEST_F(Safetensors, AFailedAllocationIsNoCrash)
{
    const Tensors t = checkpoint();
    save(t);
    const uint64_t before = tp_alloc_count();
    Tensors back = make();
    ASSERT_EQ(load(back), TP_OK);
    save(t);
    const uint64_t n = tp_alloc_count() - before;
    for (uint64_t k = 1; k < n; k++) {
        tp_alloc_fail_at(k, 1);
        tp_tensors *x = nullptr;
        const tp_status loaded = tp_tensors_load(&x, path.c_str());
        const tp_status saved = tp_tensors_save(t.get(), path.c_str());
        tp_alloc_fail_at(0, 0);
        EXPECT_TRUE(loaded == TP_ENOMEM || saved == TP_ENOMEM) << k;
        tp_tensors_free(x);
    }
    ASSERT_EQ(load(back), TP_OK);
}

TEST_F(Safetensors, AFailedSaveLeavesTheOldFile)
{
    save(checkpoint());
    const std::string old = bytes();
    Tensors other = one_of_each();
    for (uint64_t k = 1; k <= 4; k++) {
        tp_io_fail_at(k, ENOSPC);
        EXPECT_EQ(tp_tensors_save(other.get(), path.c_str()), k == 1 ? TP_ECREATE : TP_EIO);
        EXPECT_EQ(bytes(), old);
    }
    tp_io_fail_at(0, 0);
}

} // namespace
