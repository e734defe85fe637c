/* cuda_run_test.cc - runs on the emulated GPU when it fails: every call in turn, every error after which it
 * is lost, no driver; and what a launch of the trainer costs the host. */
#include "host/core/mem.h"
#include "host/train/run_parts.h"
#include "temper/run.h"
#include "tests/engine/emulated.h"
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>
#endif

namespace
{

namespace fs = std::filesystem;

/* Small, and yet with all that a step is made of: convolutions of our own and of a library, products,
 * augmentation, dropout, momentum, averages; three steps, a report, a validation and a checkpoint after each.
 */
const char recipe_text[] = R"(
data:
  inputs: [{name: x, kind: image, normalize: standard, crop: 1, hflip: true}]
  target: {name: "y", kind: class}
  split: {by: groups, train: train, validation: test, test: test}
model:
  layers:
    - conv: {filters: 2, kernel: 3, padding: 1}
    - batch_norm
    - relu
    - conv: {filters: 4, kernel: 3, padding: 1, stride: 2, groups: 2}
    - max_pool: {kernel: 2}
    - flatten
    - dropout: {rate: 0.3}
    - dense: {units: 3}
optimizer: {sgd: {lr: 0.05, momentum: 0.9}, ema: 0.9, clip_norm: 1.0}
train: {batch: 2, epochs: 1, seed: 3, report: 1, save: 1, steps_per_launch: 1}
)";

const char data_script[] = R"(
import h5py, numpy, sys
rng = numpy.random.default_rng(5)
with h5py.File(sys.argv[1], 'w') as f:
    for name, n in (('train', 6), ('test', 2)):
        f.create_dataset(name + '/x', data=rng.integers(0, 255, (n, 1, 6, 6)).astype('u1'), chunks=(2, 1, 6, 6))
        f.create_dataset(name + '/y', data=(numpy.arange(n) % 3).astype('u1'))
)";

class CudaRun : public testing::Test
{
  protected:
    std::string dir;

    void SetUp() override
    {
        if (std::getenv("TEMPER_TEST_CUDA_MODULE") != nullptr)
            GTEST_SKIP() << "needs the emulated GPU";
        /* In memory, if there is such a folder: checkpoints wait for the disk, and that is not what is
         * tested. */
        char name[] = "/dev/shm/temper-cuda-run-XXXXXX", other[] = "/tmp/temper-cuda-run-XXXXXX";
        dir = mkdtemp(name) != nullptr ? name : mkdtemp(other) != nullptr ? other : "";
        ASSERT_NE(dir, "");
        std::ofstream(dir + "/recipe.yaml") << recipe_text;
        std::ofstream(dir + "/data.py") << data_script;
        ASSERT_EQ(std::system(("/usr/bin/python3 " + dir + "/data.py " + dir + "/data.h5").c_str()), 0);
    }
    void TearDown() override
    {
        if (!dir.empty())
            fs::remove_all(dir);
    }

    /* A process of its own, since this one must not start threads: they would not survive a fork. Its
     * failures are this test's, and leaks too. */
    static void in_child(const std::function<void()> &body)
    {
        std::fflush(nullptr);
        const pid_t pid = fork();
        if (pid == 0) {
            use_test_module();
            body();
            std::fflush(nullptr);
#if defined(__SANITIZE_ADDRESS__)
            __lsan_do_leak_check();
#endif
            _exit(testing::Test::HasFailure() ? 1 : 0);
        }
        int status = 0;
        EXPECT_EQ(waitpid(pid, &status, 0), pid);
        EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
        EXPECT_EQ(WEXITSTATUS(status), 0);
    }

    struct Outcome {
        tp_status st = TP_OK;
        std::string line, hash, start;
    };

    static void on_start(void *user, const char *line)
    {
        *static_cast<std::string *>(user) = line;
    }

