/* cuda_device_test.cc - the GPU as a device: memory, copies, captured plans, and what happens when a call of
 * the CUDA runtime fails. Against the emulated runtime; the failures are skipped on a real GPU. */
#include "host/graph/cuda_module.h"
#include "host/graph/device.h"
#include "kernels/op.h"
#include "temper/plan.h"
#include "tests/engine/emulated.h"
#include <algorithm>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

namespace
{

/* counter = {0, 0}; y = relu(x - 1); ring[step] = y; step += 1. */
struct Program {
    tp_device *dev;
    tp_graph *g = nullptr;
    tp_plan *plan = nullptr;
    void *x = nullptr, *counter = nullptr, *ring = nullptr;
    tp_val y = 0;

    explicit Program(tp_device *device) : dev(device)
    {
    }
    ~Program()
    {
        tp_plan_free(plan);
        tp_graph_free(g);
        tp_device_release(dev, x);
        tp_device_release(dev, counter);
        tp_device_release(dev, ring);
    }
    Program(const Program &) = delete;
    Program &operator=(const Program &) = delete;

    tp_status make(const tp_plan_opts *opts)
    {
        const float values[3] = {0.5f, 2.0f, 3.5f};
        TP_TRY(tp_graph_new(&g));
        TP_TRY(tp_device_alloc(dev, &x, sizeof(values), "x"));
        TP_TRY(tp_device_alloc(dev, &counter, 16, "counter"));
        TP_TRY(tp_device_alloc(dev, &ring, 8 * 3 * sizeof(float), "ring"));
        TP_TRY(tp_device_upload(dev, x, values, sizeof(values)));
        const tp_val vx = tp_variable(g, "x", {x, {1, {3}}, TP_F32});
        const tp_val vc = tp_variable(g, "counter", {counter, {1, {2}}, TP_U64});
        y = tp_output(g, tp_relu(g, tp_sub(g, vx, tp_scalar(g, TP_F32, 1.0))));
        tp_ring_write(g, tp_variable(g, "ring", {ring, {2, {8, 3}}, TP_F32}), vc, 1, &y);
        tp_advance(g, vc);
        return tp_plan_new(&plan, g, dev, opts);
    }
    tp_status run(int64_t times, uint64_t *step, std::vector<float> *rows)
    {
        uint64_t c[2] = {0, 0};
        rows->resize(24);
        TP_TRY(tp_plan_run_times(plan, times));
        TP_TRY(tp_device_mark(dev, TP_QUEUE_RUN, 1));
        TP_TRY(tp_device_await(dev, 1));
        TP_TRY(tp_device_download(dev, rows->data(), ring, 24 * sizeof(float)));
        TP_TRY(tp_device_download(dev, c, counter, sizeof(c)));
        *step = c[1];
        return TP_OK;
    }
};

TEST(CudaDevice, AModuleWithAnotherNumberIsRefused)
{
    const auto get = emulated_symbol<const tp_cuda_module *(*)(const tp_cuda_host *)>(TP_CUDA_MODULE_SYMBOL);
    ASSERT_NE(get, nullptr);
    ASSERT_NE(gpu(), nullptr) << "it has the number of these headers";
    EXPECT_NE(tp_cuda_module_abi, 0u);
    for (int bit = 0; bit < 64; bit++) {
        const tp_cuda_host other = {tp_cuda_module_abi ^ (uint64_t)1 << bit, nullptr, nullptr, nullptr,
                                    nullptr};
        EXPECT_EQ(get(&other), nullptr) << bit;
    }
}

TEST(CudaDevice, MemoryIsZeroedAndCopiesComeBack)
{
    void *p = nullptr;
    float out[5] = {1, 1, 1, 1, 1}, in[5] = {1, 2, 3, 4, 5};
    ASSERT_EQ(tp_device_alloc(gpu(), &p, sizeof(out), "five"), TP_OK) << tp_last_error();
    ASSERT_EQ(tp_device_download(gpu(), out, p, sizeof(out)), TP_OK);
    for (float v : out)
        EXPECT_EQ(v, 0.0f);
    ASSERT_EQ(tp_device_upload(gpu(), p, in, sizeof(in)), TP_OK);
    ASSERT_EQ(tp_device_download(gpu(), out, p, sizeof(out)), TP_OK);
    for (int i = 0; i < 5; i++)
        EXPECT_EQ(out[i], in[i]);
    tp_device_release(gpu(), p);
}

TEST(CudaDevice, QueuedCopiesAreDoneAtTheirMark)
{
    void *p = nullptr, *host = nullptr, *back = nullptr;
    ASSERT_EQ(tp_device_alloc(gpu(), &p, 64, "device"), TP_OK);
    ASSERT_EQ(tp_device_host_alloc(gpu(), &host, 64, "host"), TP_OK);
    ASSERT_EQ(tp_device_host_alloc(gpu(), &back, 64, "back"), TP_OK);
    static_cast<char *>(host)[63] = 7;
    ASSERT_EQ(tp_device_enqueue_copy(gpu(), TP_QUEUE_RUN, p, host, 64, TP_TO_DEVICE), TP_OK);
    ASSERT_EQ(tp_device_enqueue_copy(gpu(), TP_QUEUE_RUN, back, p, 64, TP_FROM_DEVICE), TP_OK);
    ASSERT_EQ(tp_device_mark(gpu(), TP_QUEUE_RUN, 0), TP_OK);
    ASSERT_EQ(tp_device_await(gpu(), 0), TP_OK);
    EXPECT_EQ(static_cast<char *>(back)[63], 7);
    tp_device_release(gpu(), p);
    tp_device_host_release(gpu(), host);
    tp_device_host_release(gpu(), back);
}

TEST(CudaDevice, ACapturedPlanRunsOnceOrManyTimes)
{
    for (int slow = 0; slow < 3; slow++) {
        tp_plan_opts opts = TP_PLAN_OPTS_INIT;
        opts.timed = slow == 1;
        opts.poison = slow == 2;
        Program p(gpu());
        std::vector<float> rows;
        uint64_t step = 0;
        ASSERT_EQ(p.make(&opts), TP_OK) << tp_last_error();
        uint64_t want = 0;
        for (int64_t times : {1, 0, 3, 3, 5, 2, 5}) {
            ASSERT_EQ(p.run(times, &step, &rows), TP_OK) << tp_last_error();
            EXPECT_EQ(step, want += static_cast<uint64_t>(times));
        }
        EXPECT_EQ(std::vector<float>(rows.begin(), rows.begin() + 3), (std::vector<float>{0.0f, 1.0f, 2.5f}));
    }
}

TEST(CudaDevice, AStepThatIsNotFiniteIsNotToBeApplied)
{
    const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    const struct {
        float gradient, loss, ok;
    } steps[] = {
        {1.0f, 2.0f, 1.0f}, {nan, 2.0f, 0.0f}, {-inf, 2.0f, 0.0f}, {1.0f, nan, 0.0f}, {1.0f, inf, 0.0f}};
    for (const auto &s : steps) {
        tp_graph *g = nullptr;
        tp_plan *plan = nullptr;
        const float gradient[5] = {3.0f, 0.0f, 0.0f, 0.0f, s.gradient};
        float clip[2] = {-1.0f, -1.0f};
        ASSERT_EQ(tp_graph_new(&g), TP_OK);
        const tp_val dw = tp_constant(g, TP_F32, {1, {5}}, gradient),
                     loss = tp_constant(g, TP_F32, {0, {}}, &s.loss);
        const tp_val result = tp_output(g, tp_clip_norm(g, 1, &dw, loss, 0.0));
        ASSERT_EQ(tp_plan_new(&plan, g, gpu(), nullptr), TP_OK) << tp_last_error();
        ASSERT_EQ(tp_plan_run(plan), TP_OK) << tp_last_error();
        ASSERT_EQ(tp_plan_read(plan, result, clip), TP_OK);
        EXPECT_EQ(clip[1], s.ok) << s.gradient << " " << s.loss;
        tp_plan_free(plan);
        tp_graph_free(g);
    }
}

/* Channels: of numbers, with one that is none, with infinity, and of one value,
 * of which rounding makes a variance below 0 with this epsilon. */
TEST(CudaDevice, AStepThatIsNotFiniteDoesNotSpoilRunningStatistics)
{
    const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    const float x[4][4] = {{1, 1, 1, 5}, {2, nan, inf, 5}, {3, 3, 3, 5}, {6, 4, 4, 5}};
    const std::vector<float> ones(4, 1.0f), zeros(4, 0.0f);
    int ran = 0;
    for (const tp_impl *const *p = tp_device_impls(gpu(), tp_op_find("batch_norm")); *p != nullptr; p++) {
        tp_graph *g = nullptr;
        tp_plan *plan = nullptr;
        std::vector<float> mean(4), var(4);
        tp_tensor running[2] = {{nullptr, {1, {4}}, TP_F32}, {nullptr, {1, {4}}, TP_F32}};
        ASSERT_EQ(tp_graph_new(&g), TP_OK);
        for (tp_tensor &r : running) {
            ASSERT_EQ(tp_device_alloc(gpu(), &r.data, 16, "running"), TP_OK) << tp_last_error();
            ASSERT_EQ(tp_device_upload(gpu(), r.data, ones.data(), 16), TP_OK);
        }
        const tp_val m = tp_variable(g, "mean", running[0]), v = tp_variable(g, "var", running[1]);
        tp_output(g, tp_batch_norm(g, tp_constant(g, TP_F32, {2, {4, 4}}, x),
                                   tp_constant(g, TP_F32, {1, {4}}, ones.data()),
                                   tp_constant(g, TP_F32, {1, {4}}, zeros.data()), m, v, 0, 0, 3e-5, 0.5,
                                   TP_ACT_NONE));
        tp_plan_opts opts = TP_PLAN_OPTS_INIT;
        opts.force_op = "batch_norm";
        opts.force_impl = (*p)->name;
        const tp_status st = tp_plan_new(&plan, g, gpu(), &opts);
        EXPECT_TRUE(st == TP_OK || st == TP_EUNSUP) << tp_last_error();
        if (st == TP_OK) {
            ran++;
            ASSERT_EQ(tp_plan_run(plan), TP_OK) << tp_last_error();
            ASSERT_EQ(tp_device_download(gpu(), mean.data(), running[0].data, 16), TP_OK);
            ASSERT_EQ(tp_device_download(gpu(), var.data(), running[1].data, 16), TP_OK);
            EXPECT_EQ(std::vector<float>(mean.begin() + 1, mean.begin() + 3),
                      (std::vector<float>{1.0f, 1.0f}))
                << (*p)->name;
            EXPECT_NEAR(mean[0], 2.0, 1e-5) << (*p)->name;
            EXPECT_NEAR(mean[3], 3.0, 1e-5) << (*p)->name;
            EXPECT_NEAR(var[0], 0.5 + 0.5 * 14.0 / 3.0, 1e-5) << (*p)->name;
            EXPECT_EQ(std::vector<float>(var.begin() + 1, var.begin() + 3), (std::vector<float>{1.0f, 1.0f}))
                << (*p)->name;
            EXPECT_NEAR(var[3], 0.5, 1e-5) << (*p)->name;
        }
        tp_plan_free(plan);
        tp_graph_free(g);
        for (const tp_tensor &r : running)
            tp_device_release(gpu(), r.data);
    }
    EXPECT_GE(ran, is_emulated() ? 2 : 1);
}

TEST(CudaDevice, NothingIsAllocatedOrWaitedForBetweenLaunches)
{
    if (!is_emulated())
        GTEST_SKIP() << "counts the calls of the emulated runtime";
    Program p(gpu());
    ASSERT_EQ(p.make(nullptr), TP_OK) << tp_last_error();
    ASSERT_EQ(tp_plan_run_times(p.plan, 4), TP_OK);
    const uint64_t alive = emulated_count("emu_alive"), syncs = emulated_count("emu_syncs"),
                   calls = emulated_count("emu_calls");
    for (int i = 0; i < 100; i++)
        ASSERT_EQ(tp_plan_run_times(p.plan, 4), TP_OK);
    EXPECT_EQ(emulated_count("emu_alive"), alive);
    EXPECT_EQ(emulated_count("emu_syncs"), syncs);
    EXPECT_EQ(emulated_count("emu_calls"), calls + 200) << "for each row of steps its GPU and one launch";
}

TEST(CudaDevice, AnArenaThatDoesNotFitNamesItsLargestValues)
{
    if (!is_emulated())
        GTEST_SKIP() << "needs the memory of the emulated GPU";
    tp_graph *g = nullptr;
    tp_plan *plan = nullptr;
    ASSERT_EQ(tp_graph_new(&g), TP_OK);
    const int64_t huge[2] = {1 << 20, 1 << 14}; /* 64 GiB */
    const float one = 1.0f;
    const tp_val row = tp_constant(g, TP_F32, {2, {1, huge[1]}}, std::vector<float>(huge[1], one).data());
    const tp_val column = tp_constant(g, TP_F32, {2, {huge[0], 1}}, std::vector<float>(huge[0], one).data());
    tp_output(g, tp_exp(g, tp_add(g, row, column)));
    EXPECT_EQ(tp_plan_new(&plan, g, gpu(), nullptr), TP_ENOMEM);
    const std::string line = tp_last_error();
    EXPECT_NE(line.find("bytes asked"), std::string::npos) << line;
    EXPECT_NE(line.find("free"), std::string::npos) << line;
    EXPECT_NE(line.find("largest values: add(1048576,16384) of 68719476736 bytes"), std::string::npos)
        << line;
    EXPECT_EQ(plan, nullptr);
    tp_graph_free(g);
}

TEST(CudaDevice, PinnedMemoryThatIsNotThereNamesTheBytes)
{
    if (!is_emulated())
        GTEST_SKIP() << "needs the emulated runtime";
    void *p = nullptr;
    ASSERT_NE(gpu(), nullptr);
    set_failure(2, 2); /* out of memory, once the GPU is current */
    EXPECT_EQ(tp_device_host_alloc(gpu(), &p, 12345, "a ring"), TP_ENOMEM);
    set_failure(0, 0);
    EXPECT_STREQ(tp_last_error(), "cuda: no pinned host memory for a ring: 12345 bytes asked");
    EXPECT_EQ(p, nullptr);
}

TEST(CudaDevice, PrecisionsHaveNames)
{
    EXPECT_STREQ(tp_precision_name(TP_PRECISION_BF16), "bf16");
    EXPECT_STREQ(tp_precision_name(static_cast<tp_precision>(TP_PRECISIONS)), "none");
    EXPECT_STREQ(tp_precision_name(static_cast<tp_precision>(-1)), "none");
}

TEST(CudaDevice, InformationIsThere)
{
    tp_device_info info;
    int n = 0;
    ASSERT_EQ(tp_device_gpu_count(&n), TP_OK) << tp_last_error();
    EXPECT_GE(n, 1);
    ASSERT_EQ(tp_device_gpu_info(0, &info), TP_OK) << tp_last_error();
    EXPECT_STRNE(info.name, "");
    EXPECT_GE(info.capability, 80);
    EXPECT_GT(info.multiprocessors, 0);
    EXPECT_GE(info.memory_bytes, info.free_bytes);
    EXPECT_GE(info.driver, 13000);
    EXPECT_STRNE(info.cublaslt, "");
    EXPECT_STRNE(info.cudnn, "");
    EXPECT_EQ(tp_device_gpu_info(n, &info), TP_EDEVICE);
    EXPECT_EQ(tp_device_gpu_info(-1, &info), TP_EDEVICE);
}

/* ---- several GPUs ---- */

class CudaDevices : public testing::Test
{
  protected:
    tp_device *dev[2] = {nullptr, nullptr};

