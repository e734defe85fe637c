/* run_test.cc - whole runs: resume at every step, stops, divergence, busy and foreign run directories. */
#include "host/train/run_parts.h"
#include "temper/run.h"
#include "tests/engine/emulated.h"
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <gtest/gtest.h>
#include <memory>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace
{

/* Everything that could break an exact resume at once: dropout, augmentation, momentum, EMA, accumulation,
 * batch norm. */
const char recipe_text[] = R"(
data:
  inputs: [{name: x, kind: image, normalize: standard, crop: 1, hflip: true}]
  target: {name: "y", kind: class}
  split: {by: groups, train: train, test: test}
model:
  layers:
    - conv: {filters: 4, kernel: 3, padding: 1}
    - batch_norm
    - relu
    - max_pool: {kernel: 2}
    - flatten
    - dropout: {rate: 0.3}
    - dense: {units: 3}
optimizer: {sgd: {lr: 0.05, momentum: 0.9}, ema: 0.9, clip_norm: 1.0}
schedule: {kind: cosine, warmup: 0.1}
train: {batch: 16, epochs: 2, accumulate: 2, seed: 3, report: 1, save: 1000}
)";

class Run : public testing::Test
{
  protected:
    std::string dir, data, recipe;

    void SetUp() override
    {
        char name[] = "/tmp/temper-run-XXXXXX";
        ASSERT_NE(mkdtemp(name), nullptr);
        dir = name;
        const std::string make = std::string("/usr/bin/python3 ") + TEMPER_SOURCE_DIR +
                                 "/tests/golden/make_images.py " + dir + "/images.h5";
        ASSERT_EQ(std::system(make.c_str()), 0);
        std::ofstream(dir + "/recipe.yaml") << recipe_text;
        data = dir + "/images.h5";
        recipe = dir + "/recipe.yaml";
    }
    void TearDown() override
    {
        ASSERT_EQ(std::system(("rm -rf " + dir).c_str()), 0);
    }

    /* What a run left, small enough to come through a pipe in one piece. */
    struct Outcome {
        tp_status st = TP_OK;
        char line[512] = "", hash[80] = "";
        tp_run_result result = {};
    };
    static int stop_at, stop;
    static int lose_folder_at; /* -10: not; it comes back three steps later */
    static std::string lose_folder;
    static void on_report(void *, const tp_run_report *r)
    {
        stop = r->step == stop_at;
        if (r->step == lose_folder_at) {
            EXPECT_EQ(std::rename(lose_folder.c_str(), (lose_folder + "-away").c_str()), 0);
        }
        if (r->step == lose_folder_at + 3) {
            EXPECT_EQ(std::rename((lose_folder + "-away").c_str(), lose_folder.c_str()), 0);
        }
    }

    /* Every run has a process of its own: a resumed one must not find anything left in memory, and threads do
     * not survive a fork, so this process must never start any. */
    static Outcome in_child(const std::function<Outcome()> &body)
    {
        int ends[2];
        Outcome o;
        EXPECT_EQ(pipe(ends), 0);
        const pid_t pid = fork();
        if (pid == 0) {
            const Outcome mine = body();
            _exit(write(ends[1], &mine, sizeof(mine)) == sizeof(mine) ? 0 : 1);
        }
        close(ends[1]);
        char *to = reinterpret_cast<char *>(&o);
        size_t have = 0;
        for (ssize_t n; (n = read(ends[0], to + have, sizeof(o) - have)) > 0;)
            have += static_cast<size_t>(n);
        close(ends[0]);
        int status = 0;
        EXPECT_EQ(waitpid(pid, &status, 0), pid);
        EXPECT_EQ(status, 0);
        EXPECT_EQ(have, sizeof(o));
        return o;
    }

    static void note_error(Outcome &o)
    {
        if (o.st != TP_OK)
            snprintf(o.line, sizeof(o.line), "%s", tp_last_error());
    }

    /* On the GPU of the tests: the emulated one, unless another is named. */
    const char *device = "cpu";

    Outcome run(const std::string &out, bool resume, int stop_step, std::vector<const char *> sets = {})
    {
        return in_child([&] {
            Outcome o;
            use_test_module();
            auto r = std::make_unique<tp_recipe>();
            const std::string where = dir + "/" + out;
            tp_run_opts opts = TP_RUN_OPTS_INIT;
            opts.data = data.c_str();
            opts.out = where.c_str();
            opts.device = device;
            opts.resume = resume;
            opts.stop = &stop;
            opts.report = on_report;
            stop_at = stop_step;
            o.st = tp_recipe_read(r.get(), recipe.c_str(), static_cast<int>(sets.size()), sets.data());
            if (o.st == TP_OK)
                o.st = tp_run_train(r.get(), &opts, &o.result);
            note_error(o);
            snprintf(o.hash, sizeof(o.hash), "%s", o.result.weights_hash);
            tp_recipe_clear(r.get());
            return o;
        });
    }

    /* Metrics of a run's model on the same file. */
    Outcome evaluate(const std::string &out, const std::function<void(tp_evaluate_opts *)> &choose)
    {
        return in_child([&] {
            Outcome o;
            use_test_module();
            tp_evaluate_opts opts = TP_EVALUATE_OPTS_INIT;
            const std::string model = dir + "/" + out + "/model.safetensors";
            tp_evaluation got;
            opts.data = data.c_str();
            choose(&opts);
            o.st = tp_run_evaluate(model.c_str(), &opts, &got);
            note_error(o);
            o.result.test = got.scores;
            tp_evaluation_clear(&got);
            return o;
        });
    }
};
int Run::stop_at, Run::stop, Run::lose_folder_at = -10;
std::string Run::lose_folder;

std::string slurp(const std::string &path)
{
    std::ifstream f(path);
    return std::string(std::istreambuf_iterator<char>(f), {});
}

TEST_F(Run, ResumeAfterEveryStepInANewProcessGivesTheSameBits)
{
    const Outcome whole = run("whole", false, -1);
    ASSERT_EQ(whole.st, TP_OK) << whole.line;
    ASSERT_EQ(whole.result.steps, 20);
    for (int k = 1; k < 20; k++) {
        const std::string out = "stop" + std::to_string(k);
        const Outcome first = run(out, false, k);
        EXPECT_EQ(tp_status_exit_code(first.st), 75) << "step " << k << ": " << first.line;
        const Outcome rest = run(out, true, -1);
        EXPECT_EQ(rest.st, TP_OK) << "step " << k << ": " << rest.line;
        EXPECT_STREQ(rest.hash, whole.hash) << "step " << k;
        const std::string manifest = slurp(dir + "/" + out + "/manifest.json");
        EXPECT_NE(manifest.find(whole.hash), std::string::npos) << "step " << k << ": " << manifest;
    }
}

