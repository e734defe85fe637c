/* case_run.h - builds one op case as a graph of its own, in float32 or float64, and runs it on the CPU. */
#ifndef TP_TESTS_CASE_RUN_H
#define TP_TESTS_CASE_RUN_H
#include "host/core/parallel.h"
#include "kernels/op.h"
#include "temper/plan.h"
#include <cmath>
#include <cstring>
#include <gtest/gtest.h>
#include <random>
#include <string>
#include <vector>

struct CaseInput {
    tp_shape shape = {};
    tp_dtype dtype = TP_F32; /* TP_DTYPE_NONE: absent */
    bool is_float = true;
};

/* "4x3,6:i64,-,(),2*4x3" as described at tp_case. */
inline std::vector<CaseInput> parse_inputs(const char *text)
{
    static const struct {
        const char *name;
        tp_dtype dtype;
    } ints[] = {{"i64", TP_I64}, {"i32", TP_I32}, {"i16", TP_I16}, {"i8", TP_I8},   {"u64", TP_U64},
                {"u32", TP_U32}, {"u16", TP_U16}, {"u8", TP_U8},   {"f32", TP_F32}, {"f64", TP_F64}};
    std::vector<CaseInput> out;
    std::string all(text);
    for (size_t at = 0; at <= all.size();) {
        const size_t comma = std::min(all.find(',', at), all.size());
        std::string item = all.substr(at, comma - at);
        at = comma + 1;
        CaseInput in;
        int repeat = 1;
        if (const size_t star = item.find('*'); star != std::string::npos) {
            repeat = std::stoi(item.substr(0, star));
            item = item.substr(star + 1);
        }
        if (const size_t colon = item.find(':'); colon != std::string::npos) {
            for (const auto &d : ints)
                if (item.substr(colon + 1) == d.name)
                    in.dtype = d.dtype;
            in.is_float = tp_is_float(in.dtype) != 0;
            item = item.substr(0, colon);
        }
        if (item == "-")
            in.dtype = TP_DTYPE_NONE;
        else if (item != "()")
            for (size_t p = 0; p <= item.size();) {
                const size_t x = std::min(item.find('x', p), item.size());
                in.shape.d[in.shape.nd++] = std::stoll(item.substr(p, x - p));
                p = x + 1;
            }
        for (int i = 0; i < repeat; i++)
            out.push_back(in);
    }
    return out;
}

/* The inputs of a case as doubles (integers too), the same for every dtype it is run in: floats are exact
 * float32. */
inline std::vector<std::vector<double>> make_values(const tp_case &c, const std::vector<CaseInput> &ins,
                                                    uint64_t seed)
{
    std::mt19937_64 rng(seed);
    std::vector<std::vector<double>> out;
    for (const CaseInput &in : ins) {
        const size_t n = in.dtype == TP_DTYPE_NONE ? 0 : static_cast<size_t>(tp_shape_len(in.shape));
        std::vector<double> v(n);
        std::uniform_real_distribution<double> real(c.lo, c.hi);
        if (!in.is_float) {
            std::uniform_int_distribution<int64_t> integer(0, c.ihi > 0 ? c.ihi - 1 : 0);
            for (double &x : v)
                x = static_cast<double>(integer(rng));
        } else if (c.flags & TP_CASE_DISTINCT) {
            /* Each input has a grid of its own offset, so that no two elements of any inputs tie. */
            for (size_t i = 0; i < n; i++)
                v[i] = static_cast<double>(static_cast<float>(
                    c.lo + (c.hi - c.lo) *
                               (static_cast<double>(i) + 0.25 + 0.37 * static_cast<double>(out.size() % 3)) /
                               static_cast<double>(n)));
            std::shuffle(v.begin(), v.end(), rng);
        } else {
            for (double &x : v) {
                x = static_cast<double>(static_cast<float>(real(rng)));
                if ((c.flags & TP_CASE_AWAY) && std::fabs(x) < 0.05)
                    x = x < 0 ? -0.06 : 0.06;
            }
            const size_t cols = in.shape.nd > 0 ? static_cast<size_t>(in.shape.d[in.shape.nd - 1]) : 1;
            for (size_t r = 0; (c.flags & TP_CASE_ROWSUM1) && cols > 0 && r + cols <= n; r += cols) {
                double sum = 0;
                for (size_t k = 0; k < cols; k++)
                    sum += v[r + k] = std::fabs(v[r + k]) + 0.01;
                for (size_t k = 0; k < cols; k++)
                    v[r + k] = static_cast<double>(static_cast<float>(v[r + k] / sum));
            }
        }
        out.push_back(v);
    }
    return out;
}