    void SetUp() override
    {
        if (!is_emulated())
            GTEST_SKIP() << "needs two GPUs";
        use_test_module();
        emulated_symbol<void (*)(int)>("emu_devices")(2);
        ASSERT_EQ(tp_device_open(&dev[0], "cuda:0"), TP_OK) << tp_last_error();
        ASSERT_EQ(tp_device_open(&dev[1], "cuda:1"), TP_OK) << tp_last_error();
    }
    void TearDown() override
    {
        if (!is_emulated())
            return;
        tp_device_close(dev[0]);
        tp_device_close(dev[1]);
        emulated_symbol<void (*)(int)>("emu_devices")(1);
    }
    static int current()
    {
        return emulated_symbol<int (*)()>("emu_device")();
    }
};

TEST_F(CudaDevices, AskingAboutOneLeavesTheOtherCurrent)
{
    tp_device_info info;
    void *p = nullptr;
    ASSERT_EQ(tp_device_alloc(dev[1], &p, 64, "on the second"), TP_OK) << tp_last_error();
    EXPECT_EQ(current(), 1);
    ASSERT_EQ(tp_device_gpu_info(0, &info), TP_OK) << tp_last_error();
    EXPECT_EQ(info.multiprocessors, dev[0]->multiprocessors);
    EXPECT_EQ(current(), 1);
    EXPECT_EQ(tp_device_gpu_info(2, &info), TP_EDEVICE);
    EXPECT_EQ(current(), 1);
    tp_device_release(dev[1], p);
    EXPECT_EQ(dev[0]->multiprocessors + 1, dev[1]->multiprocessors);
}

/* The function is called with a device while the other is current, and in a thread that has chosen none. */
template <typename F> void from_elsewhere(tp_device *const *dev, F f)
{
    size_t free_bytes, total;
    for (int i = 0; i < 2; i++) {
        ASSERT_EQ(tp_device_memory(dev[1 - i], &free_bytes, &total), TP_OK);
        f(dev[i]);
        std::thread(f, dev[i]).join();
    }
}

TEST_F(CudaDevices, EachWorksWhicheverIsCurrent)
{
    from_elsewhere(dev, [](tp_device *d) {
        Program p(d);
        ASSERT_EQ(p.make(nullptr), TP_OK) << tp_last_error();
    });
    for (int slow = 0; slow < 2; slow++) {
        tp_plan_opts opts = TP_PLAN_OPTS_INIT;
        opts.timed = opts.poison = slow;
        Program p[2] = {Program(dev[0]), Program(dev[1])};
        for (Program &each : p)
            ASSERT_EQ(each.make(&opts), TP_OK) << tp_last_error();
        uint64_t want = 0;
        from_elsewhere(dev, [&](tp_device *d) {
            Program &each = p[d == dev[1]];
            std::vector<float> rows;
            uint64_t step = 0;
            ASSERT_EQ(each.run(3, &step, &rows), TP_OK) << tp_last_error();
            EXPECT_EQ(step, want = want % 6 + 3);
            EXPECT_EQ(rows[2], 2.5f);
        });
    }
}

TEST_F(CudaDevices, MemoryIsTheirOwn)
{
    void *more = nullptr; /* so that they have not the same left */
    ASSERT_EQ(tp_device_alloc(dev[1], &more, 100, "on the second"), TP_OK) << tp_last_error();
    from_elsewhere(dev, [](tp_device *d) {
        size_t before = 0, after = 0, total = 0;
        void *p = nullptr, *host = nullptr;
        ASSERT_EQ(tp_device_memory(d, &before, &total), TP_OK);
        ASSERT_EQ(tp_device_alloc(d, &p, 4096, "own"), TP_OK) << tp_last_error();
        ASSERT_EQ(tp_device_memory(d, &after, &total), TP_OK);
        EXPECT_EQ(after, before - 4096);
        tp_device_release(d, p);
        ASSERT_EQ(tp_device_host_alloc(d, &host, 16, "pinned"), TP_OK) << tp_last_error();
        tp_device_host_release(d, host);
    });
    tp_device_release(dev[1], more);
}

TEST_F(CudaDevices, QueuesAreTheirOwn)
{
    void *p[2] = {nullptr, nullptr}, *host = nullptr;
    for (int i = 0; i < 2; i++)
        ASSERT_EQ(tp_device_alloc(dev[i], &p[i], 64, "own"), TP_OK);
    ASSERT_EQ(tp_device_host_alloc(dev[0], &host, 64, "host"), TP_OK);
    const auto call = [&](tp_status (*one)(tp_device *, void *, void *)) {
        from_elsewhere(
            dev, [&](tp_device *d) { EXPECT_EQ(one(d, p[d == dev[1]], host), TP_OK) << tp_last_error(); });
    };
    call([](tp_device *d, void *mine, void *pinned) {
        return tp_device_enqueue_copy(d, TP_QUEUE_IN, mine, pinned, 64, TP_TO_DEVICE);
    });
    call([](tp_device *d, void *, void *) { return tp_device_mark(d, TP_QUEUE_IN, 0); });
    call([](tp_device *d, void *, void *) { return tp_device_follow(d, TP_QUEUE_RUN, 0); });
    call([](tp_device *d, void *, void *) { return tp_device_await(d, 0); });
    call([](tp_device *d, void *mine, void *) {
        float x[16] = {};
        TP_TRY(tp_device_upload(d, mine, x, sizeof(x)));
        return tp_device_download(d, x, mine, sizeof(x));
    });
    tp_device_host_release(dev[0], host);
    for (int i = 0; i < 2; i++)
        tp_device_release(dev[i], p[i]);
}

/* A plan of one op through one implementation; the first element of what it gives. */
float first_of(tp_device *dev, const char *op, const char *impl, tp_val (*build)(tp_graph *g, tp_val x))
{
    const std::vector<float> ones(64, 1.0f);
    tp_graph *g = nullptr;
    tp_plan *plan = nullptr;
    float y[64] = {};
    tp_plan_opts opts = TP_PLAN_OPTS_INIT;

    opts.force_op = op;
    opts.force_impl = impl;
    EXPECT_EQ(tp_graph_new(&g), TP_OK);
    const tp_val out = tp_output(g, build(g, tp_constant(g, TP_F32, {2, {8, 8}}, ones.data())));
    EXPECT_EQ(tp_plan_new(&plan, g, dev, &opts), TP_OK) << tp_last_error();
    if (plan != nullptr) {
        EXPECT_EQ(tp_plan_run(plan), TP_OK) << tp_last_error();
        EXPECT_EQ(tp_plan_read(plan, out, y), TP_OK) << tp_last_error();
    }
    tp_plan_free(plan);
    tp_graph_free(g);
    return y[0];
}

/* A handle of a library belongs to one GPU. */
TEST_F(CudaDevices, EachHasLibrariesOfItsOwn)
{
    from_elsewhere(dev, [](tp_device *d) {
        EXPECT_EQ(first_of(d, "gemm", "cublaslt",
                           [](tp_graph *g, tp_val x) {
                               return tp_gemm(g, x, x, 0, {0, 0, TP_ACT_NONE});
                           }),
                  8.0f);
    });
    from_elsewhere(dev, [](tp_device *d) {
        EXPECT_EQ(first_of(d, "avg_pool", "cudnn",
                           [](tp_graph *g, tp_val x) {
                               const tp_val image = tp_reshape(g, x, {4, {1, 1, 8, 8}});
                               return tp_avg_pool(g, image, {{2, 2}, {2, 2}, {0, 0}, 0});
                           }),
                  1.0f);
    });
}

/* ---- failures ---- */

/* Everything that a run does with a device. */
tp_status whole_life(uint64_t *calls)
{
    tp_device *dev = nullptr;
    std::vector<float> rows;
    uint64_t step = 0;
    void *host = nullptr;

    TP_TRY(tp_device_open(&dev, "cuda"));
    tp_status st;
    {
        Program p(dev);
        st = p.make(nullptr);
        if (st == TP_OK)
            st = tp_device_host_alloc(dev, &host, 12, "host");
        if (st == TP_OK)
            st = tp_device_enqueue_copy(dev, TP_QUEUE_RUN, host, p.x, 12, TP_FROM_DEVICE);
        if (st == TP_OK)
            st = p.run(1, &step, &rows);
        if (st == TP_OK)
            st = p.run(3, &step, &rows);
        float y[3];
        if (st == TP_OK)
            st = tp_plan_read(p.plan, p.y, y);
        tp_device_host_release(dev, host);
    }
    tp_device_close(dev);
    *calls = emulated_count("emu_calls");
    return st;
}

TEST(CudaDevice, EveryCallOfTheRuntimeMayFail)
{
    if (!is_emulated())
        GTEST_SKIP() << "needs the emulated runtime";
    set_failure(0, 0);
    const uint64_t before = emulated_count("emu_alive");
    uint64_t total = 0, calls = 0;
    ASSERT_EQ(whole_life(&total), TP_OK) << tp_last_error();
    ASSERT_GT(total, 30u);
    ASSERT_EQ(emulated_count("emu_alive"), before);
    std::vector<int> errors = {2, 1}; /* out of memory, invalid value */
    errors.insert(errors.end(), std::begin(lost_errors), std::end(lost_errors));
    for (int error : errors) {
        int waits = 0, given_back = 0, chosen = 0; /* unseen: for a queue; things; the GPU they are of */
        for (uint64_t n = 1; n <= total; n++) {
            set_failure(n, error);
            const tp_status st = whole_life(&calls);
            const std::string line = st == TP_OK ? "" : tp_last_error(),
                              where = failed_call() + ", call " + std::to_string(n) + ", error " +
                                      std::to_string(error) + ": " + line;
            ASSERT_NE(failed_call(), "") << where;
            waits += st == TP_OK && failed_call() == "cudaStreamSynchronize";
            given_back += st == TP_OK && gives_back(failed_call());
            chosen += st == TP_OK && failed_call() == "cudaSetDevice";
            EXPECT_TRUE(st != TP_OK || gives_back(failed_call()) || failed_call() == "cudaSetDevice" ||
                        failed_call() == "cudaStreamSynchronize")
                << where;
            if (st != TP_OK) {
                EXPECT_TRUE(tp_status_exit_code(st) == 69) << where;
                EXPECT_NE(line.find(error == 2 ? "memory" : std::to_string(error)), std::string::npos)
                    << where;
                EXPECT_EQ(line.find(lost_words) != std::string::npos, error > 2) << where;
            }
            set_failure(0, 0);
            EXPECT_EQ(emulated_count("emu_alive"), before) << where << " leaves something";
        }
        EXPECT_LE(chosen, given_back + 1) << error << ": the GPU is chosen before something is given back";
        EXPECT_LE(waits, TP_QUEUES) << error << ": only closing waits without asking what came of it";
    }
}

/* exp takes over the sum's slot and the view shares it: one value. bf16 rounds the factors in scratch. */
TEST(CudaDevice, TheLargestValuesAreThreeOfTheirOwnMemoryAndScratchIsOne)
{
    if (!is_emulated())
        GTEST_SKIP() << "needs the memory of the emulated GPU";
    tp_graph *g = nullptr;
    tp_plan *plan = nullptr;
    tp_plan_opts opts = TP_PLAN_OPTS_INIT;
    opts.precision = TP_PRECISION_BF16;
    ASSERT_EQ(tp_graph_new(&g), TP_OK);
    const int64_t m = 1 << 20, k = 1 << 14, n = 1 << 13;
    const std::vector<float> ones(m, 1.0f);
    const auto matrix = [&](int64_t rows, int64_t cols) {
        return tp_add(g, tp_constant(g, TP_F32, {2, {1, cols}}, ones.data()),
                      tp_constant(g, TP_F32, {2, {rows, 1}}, ones.data()));
    };
    const tp_val x = tp_reshape(g, tp_exp(g, matrix(m, k)), {3, {1, m, k}});
    tp_output(g, tp_matmul(g, tp_reshape(g, x, {2, {m, k}}), matrix(k, n), 0, 0));
    EXPECT_EQ(tp_plan_new(&plan, g, gpu(), &opts), TP_ENOMEM);
    const std::string line = tp_last_error(), names = "; largest values: ";
    ASSERT_NE(line.find(names), std::string::npos) << line;
    const std::string list = line.substr(line.find(names) + names.size());
    EXPECT_EQ(
        list.rfind("add(1048576,16384) of 68719476736 bytes, scratch of matmul(1048576,8192) of 346", 0), 0u)
        << line;
    EXPECT_NE(list.find(" bytes, matmul(1048576,8192) of 34359738368 bytes"), std::string::npos) << line;
    EXPECT_EQ(std::count(list.begin(), list.end(), ','), 2 + 3) << "three, each with one comma: " << line;
    EXPECT_EQ(plan, nullptr);
    tp_graph_free(g);
}

TEST(CudaDevice, AGraphThatDoesNotFitSaysWhatIsFreeAndTheLargestValues)
{
    if (!is_emulated())
        GTEST_SKIP() << "needs the emulated runtime";
    int refused = 0;
    for (uint64_t call = 1; call <= 60; call++) {
        Program p(gpu());
        ASSERT_EQ(p.make(nullptr), TP_OK) << tp_last_error();
        set_failure(call, 2);
        const tp_status st = tp_plan_run_times(p.plan, 3);
        set_failure(0, 0);
        const std::string line = tp_last_error();
        if (st == TP_OK || line.find("no memory for the graph of a plan") == std::string::npos)
            continue;
        refused++;
        EXPECT_EQ(st, TP_ENOMEM);
        EXPECT_NE(line.find(" bytes free; largest values: sub(3) of 12 bytes"), std::string::npos) << line;
        EXPECT_EQ(tp_plan_run_times(p.plan, 3), TP_OK) << tp_last_error();
    }
    EXPECT_EQ(refused, 3) << "two graphs are made, one is launched";
}

TEST(CudaDevice, AFailedCaptureLeavesNothingToTheNextPlan)
{
    if (!is_emulated())
        GTEST_SKIP() << "needs the emulated runtime";
    int failed = 0;
    for (uint64_t call = 1; call <= 12; call++) {
        Program first(gpu()), second(gpu());
        ASSERT_EQ(first.make(nullptr), TP_OK) << tp_last_error();
        ASSERT_EQ(second.make(nullptr), TP_OK) << tp_last_error();
        set_failure(call, 1); /* launches among them, which make the capture invalid */
        if (tp_plan_run(first.plan) == TP_EDEVICE) {
            failed++;
            EXPECT_EQ(tp_plan_run(second.plan), TP_OK) << "call " << call << ": " << tp_last_error();
        }
        set_failure(0, 0); /* only now: it clears what the runtime remembers */
        EXPECT_EQ(tp_plan_run(first.plan), TP_OK) << tp_last_error();
    }
    EXPECT_GT(failed, 4);
}

TEST(CudaDevice, AGpuWithoutRoomForTheProcessIsNone)
{
    if (!is_emulated())
        GTEST_SKIP() << "needs the emulated runtime";
    int refused = 0;
    for (uint64_t call = 1; call <= 40; call++)
        for (const char *spec : {"cuda", "auto"}) {
            tp_device *dev = nullptr;
            set_failure(call, 2);
            const tp_status st = tp_device_open(&dev, spec);
            set_failure(0, 0);
            const std::string line = dev != nullptr ? tp_device_note(dev) : tp_last_error();
            EXPECT_EQ(dev != nullptr && tp_device_kind_of(dev) == TP_CPU, line != "" && spec[0] == 'a');
            if (line != "") {
                refused++;
                EXPECT_EQ(st, dev != nullptr ? TP_OK : TP_EDEVICE);
                EXPECT_EQ(line.rfind(call == 1 ? "no GPU: out of memory before"
                                               : "no GPU: out of memory on cuda:0 (",
                                     0),
                          0u)
                    << "call " << call << ": " << line;
            }
            tp_device_close(dev);
        }
    EXPECT_GT(refused, 2 * (4 + TP_QUEUES + TP_DEVICE_MARKS)) << "every call that opens a device";
}

TEST(CudaDevice, TheBuildOfTheDriverIsRead)
{
    if (!is_emulated())
        GTEST_SKIP() << "needs the file of the emulated driver";
    const struct {
        const char *text, *build;
    } files[] = {
        {"NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.159.04  Tue Sep 23 10:11:48 UTC 2025\nGCC "
         "12.2\n",
         "580.159.04"},
        {"NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  595.58  Release Build  (a@b-1.c)  12.2\n",
         "595.58"},
        {"no number\n580.1\n", ""},
        {"", ""},
    };
    const std::string file = testing::TempDir() + "temper-driver-" + std::to_string(getpid());
    setenv("TEMPER_EMU_DRIVER_FILE", file.c_str(), 1);
    for (const auto &f : files) {
        tp_device_info info;
        std::ofstream(file) << f.text;
        ASSERT_EQ(tp_device_gpu_info(0, &info), TP_OK) << tp_last_error();
        EXPECT_STREQ(info.driver_build, f.build);
    }
    unlink(file.c_str());
    unsetenv("TEMPER_EMU_DRIVER_FILE");
}

std::vector<std::string> lines_of(const std::string &file)
{
    std::ifstream in(file);
    std::vector<std::string> lines;
    for (std::string line; std::getline(in, line);)
        lines.push_back(line);
    return lines;
}

/* The library no longer takes what is kept: it chooses again, once, and from then on that is found. */
TEST(CudaDevice, AChoiceThatWasMadeAgainIsTheOneThatIsFound)
{
    if (!is_emulated())
        GTEST_SKIP() << "edits the choices of the emulated library";
    std::string dir = testing::TempDir() + "temper-choices-XXXXXX";
    ASSERT_NE(mkdtemp(dir.data()), nullptr);
    const std::string file = dir + "/temper/algorithms";
    const auto choose = [] {
        const float x[4] = {1, 2, 3, 4};
        tp_graph *g = nullptr;
        tp_plan *plan = nullptr;
        ASSERT_EQ(tp_graph_new(&g), TP_OK);
        const tp_val m = tp_constant(g, TP_F32, {2, {2, 2}}, x);
        tp_output(g, tp_matmul(g, m, m, 0, 0));
        EXPECT_EQ(tp_plan_new(&plan, g, gpu(), nullptr), TP_OK) << tp_last_error();
        tp_plan_free(plan);
        tp_graph_free(g);
    };
    (void)gpu();
    setenv("XDG_CACHE_HOME", dir.c_str(), 1);
    choose();
    const std::vector<std::string> first = lines_of(file);
    ASSERT_EQ(first.size(), 1u);
    EXPECT_NE(first[0].find("driver CUDA 13.0, "), std::string::npos) << first[0];
    std::ofstream(file) << "ffff" << first[0].substr(4) << "\n";
    choose();
    EXPECT_EQ(lines_of(file), (std::vector<std::string>{"ffff" + first[0].substr(4), first[0]}));
    choose();
    EXPECT_EQ(lines_of(file).size(), 2u);
    setenv("XDG_CACHE_HOME", "/dev/null", 1);
    unlink(file.c_str());
    rmdir((dir + "/temper").c_str());
    rmdir(dir.c_str());
}

/* The other queues do not follow the one on which memory is zeroed. */
TEST(CudaDevice, MemoryIsZeroedForEveryQueue)
{
    void *p = nullptr, *host = nullptr;
    ASSERT_EQ(tp_device_host_alloc(gpu(), &host, 64, "host"), TP_OK);
    memset(host, 1, 64);
    ASSERT_EQ(tp_device_alloc(gpu(), &p, 64, "device"), TP_OK);
    ASSERT_EQ(tp_device_enqueue_copy(gpu(), TP_QUEUE_OUT, host, p, 64, TP_FROM_DEVICE), TP_OK);
    ASSERT_EQ(tp_device_mark(gpu(), TP_QUEUE_OUT, 2), TP_OK);
    ASSERT_EQ(tp_device_await(gpu(), 2), TP_OK);
    for (int i = 0; i < 64; i++)
        EXPECT_EQ(static_cast<char *>(host)[i], 0) << i;
    tp_device_release(gpu(), p);
    tp_device_host_release(gpu(), host);
}

} // namespace
