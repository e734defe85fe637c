/* bench_test.cc - the op benchmark: shapes files, that only checked implementations get numbers, and what a
 * row holds. */
#include "host/bench/bench.h"
#include "host/core/mem.h"
#include "tests/engine/emulated.h"
#include <cmath>
#include <cstring>
#include <fstream>
#include <gtest/gtest.h>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace
{

/* A row, copied out of the callback. */
struct Row {
    std::string op, impl, from, shape, attr, why;
    tp_bench_row row;
};

struct Seen {
    int heads = 0;
    tp_bench_head head = {};
    std::vector<Row> rows;
};

void on_head(void *user, const tp_bench_head *h)
{
    static_cast<Seen *>(user)->heads++;
    static_cast<Seen *>(user)->head = *h;
}

void on_row(void *user, const tp_bench_row *r)
{
    static_cast<Seen *>(user)->rows.push_back({r->op, r->impl, r->from, r->shape, r->attr, r->why, *r});
}

tp_bench_opts options(Seen *seen)
{
    tp_bench_opts o = TP_BENCH_OPTS_INIT;
    o.device = "cpu";
    o.head = on_head;
    o.row = on_row;
    o.user = seen;
    return o;
}

struct Shapes {
    bench_shapes s = {};
    ~Shapes()
    {
        bench_shapes_free(&s);
    }
};

tp_status read_text(const char *text, Shapes *out, const tp_op *op = nullptr)
{
    return bench_shapes_text(&out->s, text, "some.txt", op);
}

/* ---- shapes ---- */

TEST(Shapes, LinesGiveOpInputsAndAttributes)
{
    Shapes all;
    ASSERT_EQ(read_text("# a comment\n\n"
                        "  gemm 8x5,3x5,3 trans_b=1 act=tanh # dense\n"
                        "conv_input_grad 4x3x3x3,2x4x5x5\tpad=1 stride=1,1 shape=2x3x5x5\r\n"
                        "embedding 9x4,7:i32 below=9",
                        &all),
              TP_OK)
        << tp_last_error();
    ASSERT_EQ(all.s.n, 3u);
    const auto *gemm = static_cast<const tp_gemm_attr *>(all.s.list[0].c.attr);
    EXPECT_EQ(gemm->trans_a, 0);
    EXPECT_EQ(gemm->trans_b, 1);
    EXPECT_EQ(gemm->act, TP_ACT_TANH);
    const auto *conv = static_cast<const tp_conv_grad_attr *>(all.s.list[1].c.attr);
    EXPECT_EQ(conv->conv.pad[0], 1);
    EXPECT_EQ(conv->conv.pad[1], 1);
    EXPECT_EQ(conv->shape.nd, 4);
    EXPECT_EQ(conv->shape.d[1], 3);
    EXPECT_EQ(all.s.list[2].c.ihi, 9);
    EXPECT_EQ(all.s.list[2].inputs[1].dtype, TP_I32);
}

TEST(Shapes, BadLinesNameFileAndLine)
{
    static const struct {
        const char *line, *word;
    } bad[] = {{"gemmm 8x5,5x3", "'gemm'"},
               {"gemm", "no inputs"},
               {"gemm 8xx5,5x3", "'8xx5'"},
               {"gemm 8x5,5x3:f99", "'5x3:f99'"},
               {"gemm 8x5,5x3,", "''"},
               {"gemm 99999999999999999999x5,5x3", "99999999999999999999x5"},
               {"gemm 9999999*5x3", "9999999*5x3"},
               {"gemm 1x1x1x1x1x1x1x1x1,5x3", "1x1x1x1x1x1x1x1x1"},
               {"gemm 8x5,6x3", "5 columns"},
               {"gemm 8x5,5x3 trans", "'trans'"},
               {"gemm 8x5,5x3 tran_b=1", "'tran_b'"},
               {"gemm 8x5,5x3 trans_b=yes", "'yes'"},
               {"gemm 8x5,5x3 trans_b=0.5", "'0.5'"},
               {"gemm 8x5,5x3 act=gelu", "'gelu'"},
               {"conv 1x1x5x5,1x1x3x3 pad=1,1,1", "'1,1,1'"},
               {"conv_input_grad 4x3x3x3,2x4x5x5 shape=2,3", "'2,3'"},
               {"embedding 9x4,7:i64 below=0", "'0'"}};
    for (const auto &b : bad) {
        Shapes all;
        EXPECT_EQ(read_text((std::string("\ngemm 8x5,5x3\n") + b.line + "\n").c_str(), &all), TP_EDATA)
            << b.line;
        EXPECT_EQ(std::string(tp_last_error()).rfind("some.txt:3: ", 0), 0u) << tp_last_error();
        EXPECT_NE(std::strstr(tp_last_error(), b.word), nullptr) << tp_last_error();
    }
}

TEST(Shapes, IntegersLieBelowAndFitTheirDtype)
{
    Shapes all;
    bench_values in = {};
    ASSERT_EQ(read_text("gather_batch 300x4:u8,500:i64,-,-,- below=300", &all), TP_OK) << tp_last_error();
    ASSERT_EQ(bench_inputs(&all.s.list[0], &in), TP_OK);
    const double most[] = {127, 299};
    for (int k = 0; k < 2; k++)
        for (int64_t i = 0; i < in.len[k]; i++)
            ASSERT_TRUE(in.v[k][i] >= 0 && in.v[k][i] <= most[k]) << k << ": " << in.v[k][i];
    bench_values_free(&in);
}

/* Every attribute of every op can be written: what a case prints reads back to the same bytes. */
TEST(Shapes, EveryCaseReadsBackFromItsText)
{
    for (int i = 0; i < tp_n_ops; i++) {
        const tp_op *op = tp_op_table[i];
        for (int k = 0; k < op->n_cases; k++) {
            const tp_case &c = op->cases[k];
            char attr[TP_BENCH_TEXT];
            const std::string line = std::string(op->name) + " " + c.in + " " +
                                     bench_attr_text(op, c.attr, attr, sizeof(attr)) + " below=100";
            Shapes all;
            ASSERT_EQ(read_text(line.c_str(), &all), TP_OK) << line << ": " << tp_last_error();
            if (op->attr_size > 0 && c.attr != nullptr) {
                char again[TP_BENCH_TEXT];
                std::vector<unsigned char> got(op->attr_size), want(op->attr_size);
                EXPECT_STREQ(bench_attr_text(op, all.s.list[0].c.attr, again, sizeof(again)), attr);
                std::memcpy(got.data(), all.s.list[0].c.attr, op->attr_size);
                std::memcpy(want.data(), c.attr, op->attr_size);
                if (std::strncmp(op->name, "conv_", 5) != 0) { /* their act is ignored and has no name */
                    EXPECT_EQ(got, want) << line;
                }
            }
        }
    }
}

TEST(Shapes, ShippedFilesAreReadAndNamed)
{
    std::set<std::string> names, lines;
    for (const bench_shipped *f = bench_shipped_files; f->name != nullptr; f++) {
        std::istringstream text(f->text);
        for (std::string line; std::getline(text, line);)
            EXPECT_TRUE(lines.insert(line).second) << "twice: " << line;
        Shapes all;
        EXPECT_EQ(bench_shapes_text(&all.s, f->text, f->name, nullptr), TP_OK) << tp_last_error();
        EXPECT_GT(all.s.n, 10u) << f->name;
        names.insert(f->name);
    }
    EXPECT_EQ(names, (std::set<std::string>{"chicago", "fashion-cnn", "mnist-cnn", "movielens"}));
    for (const char *name : {"mnist-cnn", "fashion-resnet18"}) {
        std::ifstream file(std::string(TEMPER_SOURCE_DIR "/benchmarks/shapes/") + name + ".txt");
        const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
        Shapes all;
        EXPECT_EQ(read_text(text.c_str(), &all), TP_OK) << tp_last_error();
        EXPECT_GT(all.s.n, 30u) << name;
    }
}

TEST(Shapes, NoAllocationFailureLeaksOrCrashes)
{
    for (uint64_t k = 1;; k++) {
        Shapes all;
        tp_alloc_fail_at(k, 0);
        const tp_status st = read_text("gemm 8x5,3x5,3 trans_b=1\nembedding 9x4,7:i32 below=9", &all);
        tp_alloc_fail_at(0, 0);
        if (st == TP_OK)
            break;
        EXPECT_EQ(st, TP_ENOMEM) << k << ": " << tp_last_error();
    }
}

/* ---- rows ---- */

TEST(Bench, RowsHoldCheckedNumbers)
{
    Seen seen;
    tp_bench_opts o = options(&seen);
    const char *const ops[] = {"gemm", "add", "optimize", "dropout"};
    o.n_ops = 4;
    o.ops = ops;
    ASSERT_EQ(tp_bench(&o), TP_OK) << tp_last_error();
    EXPECT_EQ(seen.heads, 1);
    EXPECT_GT(seen.head.copy_bytes_per_second, 1e8);
    EXPECT_GT(seen.head.gemm_flops_per_second, 1e8);
    EXPECT_GT(seen.head.flush_bytes, 2 * 32e6);
    std::set<std::string> op_names, impls, from;
    for (const Row &r : seen.rows) {
        op_names.insert(r.op);
        impls.insert(r.impl);
        from.insert(r.from);
        if (r.row.state == TP_BENCH_SKIPPED) {
            EXPECT_NE(r.why, "") << r.op << " " << r.shape;
            EXPECT_EQ(r.row.hot.n, 0);
            continue;
        }
        ASSERT_EQ(r.row.state, TP_BENCH_TIMED) << r.op << " " << r.impl << " " << r.why;
        EXPECT_LE(r.row.error, r.row.tolerance);
        for (const tp_bench_time &t : {r.row.hot, r.row.cold}) {
            EXPECT_GE(t.n, 20);
            EXPECT_LE(t.low, t.median);
            EXPECT_LE(t.median, t.high);
            if (t.median <= 0)
                continue;
            EXPECT_DOUBLE_EQ(t.bytes_per_second, r.row.bytes / t.median);
            EXPECT_DOUBLE_EQ(t.share, std::max(t.bytes_per_second / seen.head.copy_bytes_per_second,
                                               t.flops_per_second / seen.head.gemm_flops_per_second));
        }
    }
    EXPECT_EQ(op_names, (std::set<std::string>(ops, ops + 4)));
    EXPECT_EQ(impls, (std::set<std::string>{"onednn", "simd", "ref"}));
    EXPECT_TRUE(from.count("case 0") && from.count("chicago") && from.count("fashion-cnn"));
}

/* gemm's empty case: oneDNN declines, and the row says why. */
TEST(Bench, ADeclinedRowIsSkippedWithTheReason)
{
    Seen seen;
    tp_bench_opts o = options(&seen);
    Shapes all;
    ASSERT_EQ(read_text("gemm 3x0,4x0,4 trans_b=1", &all), TP_OK) << tp_last_error();
    ASSERT_EQ(bench_run(&o, &all.s), TP_OK) << tp_last_error();
    ASSERT_EQ(seen.rows.size(), 3u);
    EXPECT_EQ(seen.rows[0].impl, "onednn");
    EXPECT_EQ(seen.rows[0].row.state, TP_BENCH_SKIPPED);
    EXPECT_EQ(seen.rows[0].why, "an input is empty");
    EXPECT_EQ(seen.rows[1].row.state, TP_BENCH_TIMED);
}

/* y = 2 x, but one element is not; y = x where it should be twice that; NaN; and an effect that is dropped.
 */
tp_status one_wrong(const tp_call *c)
{
    for (int64_t i = 0; i < tp_len(&c->out[0]); i++)
        tp_out_f32(c, 0)[i] = tp_in_f32(c, 0)[i] + tp_in_f32(c, 1)[i] + (i == 5 ? 0.01f : 0.0f);
    return TP_OK;
}

tp_status not_a_number(const tp_call *c)
{
    for (int64_t i = 0; i < tp_len(&c->out[0]); i++)
        tp_out_f32(c, 0)[i] = std::nanf("");
    return TP_OK;
}

tp_status nothing(const tp_call *)
{
    return TP_OK;
}

/* Runs an op of the table with one more implementation before its own. */
Seen with_planted(const tp_op &original, const char *line, tp_status (*run)(const tp_call *), tp_status want)
{
    const tp_impl wrong = {"planted", tp_accept_f32, run, nullptr, 0};
    std::vector<const tp_impl *> list = {&wrong};
    for (const tp_impl *const *p = original.cpu; *p != nullptr; p++)
        list.push_back(*p);
    list.push_back(nullptr);
    tp_op op = original;
    op.cpu = list.data();
    Seen seen;
    tp_bench_opts o = options(&seen);
    Shapes all;
    EXPECT_EQ(read_text(line, &all), TP_OK) << tp_last_error();
    all.s.list[0].op = &op;
    EXPECT_EQ(bench_run(&o, &all.s), want) << tp_last_error();
    return seen;
}

TEST(Bench, AWrongImplementationGetsNoNumber)
{
    static const struct {
        const tp_op *op;
        const char *line;
        tp_status (*run)(const tp_call *);
    } planted[] = {{&tp_op_add, "add 7x9,7x9", one_wrong},
                   {&tp_op_add, "add 7x9,7x9", not_a_number},
                   {&tp_op_ema, "ema 2,3,3 decay=0.9", nothing},
                   {&tp_op_dropout, "dropout 9001,2:u64 stream=1 rate=0.1", nothing}};
    for (const auto &p : planted) {
        const Seen seen = with_planted(*p.op, p.line, p.run, TP_EINTERNAL);
        EXPECT_NE(std::strstr(tp_last_error(), "planted"), nullptr) << tp_last_error();
        ASSERT_GE(seen.rows.size(), 2u);
        EXPECT_EQ(seen.rows[0].impl, "planted");
        EXPECT_EQ(seen.rows[0].row.state, TP_BENCH_WRONG) << p.line;
        EXPECT_NE(seen.rows[0].why, "");
        EXPECT_EQ(seen.rows[0].row.hot.n + seen.rows[0].row.cold.n, 0);
        for (size_t i = 1; i < seen.rows.size(); i++)
            EXPECT_EQ(seen.rows[i].row.state, TP_BENCH_TIMED) << seen.rows[i].impl;
    }
}

/* A random op: one wrong draw among very many, below what the norm alone would show. */
TEST(Bench, OneWrongDrawIsSeen)
{
    Shapes all;
    bench_values in = {}, want = {}, got = {};
    tp_device *cpu = nullptr;
    double error, seconds;
    char why[200];
    ASSERT_EQ(read_text("random_uniform 2:u64 stream=1 shape=1000003 a=0.5 b=1", &all), TP_OK);
    all.s.list[0].c.tolerance = 1e-2;
    ASSERT_EQ(tp_device_open(&cpu, "cpu"), TP_OK);
    ASSERT_EQ(bench_inputs(&all.s.list[0], &in), TP_OK);
    ASSERT_EQ(bench_reference(cpu, &all.s.list[0], &in, &want, &seconds), TP_OK) << tp_last_error();
    ASSERT_EQ(bench_reference(cpu, &all.s.list[0], &in, &got, &seconds), TP_OK);
    EXPECT_TRUE(bench_same(&all.s.list[0], TP_PRECISION_FP32, &want, &got, &error, why, sizeof(why)));
    EXPECT_EQ(error, 0);
    got.v[0][77] += 0.1;
    EXPECT_FALSE(bench_same(&all.s.list[0], TP_PRECISION_FP32, &want, &got, &error, why, sizeof(why)));
    bench_values_free(&in);
    bench_values_free(&want);
    bench_values_free(&got);
    tp_device_close(cpu);
}

/* The emulated GPU has no clock, which shows once an op has run on it. */
TEST(Bench, RunsOnTheGpuThatIsAskedFor)
{
    if (!is_emulated())
        GTEST_SKIP() << "needs two GPUs";
    Seen seen;
    tp_bench_opts o = options(&seen);
    emulated_symbol<void (*)(int)>("emu_devices")(2);
    o.device = "cuda:1";
    EXPECT_EQ(tp_bench(&o), TP_EUNSUP);
    EXPECT_EQ(std::string(tp_last_error()).rfind("bench: cuda:1: ", 0), 0u) << tp_last_error();
    EXPECT_NE(std::strstr(tp_last_error(), "has no clock"), nullptr) << tp_last_error();
    emulated_symbol<void (*)(int)>("emu_devices")(1);
}

TEST(Bench, BadOptionsAreNamed)
{
    Seen seen;
    tp_bench_opts o = options(&seen);
    const char *const ops[] = {"gem"};
    o.n_ops = 1;
    o.ops = ops;
    EXPECT_EQ(tp_bench(&o), TP_EINVAL);
    EXPECT_STREQ(tp_last_error(), "no op 'gem': nearest is 'gemm'");
    o = options(&seen);
    o.runs = 19;
    EXPECT_EQ(tp_bench(&o), TP_EINVAL);
    EXPECT_STREQ(tp_last_error(), "runs is 19, want 20 to 10000");
    o = options(&seen);
    o.shapes = "no/such/file";
    EXPECT_EQ(tp_bench(&o), TP_ENOENT);
    o = options(&seen);
    o.device = "cuda:9";
    EXPECT_EQ(tp_bench(&o), TP_EDEVICE);
    EXPECT_TRUE(seen.rows.empty());
    EXPECT_EQ(seen.heads, 0);
}

} // namespace
