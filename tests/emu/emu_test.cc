/* emu_test.cc - the emulated CUDA runtime itself: that right kernels run, and that wrong ones are found out.
 */
#include "tests/emu/cuda_emu.h"
#include <gtest/gtest.h>
#include <set>
#include <thread>
#include <vector>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN
#endif
#endif

namespace
{

class Emulation : public testing::Test
{
  protected:
    cudaStream_t stream = nullptr;

    void SetUp() override
    {
        GTEST_FLAG_SET(death_test_style, "threadsafe");
        emu_schedule(0);
        emu_fail_at(0, 0);
        ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
    }
    void TearDown() override
    {
        emu_schedule(0);
        emu_fail_at(0, 0);
        EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
    }
    template <typename... P, typename... A>
    void go(dim3 grid, dim3 block, size_t bytes, void (*kernel)(P...), A... args)
    {
        emu::launch("kernel", grid, block, bytes, stream, kernel, args...);
        ASSERT_EQ(cudaGetLastError(), cudaSuccess);
        ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    }
    /* A kernel whose threads are in each other's way: some orders give another result, or ThreadSanitizer
     * sees it. */
    template <typename K> void expect_race(dim3 grid, dim3 block, int n, K kernel)
    {
#ifdef UNDER_TSAN
        EXPECT_EXIT(
            {
                results(grid, block, n, kernel);
                std::exit(0);
            },
            testing::ExitedWithCode(66), "data race");
#else
        EXPECT_GT(results(grid, block, n, kernel).size(), 1u);
#endif
    }
    /* The result of a kernel that fills n ints, in each of some orders. */
    template <typename K> std::set<std::vector<int>> results(dim3 grid, dim3 block, int n, K kernel)
    {
        std::set<std::vector<int>> all;
        for (uint64_t s = 0; s < 16; s++) {
            std::vector<int> out(static_cast<size_t>(n), -1);
            emu_schedule(s);
            go(grid, block, 0, kernel, out.data(), n);
            all.insert(out);
        }
        return all;
    }
};

void index_all(int *out, int n)
{
    const int i = static_cast<int>((blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x);
    const int t = static_cast<int>((threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x);
    const int at = i * static_cast<int>(blockDim.x * blockDim.y * blockDim.z) + t;
    if (at < n)
        out[at] = at;
}

TEST_F(Emulation, EveryThreadOfEveryBlockRunsOnce)
{
    const auto all = results(dim3(2, 3, 2), dim3(8, 2, 2), 12 * 32, index_all);
    ASSERT_EQ(all.size(), 1u);
    for (int i = 0; i < 12 * 32; i++)
        EXPECT_EQ((*all.begin())[static_cast<size_t>(i)], i);
}

void reverse_good(int *out, int n)
{
    TP_SHARED(int, tile, [128]);
    tile[threadIdx.x] = static_cast<int>(threadIdx.x);
    __syncthreads();
    out[threadIdx.x] = tile[n - 1 - static_cast<int>(threadIdx.x)];
}

void reverse_without_barrier(int *out, int n)
{
    TP_SHARED(int, tile, [128]);
    tile[threadIdx.x] = static_cast<int>(threadIdx.x);
    out[threadIdx.x] = tile[n - 1 - static_cast<int>(threadIdx.x)];
}

TEST_F(Emulation, AMissingBarrierShowsInSomeOrder)
{
    EXPECT_EQ(results(1, 128, 128, reverse_good).size(), 1u);
    expect_race(1, 128, 128, reverse_without_barrier);
}

void warp_sum_good(int *out, int n)
{
    int v = static_cast<int>(threadIdx.x);
    for (int k = 16; k > 0; k /= 2)
        v += __shfl_xor_sync(0xffffffffu, v, k);
    if (static_cast<int>(threadIdx.x) < n)
        out[threadIdx.x] = v;
}

TEST_F(Emulation, WarpsExchangeWhateverTheOrderOfTheirLanes)
{
    const auto all = results(1, 64, 64, warp_sum_good);
    ASSERT_EQ(all.size(), 1u);
    EXPECT_EQ((*all.begin())[0], 31 * 32 / 2);
    EXPECT_EQ((*all.begin())[63], 31 * 32 / 2 + 32 * 32);
}

void votes(int *out, int)
{
    const unsigned odd = __ballot_sync(0xffffffffu, threadIdx.x & 1u);
    out[threadIdx.x] = static_cast<int>(__popc(odd)) + 100 * __any_sync(0xffffffffu, threadIdx.x == 7) +
                       1000 * __all_sync(0xffffffffu, threadIdx.x < 32) +
                       10000 * __shfl_down_sync(0xffffffffu, static_cast<int>(threadIdx.x), 1) +
                       1000000 * __shfl_up_sync(0xffffffffu, static_cast<int>(threadIdx.x), 1);
}

TEST_F(Emulation, VotesAndShifts)
{
    const auto all = results(1, 32, 32, votes);
    ASSERT_EQ(all.size(), 1u);
    EXPECT_EQ((*all.begin())[5], 16 + 100 + 1000 + 60000 + 4000000);
    EXPECT_EQ((*all.begin())[31], 16 + 100 + 1000 + 310000 + 30000000);
}

/* Warp 0 overwrites what the others may still have to read. */
void overwrites_early(int *out, int n)
{
    TP_SHARED(int, value, [1]);
    int total = 0;
    for (int round = 0; round < 2; round++) {
        if (threadIdx.x == 0)
            value[0] = round;
        __syncthreads();
        total += __shfl_xor_sync(0xffffffffu, value[0], 1);
    }
    if (static_cast<int>(threadIdx.x) < n)
        out[threadIdx.x] = total;
}

TEST_F(Emulation, AWarpMayBeSlow)
{
    expect_race(1, 128, 128, overwrites_early);
}

void last_block_wins(int *out, int)
{
    if (threadIdx.x == 0)
        out[0] = static_cast<int>(blockIdx.x);
}

TEST_F(Emulation, BlocksThatWriteOneCellGiveSeveralResults)
{
    expect_race(8, 32, 1, last_block_wins);
}

void divergent_barrier(int *out, int)
{
    if (threadIdx.x < 32)
        __syncthreads();
    out[threadIdx.x] = 0;
}

void two_barriers(int *out, int)
{
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    out[threadIdx.x] = 0;
}

void half_a_warp(int *out, int)
{
    if (threadIdx.x < 16)
        out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);
}

void partial_mask(int *out, int)
{
    out[threadIdx.x] = __shfl_xor_sync(0xffffu, 1, 1);
}

void two_places(int *out, int)
{
    if (threadIdx.x % 2 == 0)
        out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 2);
    else
        out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 2, 2);
}