TEST_F(Run, StepsInOneLaunchAreStepsOneByOne)
{
    const Outcome one = run("one", false, -1, {"train.steps_per_launch=1", "train.report=1000"});
    ASSERT_EQ(one.st, TP_OK) << one.line;
    for (const char *length : {"train.steps_per_launch=3", "train.steps_per_launch=256"}) {
        const Outcome many = run(std::string("many") + length, false, -1, {length, "train.report=1000"});
        ASSERT_EQ(many.st, TP_OK) << many.line;
        EXPECT_STREQ(many.hash, one.hash) << length;
    }
}

/* ---- the same on a GPU ---- */

/* Loss of each report of metrics.jsonl. */
std::vector<double> losses(const std::string &lines)
{
    std::vector<double> all;
    for (size_t at = lines.find("\"loss\":"); at != std::string::npos; at = lines.find("\"loss\":", at + 1))
        all.push_back(std::strtod(lines.c_str() + at + 7, nullptr));
    return all;
}

/* Both compute in float32, sums in another order. A step's relative difference is of the order of sqrt(n) *
 * 2^-24 for its longest sum (n under 10^5: 2e-5), and steps add up: 20 of them stay under 4e-4 unless
 * something is wrong. */
const double curve_tolerance = 4e-4;

/* With the libraries, and with our own products and convolutions. */
TEST_F(Run, AGpuFollowsTheLossCurveOfTheCpu)
{
    struct {
        const char *name, *recipe, *data;
        std::vector<const char *> sets;
    } models[] = {
        {"chicago",
         "/recipes/chicago.yaml",
         "/datasets/chicago.h5",
         {"train.epochs=2", "train.report=1", "train.precision=fp32"}},
        {"cnn", nullptr, nullptr, {"train.precision=fp32"}},
    };
    for (auto &m : models) {
        if (m.recipe != nullptr) {
            recipe = std::string(TEMPER_SOURCE_DIR) + m.recipe;
            data = std::string(TEMPER_SOURCE_DIR) + m.data;
        } else {
            recipe = dir + "/recipe.yaml";
            data = dir + "/images.h5";
        }
        const std::string name = m.name;
        device = "cpu";
        const Outcome cpu = run(name + "-cpu", false, -1, m.sets);
        ASSERT_EQ(cpu.st, TP_OK) << cpu.line;
        const auto want = losses(slurp(dir + "/" + name + "-cpu/metrics.jsonl"));
        ASSERT_GE(want.size(), 20u);
        device = "cuda";
        for (const std::string on : {"-gpu", "-own"}) {
            if (on == "-own")
                setenv("TEMPER_EMU_NO_LIBRARIES", "1", 1);
            const Outcome gpu = run(name + on, false, -1, m.sets);
            unsetenv("TEMPER_EMU_NO_LIBRARIES");
            ASSERT_EQ(gpu.st, TP_OK) << gpu.line;
            const auto got = losses(slurp(dir + "/" + name + on + "/metrics.jsonl"));
            ASSERT_EQ(got.size(), want.size());
            for (size_t i = 0; i < 20; i++)
                EXPECT_NEAR(got[i], want[i], curve_tolerance * want[i]) << name << on << " step " << i;
            for (int i = 0; i < cpu.result.test.n; i++)
                EXPECT_NEAR(gpu.result.test.values[i], cpu.result.test.values[i],
                            1e-3 * (1 + std::fabs(cpu.result.test.values[i])))
                    << name << on << " " << cpu.result.test.names[i];
        }
    }
}

TEST_F(Run, AGpuResumesBitForBit)
{
    device = "cuda";
    const Outcome whole = run("whole", false, -1), again = run("again", false, -1);
    ASSERT_EQ(whole.st, TP_OK) << whole.line;
    EXPECT_STREQ(again.hash, whole.hash);
    EXPECT_STREQ(whole.result.precision, "tf32");
    for (const int k : {1, 7, 19}) {
        const std::string out = "stop" + std::to_string(k);
        EXPECT_EQ(run(out, false, k).st, TP_ESTOPPED);
        EXPECT_STREQ(run(out, true, -1).hash, whole.hash) << "step " << k;
    }
}

TEST_F(Run, AGpuTakesAnyNumberOfStepsALaunch)
{
    device = "cuda";
    const Outcome whole = run("whole", false, -1);
    ASSERT_EQ(whole.st, TP_OK) << whole.line;
    EXPECT_STREQ(run("one", false, -1, {"train.steps_per_launch=1", "train.report=1000"}).hash, whole.hash);
    EXPECT_STREQ(run("many", false, -1, {"train.steps_per_launch=5", "train.report=1000"}).hash, whole.hash);
}

/* In order 0 copies beside the steps are done as late as they may be, in order 1 as early. */
const char *const queue_orders[] = {"0", "1"};

TEST_F(Run, AGpuStreamsWhatDoesNotFit)
{
    const std::vector<const char *> stream = {"data.resident_bytes=1", "train.steps_per_launch=5",
                                              "train.report=20", "train.precision=fp32"};
    const Outcome cpu = run("cpu", false, -1, stream);
    ASSERT_EQ(cpu.st, TP_OK) << cpu.line;
    device = "cuda";
    std::string hash;
    for (const char *order : queue_orders) {
        setenv("TEMPER_EMU_SCHEDULE", order, 1);
        const std::string out = std::string("whole") + order;
        const Outcome whole = run(out, false, -1, stream);
        ASSERT_EQ(whole.st, TP_OK) << whole.line;
        hash = hash.empty() ? whole.hash : hash;
        EXPECT_EQ(whole.hash, hash) << order;
        for (int i = 0; i < cpu.result.test.n; i++)
            EXPECT_NEAR(whole.result.test.values[i], cpu.result.test.values[i],
                        1e-3 * (1 + std::fabs(cpu.result.test.values[i])))
                << cpu.result.test.names[i];
    }
    unsetenv("TEMPER_EMU_SCHEDULE");
    EXPECT_EQ(run("stop", false, 7, {"data.resident_bytes=1", "train.report=1"}).st, TP_ESTOPPED);
    EXPECT_STREQ(run("stop", true, -1, {"data.resident_bytes=1", "train.report=1"}).hash,
                 run("plain", false, -1, {"data.resident_bytes=1", "train.report=1"}).hash);
}