    Outcome run(const std::string &out, const std::vector<const char *> &sets = {}, bool resume = false,
                const char *device = "cuda") const
    {
        Outcome o;
        auto r = std::make_unique<tp_recipe>();
        tp_run_opts opts = TP_RUN_OPTS_INIT;
        tp_run_result result = {};
        const std::string data = dir + "/data.h5", where = dir + "/" + out, recipe = dir + "/recipe.yaml";
        opts.data = data.c_str();
        opts.out = where.c_str();
        opts.device = device;
        opts.resume = resume;
        opts.start = on_start;
        opts.user = &o.start;
        o.st = tp_recipe_read(r.get(), recipe.c_str(), static_cast<int>(sets.size()), sets.data());
        if (o.st == TP_OK)
            o.st = tp_run_train(r.get(), &opts, &result);
        if (o.st != TP_OK)
            o.line = tp_last_error();
        o.hash = result.weights_hash;
        tp_recipe_clear(r.get());
        return o;
    }

    /* Checkpoints of a run, each of which must be sound. */
    int checkpoints(const std::string &out) const
    {
        int n = 0;
        std::error_code none;
        for (const auto &file : fs::directory_iterator(dir + "/" + out + "/checkpoints", none)) {
            tp_tensors *t = nullptr;
            if (file.path().extension() != ".safetensors")
                continue;
            EXPECT_EQ(tp_tensors_load(&t, file.path().c_str()), TP_OK) << tp_last_error();
            tp_tensors_free(t);
            n++;
        }
        return n;
    }

    static bool says_lost(const std::string &line)
    {
        return line.find(lost_words) != std::string::npos;
    }
    void sweep(const std::vector<const char *> &sets, uint64_t stride) const;
};

bool starts_with(const std::string &text, const char *with)
{
    return text.compare(0, std::strlen(with), with) == 0;
}

bool of_a_library(const std::string &call)
{
    return starts_with(call, "cublasLt") || starts_with(call, "cudnn");
}

/* Whether a run may be right although this call, or what it began, has failed with this error. A library that
 * cannot do something leaves it to a kernel of our own; what was given the library to do has to be done. */
bool may_fail_unseen(const std::string &call, int error)
{
    static const char *const work[] = {"cublasLtMatmul",       "cudnnConvolutionForward",
                                       "cudnnSetStream",       "cudnnConvolutionBackwardData",
                                       "cudnnPoolingForward",  "cudnnConvolutionBackwardFilter",
                                       "cudnnPoolingBackward", "cudnnBatchNormalizationForwardTraining"};
    for (const char *name : work)
        if (call == name)
            return false;
    if (gives_back(call) || of_a_library(call))
        return true;
    /* Closing waits for its queues; a GPU is chosen before something of it is given back; a snapshot does
     * without memory of the device. */
    return call == "cudaStreamSynchronize" || call == "cudaSetDevice" ||
           (error == 2 && (call == "cudaMalloc" || call == "cudaMemsetAsync"));
}

/* Every stride-th call of a run fails with each of three errors: out of memory, which passes, and two after
 * which the GPU is lost. */