TEST_F(Emulation, DivergenceEndsTheProcess)
{
    std::vector<int> out(64);
    EXPECT_DEATH(go(1, 64, 0, divergent_barrier, out.data(), 64), "never come");
    EXPECT_DEATH(go(1, 64, 0, two_barriers, out.data(), 64), "waits at .*emu_test.cc:.* thread");
    EXPECT_DEATH(go(1, 32, 0, half_a_warp, out.data(), 64), "never come");
    EXPECT_DEATH(go(1, 32, 0, partial_mask, out.data(), 64), "without all 32 lanes");
    EXPECT_DEATH(go(1, 48, 0, warp_sum_good, out.data(), 48), "without all 32 lanes");
    EXPECT_DEATH(go(1, 32, 0, two_places, out.data(), 64), "lanes of one warp are at");
}

void reads_unwritten(float *out, int n)
{
    TP_SHARED(float, tile, [64]);
    TP_DYN_SHARED(float, more);
    if (threadIdx.x < 32)
        tile[threadIdx.x] = more[threadIdx.x] = 1.0f;
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < n)
        out[threadIdx.x] = tile[threadIdx.x] + more[threadIdx.x];
}

TEST_F(Emulation, SharedMemoryIsNaNUntilItIsWritten)
{
    std::vector<float> out(64, 0.0f);
    go(1, 64, 64 * sizeof(float), reads_unwritten, out.data(), 64);
    EXPECT_EQ(out[31], 2.0f);
    EXPECT_TRUE(std::isnan(out[32]));
}

#if defined(__SANITIZE_ADDRESS__)
void overruns(float *out, int n)
{
    TP_SHARED(float, tile, [32]);
    tile[threadIdx.x + 1] = 1.0f;
    __syncthreads();
    out[threadIdx.x % static_cast<unsigned>(n)] = tile[threadIdx.x];
}

TEST_F(Emulation, AnOverrunOfSharedMemoryIsFound)
{
    std::vector<float> out(32);
    EXPECT_DEATH(go(1, 32, 0, overruns, out.data(), 32), "heap-buffer-overflow|out of bounds");
}

void writes_past(float *out, int n)
{
    out[threadIdx.x] = static_cast<float>(n);
}

TEST_F(Emulation, AnOverrunOfDeviceMemoryIsFound)
{
    void *p = nullptr;
    ASSERT_EQ(cudaMalloc(&p, 31 * sizeof(float)), cudaSuccess);
    EXPECT_DEATH(go(1, 32, 0, writes_past, static_cast<float *>(p), 32), "heap-buffer-overflow");
    EXPECT_EQ(cudaFree(p), cudaSuccess);
}
#endif

