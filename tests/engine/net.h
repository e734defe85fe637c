/* net.h - small graphs over variables of one float dtype, run on the CPU and compared with golden values. */
#ifndef TP_TESTS_NET_H
#define TP_TESTS_NET_H
#include "tests/engine/case_run.h"
#include <deque>
#include <sstream>

typedef std::vector<int64_t> Dims;
typedef std::vector<std::vector<double>> Results;

/* The inputs of the make_*.py that write golden values: a formula, so that only results are stored. */
inline std::vector<double> golden_fill(size_t n, int64_t k, double scale = 1, double shift = 0)
{
    std::vector<double> v(n);
    for (size_t i = 0; i < n; i++)
        v[i] =
            (static_cast<double>((static_cast<int64_t>(i) * 7919 + k * 104729 + 13) % 10007) / 5003.5 - 1.0) *
                scale +
            shift;
    return v;
}

inline size_t length(const Dims &d)
{
    return static_cast<size_t>(tp_shape_len(tp_shape_make(static_cast<int>(d.size()), d.data())));
}

/* A graph over variables of one float dtype. */
struct Net {
    tp_graph *g = nullptr;
    tp_dtype dtype;
    std::deque<std::vector<uint64_t>> storage;

    explicit Net(tp_dtype real) : dtype(real)
    {
        EXPECT_EQ(tp_graph_new(&g), TP_OK);
    }
    ~Net()
    {
        tp_graph_free(g);
    }
    Net(const Net &) = delete;
    Net &operator=(const Net &) = delete;

    tp_val var(const Dims &d, const std::vector<double> &v)
    {
        tp_tensor t = {nullptr, tp_shape_make(static_cast<int>(d.size()), d.data()), dtype};
        storage.emplace_back(tp_tensor_bytes(&t) / 8 + 1);
        t.data = storage.back().data();
        for (size_t i = 0; i < v.size(); i++)
            tp_set(&t, static_cast<int64_t>(i), v[i]);
        return tp_variable(g, "in", t);
    }
    tp_val ints(const Dims &d, const std::vector<int64_t> &v)
    {
        tp_tensor t = {nullptr, tp_shape_make(static_cast<int>(d.size()), d.data()), TP_I64};
        storage.emplace_back(v.begin(), v.end());
        t.data = storage.back().data();
        return tp_variable(g, "ints", t);
    }
    tp_val filled(const Dims &d, int64_t k, double scale = 1, double shift = 0)
    {
        return var(d, golden_fill(length(d), k, scale, shift));
    }
    /* In float32 none of these ops may fall back to its plain reference: right, but a hundred times slower.
     */
    static void expect_fast(const tp_plan *p)
    {
        char *text = nullptr;
        ASSERT_EQ(tp_plan_text(p, &text), TP_OK);
        std::istringstream lines(text);
        for (std::string line; std::getline(lines, line);)
            for (const char *op : {" matmul", " gemm", " conv", "_pool", "_norm"})
                EXPECT_FALSE(line.find(op) != std::string::npos && line.find("[ref]") != std::string::npos)
                    << line;
        tp_text_free(text);
    }
    /* y, the gradients of sum(fill * y), and the values in `also` after the run. */
    Results run(tp_val y, const std::vector<tp_val> &wrt, const std::vector<tp_val> &also = {},
                const tp_plan_opts *opts = nullptr)
    {
        const tp_shape s = tp_val_shape(g, y);
        const tp_val r = filled(Dims(s.d, s.d + s.nd), static_cast<int64_t>(wrt.size()));
        const tp_val f = tp_reduce_sum(g, tp_mul(g, y, r), 0, 0);
        std::vector<tp_val> read(1, tp_output(g, y));
        std::vector<tp_val> grads(wrt.size());
        tp_grad(g, f, static_cast<int>(wrt.size()), wrt.data(), grads.data());
        for (tp_val v : grads)
            read.push_back(tp_output(g, v));
        read.insert(read.end(), also.begin(), also.end());
        tp_plan *p = nullptr;
        Results out;
        EXPECT_EQ(tp_plan_new(&p, g, cpu_device(), opts), TP_OK) << tp_last_error();
        if (p == nullptr)
            return out;
        if (dtype == TP_F32 && opts == nullptr)
            expect_fast(p);
        EXPECT_EQ(tp_plan_run(p), TP_OK) << tp_last_error();
        for (tp_val v : read)
            out.push_back(read_value(p, g, v));
        tp_plan_free(p);
        return out;
    }
};

inline void expect_near(const std::vector<double> &got, const std::vector<double> &want, double tolerance,
                        const std::string &where)
{
    ASSERT_EQ(got.size(), want.size()) << where;
    double diff = 0, size = 0;
    for (size_t i = 0; i < want.size(); i++) {
        ASSERT_TRUE(std::isfinite(got[i])) << where << " element " << i;
        diff += (got[i] - want[i]) * (got[i] - want[i]);
        size += want[i] * want[i];
    }
    EXPECT_LE(std::sqrt(diff), tolerance * std::sqrt(size) + 1e-12) << where;
}

inline void expect_golden(const Results &got, const Results &want, tp_dtype dtype, const char *name)
{
    ASSERT_EQ(got.size(), want.size()) << name;
    for (size_t k = 0; k < want.size(); k++)
        expect_near(got[k], want[k], dtype == TP_F64 ? 2e-8 : 4e-6,
                    std::string(name) + " " + tp_dtype_name(dtype) + " result " + std::to_string(k));
}

inline const tp_dtype both_dtypes[] = {TP_F32, TP_F64};

#endif