/* A run that has but one checkpoint of another one goes on from there as that did. */
TEST_F(Run, ACheckpointIsOfItsStepWhateverRunsBesideIt)
{
    const std::vector<const char *> often = {"train.save=1", "train.keep=100", "train.report=1000"};
    const std::string file = "/checkpoints/gen-00000000000000000006.safetensors";
    for (const auto &on : {std::array<const char *, 2>{"cpu", "0"}, {"cuda", "0"}, {"cuda", "1"}}) {
        device = on[0];
        setenv("TEMPER_EMU_SCHEDULE", on[1], 1);
        const std::string name = std::string(on[0]) + on[1], whole = dir + "/" + name, rest = whole + "-rest";
        ASSERT_EQ(run(name, false, -1, often).st, TP_OK);
        ASSERT_EQ(std::system(("mkdir -p " + rest + "/checkpoints && cp " + whole + "/recipe.yaml " + rest +
                               " && cp " + whole + file + " " + rest + file)
                                  .c_str()),
                  0);
        const Outcome o = run(name + "-rest", true, -1, often);
        ASSERT_EQ(o.st, TP_OK) << o.line;
        EXPECT_EQ(slurp(rest + "/model.safetensors"), slurp(whole + "/model.safetensors")) << name;
    }
    unsetenv("TEMPER_EMU_SCHEDULE");
}

TEST_F(Run, ACheckpointThatCannotBeWrittenEndsTheRunWithTheOnesBeforeIntact)
{
    Run::lose_folder_at = 4;
    Run::lose_folder = dir + "/lost/checkpoints";
    const Outcome lost = run("lost", false, -1, {"train.save=1", "train.report=1", "train.keep=100"});
    Run::lose_folder_at = -10;
    /* Where in the writing the folder goes is not the test's to say. */
    EXPECT_TRUE(lost.st == TP_ECREATE || lost.st == TP_EIO) << tp_status_name(lost.st) << ": " << lost.line;
    EXPECT_NE(std::string(lost.line).find("/lost/checkpoints"), std::string::npos) << lost.line;
    ASSERT_EQ(std::rename((Run::lose_folder + "-away").c_str(), Run::lose_folder.c_str()), 0);
    const Outcome whole = run("whole", false, -1, {"train.save=1", "train.report=1", "train.keep=100"});
    const Outcome rest = run("lost", true, -1, {"train.save=1", "train.report=1", "train.keep=100"});
    EXPECT_EQ(rest.st, TP_OK) << rest.line;
    EXPECT_STREQ(rest.hash, whole.hash);
}

TEST_F(Run, AGpuWithoutTheLibrariesTrainsToo)
{
    device = "cuda";
    setenv("TEMPER_EMU_NO_LIBRARIES", "1", 1);
    const Outcome own = run("own", false, -1, {"train.precision=fp32"});
    unsetenv("TEMPER_EMU_NO_LIBRARIES");
    const Outcome library = run("library", false, -1, {"train.precision=fp32"});
    ASSERT_EQ(own.st, TP_OK) << own.line;
    ASSERT_EQ(library.st, TP_OK) << library.line;
    EXPECT_NEAR(own.result.test.values[0], library.result.test.values[0], 1e-3);
}

TEST_F(Run, AGpuShortOfMemoryTriesMoreMicroBatches)
{
    device = "cuda";
    setenv("TEMPER_EMU_NO_LIBRARIES", "1", 1);
    setenv("TEMPER_EMU_MEMORY", "90000", 1);
    const Outcome fixed = run("fixed", false, -1, {"train.accumulate=1"});
    EXPECT_EQ(fixed.st, TP_ENOMEM) << fixed.line;
    EXPECT_NE(std::string(fixed.line).find("bytes asked"), std::string::npos) << fixed.line;
    const Outcome smaller = run("auto", false, -1, {"train.accumulate=1", "train.micro_batch=auto"});
    EXPECT_EQ(smaller.st, TP_OK) << smaller.line;
    EXPECT_NE(slurp(dir + "/auto/log.txt").find("micro-batches a step"), std::string::npos);
    unsetenv("TEMPER_EMU_MEMORY");
    unsetenv("TEMPER_EMU_NO_LIBRARIES");
}

TEST_F(Run, TheSeedChangesTheWeightsAndRepeatingDoesNot)
{
    const Outcome a = run("a", false, -1), b = run("b", false, -1), c = run("c", false, -1, {"train.seed=4"});
    ASSERT_EQ(a.st, TP_OK) << a.line;
    EXPECT_STREQ(a.hash, b.hash);
    EXPECT_STRNE(a.hash, c.hash);
}

TEST_F(Run, LearnsAndTheModelFileEvaluatesToTheSameMetrics)
{
    const Outcome o = run("learn", false, -1, {"train.epochs=30", "optimizer.ema=0"});
    ASSERT_EQ(o.st, TP_OK) << o.line;
    ASSERT_GE(o.result.test.n, 2);
    EXPECT_GT(o.result.test.values[1], 0.9) << "accuracy";
    const Outcome again = evaluate("learn", [](tp_evaluate_opts *e) { e->group = "test"; });
    ASSERT_EQ(again.st, TP_OK) << again.line;
    ASSERT_EQ(again.result.test.n, o.result.test.n - 1); /* the loss is the training's */
    for (int i = 0; i < again.result.test.n; i++)
        EXPECT_NEAR(again.result.test.values[i], o.result.test.values[i + 1], 1e-6) << i;
}

TEST_F(Run, ResumingAFinishedRunSaysSoAndTrainsNothing)
{
    const Outcome first = run("done", false, -1);
    ASSERT_EQ(first.st, TP_OK) << first.line;
    const Outcome again = run("done", true, -1);
    ASSERT_EQ(again.st, TP_OK) << again.line;
    EXPECT_TRUE(again.result.already_done);
    EXPECT_EQ(again.result.samples, 0);
    EXPECT_STREQ(again.hash, first.hash);
}

TEST_F(Run, AnotherRunInTheDirectoryIsRefused)
{
    ASSERT_EQ(run("taken", false, -1).st, TP_OK);
    const std::string before = slurp(dir + "/taken/manifest.json");
    const Outcome o = run("taken", false, -1);
    EXPECT_EQ(o.st, TP_ECREATE);
    EXPECT_NE(std::string(o.line).find("--resume"), std::string::npos) << o.line;
    EXPECT_EQ(before, slurp(dir + "/taken/manifest.json"));
}