void counts(unsigned *n)
{
    atomicAdd(n, 1u);
    atomicMax(n + 1, threadIdx.x);
}

TEST_F(Emulation, WholeNumbersAddUpAtomically)
{
    unsigned n[2] = {0, 0};
    go(7, 96, 0, counts, n);
    EXPECT_EQ(n[0], 7u * 96u);
    EXPECT_EQ(n[1], 95u);
}

void add_one(int *x)
{
    if (threadIdx.x == 0)
        (*x)++;
}

TEST_F(Emulation, StreamsWorkAsLateAsTheyMay)
{
    int x = 0;
    cudaEvent_t event = nullptr;
    ASSERT_EQ(cudaEventCreate(&event), cudaSuccess);
    emu::launch("add_one", 1, 32, 0, stream, add_one, &x);
    EXPECT_EQ(x, 0);
    ASSERT_EQ(cudaEventRecord(event, stream), cudaSuccess);
    EXPECT_EQ(cudaEventQuery(event), cudaErrorNotReady);
    EXPECT_EQ(cudaEventSynchronize(event), cudaSuccess);
    EXPECT_EQ(x, 1);
    EXPECT_EQ(cudaEventDestroy(event), cudaSuccess);
}

/* A copy from a to b on the first stream, and one of 2 to a on another, with or without waiting for it. */
TEST_F(Emulation, StreamsFollowEventsAndShowWhatDoesNot)
{
    for (const uint64_t order : {0, 1})
        for (const bool follows : {true, false}) {
            cudaStream_t other = nullptr;
            cudaEvent_t copied = nullptr;
            int a = 1, b = 0, two = 2;
            emu_schedule(order);
            ASSERT_EQ(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), cudaSuccess);
            ASSERT_EQ(cudaEventCreateWithFlags(&copied, cudaEventDisableTiming), cudaSuccess);
            EXPECT_EQ(cudaStreamWaitEvent(other, copied, 0), cudaSuccess) << "never recorded";
            ASSERT_EQ(cudaMemcpyAsync(&b, &a, sizeof(a), cudaMemcpyDeviceToDevice, stream), cudaSuccess);
            ASSERT_EQ(cudaEventRecord(copied, stream), cudaSuccess);
            if (follows) {
                ASSERT_EQ(cudaStreamWaitEvent(other, copied, 0), cudaSuccess);
            }
            ASSERT_EQ(cudaMemcpyAsync(&a, &two, sizeof(a), cudaMemcpyHostToDevice, other), cudaSuccess);
            EXPECT_EQ(a, order == 1 && !follows ? 2 : 1) << "early only where it may be";
            EXPECT_EQ(b, 0);
            ASSERT_EQ(cudaStreamSynchronize(other), cudaSuccess);
            EXPECT_EQ(a, 2);
            EXPECT_EQ(b, follows ? 1 : 0) << "what is not waited for is not done";
            ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
            EXPECT_EQ(b, follows ? 1 : 2) << order;
            EXPECT_EQ(cudaEventDestroy(copied), cudaSuccess);
            EXPECT_EQ(cudaStreamDestroy(other), cudaSuccess);
        }
}

