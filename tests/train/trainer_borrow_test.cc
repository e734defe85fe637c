/* trainer_borrow_test.cc - what a trainer copies: the caller may do with it what he likes once the trainer is
 * there. */
#include "temper/train.h"
#include "tests/engine/emulated.h"
#include <cmath>
#include <cstdlib>
#include <gtest/gtest.h>
#include <string>
#include <vector>

namespace
{

class TrainerBorrows : public testing::Test
{
  protected:
    std::string dir;
    tp_data *data = nullptr;
    tp_device *dev = nullptr;

    void SetUp() override
    {
        char name[] = "/tmp/temper-borrow-XXXXXX";
        ASSERT_NE(mkdtemp(name), nullptr);
        dir = name;
        const std::string file = dir + "/images.h5", make = std::string("/usr/bin/python3 ") +
                                                            TEMPER_SOURCE_DIR +
                                                            "/tests/golden/make_images.py " + file;
        ASSERT_EQ(std::system(make.c_str()), 0);
        tp_input_spec x = {};
        x.name = "x";
        x.normalize = TP_NORM_STANDARD;
        tp_data_spec spec = {};
        spec.path = file.c_str();
        spec.n_inputs = 1;
        spec.inputs = &x;
        spec.target_kind = TP_TARGET_CLASS;
        spec.target = "y";
        spec.split.kind = TP_SPLIT_GROUPS;
        spec.split.source[TP_TRAIN] = "train";
        ASSERT_EQ(tp_data_open(&data, &spec), TP_OK) << tp_last_error();
    }
    void TearDown() override
    {
        tp_data_free(data);
        tp_device_close(dev);
        ASSERT_EQ(std::system(("rm -rf " + dir).c_str()), 0);
    }

    void make_model(tp_model **out)
    {
        const tp_data_input *in = tp_data_input_at(data, 0);
        tp_layer layers = {}, *child = nullptr;
        tp_model_input input = {};
        snprintf(input.name, sizeof(input.name), "x");
        input.shape = in->array.sample;
        ASSERT_EQ(tp_layer_append(&layers, TP_LAYER_FLATTEN, &child), TP_OK);
        ASSERT_EQ(tp_layer_append(&layers, TP_LAYER_DENSE, &child), TP_OK);
        child->units = 3;
        ASSERT_EQ(tp_model_new(out, dev, &layers, 1, &input, TP_TASK_CLASS, 3, 1), TP_OK) << tp_last_error();
    }
    /* The losses of three steps with these weights, which are spoilt once the trainer is there. */
    std::vector<double> losses(std::vector<float> weights, bool spoil)
    {
        tp_train_opts opts = TP_TRAIN_OPTS_INIT;
        tp_model *model = nullptr;
        tp_trainer *t = nullptr;
        std::vector<double> all;

        opts.class_weight = weights.data();
        opts.batch = 32;
        make_model(&model);
        EXPECT_EQ(tp_trainer_new(&t, dev, model, data, &opts), TP_OK) << tp_last_error();
        for (float &w : weights)
            w = spoil ? NAN : w;
        for (int64_t step = 0; step < 3 && t != nullptr; step++) {
            tp_step_result result = {};
            EXPECT_EQ(tp_trainer_step(t, step, 0.01, &result), TP_OK) << tp_last_error();
            all.push_back(result.loss);
        }
        tp_trainer_free(t);
        tp_model_free(model);
        return all;
    }
};

TEST_F(TrainerBorrows, ClassWeightsAreCopied)
{
    use_test_module();
    for (const char *device : {"cpu", "cuda"}) {
        ASSERT_EQ(tp_device_open(&dev, device), TP_OK) << tp_last_error();
        const std::vector<double> kept = losses({1.0f, 2.0f, 4.0f}, false);
        EXPECT_NE(kept, losses({1.0f, 1.0f, 1.0f}, false)) << device;
        EXPECT_EQ(kept, losses({1.0f, 2.0f, 4.0f}, true)) << device;
        tp_device_close(dev);
        dev = nullptr;
    }
}

} // namespace