TEST_F(Run, ResumeWithAnotherRecipeIsRefused)
{
    ASSERT_EQ(run("other", false, 5).st, TP_ESTOPPED);
    const Outcome o = run("other", true, -1, {"optimizer.sgd.lr=0.01"});
    EXPECT_EQ(o.st, TP_EDATA);
    EXPECT_NE(std::string(o.line).find("another recipe"), std::string::npos) << o.line;
    /* 2 micro-batches, which the run keeps to, do not divide this batch. */
    const Outcome batch = run("other", true, -1, {"train.batch=15", "train.accumulate=1"});
    EXPECT_NE(std::string(batch.line).find("another recipe"), std::string::npos) << batch.line;
}

TEST_F(Run, ResumeOfNothingIsNotFound)
{
    EXPECT_EQ(run("nothing", true, -1).st, TP_ENOENT);
}

TEST_F(Run, ADamagedCheckpointIsPassedOverForTheOneBefore)
{
    const Outcome whole = run("w", false, -1);
    ASSERT_EQ(run("damaged", false, 15, {"train.save=4", "train.keep=3"}).st, TP_ESTOPPED);
    const std::string newest = dir + "/damaged/checkpoints/gen-00000000000000000015.safetensors";
    {
        std::fstream f(newest, std::ios::in | std::ios::out | std::ios::binary);
        f.seekp(-9, std::ios::end);
        f.put('\x55');
    }
    const Outcome o = run("damaged", true, -1, {"train.save=4", "train.keep=3"});
    ASSERT_EQ(o.st, TP_OK) << o.line;
    EXPECT_EQ(o.result.samples, (20 - 12) * 16); /* went on from step 12 */
    EXPECT_NE(slurp(dir + "/damaged/log.txt").find("checkpoint passed over: "), std::string::npos);
    EXPECT_STREQ(o.hash, whole.hash);
}

const char linear_text[] = R"(
data:
  inputs: [{name: train/x, kind: image}]
  target: {name: train/y, kind: class}
  split: {by: fraction, validation_fraction: 0.3}
model: {builder: mlp, hidden: []}
optimizer: {sgd: {lr: 0.05, momentum: 0.9}}
schedule: {kind: reduce_on_plateau, patience: 0, threshold: 10, factor: 0.5, min_factor: 0.25}
train: {batch: 16, epochs: 1, seed: 3, report: 1, best: {metric: accuracy}}
)";

TEST_F(Run, DivergenceStopsWithTheLastGoodCheckpointIntact)
{
    /* Decay of more than the weight itself: each step multiplies it by -1e6, until it overflows. */
    const std::vector<const char *> sets = {"optimizer.sgd.lr=1e6",   "optimizer.sgd.weight_decay=1",
                                            "optimizer.clip_norm=0",  "optimizer.ema=0",
                                            "schedule.kind=constant", "schedule.warmup=0",
                                            "train.max_bad_steps=3",  "train.save=1"};
    const Outcome o = run("diverge", false, -1, sets);
    EXPECT_EQ(o.st, TP_EDIVERGED) << o.line;
    EXPECT_EQ(tp_status_exit_code(o.st), 11);
    EXPECT_NE(std::string(o.line).find("3 steps in a row"), std::string::npos) << o.line;
    const Outcome again =
        run("diverge", true, -1, sets); /* the weights before the end are there and finite */
    EXPECT_EQ(again.st, TP_EDIVERGED) << again.line;
    EXPECT_NE(slurp(dir + "/diverge/metrics.jsonl").find("\"loss\":null"), std::string::npos);
}

/* Weights that overflow in a step whose loss and gradient were finite are no good checkpoint. */
TEST_F(Run, WeightsThatOverflowAreNotSaved)
{
    std::ofstream(dir + "/linear.yaml") << linear_text;
    recipe = dir + "/linear.yaml";
    const std::vector<const char *> sets = {"optimizer.sgd.lr=1e6", "optimizer.sgd.weight_decay=1e6",
                                            "train.max_bad_steps=3", "train.save=1"};
    const Outcome o = run("overflow", false, -1, sets);
    EXPECT_EQ(o.st, TP_EDIVERGED) << o.line;
    EXPECT_NE(slurp(dir + "/overflow/log.txt").find("not finite, so no checkpoint"), std::string::npos)
        << slurp(dir + "/overflow/log.txt");
    EXPECT_EQ(run("overflow", true, -1, sets).st, TP_EDIVERGED) << "goes on from finite weights";
}

TEST_F(Run, ABusyDirectoryIsRefusedAndUntouched)
{
    int ready[2], go[2];
    ASSERT_EQ(pipe(ready) | pipe(go), 0);
    const pid_t pid = fork();
    if (pid == 0) {
        static int *w, *r;
        w = ready;
        r = go;
        auto busy = std::make_unique<tp_recipe>();
        const std::string where = dir + "/busy";
        tp_run_opts opts = TP_RUN_OPTS_INIT;
        opts.data = data.c_str();
        opts.out = where.c_str();
        opts.report = [](void *, const tp_run_report *rep) {
            char c = 'x';
            if (rep->step == 1 && (write(w[1], &c, 1) != 1 || read(r[0], &c, 1) != 1))
                _exit(99);
        };
        tp_run_result result;
        if (tp_recipe_read(busy.get(), recipe.c_str(), 0, nullptr) != TP_OK)
            _exit(98);
        _exit(tp_status_exit_code(tp_run_train(busy.get(), &opts, &result)));
    }
    char c;
    ASSERT_EQ(read(ready[0], &c, 1), 1);
    const Outcome o = run("busy", false, -1);
    EXPECT_EQ(o.st, TP_EBUSY);
    EXPECT_NE(std::string(o.line).find("pid " + std::to_string(pid)), std::string::npos) << o.line;
    ASSERT_EQ(write(go[1], "x", 1), 1);
    int status = 0;
    waitpid(pid, &status, 0);
    EXPECT_EQ(WEXITSTATUS(status), 0);
}

const std::vector<const char *> chicago = {"data.target.normalize=standard", "train.epochs=8"};