TEST_F(Emulation, AnEventIsWaitedForOnAnyThread)
{
    cudaEvent_t event = nullptr;
    int from = 5, to = 0;
    ASSERT_EQ(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
    ASSERT_EQ(cudaMemcpyAsync(&to, &from, sizeof(to), cudaMemcpyDeviceToHost, stream), cudaSuccess);
    ASSERT_EQ(cudaEventRecord(event, stream), cudaSuccess);
    std::thread waits([&] {
        EXPECT_EQ(cudaEventSynchronize(event), cudaSuccess);
        EXPECT_EQ(to, 5);
    });
    int other = 0;
    for (int i = 0; i < 100; i++)
        EXPECT_EQ(cudaMemcpyAsync(&other, &from, sizeof(from), cudaMemcpyDeviceToHost, stream), cudaSuccess);
    waits.join();
    EXPECT_EQ(cudaEventDestroy(event), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
}

/* Two GPUs, the second current in this thread. */
struct TwoGpus {
    TwoGpus()
    {
        emu_devices(2);
        EXPECT_EQ(cudaSetDevice(1), cudaSuccess);
    }
    ~TwoGpus()
    {
        emu_devices(1);
    }
};

TEST_F(Emulation, EveryThreadHasACurrentGpuAndEveryGpuItsMemory)
{
    const TwoGpus two;
    void *p = nullptr;
    int device = -1;
    size_t before = 0, after = 0, total = 0;
    EXPECT_EQ(cudaSetDevice(2), cudaErrorInvalidDevice);
    EXPECT_EQ(cudaGetDevice(&device), cudaSuccess);
    EXPECT_EQ(device, 1);
    ASSERT_EQ(cudaMemGetInfo(&before, &total), cudaSuccess);
    ASSERT_EQ(cudaMalloc(&p, 64), cudaSuccess);
    EXPECT_EQ(cudaMemGetInfo(&after, &total), cudaSuccess);
    EXPECT_EQ(after, before - 64);
    std::thread([&] {
        EXPECT_EQ(cudaGetDevice(&device), cudaSuccess);
        EXPECT_EQ(device, 0);
        EXPECT_EQ(cudaMemGetInfo(&after, &total), cudaSuccess);
        EXPECT_EQ(after, total);
    }).join();
    EXPECT_EQ(cudaFree(p), cudaSuccess);
}

/* `stream` is of GPU 0. */
TEST_F(Emulation, AStreamTakesWorkOfItsOwnGpuOnly)
{
    const TwoGpus two;
    char *p = nullptr, host = 0;
    int x = 0;
    cudaEvent_t event = nullptr;
    ASSERT_EQ(cudaMalloc(reinterpret_cast<void **>(&p), 64), cudaSuccess);
    ASSERT_EQ(cudaEventCreate(&event), cudaSuccess);
    emu::launch("add_one", 1, 32, 0, stream, add_one, &x);
    EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidResourceHandle);
    EXPECT_EQ(cudaMemsetAsync(&host, 1, 1, stream), cudaErrorInvalidResourceHandle);
    EXPECT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), cudaErrorInvalidResourceHandle);
    EXPECT_DEATH(emu::run_on_stream(stream, [] {}), "a stream of GPU 0 is used while GPU 1 is current");
    ASSERT_EQ(cudaSetDevice(0), cudaSuccess);
    EXPECT_EQ(cudaEventRecord(event, stream), cudaErrorInvalidResourceHandle) << "an event of GPU 1";
    EXPECT_EQ(cudaMemsetAsync(p, 1, 1, stream), cudaErrorInvalidValue) << "memory of GPU 1";
    EXPECT_EQ(cudaMemcpyAsync(&host, p + 63, 1, cudaMemcpyDeviceToHost, stream), cudaErrorInvalidValue);
    EXPECT_EQ(cudaMemsetAsync(&host, 1, 1, stream), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    EXPECT_EQ(x, 0);
    EXPECT_EQ(host, 1);
    EXPECT_EQ(cudaEventDestroy(event), cudaSuccess);
    EXPECT_EQ(cudaFree(p), cudaSuccess);
}

TEST_F(Emulation, ACapturedGraphRunsWhenItIsLaunched)
{
    int x = 0;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), cudaSuccess);
    emu::launch("add_one", 1, 32, 0, stream, add_one, &x);
    EXPECT_DEATH((void)cudaStreamSynchronize(stream), "during capture");
    ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    ASSERT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
    ASSERT_EQ(cudaGraphDestroy(graph), cudaSuccess);
    EXPECT_EQ(x, 0);
    for (int i = 0; i < 3; i++)
        ASSERT_EQ(cudaGraphLaunch(exec, stream), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    EXPECT_EQ(x, 3);
    EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
}

TEST_F(Emulation, FailuresComeWhereTheyAreAskedForAndStickIfTheyDo)
{
    void *p = nullptr;
    emu_fail_at(2, cudaErrorMemoryAllocation);
    EXPECT_EQ(cudaMalloc(&p, 8), cudaSuccess);
    EXPECT_EQ(cudaMemsetAsync(p, 0, 8, stream), cudaErrorMemoryAllocation);
    EXPECT_EQ(cudaMemsetAsync(p, 0, 8, stream), cudaSuccess);
    emu_fail_at(1, cudaErrorIllegalAddress);
    EXPECT_EQ(cudaMemsetAsync(p, 0, 8, stream), cudaErrorIllegalAddress);
    EXPECT_EQ(cudaMemsetAsync(p, 0, 8, stream), cudaErrorIllegalAddress);
    emu_fail_at(0, 0);
    EXPECT_EQ(cudaFree(p), cudaSuccess);
}

TEST_F(Emulation, ALaunchThatNoGpuTakesIsAnError)
{
    int x = 0;
    for (const dim3 block : {dim3(0), dim3(1056)}) {
        emu::launch("add_one", 1, block, 0, stream, add_one, &x);
        EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidConfiguration);
    }
    emu::launch("add_one", dim3(1, 65536), 32, 0, stream, add_one, &x);
    EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidConfiguration);
    emu::launch("add_one", 1, 32, 228 * 1024, stream, add_one, &x);
    EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidConfiguration);
}

} // namespace