void CudaRun::sweep(const std::vector<const char *> &sets, uint64_t stride) const
{
    const Outcome whole = run("whole", sets);
    ASSERT_EQ(whole.st, TP_OK) << whole.line;
    const uint64_t before = emulated_count("emu_alive");
    set_failure(0, 0);
    ASSERT_EQ(run("again", sets).hash, whole.hash);
    const uint64_t total = emulated_count("emu_calls");
    std::map<std::string, int> unseen;
    int given_back = 0, runs = 0, ended = 0, with_checkpoint = 0;
    for (const int error : {2, 700, 719})
        for (uint64_t n = 1 + static_cast<uint64_t>(error) % stride; n <= total; n += stride) {
            set_failure(n, error);
            const Outcome o = run("run", sets);
            const std::string call = failed_call(), where = call + ", call " + std::to_string(n) +
                                                            ", error " + std::to_string(error) + ": " +
                                                            o.line;
            set_failure(0, 0);
            runs++;
            ended += o.st != TP_OK;
            EXPECT_EQ(emulated_count("emu_alive"), before) << where << " leaves something";
            if (o.st == TP_OK) {
                unseen[call]++;
                given_back += gives_back(call);
                EXPECT_TRUE(may_fail_unseen(call, error)) << where;
                EXPECT_TRUE(o.hash == whole.hash || of_a_library(call)) << where;
            } else {
                EXPECT_TRUE(o.st == TP_EDEVICE || (error == 2 && o.st == TP_ENOMEM)) << where;
                EXPECT_TRUE(error == 2 || says_lost(o.line)) << where;
            }
            with_checkpoint += checkpoints("run") > 0;
            fs::remove_all(dir + "/run");
        }
    EXPECT_GT(ended, runs / 2);
    EXPECT_LE(unseen["cudaSetDevice"], given_back + 3) << "those before something is given back";
    EXPECT_GT(with_checkpoint, runs / 4);
    EXPECT_LE(unseen["cudaStreamSynchronize"], 3 * TP_QUEUES + 1) << "those of closing, and of the snapshot";
    EXPECT_LE(unseen["cudaMalloc"] + unseen["cudaMemsetAsync"], 2) << "those of the snapshot";
    std::printf("%llu calls, %d runs, %d ended, %d with a checkpoint; unseen:", (unsigned long long)total,
                runs, ended, with_checkpoint);
    for (const auto &u : unseen)
        std::printf(" %s %d", u.first.c_str(), u.second);
    std::printf("\n");
}

TEST_F(CudaRun, CallsThatFailEndItWithTheRightStatus)
{
    in_child([&] { sweep({}, 20); });
}

TEST_F(CudaRun, CallsThatFailEndAStreamedRunWithTheRightStatus)
{
    in_child([&] { sweep({"data.resident_bytes=1"}, 20); });
}

TEST_F(CudaRun, EveryCallMayFailLong)
{
    in_child([&] { sweep({}, 1); });
}

TEST_F(CudaRun, EveryCallOfAStreamedRunMayFailLong)
{
    in_child([&] { sweep({"data.resident_bytes=1"}, 1); });
}

/* As a command runs it: a process that loses its GPU, and another that goes on. */
TEST_F(CudaRun, WhicheverErrorLosesTheGpuTheLastCheckpointIsIntact)
{
    std::string whole;
    uint64_t total = 0;
    const std::string note = dir + "/note";
    in_child([&] {
        set_failure(0, 0);
        const Outcome o = run("whole");
        EXPECT_EQ(o.st, TP_OK) << o.line;
        std::ofstream(note) << o.hash << " " << emulated_count("emu_calls");
    });
    std::ifstream(note) >> whole >> total;
    ASSERT_GT(total, 100u);
    int resumed = 0;
    uint64_t part = 0;
    for (const int error : lost_errors) {
        const uint64_t call = total / 2 + total * 3 / 10 * part++ / std::size(lost_errors);
        const std::string out = "lost" + std::to_string(error),
                          fail = std::to_string(call) + ":" + std::to_string(error);
        setenv("TEMPER_EMU_FAIL", fail.c_str(), 1);
        in_child([&] {
            const Outcome o = run(out);
            EXPECT_EQ(tp_status_exit_code(o.st), 69) << fail << ": " << o.line;
            EXPECT_TRUE(says_lost(o.line)) << fail << ": " << o.line;
        });
        unsetenv("TEMPER_EMU_FAIL");
        const bool has_one = checkpoints(out) > 0;
        resumed += has_one;
        in_child([&] {
            const Outcome o = run(out, {}, true);
            EXPECT_EQ(o.st, has_one ? TP_OK : TP_ENOENT) << fail << ": " << o.line;
            EXPECT_TRUE(!has_one || o.hash == whole) << fail << ": " << o.hash << ", not " << whole;
        });
    }
    EXPECT_GE(resumed, static_cast<int>(std::size(lost_errors)) / 2) << "runs that had a checkpoint";
}