TEST_F(Run, ANormalisedTargetIsReportedInItsOwnUnits)
{
    recipe = std::string(TEMPER_SOURCE_DIR) + "/recipes/chicago.yaml";
    data = std::string(TEMPER_SOURCE_DIR) + "/datasets/chicago.h5";
    const Outcome o = run("riders", false, -1, chicago);
    ASSERT_EQ(o.st, TP_OK) << o.line;
    EXPECT_STREQ(o.result.test.names[1], "mae");
    EXPECT_LT(o.result.test.values[1], 1.2); /* thousands a day; never trained it is 13 */
    const Outcome again = evaluate("riders", [](tp_evaluate_opts *e) {
        e->time = "date";
        e->from = 12418; /* 2004-01-01 */
        e->to = 12784;
    });
    ASSERT_EQ(again.st, TP_OK) << again.line;
    for (int i = 0; i < again.result.test.n; i++)
        EXPECT_EQ(again.result.test.values[i], o.result.test.values[i + 1]) << i;
}

TEST_F(Run, OnlyRegressionTargetsAreNormalised)
{
    const Outcome o = run("norm", false, -1, {"data.target.normalize=minmax"});
    EXPECT_NE(o.st, TP_OK);
    EXPECT_NE(std::string(o.line).find("only a regression target"), std::string::npos) << o.line;
}

TEST_F(Run, StreamedDataGivesTheSameMetricsForTheSameWeights)
{
    recipe = std::string(TEMPER_SOURCE_DIR) + "/recipes/chicago.yaml";
    data = std::string(TEMPER_SOURCE_DIR) + "/datasets/chicago.h5";
    std::vector<const char *> sets = chicago;
    sets.push_back("optimizer.adamw.lr=0");
    const Outcome resident = run("resident", false, -1, sets);
    sets.push_back("data.resident_bytes=1");
    const Outcome streamed = run("streamed", false, -1, sets);
    ASSERT_EQ(resident.st, TP_OK) << resident.line;
    ASSERT_EQ(streamed.st, TP_OK) << streamed.line;
    EXPECT_STREQ(resident.hash, streamed.hash);
    for (int i = 0; i < resident.result.test.n; i++)
        EXPECT_EQ(streamed.result.test.values[i], resident.result.test.values[i]) << i;
}

TEST_F(Run, StreamedDataTrainsAndResumesBitForBit)
{
    const Outcome whole = run("whole", false, -1, {"data.resident_bytes=1"});
    ASSERT_EQ(whole.st, TP_OK) << whole.line;
    EXPECT_STRNE(whole.hash, run("resident", false, -1).hash); /* another order of samples */
    for (const int k : {3, 10, 17}) {
        const std::string out = "stop" + std::to_string(k);
        EXPECT_EQ(run(out, false, k, {"data.resident_bytes=1"}).st, TP_ESTOPPED);
        EXPECT_STREQ(run(out, true, -1, {"data.resident_bytes=1"}).hash, whole.hash) << "step " << k;
    }
    const Outcome learned =
        run("learn", false, -1, {"train.epochs=30", "optimizer.ema=0", "data.resident_bytes=1"});
    ASSERT_EQ(learned.st, TP_OK) << learned.line;
    EXPECT_GT(learned.result.test.values[1], 0.9) << "accuracy";
}

TEST_F(Run, ReduceOnPlateauAndEarlyStopGoOnWhereTheyWere)
{
    std::ofstream(dir + "/linear.yaml") << linear_text;
    recipe = dir + "/linear.yaml";
    const Outcome whole = run("whole", false, -1);
    ASSERT_EQ(whole.st, TP_OK) << whole.line;
    /* 'Better' is out of reach: every report but the first halves the rate, to a quarter and no lower. */
    const std::string lines = slurp(dir + "/whole/metrics.jsonl");
    EXPECT_NE(lines.find("\"lr\":0.05"), std::string::npos) << lines;
    EXPECT_NE(lines.find("\"lr\":0.025"), std::string::npos) << lines;
    EXPECT_NE(lines.find("\"lr\":0.0125"), std::string::npos) << lines;
    EXPECT_EQ(lines.find("\"lr\":0.00625"), std::string::npos) << lines;
    for (const int k : {2, 4}) {
        const std::string out = "stop" + std::to_string(k);
        ASSERT_EQ(run(out, false, k).st, TP_ESTOPPED);
        const Outcome rest = run(out, true, -1);
        EXPECT_STREQ(rest.hash, whole.hash) << "step " << k << " " << rest.line;
        EXPECT_EQ(rest.result.steps, whole.result.steps);
    }
}

/* Micro-batches are the batch in pieces: their gradients add up to its own. */
TEST_F(Run, AccumulationIsTheWholeBatch)
{
    std::ofstream(dir + "/linear.yaml") << linear_text;
    recipe = dir + "/linear.yaml";
    const Outcome whole = run("whole", false, -1), pieces = run("pieces", false, -1, {"train.accumulate=4"});
    ASSERT_EQ(whole.st, TP_OK) << whole.line;
    ASSERT_EQ(pieces.st, TP_OK) << pieces.line;
    EXPECT_NEAR(pieces.result.validation.values[0], whole.result.validation.values[0],
                1e-4 * whole.result.validation.values[0]);
    const auto want = losses(slurp(dir + "/whole/metrics.jsonl")),
               got = losses(slurp(dir + "/pieces/metrics.jsonl"));
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < want.size(); i++)
        EXPECT_NEAR(got[i], want[i], 1e-4 * want[i]) << "report " << i;
}

TEST_F(Run, StreamedStepsMayBeTakenOutOfOrder)
{
    const Outcome o = in_child([&] {
        Outcome out;
        auto r = std::make_unique<tp_recipe>();
        const char *const sets[] = {"data.resident_bytes=1", "optimizer.sgd.lr=0"};
        tp_run_opts opts = TP_RUN_OPTS_INIT;
        tp_run u = {};
        tp_step_result first[3], again;
        opts.data = data.c_str();
        u.r = r.get();
        u.o = &opts;
        u.result = &out.result;
        u.lock = -1;
        out.st = tp_recipe_read(r.get(), recipe.c_str(), 2, sets);
        const auto next = [&](auto call) {
            if (out.st == TP_OK)
                out.st = call();
        };
        next([&] { return tp_device_open(&u.dev, "cpu"); });
        next([&] { return tp_run_open_data(&u); });
        next([&] { return tp_run_make_model(&u); });
        next([&] { return tp_run_make_trainer(&u); });
        for (int i = 0; i < 3; i++)
            next([&] { return tp_trainer_step(u.trainer, i, 0.0, &first[i]); });
        next([&] { return tp_trainer_step(u.trainer, 1, 0.0, &again); });
        if (out.st == TP_OK && (again.loss != first[1].loss || again.loss == first[2].loss))
            snprintf(out.line, sizeof(out.line), "step 1 gave %g, then %g", first[1].loss, again.loss);
        note_error(out);
        tp_run_close(&u);
        tp_recipe_clear(r.get());
        return out;
    });
    EXPECT_EQ(o.st, TP_OK);
    EXPECT_STREQ(o.line, "");
}