/* A graph of one node with its storage. */
struct CaseGraph {
    tp_graph *g = nullptr;
    std::vector<std::vector<uint64_t>> storage; /* 8-byte cells: aligned for every dtype */
    std::vector<tp_tensor> tensors;
    std::vector<tp_val> in, out;
    std::vector<CaseInput> spec;

    CaseGraph(const tp_op *op, const tp_case &c, tp_dtype real,
              const std::vector<std::vector<double>> &values)
        : spec(parse_inputs(c.in))
    {
        EXPECT_EQ(tp_graph_new(&g), TP_OK);
        for (size_t i = 0; i < spec.size(); i++) {
            const tp_dtype dtype = spec[i].is_float && spec[i].dtype != TP_DTYPE_NONE ? real : spec[i].dtype;
            tp_tensor t = {nullptr, spec[i].shape, dtype};
            storage.emplace_back(dtype == TP_DTYPE_NONE ? 0 : tp_tensor_bytes(&t) / 8 + 1);
            t.data = storage.back().data();
            tensors.push_back(t);
            in.push_back(dtype == TP_DTYPE_NONE ? 0 : tp_variable(g, "in", t));
        }
        fill(values);
        const tp_val first = tp_graph_add(g, op, static_cast<int>(in.size()), in.data(), c.attr);
        for (int k = 0; k < op->n_out; k++)
            out.push_back(tp_output(g, first == 0 ? 0 : first + static_cast<tp_val>(k)));
    }
    ~CaseGraph()
    {
        tp_graph_free(g);
    }
    CaseGraph(const CaseGraph &) = delete;
    CaseGraph &operator=(const CaseGraph &) = delete;

    void fill(const std::vector<std::vector<double>> &values)
    {
        for (size_t i = 0; i < tensors.size(); i++)
            for (size_t k = 0; k < values[i].size(); k++)
                put(i, k, values[i][k]);
    }
    void put(size_t i, size_t k, double v)
    {
        const tp_tensor &t = tensors[i];
        switch (t.dtype) {
        case TP_F32:
            static_cast<float *>(t.data)[k] = static_cast<float>(v);
            break;
        case TP_F64:
            static_cast<double *>(t.data)[k] = v;
            break;
        case TP_I64:
        case TP_U64:
            static_cast<int64_t *>(t.data)[k] = static_cast<int64_t>(v);
            break;
        case TP_I32:
        case TP_U32:
            static_cast<int32_t *>(t.data)[k] = static_cast<int32_t>(v);
            break;
        case TP_I16:
        case TP_U16:
            static_cast<int16_t *>(t.data)[k] = static_cast<int16_t>(v);
            break;
        default:
            static_cast<int8_t *>(t.data)[k] = static_cast<int8_t>(v);
        }
    }
};

inline tp_device *cpu_device()
{
    static tp_device *dev = nullptr;
    if (dev == nullptr) {
        EXPECT_EQ(tp_device_open(&dev, "cpu"), TP_OK) << tp_last_error();
    }
    return dev;
}

/* A value as doubles. */
inline std::vector<double> read_value(tp_plan *p, const tp_graph *g, tp_val v)
{
    tp_tensor t = {nullptr, tp_val_shape(g, v), tp_val_dtype(g, v)};
    std::vector<uint64_t> raw(tp_tensor_bytes(&t) / 8 + 1);
    EXPECT_EQ(tp_plan_read(p, v, raw.data()), TP_OK) << tp_last_error();
    t.data = raw.data();
    std::vector<double> out(static_cast<size_t>(tp_shape_len(t.shape)));
    for (size_t i = 0; i < out.size(); i++)
        out[i] = tp_get(&t, static_cast<int64_t>(i));
    return out;
}

/* Every float result of a run: the outputs, then the inputs (which effects may have changed). */
inline std::vector<std::vector<double>> read_results(tp_plan *p, const CaseGraph &cg)
{
    std::vector<std::vector<double>> all;
    for (tp_val v : cg.out)
        all.push_back(read_value(p, cg.g, v));
    for (tp_val v : cg.in)
        all.push_back(v != 0 ? read_value(p, cg.g, v) : std::vector<double>());
    return all;
}

#endif
