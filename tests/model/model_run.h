/* model_run.h - models from a layer list as text, and their outputs, for the tests of this folder. */
#ifndef TP_TESTS_MODEL_MODEL_RUN_H
#define TP_TESTS_MODEL_MODEL_RUN_H
#include "host/model/layers_text.h"
#include "temper/plan.h"
#include <cstdio>
#include <gtest/gtest.h>
#include <memory>
#include <string>
#include <vector>

inline tp_device *cpu()
{
    static tp_device *dev = nullptr;
    if (dev == nullptr) {
        EXPECT_EQ(tp_device_open(&dev, "cpu"), TP_OK) << tp_last_error();
    }
    return dev;
}

using Model = std::unique_ptr<tp_model, decltype(&tp_model_free)>;

inline tp_model_input input(const char *name, tp_input_kind kind, std::vector<int64_t> shape,
                            int64_t categories = 0)
{
    tp_model_input in = {};
    std::snprintf(in.name, sizeof(in.name), "%s", name);
    in.kind = kind;
    in.shape = tp_shape_make(static_cast<int>(shape.size()), shape.data());
    in.categories = categories;
    return in;
}

/* NULL if the layers do not fit; they must at least be written well. */
inline Model build(const std::string &layers, const std::vector<tp_model_input> &inputs, int64_t outputs,
                   uint64_t seed = 1)
{
    tp_layer root = {};
    tp_model *m = nullptr;
    EXPECT_EQ(tp_layers_parse(&root, layers.c_str(), "layers"), TP_OK) << tp_last_error();
    const tp_status st = tp_model_new(&m, cpu(), &root, static_cast<int>(inputs.size()), inputs.data(),
                                      TP_TASK_REGRESSION, outputs, seed);
    EXPECT_EQ(st == TP_OK, m != nullptr);
    EXPECT_EQ(root.children, nullptr) << "the layers are taken over";
    return {m, tp_model_free};
}

inline std::vector<float> values(const tp_param *p)
{
    std::vector<float> v(static_cast<size_t>(tp_shape_len(p->tensor.shape)));
    EXPECT_EQ(tp_device_download(cpu(), v.data(), p->tensor.data, v.size() * sizeof(float)), TP_OK);
    return v;
}

/* Outputs for a batch of `rows` of every input, filled from a formula (ids: below their categories). */
inline std::vector<float> outputs(const tp_model *m, int64_t rows)
{
    const int n_inputs = tp_model_n_inputs(m);
    std::vector<std::vector<float>> dense(static_cast<size_t>(n_inputs));
    std::vector<std::vector<int64_t>> ids(static_cast<size_t>(n_inputs));
    std::vector<tp_val> x(static_cast<size_t>(n_inputs)),
        params(static_cast<size_t>(tp_model_n_params(m)) + 1);
    std::vector<float> out(static_cast<size_t>(rows * tp_model_outputs(m)));
    tp_graph *g = nullptr;
    tp_plan *p = nullptr;

    EXPECT_EQ(tp_graph_new(&g), TP_OK);
    for (size_t i = 0; i < x.size(); i++) {
        const tp_model_input *in = tp_model_input_at(m, static_cast<int>(i));
        tp_tensor t = {nullptr, {}, in->kind == TP_INPUT_IDS ? TP_I64 : TP_F32};
        t.shape.nd = in->shape.nd + 1;
        t.shape.d[0] = rows;
        for (int k = 0; k < in->shape.nd; k++)
            t.shape.d[k + 1] = in->shape.d[k];
        for (int64_t k = 0; k < tp_shape_len(t.shape); k++) {
            dense[i].push_back(static_cast<float>((k * 7919 + static_cast<int64_t>(i)) % 1009) / 500.0f -
                               1.0f);
            ids[i].push_back(in->categories > 0 ? k * 31 % in->categories : 0);
        }
        t.data = in->kind == TP_INPUT_IDS ? static_cast<void *>(ids[i].data()) : dense[i].data();
        x[i] = tp_variable(g, in->name, t);
    }
    tp_model_bind(m, g, params.data());
    tp_forward f = {};
    f.inputs = x.data();
    f.params = params.data();
    const tp_val y = tp_output(g, tp_model_forward(m, g, &f));
    EXPECT_EQ(tp_plan_new(&p, g, cpu(), nullptr), TP_OK) << tp_last_error();
    if (p != nullptr) {
        EXPECT_EQ(tp_plan_run(p), TP_OK) << tp_last_error();
        EXPECT_EQ(tp_plan_read(p, y, out.data()), TP_OK) << tp_last_error();
    }
    tp_plan_free(p);
    tp_graph_free(g);
    return out;
}

#endif