TEST_F(Run, EarlyStopEndsBeforeTheLastStepWithTheBestModel)
{
    std::ofstream(dir + "/linear.yaml") << linear_text;
    recipe = dir + "/linear.yaml";
    const Outcome o = run("early", false, -1, {"optimizer.sgd.lr=0", "train.early_stop.patience=3"});
    ASSERT_EQ(o.st, TP_OK) << o.line;
    EXPECT_EQ(o.result.steps, 4); /* the first report is the best, three more are not better */
    const Outcome again = run("early", true, -1, {"optimizer.sgd.lr=0", "train.early_stop.patience=3"});
    EXPECT_TRUE(again.result.already_done) << again.line;
}

TEST_F(Run, AMetricToWatchMustBeMeasured)
{
    const Outcome none = run("none", false, -1, {"train.best.metric=accuracy"});
    EXPECT_EQ(none.st, TP_ERECIPE);
    EXPECT_NE(std::string(none.line).find("no validation part"), std::string::npos) << none.line;
    std::ofstream(dir + "/linear.yaml") << linear_text;
    recipe = dir + "/linear.yaml";
    const Outcome other = run("other", false, -1, {"train.best.metric=auroc"});
    EXPECT_EQ(other.st, TP_ERECIPE);
    EXPECT_NE(std::string(other.line).find("train.best.metric is auroc"), std::string::npos) << other.line;
}

TEST_F(Run, ClassesAndSlicesAddUp)
{
    ASSERT_EQ(run("m", false, -1).st, TP_OK);
    const Outcome o = in_child([&] {
        Outcome e;
        tp_evaluate_opts opts = TP_EVALUATE_OPTS_INIT;
        const std::string model = dir + "/m/model.safetensors";
        const char *metrics[] = {"accuracy"};
        tp_evaluation got;
        opts.data = data.c_str();
        opts.group = "test";
        opts.slice = "y";
        opts.by_class = 1;
        opts.n_metrics = 1;
        opts.metrics = metrics;
        e.st = tp_run_evaluate(model.c_str(), &opts, &got);
        note_error(e);
        double right = 0.0, support = 0.0;
        for (int64_t i = 0; i < got.slices.n; i++) {
            /* the slices are the classes themselves, so the accuracy in one is the recall of the class */
            if (got.slices.values[i] != got.classes[got.slices.ids[i]].recall)
                e.result.steps = -1;
            right += got.slices.values[i] * static_cast<double>(got.slices.support[i]);
            support += static_cast<double>(got.slices.support[i]);
        }
        e.result.seconds = right / support - got.scores.values[0];
        e.result.samples = static_cast<int64_t>(support) - got.rows;
        tp_evaluation_clear(&got);
        return e;
    });
    ASSERT_EQ(o.st, TP_OK) << o.line;
    EXPECT_NEAR(o.result.seconds, 0.0, 1e-12);
    EXPECT_EQ(o.result.samples, 0);
    EXPECT_EQ(o.result.steps, 0);
}

TEST_F(Run, PredictingNeedsNoTarget)
{
    ASSERT_EQ(run("m", false, -1).st, TP_OK);
    ASSERT_EQ(std::system(
                  ("/usr/bin/python3 -c \"import h5py; f = h5py.File('" + data + "', 'a'); del f['test/y']\"")
                      .c_str()),
              0);
    const Outcome o = in_child([&] {
        Outcome e;
        tp_evaluate_opts opts = TP_EVALUATE_OPTS_INIT;
        const std::string model = dir + "/m/model.safetensors";
        tp_evaluation got;
        opts.data = data.c_str();
        opts.group = "test";
        e.st = tp_run_predict(model.c_str(), &opts, &got);
        note_error(e);
        e.result.steps = got.rows * got.width;
        tp_evaluation_clear(&got);
        return e;
    });
    ASSERT_EQ(o.st, TP_OK) << o.line;
    EXPECT_GT(o.result.steps, 0);
}

TEST_F(Run, UnknownMetricsAreARecipeError)
{
    const Outcome o = run("metric", false, -1, {"train.metrics=[acuracy]"});
    EXPECT_EQ(o.st, TP_ERECIPE);
    EXPECT_NE(std::string(o.line).find("acuracy"), std::string::npos) << o.line;
}

/* ---- how a run ends, and what it leaves ---- */

const char rows_data[] = R"(
data:
  inputs: [{name: x}]
  target: {name: "y", kind: class}
  split: {by: groups, train: train, test: test}
)";
const char rows_text[] = R"(
model: {builder: mlp, hidden: [8]}
optimizer: {sgd: {lr: 0.1}}
train: {batch: 16, epochs: 2, seed: 1, report: 1}
)";

class Rows : public Run
{
  protected:
    void SetUp() override
    {
        Run::SetUp();
        data = dir + "/rows.h5";
        recipe = dir + "/rows.yaml";
        std::ofstream(recipe) << rows_data << rows_text;
        ASSERT_EQ(std::system((std::string("/usr/bin/python3 ") + TEMPER_SOURCE_DIR +
                               "/tests/golden/make_rows.py " + data)
                                  .c_str()),
                  0);
    }
};

/* The model gets worse from the first report on, and in some runs that follows a step that was not applied.
 */
TEST_F(Rows, TheBestModelIsKeptWhenTheStepBeforeItWasBad)
{
    int after_a_bad_step = 0;
    for (int seed = 1; seed <= 8; seed++) {
        const std::string out = "seed" + std::to_string(seed), set = "train.seed=" + std::to_string(seed);
        const Outcome o =
            run(out, false, -1,
                {set.c_str(), "data.split.train=outlier", "data.split.validation=worse", "model.hidden=[256]",
                 "train.report=2", "train.save=1000", "train.best.metric=loss"});
        ASSERT_EQ(o.st, TP_OK) << o.line;
        const std::string lines = slurp(dir + "/" + out + "/metrics.jsonl"),
                          best = lines.substr(0, lines.find('\n')), key = "{\"loss\":";
        EXPECT_FLOAT_EQ(std::strtod(best.c_str() + best.find(key) + key.size(), nullptr),
                        o.result.validation.values[0])
            << lines;
        after_a_bad_step += best.find("\"grad_norm\":null") != std::string::npos;
    }
    EXPECT_GT(after_a_bad_step, 0);
}

