/* case_run.h - builds one op case as a graph of its own, in float32 or float64, on a device. */
#ifndef TP_TESTS_CASE_RUN_H
#define TP_TESTS_CASE_RUN_H
#include "host/core/mem.h"
#include "host/core/parallel.h"
#include "kernels/case.h"
#include "temper/plan.h"
#include <cmath>
#include <cstring>
#include <gtest/gtest.h>
#include <random>
#include <string>
#include <vector>

/* The inputs of a case as its text gives them: shapes and dtypes without data. */
inline std::vector<tp_tensor> parse_inputs(const char *text)
{
    tp_tensor *inputs = nullptr;
    int n = 0;
    EXPECT_EQ(tp_case_inputs(text, &inputs, &n), TP_OK) << tp_last_error();
    std::vector<tp_tensor> out(inputs, inputs + n);
    tp_free(inputs);
    return out;
}

/* Their values as doubles (integers too). */
inline std::vector<std::vector<double>> make_values(const tp_case &c, const std::vector<tp_tensor> &spec,
                                                    uint64_t seed)
{
    std::vector<std::vector<double>> out;
    for (const tp_tensor &in : spec) {
        out.emplace_back(in.dtype == TP_DTYPE_NONE ? 0 : static_cast<size_t>(tp_shape_len(in.shape)));
        tp_case_values(&c, &in, static_cast<int>(out.size()) - 1, seed, out.back().data());
    }
    return out;
}

inline tp_device *cpu_device()
{
    static tp_device *dev = nullptr;
    if (dev == nullptr) {
        EXPECT_EQ(tp_device_open(&dev, "cpu"), TP_OK) << tp_last_error();
    }
    return dev;
}

/* A graph of one node with its storage on a device. */
struct CaseGraph {
    tp_device *dev;
    tp_graph *g = nullptr;
    std::vector<tp_tensor> tensors;
    std::vector<tp_val> in, out;
    std::vector<tp_tensor> spec;

    CaseGraph(tp_device *device, const tp_op *op, const tp_case &c, tp_dtype real,
              const std::vector<std::vector<double>> &values)
        : dev(device), spec(parse_inputs(c.in))
    {
        EXPECT_EQ(tp_graph_new(&g), TP_OK);
        for (const tp_tensor &s : spec) {
            tp_tensor t = {nullptr, s.shape, tp_case_dtype(s.dtype, real)};
            if (t.dtype != TP_DTYPE_NONE) {
                EXPECT_EQ(tp_device_alloc(dev, &t.data, tp_tensor_bytes(&t), "case"), TP_OK)
                    << tp_last_error();
            }
            tensors.push_back(t);
            in.push_back(t.dtype == TP_DTYPE_NONE ? 0 : tp_variable(g, "in", t));
        }
        fill(values);
        const tp_val first = tp_graph_add(g, op, static_cast<int>(in.size()), in.data(), c.attr);
        for (int k = 0; k < op->n_out; k++)
            out.push_back(tp_output(g, first == 0 ? 0 : first + static_cast<tp_val>(k)));
    }
    ~CaseGraph()
    {
        tp_graph_free(g);
        for (const tp_tensor &t : tensors)
            tp_device_release(dev, t.data);
    }
    CaseGraph(const CaseGraph &) = delete;
    CaseGraph &operator=(const CaseGraph &) = delete;

    void fill(const std::vector<std::vector<double>> &values)
    {
        for (size_t i = 0; i < tensors.size(); i++) {
            if (tensors[i].dtype == TP_DTYPE_NONE)
                continue;
            const size_t bytes = tp_tensor_bytes(&tensors[i]);
            std::vector<uint64_t> host(bytes / 8 + 1); /* 8-byte cells: aligned for every dtype */
            const tp_tensor t = {host.data(), tensors[i].shape, tensors[i].dtype};
            tp_case_store(&t, values[i].data());
            EXPECT_EQ(tp_device_upload(dev, tensors[i].data, host.data(), bytes), TP_OK) << tp_last_error();
        }
    }
};

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