TEST_F(CudaRun, WithoutAFitDriverThereIsNoGpu)
{
    for (const auto &driver : std::map<std::string, std::string>{
             {"0", "no GPU: no NVIDIA driver"},
             {"12040", "no GPU: the NVIDIA driver is too old: it knows CUDA 12.4, 13.0 is wanted"}}) {
        setenv("TEMPER_EMU_DRIVER", driver.first.c_str(), 1);
        in_child([&] {
            const Outcome only = run("only" + driver.first),
                          any = run("any" + driver.first, {}, false, "auto");
            EXPECT_EQ(tp_status_exit_code(only.st), 69);
            EXPECT_EQ(only.line, driver.second);
            EXPECT_EQ(any.st, TP_OK) << any.line;
            EXPECT_TRUE(starts_with(any.start, "cpu")) << any.start;
            EXPECT_NE(any.start.find(driver.second), std::string::npos) << any.start;
        });
        unsetenv("TEMPER_EMU_DRIVER");
    }
}

/* A hundred launches, of two steps each: the host allocates nothing and waits for nothing but, once a launch,
 * for its results; `most` more of either where the data is streamed. */
void launches(const std::string &dir, const char *set, uint64_t most)
{
    auto r = std::make_unique<tp_recipe>();
    const std::string data = dir + "/data.h5", recipe = dir + "/recipe.yaml";
    tp_run_opts opts = TP_RUN_OPTS_INIT;
    tp_run_result result = {};
    tp_run u = {};
    opts.data = data.c_str();
    u.r = r.get();
    u.o = &opts;
    u.result = &result;
    u.lock = -1;
    ASSERT_EQ(tp_recipe_read(r.get(), recipe.c_str(), 1, &set), TP_OK) << tp_last_error();
    ASSERT_EQ(tp_device_open(&u.dev, "cuda"), TP_OK) << tp_last_error();
    ASSERT_EQ(tp_run_open_data(&u), TP_OK) << tp_last_error();
    ASSERT_EQ(tp_run_make_model(&u), TP_OK) << tp_last_error();
    ASSERT_EQ(tp_run_make_trainer(&u), TP_OK) << tp_last_error();
    const double rates[2] = {0.01, 0.01};
    tp_step_result steps[2];
    uint64_t allocated = 0, alive = 0, calls = 0, a_launch = 0;
    ASSERT_EQ(tp_trainer_launch(u.trainer, 0, 2, rates), TP_OK) << tp_last_error();
    for (int64_t i = 1; i < 110; i++) {
        const uint64_t waits = emulated_count("emu_syncs");
        ASSERT_EQ(tp_trainer_launch(u.trainer, 2 * i, 2, rates), TP_OK) << tp_last_error();
        EXPECT_LE(emulated_count("emu_syncs"), waits + most) << i << ": a launch waits";
        ASSERT_EQ(tp_trainer_collect(u.trainer, steps), TP_OK) << tp_last_error();
        EXPECT_LE(emulated_count("emu_syncs"), waits + most + 1) << i;
        if (i > 10) {
            EXPECT_LE(tp_alloc_count(), allocated + most) << i << ": memory of the host";
            EXPECT_EQ(emulated_count("emu_alive"), alive) << i << ": memory of the GPU";
            EXPECT_EQ(emulated_count("emu_calls") - calls, a_launch) << i << ": calls of the runtime";
        }
        a_launch = i == 10 ? emulated_count("emu_calls") - calls : a_launch;
        allocated = tp_alloc_count();
        alive = emulated_count("emu_alive");
        calls = emulated_count("emu_calls");
    }
    ASSERT_EQ(tp_trainer_collect(u.trainer, steps), TP_OK) << tp_last_error();
    std::printf("%s: %llu calls a launch\n", set, (unsigned long long)a_launch);
    tp_run_close(&u);
    tp_recipe_clear(r.get());
}

TEST_F(CudaRun, ALaunchAllocatesNothingAndWaitsForNothing)
{
    in_child([&] { launches(dir, "train.epochs=1", 0); });
}

/* A step waits for its place in the ring, which the one four before has left; and who reads the next chunks
 * makes two buffers for them. */
TEST_F(CudaRun, AStreamedLaunchWaitsForPlacesAndReadsChunks)
{
    in_child([&] { launches(dir, "data.resident_bytes=1", 2); });
}

} // namespace