TEST_F(Rows, AModelOfOneHotTargetsIsEvaluatedOnThem)
{
    const Outcome o = run("m", false, -1, {"data.target.name=onehot", "data.target.kind=onehot"});
    ASSERT_EQ(o.st, TP_OK) << o.line;
    const Outcome again = evaluate("m", [](tp_evaluate_opts *e) { e->group = "test"; });
    ASSERT_EQ(again.st, TP_OK) << again.line;
    EXPECT_NEAR(again.result.test.values[0], o.result.test.values[1], 1e-6) << "accuracy";
}

TEST_F(Rows, AStopBeforeTheFirstStepChangesNothing)
{
    const std::vector<const char *> watch = {"data.split.validation=worse", "schedule.kind=reduce_on_plateau",
                                             "schedule.patience=1"};
    const Outcome whole = run("whole", false, -1, watch);
    ASSERT_EQ(whole.st, TP_OK) << whole.line;
    for (const char *name : {"new", "resumed"}) {
        const bool resumed = std::strcmp(name, "resumed") == 0;
        if (resumed) {
            ASSERT_EQ(run(name, false, 3, watch).st, TP_ESTOPPED);
        }
        stop = 1;
        const Outcome o = run(name, resumed, -1, watch);
        stop = 0;
        EXPECT_EQ(o.st, TP_ESTOPPED);
        EXPECT_NE(std::string(o.line).find(resumed ? "step 3 is good" : "step 0 is good"), std::string::npos)
            << o.line;
        EXPECT_STREQ(run(name, true, -1, watch).hash, whole.hash) << name;
        EXPECT_EQ(losses(slurp(dir + "/" + name + "/metrics.jsonl")),
                  losses(slurp(dir + "/whole/metrics.jsonl")));
    }
}

TEST_F(Rows, WithoutADirectoryThereIsNothingToResume)
{
    const Outcome o = in_child([&] {
        Outcome e;
        auto r = std::make_unique<tp_recipe>();
        tp_run_opts opts = TP_RUN_OPTS_INIT;
        opts.data = data.c_str();
        opts.resume = 1;
        e.st = tp_recipe_read(r.get(), recipe.c_str(), 0, nullptr);
        EXPECT_EQ(tp_run_train(r.get(), &opts, &e.result), TP_EINVAL);
        opts.resume = 0;
        const int now = 1;
        opts.stop = &now;
        e.st = tp_run_train(r.get(), &opts, &e.result);
        note_error(e);
        tp_recipe_clear(r.get());
        return e;
    });
    EXPECT_EQ(o.st, TP_ESTOPPED);
    EXPECT_NE(std::string(o.line).find("no checkpoint was saved"), std::string::npos) << o.line;
}

/* Weights that overflow at the very end, where no further step would notice. */
TEST_F(Rows, AModelThatIsNotFiniteIsNotWritten)
{
    const Outcome o = run("inf", false, -1,
                          {"optimizer.sgd.lr=1e6", "optimizer.sgd.weight_decay=1e6", "model.hidden=[]",
                           "train.max_bad_steps=1000"});
    EXPECT_EQ(o.st, TP_EDIVERGED);
    EXPECT_NE(std::string(o.line).find("is not finite"), std::string::npos) << o.line;
    EXPECT_NE(access((dir + "/inf/model.safetensors").c_str(), F_OK), 0);
}

TEST_F(Rows, AResumedRunDropsWhatItWillDoAgain)
{
    ASSERT_EQ(run("whole", false, -1).st, TP_OK);
    ASSERT_EQ(run("killed", false, 5).st, TP_ESTOPPED);
    const std::string out = dir + "/killed/",
                      left = out + "checkpoints/gen-00000000000000000006.safetensors.tmp-12-0",
                      kept = out + "checkpoints/notes.txt";
    std::ofstream(out + "metrics.jsonl", std::ios::app) << "{\"step\":6,\"loss\":1}\n{\"step\":7,\"lo";
    std::ofstream(left) << "half";
    std::ofstream(kept) << "mine";
    ASSERT_EQ(run("killed", true, -1).st, TP_OK);
    EXPECT_EQ(losses(slurp(out + "metrics.jsonl")), losses(slurp(dir + "/whole/metrics.jsonl")));
    EXPECT_NE(access(left.c_str(), F_OK), 0);
    EXPECT_EQ(access(kept.c_str(), F_OK), 0);
    EXPECT_EQ(run("typo", true, -1).st, TP_ENOENT);
    EXPECT_NE(access((dir + "/typo").c_str(), F_OK), 0) << "nothing to go on from, and yet a directory";
}

TEST_F(Rows, AReportThatCannotBeWrittenEndsTheRun)
{
    ASSERT_EQ(
        std::system(("mkdir -p " + dir + "/full && ln -s /dev/full " + dir + "/full/metrics.jsonl").c_str()),
        0);
    const Outcome o = run("full", false, -1);
    EXPECT_EQ(o.st, TP_EIO);
    EXPECT_NE(std::string(o.line).find("metrics.jsonl: the report of step 1"), std::string::npos) << o.line;
}

TEST_F(Rows, TooManyMetricsAreRefused)
{
    ASSERT_EQ(run("m", false, -1).st, TP_OK);
    const std::vector<const char *> names(TP_RECIPE_METRICS + 1, "accuracy");
    const Outcome o = evaluate("m", [&](tp_evaluate_opts *e) {
        e->n_metrics = static_cast<int>(names.size());
        e->metrics = names.data();
    });
    EXPECT_EQ(o.st, TP_EINVAL);
    EXPECT_NE(std::string(o.line).find("17 metrics, at most 16"), std::string::npos) << o.line;
}

TEST_F(Rows, LayersThatDoNotFitTheDataAreTheRecipesFault)
{
    std::ofstream(recipe) << rows_data << R"(
model: {layers: [{conv: {filters: 2, kernel: 3}}, flatten, {dense: {units: 2}}]}
)";
    const Outcome o = run("conv", false, -1);
    EXPECT_EQ(o.st, TP_ERECIPE) << o.line;
    EXPECT_EQ(std::string(o.line).find("model: "), 0u) << o.line;
}

