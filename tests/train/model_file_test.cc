/* model_file_test.cc - a model saved and loaded gives the same outputs, to the bit; what is not one is
 * refused. */
#include "temper/run.h"
#include "temper/safetensors.h"
#include "tests/model/model_run.h"
#include <cstdlib>
#include <unistd.h>

namespace
{

const char layers[] = R"(
- conv: {filters: 4, kernel: [3], padding: [1]}
- batch_norm
- leaky_relu: {alpha: 0.3}
- residual: {name: block, layers: [conv: {filters: 4, kernel: [1], no_bias: true}]}
- flatten
- concat:
    - sequence: [dense: {units: 3, init: xavier}, elu: {alpha: 2}]
    - embedding: {input: user, dim: 2}
- dropout: {rate: 0.5}
- dense: {units: 2}
)";

TEST(ModelFile, SavedAndLoadedItGivesTheSameOutputs)
{
    char dir[] = "/tmp/temper-model-XXXXXX";
    ASSERT_NE(mkdtemp(dir), nullptr);
    const std::string path = std::string(dir) + "/m.safetensors";
    float shift[] = {0.1f, -1e-7f, 3e8f}, scale[] = {1.0f / 3, 2, 1e-8f};
    tp_model_input x = input("x", TP_INPUT_IMAGE, {3, 9});
    x.n_norm = 3;
    x.shift = shift;
    x.scale = scale;
    const Model m = build(layers, {x, input("user", TP_INPUT_IDS, {}, 50)}, 2);
    ASSERT_NE(m, nullptr) << tp_last_error();
    ASSERT_EQ(tp_model_set_target_norm(m.get(), 2, shift, scale), TP_OK);
    ASSERT_EQ(tp_model_save(m.get(), cpu(), "rating", TP_TARGET_REGRESSION, path.c_str()), TP_OK)
        << tp_last_error();

    tp_model *loaded = nullptr;
    char *target = nullptr;
    tp_target_kind kind = TP_TARGET_ONEHOT;
    ASSERT_EQ(tp_model_load(&loaded, cpu(), path.c_str(), &target, &kind), TP_OK) << tp_last_error();
    const Model back(loaded, tp_model_free);
    EXPECT_STREQ(target, "rating");
    EXPECT_EQ(kind, TP_TARGET_REGRESSION);
    tp_text_free(target);
    EXPECT_EQ(outputs(back.get(), 5), outputs(m.get(), 5));
    const tp_model_input *in = tp_model_input_at(back.get(), 0);
    ASSERT_EQ(in->n_norm, 3);
    const float *a = nullptr, *b = nullptr;
    ASSERT_EQ(tp_model_target_norm(back.get(), &a, &b), 2);
    for (int i = 0; i < 3; i++) {
        EXPECT_EQ(in->shift[i], shift[i]);
        EXPECT_EQ(in->scale[i], scale[i]);
    }
    EXPECT_EQ(b[0], scale[0]);
    EXPECT_EQ(tp_model_input_at(back.get(), 1)->categories, 50);
    EXPECT_EQ(tp_model_task(back.get()), TP_TASK_REGRESSION);

    tp_tensors *t = nullptr;
    ASSERT_EQ(tp_tensors_new(&t), TP_OK);
    ASSERT_EQ(tp_tensors_save(t, path.c_str()), TP_OK);
    tp_tensors_free(t);
    EXPECT_EQ(tp_model_load(&loaded, cpu(), path.c_str(), &target, &kind), TP_EDATA)
        << "tensors alone are no model";
    EXPECT_EQ(loaded, nullptr);
    EXPECT_EQ(target, nullptr);
    ASSERT_EQ(tp_model_save(m.get(), cpu(), "rating", TP_TARGET_CLASS, path.c_str()), TP_OK);
    EXPECT_EQ(tp_model_load(&loaded, cpu(), path.c_str(), &target, &kind), TP_EDATA) << "not for regression";
    ASSERT_EQ(std::system((std::string("rm -rf ") + dir).c_str()), 0);
}

} // namespace
