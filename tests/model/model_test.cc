/* model_test.cc - layers that fit give parameters by PyTorch's names and shapes; layers that do not fit give
 * one line that names layer and shapes. */
#include "temper/model.h"
#include "temper/safetensors.h"
#include "tests/model/model_run.h"
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

namespace
{

/* "name shape" of every parameter, buffers in brackets. */
std::string params_of(const tp_model *m)
{
    std::string s;
    for (int i = 0; m != nullptr && i < tp_model_n_params(m); i++) {
        const tp_param *p = tp_model_param(m, i);
        char shape[TP_SHAPE_TEXT_SIZE];
        const std::string one = std::string(p->name) + " " + tp_shape_text(p->shape, shape, sizeof(shape));
        s += (s.empty() ? "" : ", ") + (p->trained ? one : "[" + one + "]");
    }
    return s;
}

const tp_model_input grey = input("x", TP_INPUT_IMAGE, {1, 8, 8});
const tp_model_input rgb = input("x", TP_INPUT_IMAGE, {3, 8, 8});
const tp_model_input flat = input("x", TP_INPUT_DENSE, {6});
const tp_model_input user = input("user", TP_INPUT_IDS, {}, 50);
const tp_model_input item = input("item", TP_INPUT_IDS, {}, 40);

struct Fits {
    const char *layers;
    std::vector<tp_model_input> inputs;
    int64_t outputs;
    const char *params;
};

TEST(Model, LayersThatFit)
{
    const Fits table[] = {
        {"[dense: {units: 3}]", {flat}, 3, "0.weight (3,6), 0.bias (3)"},
        {"[dense: {units: 3, no_bias: true}]", {flat}, 3, "0.weight (3,6)"},
        {"[flatten, dense: {units: 3, name: fc}]", {rgb}, 3, "fc.weight (3,192), fc.bias (3)"},
        {"[conv: {filters: 4, kernel: 3}, global_avg_pool]", {rgb}, 4, "0.weight (4,3,3,3), 0.bias (4)"},
        {"[conv: {filters: 4, kernel: [3, 5], stride: [2, 1], padding: [1, 0], dilation: [1, 1]}, flatten]",
         {grey},
         4 * 4 * 4,
         "0.weight (4,1,3,5), 0.bias (4)"},
        {"[conv: {filters: 6, kernel: 3, groups: 3, no_bias: true}, flatten]",
         {rgb},
         6 * 36,
         "0.weight (6,1,3,3)"},
        {"[conv: {filters: 2, kernel: [3]}, flatten]",
         {input("x", TP_INPUT_IMAGE, {3, 8})},
         12,
         "0.weight (2,3,3), 0.bias (2)"},
        {"[conv: {filters: 2, kernel: 8}, flatten]", {grey}, 2, "0.weight (2,1,8,8), 0.bias (2)"},
        {"[batch_norm, relu, flatten]",
         {rgb},
         192,
         "0.weight (3), 0.bias (3), [0.running_mean (3)], [0.running_var (3)]"},
        {"[layer_norm, dropout: {rate: 0.5}]", {flat}, 6, "0.weight (6), 0.bias (6)"},
        {"[group_norm: {groups: 3}, flatten]", {rgb}, 192, "0.weight (3), 0.bias (3)"},
        {"[max_pool: {kernel: 2}, flatten]", {rgb}, 48, ""},
        {"[avg_pool: {kernel: 3, stride: 1, padding: 1}, flatten]", {rgb}, 192, ""},
        {"[residual: [dense: {units: 6}]]", {flat}, 6, "0.0.weight (6,6), 0.0.bias (6)"},
        {"[residual: [dense: {units: 2}, dense: {units: 2, name: short}]]",
         {flat},
         2,
         "0.0.weight (2,6), 0.0.bias (2), 0.short.weight (2,6), 0.short.bias (2)"},
        {"[residual: {name: block, layers: [sequence: {name: ., layers: [relu, dense: {units: 6}]}]}]",
         {flat},
         6,
         "block.1.weight (6,6), block.1.bias (6)"},
        {"[embedding: {dim: 4, input: user}]", {user}, 4, "0.weight (50,4)"},
        {"[embedding: {dim: 4, categories: 60}]",
         {input("ids", TP_INPUT_IDS, {3}, 50)},
         12,
         "0.weight (60,4)"},
        {"[product: [embedding: {dim: 4, input: user}, embedding: {dim: 4, input: item}], reduce_sum]",
         {user, item},
         1,
         "0.0.weight (50,4), 0.1.weight (40,4)"},
        {"[concat: [embedding: {dim: 4, input: user}, sequence: {input: x, layers: [dense: {units: 2}, "
         "relu]}]]",
         {user, flat},
         6,
         "0.0.weight (50,4), 0.1.0.weight (2,6), 0.1.0.bias (2)"},
        {"[sum: [dense: {units: 2}, dense: {units: 2}], tanh]",
         {flat},
         2,
         "0.0.weight (2,6), 0.0.bias (2), 0.1.weight (2,6), 0.1.bias (2)"},
        {"[leaky_relu, elu, gelu, silu, sigmoid, softplus]", {flat}, 6, ""},
    };
    for (const Fits &f : table) {
        const Model m = build(f.layers, f.inputs, f.outputs);
        ASSERT_NE(m, nullptr) << f.layers << ": " << tp_last_error();
        EXPECT_EQ(params_of(m.get()), f.params) << f.layers;
        EXPECT_EQ(tp_model_outputs(m.get()), f.outputs);
        ASSERT_EQ(tp_model_n_inputs(m.get()), static_cast<int>(f.inputs.size()));
        for (const float y : outputs(m.get(), 3))
            ASSERT_TRUE(std::isfinite(y)) << f.layers;
    }
}

TEST(Model, NamedBuilders)
{
    tp_layer root = {};
    tp_model *m = nullptr;
    const int64_t hidden[] = {5, 4};
    ASSERT_EQ(tp_layers_mlp(&root, 2, hidden, TP_LAYER_TANH, 0.1, 3), TP_OK);
    ASSERT_EQ(tp_model_new(&m, cpu(), &root, 1, &flat, TP_TASK_CLASS, 3, 1), TP_OK) << tp_last_error();
    EXPECT_EQ(params_of(m),
              "0.weight (5,6), 0.bias (5), 3.weight (4,5), 3.bias (4), 6.weight (3,4), 6.bias (3)");
    EXPECT_EQ(tp_model_task(m), TP_TASK_CLASS);
    tp_model_free(m);
    ASSERT_EQ(tp_layers_resnet18(&root, 10), TP_OK);
    ASSERT_EQ(tp_model_new(&m, cpu(), &root, 1, &rgb, TP_TASK_CLASS, 10, 1), TP_OK) << tp_last_error();
    int64_t trained = 0;
    for (int i = 0; i < tp_model_n_params(m); i++)
        trained += tp_model_param(m, i)->trained ? tp_shape_len(tp_model_param(m, i)->tensor.shape) : 0;
    EXPECT_EQ(trained, 11173962) << "the CIFAR form of ResNet-18";
    const std::string all = params_of(m);
    for (const char *name :
         {"conv1.weight (64,3,3,3)", "[bn1.running_var (64)]", "layer1.1.conv2.weight (64,64,3,3)",
          "layer3.0.downsample.0.weight (256,128,1,1)", "layer4.1.bn2.bias (512)", "fc.weight (10,512)"})
        EXPECT_NE(all.find(name), std::string::npos) << name;
    tp_model_free(m);
    const int64_t none[] = {0};
    EXPECT_EQ(tp_layers_mlp(&root, 1, none, TP_LAYER_RELU, 0, 3), TP_EINVAL);
    EXPECT_EQ(root.children, nullptr);
    EXPECT_EQ(tp_layers_mlp(&root, 0, none, TP_LAYER_RELU, 0, 0), TP_EINVAL);
}

struct Misfit {
    const char *layers;
    std::vector<tp_model_input> inputs;
    int64_t outputs;
    std::vector<const char *> says;
};

TEST(Model, LayersThatDoNotFit)
{
    const Misfit table[] = {
        {"[conv: {filters: 4, kernel: 9}, flatten]", {grey}, 4, {"conv", "in 0", "height of 8", "(4,9,9,1)"}},
        {"[max_pool: {kernel: 9}, flatten]", {grey}, 4, {"max_pool", "in 0", "8 x 8 pixels"}},
        {"[max_pool: {kernel: 2, padding: 2}, flatten]", {grey}, 4, {"max_pool", "in 0"}},
        {"[max_pool, flatten]", {grey}, 4, {"max_pool", "in 0"}},
        {"[dense: {units: 3}]", {rgb}, 3, {"layer 0 (dense)", "flatten"}},
        {"[relu, dense: {units: 3, name: fc}]", {rgb}, 3, {"layer fc (dense)", "flatten"}},
        {"[conv: {filters: 3, kernel: 3}]", {flat}, 3, {"layer 0 (conv)", "(N,C,W)"}},
        {"[conv: {filters: 3}]", {rgb}, 3, {"layer 0 (conv)", "kernel > 0"}},
        {"[conv: {kernel: 3}]", {rgb}, 3, {"layer 0 (conv)", "filters > 0"}},
        {"[conv: {filters: 4, kernel: 3, groups: 2}]", {rgb}, 3, {"conv", "in 0", "3 channels", "(2,8,8,3)"}},
        {"[conv: {filters: 4, kernel: 3, groups: 3}]", {rgb}, 3, {"conv", "in 0"}},
        {"[conv: {filters: 6, kernel: 3, groups: 6}]", {rgb}, 3, {"conv", "in 0"}},
        {"[group_norm: {groups: 4}, flatten]", {rgb}, 192, {"group_norm", "in 0", "(2,3,8,8)"}},
        {"[dense: {}]", {flat}, 3, {"layer 0 (dense)", "units"}},
        {"[residual: [dense: {units: 5}]]", {flat}, 6, {"add", "in 0", "(2,5)", "(2,6)"}},
        {"[residual: [relu, relu, relu]]", {flat}, 6, {"layer 0 (residual)", "at most one shortcut"}},
        {"[residual: {}]", {flat}, 6, {"layer 0 (residual)", "wants a body"}},
        {"[concat: {}]", {flat}, 6, {"layer 0 (concat)", "1 to 64"}},
        {"[concat: [flatten, relu], flatten]", {rgb}, 6, {"concat", "in 0"}},
        {"[sum: [dense: {units: 2}, dense: {units: 3}]]", {flat}, 2, {"add", "in 0", "(2,2)", "(2,3)"}},
        {"[product: [dense: {units: 2}, dense: {units: 3}]]", {flat}, 2, {"mul", "in 0", "(2,2)", "(2,3)"}},
        {"[embedding: {dim: 4, categories: 9}]", {flat}, 24, {"embedding", "in 0", "float32"}},
        {"[embedding: {dim: 4, input: x, categories: 9}]",
         {user, flat},
         24,
         {"embedding", "in 0", "float32"}},
        {"[embedding: {dim: 4}]", {flat}, 24, {"layer 0 (embedding)", "categories"}},
        {"[embedding: {categories: 4}]", {user}, 24, {"layer 0 (embedding)", "dim"}},
        {"[embedding: {dim: 4, input: nobody}]", {user}, 4, {"layer 0 (embedding)", "no input 'nobody'"}},
        {"[sequence: {input: nobody, layers: [relu]}]",
         {flat},
         6,
         {"layer 0 (sequence)", "no input 'nobody'"}},
        {"[relu]", {user}, 1, {"relu", "in 0", "int64"}},
        {"[dense: {units: 3}]", {user}, 3, {"layer 0 (dense)"}},
        {"[dense: {units: 3}]", {input("ids", TP_INPUT_IDS, {6}, 5)}, 3, {"int64"}},
        {"[dense: {units: 4}]", {flat}, 3, {"(2,4)", "(2,3)"}},
        {"[relu]", {rgb}, 3, {"(2,3,8,8)", "(2,3)"}},
        {"[sequence: [sequence: {name: deep, layers: [dense: {}]}]]",
         {flat},
         3,
         {"layer 0.deep.0 (dense)", "units"}},
        {"[global_avg_pool]", {flat}, 6, {"global_avg_pool", "2 dimensions"}},
        {"[dense: {units: 3}]", {}, 3, {"has no inputs"}},
        {"[dense: {units: 3}]", {input("x", TP_INPUT_DENSE, {-6})}, 3, {"-6"}},
    };
    for (const Misfit &f : table) {
        EXPECT_EQ(build(f.layers, f.inputs, f.outputs), nullptr) << f.layers;
        const std::string line = tp_last_error();
        for (const char *part : f.says)
            EXPECT_NE(line.find(part), std::string::npos)
                << f.layers << " does not say " << part << ": " << line;
        EXPECT_EQ(line.find('\n'), std::string::npos) << line;
    }
}

TEST(Model, NormalisationOfTheTarget)
{
    const Model m = build("[dense: {units: 2}]", {flat}, 2);
    const float shift[] = {1, 2, 3}, scale[] = {4, 5, 6};
    const float *a = nullptr, *b = nullptr;
    EXPECT_EQ(tp_model_target_norm(m.get(), &a, &b), 0);
    EXPECT_EQ(tp_model_set_target_norm(m.get(), 3, shift, scale), TP_EINVAL);
    ASSERT_EQ(tp_model_set_target_norm(m.get(), 2, shift, scale), TP_OK);
    EXPECT_EQ(tp_model_target_norm(m.get(), &a, &b), 2);
    EXPECT_EQ(a[1], 2.0f);
    EXPECT_EQ(b[1], 5.0f);
    ASSERT_EQ(tp_model_set_target_norm(m.get(), 0, nullptr, nullptr), TP_OK);
    EXPECT_EQ(tp_model_target_norm(m.get(), &a, &b), 0);
}

const char every_layer[] = R"(
- conv: {filters: 4, kernel: [3, 3], padding: 1}
- batch_norm
- leaky_relu: {alpha: 0.3}
- max_pool: {kernel: 2}
- residual: {name: block, layers: [conv: {filters: 4, kernel: 1, no_bias: true}]}
- group_norm: {groups: 2, epsilon: 0.01}
- flatten
- concat:
    - sequence: [dense: {units: 3, init: xavier}, elu: {alpha: 2}]
    - embedding: {input: user, dim: 2}
- layer_norm
- dropout: {rate: 0.5}
- dense: {units: 2}
)";

