/* cuda_op_test.cc - every implementation of every op on the GPU of emulated.h: by default the
 * emulated one, where the threads of a block run in an order that is chosen here. */
#include "tests/engine/emulated.h"
#include "tests/engine/op_case.h"
#include <fstream>
#include <map>
#include <set>

namespace
{

/* Block and lane orders to try: the variable's, or 8. On a real GPU the runs are plain repeats. */
uint64_t n_schedules()
{
    const char *n = std::getenv("TEMPER_TEST_SCHEDULES");
    return n != nullptr ? std::strtoull(n, nullptr, 10) : 8;
}

/* Before anything else opens a device. */
const char *const module_file = use_test_module();

class CudaOpCase : public OpCase
{
};

TEST_P(CudaOpCase, EveryImplementationMatchesTheDoubleReference)
{
    const auto want = reference();
    const auto list = impls(gpu());
    int compared = 0, own = 0; /* implementations, and those that call no library */
    for (const tp_impl *impl : list) {
        const auto got = run(gpu(), TP_F32, impl);
        const std::string why = got.empty() ? tp_last_error() : "";
        EXPECT_TRUE(got.size() > 0 || !(impl->flags & TP_IMPL_LIBRARY) || !is_emulated() ||
                    why.find("empty") != std::string::npos || why.find("broadcast") != std::string::npos ||
                    why.find("relu alone") != std::string::npos ||
                    why.find("may not count") != std::string::npos ||
                    why.find("single value") != std::string::npos ||
                    why.find("passes of their own") != std::string::npos ||
                    why.find("dtype bfloat16") != std::string::npos)
            << where(impl->name) << " has declined: " << why;
        if (got.empty())
            continue;
        compared++;
        own += !(impl->flags & TP_IMPL_LIBRARY);
        expect_close(impl->name, want, got);
    }
    EXPECT_TRUE(compared > 0 || (op->flags & TP_OP_VIEW)) << where("no implementation accepts float32");
    EXPECT_TRUE(own > 0 || (op->flags & TP_OP_VIEW)) << where("every kernel of our own has declined");
}

/* So that the toolkit works with neither library. */
TEST(CudaOps, EveryOpHasAKernelOfOurOwn)
{
    for (int i = 0; i < tp_n_ops; i++) {
        int own = 0;
        for (const tp_impl *const *p = tp_device_impls(gpu(), tp_op_table[i]); p != nullptr && *p != nullptr;
             p++)
            own += !((*p)->flags & TP_IMPL_LIBRARY);
        EXPECT_TRUE(own > 0 || (tp_op_table[i]->flags & TP_OP_VIEW)) << tp_op_table[i]->name;
    }
}

/* FNV-1a over the bits of every result. */
uint64_t hash_of(const std::vector<std::vector<double>> &results)
{
    uint64_t h = 14695981039346656037u;
    for (const auto &r : results)
        for (double v : r) {
            uint64_t bits;
            std::memcpy(&bits, &v, sizeof(bits));
            for (int i = 0; i < 8; i++)
                h = (h ^ (bits >> (8 * i) & 0xff)) * 1099511628211u;
        }
    return h;
}

/* tests/golden/kernel_hashes.txt, which ./dev gpu makes: "op case implementation inputs" and the hash that a
 * GPU gave for it; and what is yet to be run on one, an op or one of its cases, in lines "# pending op" and
 * "# pending op case". pow is the GPU's own, and no two libraries round it alike. */
struct GpuHashes {
    std::map<std::string, std::string> known;
    std::set<std::string> pending;
    bool there; /* not where the tests run without their source */