/* Batch norm measures every sample, whatever it weighs: after one step its mean is the same with weights. */
TEST_F(Rows, WeightsOfSamplesDoNotChangeBatchStatistics)
{
    std::ofstream(recipe) << rows_data << R"(
model: {layers: [{dense: {units: 8}}, batch_norm, relu, {dense: {units: 2}}]}
optimizer: {sgd: {lr: 0.1}}
train: {batch: 100, epochs: 1, seed: 1}
)";
    const auto mean_of = [&](const std::string &out) {
        return in_child([&] {
            Outcome o;
            tp_tensors *t = nullptr;
            o.st = tp_tensors_load(&t, (dir + "/" + out + "/model.safetensors").c_str());
            const tp_tensor *mean = o.st == TP_OK ? tp_tensors_find(t, "1.running_mean") : nullptr;
            for (int i = 0; mean != nullptr && i < 8; i++)
                o.result.test.values[o.result.test.n++] =
                    static_cast<double>(static_cast<float *>(mean->data)[i]);
            tp_tensors_free(t);
            return o;
        });
    };
    ASSERT_EQ(run("plain", false, -1).st, TP_OK);
    const Outcome weighed = run("weighed", false, -1, {"data.weight=weight"});
    ASSERT_EQ(weighed.st, TP_OK) << weighed.line;
    const Outcome a = mean_of("plain"), b = mean_of("weighed");
    ASSERT_EQ(a.result.test.n, 8);
    for (int i = 0; i < 8; i++)
        EXPECT_EQ(a.result.test.values[i], b.result.test.values[i]) << i;
}

TEST(LaunchLength, IsFiveMillisecondsOfSteps)
{
    EXPECT_EQ(tp_run_launch_length(0.0), TP_MAX_LAUNCH);
    EXPECT_EQ(tp_run_launch_length(1e-6), TP_MAX_LAUNCH);
    EXPECT_EQ(tp_run_launch_length(5e-4), 10);
    EXPECT_EQ(tp_run_launch_length(2e-3), 2);
    EXPECT_EQ(tp_run_launch_length(6e-3), 1);
    EXPECT_EQ(tp_run_launch_length(10.0), 1);
}

/* ---- what a run settles by itself stays as it is when it goes on ---- */

const char stream_text[] = R"(
data:
  inputs: [{name: x, kind: image}]
  target: {name: "y", kind: class}
  split: {by: groups, train: train, test: test}
model: {builder: mlp, hidden: []}
optimizer: {sgd: {lr: 1e-6}}
train: {batch: 4, epochs: 1, seed: 3, report: 1, save: 1000}
)";

/* With little memory the rows are streamed, or a step is split; with more they would not be. */
TEST_F(Run, AResumedRunStreamsWhatItStreamedAndSplitsAsItDid)
{
    std::ofstream(dir + "/stream.yaml") << stream_text;
    struct {
        const char *recipe, *memory, *says;
        std::vector<const char *> sets;
    } runs[] = {
        {"/stream.yaml", "16400", "data streamed", {}},
        {"/recipe.yaml", "90000", "2 micro-batches", {"train.accumulate=1", "train.micro_batch=auto"}}};
    device = "cuda";
    setenv("TEMPER_EMU_NO_LIBRARIES", "1", 1);
    for (const auto &r : runs) {
        const std::string out = std::string("stop") + r.memory, whole = std::string("whole") + r.memory;
        recipe = dir + r.recipe;
        setenv("TEMPER_EMU_MEMORY", r.memory, 1);
        const Outcome want = run(whole, false, -1, r.sets), half = run(out, false, 7, r.sets);
        unsetenv("TEMPER_EMU_MEMORY");
        EXPECT_EQ(want.st, TP_OK) << want.line;
        EXPECT_EQ(half.st, TP_ESTOPPED) << half.line;
        EXPECT_NE(slurp(dir + "/" + whole + "/log.txt").find(r.says), std::string::npos);
        EXPECT_STRNE(run(std::string("free") + r.memory, false, -1, r.sets).hash, want.hash);
        EXPECT_STREQ(run(out, true, -1, r.sets).hash, want.hash) << r.says;
    }
    unsetenv("TEMPER_EMU_NO_LIBRARIES");
}

TEST_F(Run, AGpuShortOfMemoryMeasuresInSmallerBatches)
{
    std::ofstream(dir + "/stream.yaml") << stream_text;
    recipe = dir + "/stream.yaml";
    ASSERT_EQ(run("m", false, -1).st, TP_OK);
    const Outcome cpu = evaluate("m", [](tp_evaluate_opts *e) {
        e->device = "cpu";
        e->group = "train";
    });
    setenv("TEMPER_EMU_NO_LIBRARIES", "1", 1);
    setenv("TEMPER_EMU_MEMORY", "20000", 1);
    const Outcome gpu = evaluate("m", [](tp_evaluate_opts *e) {
        e->device = "cuda";
        e->group = "train";
    });
    setenv("TEMPER_EMU_MEMORY", "13800", 1);
    const Outcome streamed = evaluate("m", [](tp_evaluate_opts *e) {
        e->device = "cuda";
        e->group = "train";
    });
    unsetenv("TEMPER_EMU_MEMORY");
    unsetenv("TEMPER_EMU_NO_LIBRARIES");
    for (const Outcome &o : {gpu, streamed}) {
        ASSERT_EQ(o.st, TP_OK) << o.line;
        for (int i = 0; i < cpu.result.test.n; i++)
            EXPECT_NEAR(o.result.test.values[i], cpu.result.test.values[i], 1e-3);
    }
}

TEST_F(Run, ARunThatGoesOnElsewhereSaysSo)
{
    device = "cuda";
    ASSERT_EQ(run("moved", false, 7).st, TP_ESTOPPED);
    device = "cpu";
    ASSERT_EQ(run("moved", true, -1).st, TP_OK);
    EXPECT_NE(slurp(dir + "/moved/log.txt").find("began on cuda in tf32 and goes on on cpu in fp32"),
              std::string::npos)
        << slurp(dir + "/moved/log.txt");
}

TEST_F(Run, ARunSaysWhereItsDataLies)
{
    device = "cuda";
    ASSERT_EQ(run("resident", false, -1, {"train.epochs=1"}).st, TP_OK);
    /* 192 rows of 64 bytes and a class; weights of a u8 image would be four times as many */
    EXPECT_NE(slurp(dir + "/resident/log.txt").find("data resident, 12.2 KiB of uint8: "), std::string::npos)
        << slurp(dir + "/resident/log.txt");
    ASSERT_EQ(run("streamed", false, -1, {"train.epochs=1", "data.resident_bytes=1"}).st, TP_OK);
    EXPECT_NE(slurp(dir + "/streamed/log.txt").find("data streamed, 12.2 KiB of uint8: "), std::string::npos)
        << slurp(dir + "/streamed/log.txt");
}

} // namespace