/* What a model file holds is the text of the layers and the tensors: both must give the model back. */
TEST(Model, TheTextOfItsLayersAndItsTensorsGiveTheSameOutputs)
{
    const std::vector<tp_model_input> inputs = {rgb, user};
    const Model m = build(every_layer, inputs, 2, 1);
    ASSERT_NE(m, nullptr) << tp_last_error();
    const std::vector<float> before = outputs(m.get(), 5);
    char *text = nullptr, dir[] = "/tmp/temper-model-XXXXXX";
    ASSERT_EQ(tp_layers_text(tp_model_layers(m.get()), &text), TP_OK);
    const Model back = build(text, inputs, 2, 2);
    tp_text_free(text);
    ASSERT_NE(back, nullptr) << tp_last_error();
    EXPECT_EQ(params_of(back.get()), params_of(m.get()));
    EXPECT_NE(outputs(back.get(), 5), before) << "another seed";

    ASSERT_NE(mkdtemp(dir), nullptr);
    const std::string path = std::string(dir) + "/m.safetensors";
    tp_tensors *t = nullptr;
    ASSERT_EQ(tp_tensors_new(&t), TP_OK);
    for (int i = 0; i < tp_model_n_params(m.get()); i++) {
        const tp_param *p = tp_model_param(m.get(), i);
        void *dst = nullptr;
        ASSERT_EQ(tp_tensors_add(t, p->name, TP_F32, p->tensor.shape, &dst), TP_OK);
        const std::vector<float> v = values(p);
        std::memcpy(dst, v.data(), v.size() * sizeof(float));
    }
    ASSERT_EQ(tp_tensors_save(t, path.c_str()), TP_OK) << tp_last_error();
    tp_tensors_free(t);
    ASSERT_EQ(tp_tensors_load(&t, path.c_str()), TP_OK) << tp_last_error();
    for (int i = 0; i < tp_model_n_params(back.get()); i++) {
        const tp_param *p = tp_model_param(back.get(), i);
        const tp_tensor *x = tp_tensors_find(t, p->name);
        ASSERT_NE(x, nullptr) << p->name;
        ASSERT_TRUE(tp_shape_equal(x->shape, p->tensor.shape));
        ASSERT_EQ(tp_device_upload(cpu(), p->tensor.data, x->data, tp_tensor_bytes(x)), TP_OK);
    }
    tp_tensors_free(t);
    EXPECT_EQ(outputs(back.get(), 5), before) << "to the bit";
    ASSERT_EQ(std::system((std::string("rm -rf ") + dir).c_str()), 0);
}

} // namespace