    GpuHashes()
    {
        const std::string mark = "# pending ";
        std::ifstream in(TEMPER_SOURCE_DIR "/tests/golden/kernel_hashes.txt");
        there = in.is_open();
        for (std::string line; std::getline(in, line);)
            if (line.compare(0, mark.size(), mark) == 0)
                pending.insert(line.substr(mark.size()));
            else if (line[0] != '#')
                known[line.substr(0, line.rfind(' '))] = line.substr(line.rfind(' ') + 1);
    }
    bool is_pending(const std::string &op, int index) const
    {
        return !there || pending.count(op) != 0 || pending.count(op + " " + std::to_string(index)) != 0;
    }
};

const GpuHashes &hashes_of_a_gpu()
{
    static const GpuHashes all;
    return all;
}

/* Our own kernels give the bits that a GPU gave; what it gives goes into the file that the variable names. */
void check_hash(const tp_op *op, int index, const tp_impl *impl, const char *inputs,
                const std::vector<std::vector<double>> &results)
{
    const char *path = std::getenv("TEMPER_TEST_HASHES");
    char hash[17];
    if ((impl->flags & TP_IMPL_LIBRARY) || std::strcmp(op->name, "pow") == 0)
        return;
    const std::string key =
        std::string(op->name) + " " + std::to_string(index) + " " + impl->name + " " + inputs;
    std::snprintf(hash, sizeof(hash), "%016llx", (unsigned long long)hash_of(results));
    const auto known = hashes_of_a_gpu().known.find(key);
    if (known != hashes_of_a_gpu().known.end()) {
        EXPECT_EQ(known->second, hash) << key << ": other bits than on a GPU";
    } else {
        EXPECT_TRUE(path != nullptr || hashes_of_a_gpu().is_pending(op->name, index))
            << key << ": tests/golden/kernel_hashes.txt has no hash of a GPU, and does not call it pending";
    }
    FILE *f = path != nullptr ? std::fopen(path, "a") : nullptr;
    if (f == nullptr)
        return;
    std::fprintf(f, "%s %s\n", key.c_str(), hash);
    std::fclose(f);
}

TEST(CudaOps, WhatIsPendingIsNamedRight)
{
    if (!hashes_of_a_gpu().there)
        GTEST_SKIP() << "needs the source of the tests";
    int cases = 0;
    std::set<std::string> unused = hashes_of_a_gpu().pending;
    for (const Param &p : every_case()) {
        cases += hashes_of_a_gpu().is_pending(p.op->name, p.index);
        unused.erase(p.op->name);
        unused.erase(std::string(p.op->name) + " " + std::to_string(p.index));
    }
    std::printf("%d of %zu cases wait for the hash of a GPU\n", cases, every_case().size());
    EXPECT_TRUE(unused.empty()) << *unused.begin() << " is no op, nor a case of one";
}

TEST_P(CudaOpCase, GivesTheSameBitsInEveryOrderAndWithAPoisonedArena)
{
    for (const tp_impl *impl : impls(gpu())) {
        set_schedule(0);
        const auto first = run(gpu(), TP_F32, impl);
        if (first.empty())
            continue;
        check_hash(op, GetParam().index, impl, c.in, first);
        EXPECT_EQ(first, run(gpu(), TP_F32, impl, true)) << where(impl->name) << " reads what nobody wrote";
        for (uint64_t s = 1; s < n_schedules(); s++) {
            set_schedule(s);
            EXPECT_EQ(first, run(gpu(), TP_F32, impl)) << where(impl->name) << " in order " << s;
        }
        set_schedule(0);
    }
}

/* Factors rounded to 8 bits of mantissa (bf16), or 11 (tf32): each product errs by up to twice half a last
 * place, whatever the length of the sum. */
TEST_P(CudaOpCase, RoundsFactorsInBf16AndTf32)
{
    const std::string name = op->name;
    if (name != "matmul" && name.compare(0, 4, "gemm") != 0 && name.compare(0, 4, "conv") != 0)
        return;
    const auto want = reference();
    for (const tp_impl *impl : impls(gpu()))
        for (const tp_precision precision : {TP_PRECISION_TF32, TP_PRECISION_BF16}) {
            const auto got = run(gpu(), TP_F32, impl, false, precision);
            if (got.empty())
                continue;
            const double allowed = std::max(precision == TP_PRECISION_BF16 ? 0x1p-7 : 0x1p-10, tolerance());
            double square = 0, size = 0;
            for (size_t i = 0; i < want[0].size(); i++) {
                square += (got[0][i] - want[0][i]) * (got[0][i] - want[0][i]);
                size += want[0][i] * want[0][i];
            }
            EXPECT_LE(std::sqrt(square), allowed * std::sqrt(size) + 1e-30) << where(impl->name) << precision;
        }
}

INSTANTIATE_TEST_SUITE_P(Ops, CudaOpCase, testing::ValuesIn(every_case()), case_name);

} // namespace
