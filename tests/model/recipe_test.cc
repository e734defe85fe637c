/* recipe_test.cc - recipes read, written back and read again; every mistake a person makes gets one clear
 * line. */
#include "host/model/layers_text.h"
#include "host/model/recipe_schema.h"
#include "temper/recipe.h"
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <iterator>
#include <memory>
#include <string>
#include <unistd.h>
#include <vector>

namespace
{

/* What every small recipe here begins with: four lines. */
const std::string without_model = "data:\n"
                                  "  inputs: [x]\n"
                                  "  target: {name: t}\n";
const std::string head = without_model + "model: {builder: mlp}\n";

/* A recipe and what must be said about it. */
struct Mistake {
    std::string text;
    std::string at; /* "line:column" */
    std::vector<std::string> says;
};

struct RecipeFree {
    void operator()(tp_recipe *r) const
    {
        tp_recipe_clear(r);
        delete r;
    }
};
using Recipe = std::unique_ptr<tp_recipe, RecipeFree>;

class RecipeTest : public testing::Test
{
  protected:
    std::string dir, path;

    void SetUp() override
    {
        char name[] = "/tmp/temper-recipe-XXXXXX";
        ASSERT_NE(mkdtemp(name), nullptr);
        dir = name;
        path = dir + "/r.yaml";
    }
    void TearDown() override
    {
        std::filesystem::remove_all(dir);
    }
    tp_status read_file(Recipe &r, const std::string &file, const std::vector<const char *> &sets = {}) const
    {
        r.reset(new tp_recipe{});
        return tp_recipe_read(r.get(), file.c_str(), static_cast<int>(sets.size()), sets.data());
    }
    tp_status read(Recipe &r, const std::string &text, const std::vector<const char *> &sets = {}) const
    {
        std::ofstream(path, std::ios::binary) << text;
        return read_file(r, path, sets);
    }
    Recipe good(const std::string &text, const std::vector<const char *> &sets = {}) const
    {
        Recipe r;
        EXPECT_EQ(read(r, text, sets), TP_OK) << text << tp_last_error();
        return r;
    }
    /* The line of the error, with the path of the file taken off. */
    std::string refused(const std::string &text, const std::vector<const char *> &sets = {}) const
    {
        Recipe r;
        const tp_status st = read(r, text, sets);
        EXPECT_EQ(st, TP_ERECIPE) << text.substr(0, 400);
        if (st == TP_OK)
            return "";
        EXPECT_EQ(tp_status_exit_code(st), 78);
        std::string line = tp_last_error();
        EXPECT_EQ(line.find('\n'), std::string::npos) << line;
        const size_t at = line.find(path + ":");
        return at == 0 ? line.substr(path.size() + 1) : line;
    }
    void check_mistakes(const Mistake *table, size_t n) const
    {
        for (size_t i = 0; i < n; i++) {
            const Mistake &m = table[i];
            const std::string line = refused(m.text);
            EXPECT_EQ(line.compare(0, m.at.size(), m.at), 0)
                << m.text << "is not at " << m.at << ": " << line;
            for (const std::string &part : m.says)
                EXPECT_NE(line.find(part), std::string::npos) << m.text << "says: " << line;
        }
    }
    static std::string text_of(const Recipe &r)
    {
        char *text = nullptr;
        EXPECT_EQ(tp_recipe_text(r.get(), &text), TP_OK);
        std::string s = text;
        tp_text_free(text);
        return s;
    }
    /* Written back it reads, and is written the same. */
    std::string fixpoint(const Recipe &r) const
    {
        const std::string first = text_of(r);
        EXPECT_EQ(text_of(good(first)), first);
        return first;
    }
};

bool has(const std::string &s, const std::string &part)
{
    return s.find(part) != std::string::npos;
}

/* ---- what is right ---- */

TEST_F(RecipeTest, TheRecipesOfTheRepositoryComeBack)
{
    int n = 0;
    for (const auto &e : std::filesystem::directory_iterator(TEMPER_SOURCE_DIR "/recipes")) {
        if (e.path().extension() != ".yaml")
            continue;
        SCOPED_TRACE(e.path());
        Recipe r;
        ASSERT_EQ(read_file(r, e.path()), TP_OK) << tp_last_error();
        fixpoint(r);
        n++;
    }
    EXPECT_GE(n, 4);
}

TEST_F(RecipeTest, CropAndFlipInAnyOrder)
{
    for (const char *options : {"crop: 2, hflip: true", "hflip: true, crop: 2"}) {
        const Recipe r = good("data: {inputs: [{name: x, kind: image, " + std::string(options) +
                              "}], target: {name: t}}\nmodel: {builder: mlp}\n");
        EXPECT_EQ(r->data.inputs[0].crop, 2);
        EXPECT_EQ(r->data.inputs[0].hflip, 1);
        fixpoint(r);
    }
}

/* A key writes as many bytes as its type has: none of another key's. */
TEST(RecipeSchema, NoKeyWritesIntoAnother)
{
    const auto size = [](const tp_schema_row *row) -> size_t {
        switch (row->type) {
        case TP_KEY_NUMBER:
            return sizeof(double);
        case TP_KEY_INTEGER:
            return sizeof(int64_t);
        case TP_KEY_PAIR:
            return 2 * sizeof(int64_t);
        case TP_KEY_TEXT:
            return static_cast<size_t>(row->max);
        case TP_KEY_BOOL:
        case TP_KEY_CHOICE:
            return sizeof(int);
        default:
            return 0;
        }
    };
    for (const tp_schema_row *table : {tp_schema, tp_schema_input, tp_schema_layer})
        for (const tp_schema_row *a = table; a->path != nullptr; a++)
            for (const tp_schema_row *b = table; b->path != nullptr; b++)
                EXPECT_FALSE(size(a) > 0 && size(b) > 0 && a->offset < b->offset &&
                             a->offset + size(a) > b->offset)
                    << a->path << " writes into " << b->path;
}

TEST_F(RecipeTest, Defaults)
{
    const Recipe r = good(head);
    EXPECT_EQ(r->data.n_inputs, 1);
    EXPECT_STREQ(r->data.inputs[0].name, "x");
    EXPECT_EQ(r->data.inputs[0].kind, TP_INPUT_DENSE);
    EXPECT_EQ(r->data.inputs[0].normalize, TP_NORM_NONE);
    EXPECT_EQ(r->data.inputs[0].factor, 1.0);
    EXPECT_STREQ(r->data.target, "t");
    EXPECT_EQ(r->data.target_kind, TP_TARGET_REGRESSION);
    EXPECT_EQ(r->data.split, TP_SPLIT_FRACTION);
    EXPECT_EQ(r->model.builder, TP_BUILDER_MLP);
    EXPECT_EQ(r->model.n_hidden, 0);
    EXPECT_EQ(r->model.activation, TP_LAYER_RELU);
    EXPECT_EQ(r->model.embedding_dim, 16);
    EXPECT_EQ(r->objective.loss, TP_LOSS_AUTO);
    EXPECT_EQ(r->optimizer.kind, TP_ADAMW);
    EXPECT_EQ(r->lr, 1e-3);
    EXPECT_EQ(r->weight_decay, 0.01);
    EXPECT_EQ(r->optimizer.beta1, 0.9);
    EXPECT_EQ(r->optimizer.beta2, 0.999);
    EXPECT_EQ(r->clip_norm, 0.0);
    EXPECT_EQ(r->schedule.kind, TP_SCHEDULE_CONSTANT);
    EXPECT_EQ(r->train.batch, 64);
    EXPECT_EQ(r->train.epochs, 10);
    EXPECT_EQ(r->train.seed, 0);
    EXPECT_EQ(r->train.keep, 2);
    fixpoint(r);
}

TEST_F(RecipeTest, TextIsAFixpoint)
{
    const char *const texts[] = {
        "train: {metrics: [mae, rmse], best: {metric: mae}, early_stop: {patience: 3, min_delta: 0.1}}\n",
        "optimizer: {sgd: {lr: 0.1, momentum: 0.3, nesterov: true, decay_all: true}, clip_norm: 0.1, ema: "
        "0.99}\n",
        "optimizer: {lion: }\n",
        "optimizer: {rmsprop: {}}\n",
        "optimizer:\n  adagrad:\n    epsilon: 1e-7\n",
        "schedule: {kind: step, gamma: 0.3, step_epochs: 2.5, warmup: 0.1}\n",
        "schedule: {kind: reduce_on_plateau, metric: \"l\\\"o\\\\s's\", patience: 3, factor: 0.5}\n",
        "objective: {loss: huber, delta: 1.7976931348623157e3, balanced: false}\n",
    };
    for (const char *t : texts)
        fixpoint(good(head + t));
    const std::string model =
        "data: {inputs: [x, {name: \"a b#: \\u00e9\", kind: ids, categories: 5}, {name: z, kind: image, "
        "normalize: scale, factor: 0, crop: 3}], target: {name: t, normalize: minmax}, "
        "time: d, split: {by: time, train: [1969-12-31, 2001-01-01], validation: [2001-01-01, 12000.5], "
        "test: [1e6, 2e6]}, non_finite: drop}\n";
    const std::string text =
        fixpoint(good(model + "model: {builder: tabular, hidden: [7, 5], activation: gelu, dropout: 0.1}\n"));
    EXPECT_TRUE(has(text, "train: [-1, 11323]")) << text;
    fixpoint(good("data: {inputs: [x], target: {name: t}, split: {by: files, train: \"a/*.h5\", test: "
                  "\"b.h5\"}}\nmodel: {builder: "
                  "resnet18}\n"));
}

TEST_F(RecipeTest, AnInputsFactorOfZeroComesBack)
{
    const Recipe r = good("data: {inputs: [{name: x, normalize: scale, factor: 0}], target: {name: "
                          "t}}\nmodel: {builder: mlp}\n");
    EXPECT_EQ(good(text_of(r))->data.inputs[0].factor, 0.0);
}

const std::string data_only = "data: {inputs: [x], target: {name: t}}\n";

/* Trees alike, field by field. */
void expect_same(const tp_layer &a, const tp_layer &b)
{
    tp_layer x = a, y = b;
    ASSERT_EQ(a.n_children, b.n_children);
    x.children = y.children = nullptr;
    EXPECT_EQ(std::memcmp(&x, &y, sizeof(x)), 0) << tp_layer_kind_name(a.kind);
    for (int i = 0; i < a.n_children; i++)
        expect_same(a.children[i], b.children[i]);
}

TEST_F(RecipeTest, EveryKindOfLayerAndOptionComesBack)
{
    const Recipe r = good(data_only + R"(
model:
  layers:
    - conv: {filters: 8, kernel: [3, 1], stride: [2, 1], padding: [1, 0], dilation: 2, groups: 2, no_bias: true}
    - conv: {filters: 8, kernel: [3], stride: [2], padding: [1]}
    - batch_norm: {epsilon: 1e-3, momentum: 0.01}
    - layer_norm
    - group_norm: {groups: 4}
    - max_pool: {kernel: 2, stride: 1, padding: 1}
    - avg_pool: {kernel: [2]}
    - residual:
        - sequence:
            - dense: {units: 3, init: kaiming, name: "a\"b"}
            - leaky_relu: {alpha: 0.2}
        - dense: {units: 3, init: xavier}
    - residual: {name: block, layers: [relu]}
    - concat:
        - embedding: {input: user, dim: 4, categories: 9, init: zeros}
        - sequence: {input: x, layers: [dense: {units: 2}, relu]}
    - sum: [tanh, gelu]
    - product: [silu, sigmoid, {elu: {alpha: 3}}]
    - reduce_sum
    - global_avg_pool
    - flatten
    - softplus:
    - dropout: {rate: 0.3}
)");
    EXPECT_EQ(r->model.layers.n_children, 17);
    EXPECT_EQ(r->model.layers.children[0].stride[0], 2);
    EXPECT_EQ(r->model.layers.children[0].dilation[1], 2);
    EXPECT_EQ(r->model.layers.children[1].kernel[1], 0) << "a list of one is of one dimension";
    EXPECT_EQ(r->model.layers.children[5].kernel[1], 2) << "one number is for both";
    EXPECT_STREQ(r->model.layers.children[7].children[0].children[0].name, "a\"b");
    fixpoint(r);
    expect_same(good(text_of(r))->model.layers, r->model.layers);
    char *text = nullptr;
    tp_layer back = {};
    ASSERT_EQ(tp_layers_text(&r->model.layers, &text), TP_OK);
    ASSERT_EQ(tp_layers_parse(&back, text, "text"), TP_OK) << tp_last_error();
    expect_same(back, r->model.layers);
    tp_text_free(text);
    tp_layer_clear(&back);
}

TEST_F(RecipeTest, LayersAsDeepAsTheyMayBeComeBack)
{
    int depth = 1;
    Recipe deepest;
    for (;; depth++) {
        std::string layers = "relu";
        for (int i = 0; i < depth; i++)
            layers = "sum: [" + layers + "]";
        Recipe r;
        const tp_status st = read(r, data_only + "model: {layers: [" + layers + "]}\n");
        if (st != TP_OK) {
            EXPECT_EQ(st, TP_ERECIPE);
            EXPECT_TRUE(has(tp_last_error(), "deeper than")) << tp_last_error();
            break;
        }
        deepest = std::move(r);
        fixpoint(deepest);
        ASSERT_LT(depth, 100);
    }
    EXPECT_GE(depth, 8);
}

/* ---- --set ---- */

TEST_F(RecipeTest, SetOverridesTheFile)
{
    const Recipe r =
        good(head + "train: {batch: 8}\n",
             {"train.batch=32", "model.hidden=[3, 4]", "optimizer.sgd.lr=0.5", "data.target.kind=class",
              "train={epochs: 3, seed: 9}", "data.inputs=[{name: a, kind: ids}, b]", "train.metrics=[mae]",
              "data.split={by: time, train: [2001-01-01, 2002-01-01]}", "data.file=a=b.h5"});
    EXPECT_EQ(r->train.batch, 32);
    EXPECT_EQ(r->train.epochs, 3);
    EXPECT_EQ(r->train.seed, 9);
    ASSERT_EQ(r->model.n_hidden, 2);
    EXPECT_EQ(r->model.hidden[1], 4);
    EXPECT_EQ(r->optimizer.kind, TP_SGD);
    EXPECT_EQ(r->optimizer.momentum, 0.9) << "another optimizer comes with its own defaults";
    EXPECT_EQ(r->weight_decay, 0.0);
    EXPECT_EQ(r->lr, 0.5);
    EXPECT_EQ(r->data.target_kind, TP_TARGET_CLASS);
    ASSERT_EQ(r->data.n_inputs, 2);
    EXPECT_EQ(r->data.inputs[0].kind, TP_INPUT_IDS);
    EXPECT_STREQ(r->data.inputs[1].name, "b");
    EXPECT_EQ(r->data.from[TP_TRAIN], 11323.0);
    EXPECT_STREQ(r->data.file, "a=b.h5");
    fixpoint(r);
}

TEST_F(RecipeTest, TheLastSetCounts)
{
    EXPECT_EQ(good(head, {"train.batch=2", "train.batch=3"})->train.batch, 3);
    const Recipe same = good(head + "optimizer: {sgd: {momentum: 0.5}}\n", {"optimizer.sgd.lr=0.5"});
    EXPECT_EQ(same->optimizer.momentum, 0.5) << "the same optimizer keeps what the file said";
    const Recipe layers = good(data_only + "model: {layers: [relu, tanh]}\n", {"model.layers=[gelu]"});
    ASSERT_EQ(layers->model.layers.n_children, 1);
    EXPECT_EQ(layers->model.layers.children[0].kind, TP_LAYER_GELU);
}

struct Wrong {
    const char *set;
    std::vector<const char *> says;
};

TEST_F(RecipeTest, AWrongSetIsNamed)
{
    const Wrong table[] = {
        {"train.batch", {"--set 'train.batch'", "KEY=VALUE"}},
        {"=3", {"KEY=VALUE"}},
        {"", {"KEY=VALUE"}},
        {"train.batch=", {"--set train.batch"}},
        {"train.batch=many", {"--set train.batch", "'many'", "whole number"}},
        {"train.batch=0", {"--set train.batch", "is 0", "1 to 1048576"}},
        {"train.bach=3", {"--set train.bach", "unknown key 'train.bach'", "'batch'"}},
        {"trian.batch=3", {"unknown key 'trian.batch'"}},
        {"train=3", {"train must be a mapping"}},
        {"model.hidden=3", {"model.hidden must be a list"}},
        {"model.hidden=[3, x]", {"'x'"}},
        {"train.batch=[", {"--set train.batch"}},
        {"schedule.kind=cosin", {"constant, step, cosine, linear, one_cycle"}},
    };
    for (const Wrong &w : table) {
        const std::string line = refused(head, {w.set});
        for (const char *part : w.says)
            EXPECT_TRUE(has(line, part)) << "--set " << w.set << " says: " << line;
    }
    refused(head, {(std::string(5000, 'k') + "=1").c_str()});
    refused(head, {("train.batch=" + std::string(100000, '9')).c_str()});
}

/* ---- what is wrong: after the four lines of head, or as a whole file ---- */

TEST_F(RecipeTest, MistakesAreShownWithTheirPlaceAndWhatIsAllowed)
{
    const Mistake table[] = {
        /* keys */
        {head + "train:\n  bach: 3\n", "6:3", {"unknown key 'train.bach'", "nearest is 'batch'"}},
        {head + "trian: {batch: 3}\n", "5:1", {"unknown key 'trian'", "nearest is 'train'"}},
        {head + "train: {early_stop: {patiense: 3}}\n", "5:22", {"nearest is 'patience'"}},
        {head + "optimizer: {adamv: {lr: 1}}\n", "5:13", {"nearest is 'adam"}},
        {head + "optimizer: {cliq_norm: 1}\n", "5:13", {"nearest is 'clip_norm'"}},
        {head + "---\nmodel: {}\n", "5:1", {"a second document begins"}},
        {head + "train.batch: 3\n", "5:1", {"unknown key 'train.batch'", "--set"}},
        {head + "optimizer: {sgd: 3}\n", "5:18", {"optimizer.sgd must be a mapping"}},
        {without_model + "model: {builder: mlp, layers: [relu]}\n",
         "4:9",
         {"a builder and layers, must name one"}},
        {without_model + "model: {layers: [relu: {units: 3}]}\n", "4:25", {"relu has no option 'units'"}},
        {without_model + "model: {layers: [dense: {units: 3, kernel: 2}]}\n",
         "4:36",
         {"dense has no option 'kernel'"}},
        {without_model + "model: {layers: [dense: [relu]]}\n", "4:26", {"dense holds no layers"}},
        {"data:\n  inputs: [{nam: x}]\n", "2:13", {"unknown key 'nam' of an input", "nearest is 'name'"}},
        {data_only + "model: {layers: [dense: {unit: 3}]}\n",
         "2:26",
         {"unknown key 'unit' of dense", "'units'"}},
        /* layers and choices */
        {data_only + "model:\n  layers:\n    - dens: {units: 3}\n",
         "4:7",
         {"unknown layer 'dens'", "'dense'"}},
        {data_only + "model:\n  layers: [relu, batchnorm]\n", "3:18", {"'batchnorm'", "'batch_norm'"}},
        {data_only + "model: {layers: [{relu: , tanh: }]}\n", "2:19", {"a layer is its name"}},
        {data_only + "model: {layers: [dense: {units: 3, init: he}]}\n",
         "2:42",
         {"'he'", "default, kaiming, xavier, zeros"}},
        {head + "schedule: {kind: cosin}\n",
         "5:18",
         {"schedule.kind is 'cosin'", "constant, step, cosine, linear, one_cycle, reduce_on_plateau"}},
        {head + "objective: {loss: mean}\n", "5:19", {"auto, mse, mae, huber, quantile"}},
        {data_only + "model: {builder: resnet50}\n", "2:18", {"'resnet50'", "mlp, resnet18, tabular"}},
        {"data: {inputs: [{name: x, kind: picture}]}\n", "1:33", {"'picture'", "dense, image, ids"}},
        {data_only + "model: {builder: mlp, activation: dense}\n", "2:35", {"'dense'", "relu, leaky_relu"}},
        /* types */
        {head + "train: {batch: many}\n", "5:16", {"train.batch is 'many'", "whole number"}},
        {head + "train: {batch: 3.5}\n", "5:16", {"'3.5'", "whole number"}},
        {head + "train: {batch: [3]}\n", "5:17", {"train.batch must be a single value"}},
        {head + "train: {batch: {a: 3}}\n", "5:17", {"train.batch must be a single value"}},
        {head + "train: {batch: }\n", "", {"train.batch is ''"}},
        {head + "train: 3\n", "5:8", {"train must be a mapping"}},
        {head + "train: [3]\n", "5:9", {"train must be a mapping"}},
        {head + "train: {metrics: mae}\n", "5:18", {"train.metrics must be a list"}},
        {head + "objective: {balanced: yes}\n", "5:23", {"'yes'", "true or false"}},
        {head + "objective: {delta: .nan}\n", "5:20", {"'.nan'", "must be a number"}},
        {head + "objective: {delta: nan}\n", "5:20", {"must be a number"}},
        {head + "objective: {delta: inf}\n", "5:20", {"must be a number"}},
        {head + "objective: {delta: 1e999}\n", "5:20", {"must be a number"}},
        {head + "objective: {delta: 1.0x}\n", "5:20", {"'1.0x'", "must be a number"}},
        {"data: {inputs: {name: x}}\n", "1:17", {"data.inputs must be a list"}},
        {"data: {inputs: [[x]]}\n", "1:18", {"an input must be a mapping"}},
        {"data: {inputs: [{kind: ids}]}\n", "1:18", {"an input has no name"}},
        {data_only + "model: {layers: dense}\n", "2:17", {"model.layers must be a list"}},
        {data_only + "model: {layers: [dense: 3]}\n", "2:25", {"dense must be a mapping"}},
        {data_only + "model: {layers: [conv: {filters: 2, kernel: [1, 2, 3]}]}\n",
         "2:46",
         {"kernel has 3 entries", "1 to 2"}},
        {"- a\n- b\n", "1:3", {"a recipe must be a mapping"}},
        {"text\n", "1:1", {"a recipe must be a mapping"}},
        /* limits */
        {head + "train: {batch: 0}\n", "5:16", {"train.batch is 0", "1 to 1048576"}},
        {head + "train: {batch: -1}\n", "5:16", {"is -1", "1 to 1048576"}},
        {head + "train: {batch: 1048577}\n", "5:16", {"is 1048577", "1 to 1048576"}},
        {head + "train: {batch: 99999999999999999999}\n", "5:16", {"'99999999999999999999'", "whole number"}},
        {head + "train: {keep: 1}\n", "5:15", {"train.keep is 1", "2 to 1000"}},
        {head + "optimizer: {adam: {lr: -0.1}}\n", "5:24", {"optimizer.adam.lr is -0.1", "0 to 1e+06"}},
        {head + "optimizer: {adam: {beta1: 1}}\n", "5:27", {"beta1 is 1", "0 to 0.999999"}},
        {data_only + "model: {layers: [dropout: {rate: 1}]}\n", "2:34", {"rate is 1", "0 to 0.999"}},
        {data_only + "model: {layers: [conv: {filters: 2, kernel: 0}]}\n",
         "2:45",
         {"kernel is 0", "1 to 4096"}},
        {head + "schedule: {metric: " + std::string(64, 'm') + "}\n",
         "5:20",
         {"64 characters", "at most 63"}},
        {data_only + "model: {builder: mlp, hidden: [0]}\n", "2:32", {"is 0", "1 to 65536"}},
        {data_only + "model: {builder: mlp, hidden: "
                     "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,"
                     "29,30,31,32,33]}\n",
         "2:32",
         {"has 33 entries", "0 to 32"}},
        /* splits */
        {"data: {split: {train: [2002-01-01, 2001-01-01]}}\n",
         "1:24",
         {"data.split.train ends before it begins"}},
        {"data: {split: {train: [2001-13-01, 2002-01-01]}}\n",
         "1:24",
         {"'2001-13-01'", "a date (2001-12-31)"}},
        {"data: {split: {train: [2001-02-31, 2001-03-05]}}\n",
         "1:24",
         {"'2001-02-31'", "a date (2001-12-31)"}},
        {"data: {split: {train: [2001-01-01]}}\n", "1:24", {"[from, to]"}},
        {"data: {split: {validation_fraction: 1}}\n", "1:37", {"0 to 0.999"}},
        /* YAML */
        {"data: &a {inputs: [x]}\n", "1:11", {"anchors, aliases and tags"}},
        {"data: {inputs: &a [x], target: *a}\n", "1:20", {"anchors, aliases and tags"}},
        {"data: !!map {inputs: [x]}\n", "1:14", {"anchors, aliases and tags"}},
        {"data: !tp {inputs: [x]}\n", "1:12", {"anchors, aliases and tags"}},
        /* the whole */
        {"model: {builder: mlp}\n", "", {"data.inputs is missing"}},
        {"data: {inputs: []}\n", "", {"data.inputs has 0 entries", "1 to 64"}},
        {"data: {inputs: [x]}\nmodel: {builder: mlp}\n", "", {"data.target.name is missing"}},
        {data_only, "", {"model.builder or model.layers is missing"}},
        {head + "train: {batch: 10, accumulate: 3}\n", "", {"train.accumulate is 3", "train.batch 10"}},
        {head + "train: {early_stop: {patience: 3}}\n", "", {"patience is 3", "train.best.metric"}},
        {"data: {inputs: [x], target: {name: t, kind: class}}\nmodel: {builder: mlp}\nobjective: {loss: "
         "mse}\n",
         "",
         {"objective.loss", "data.target.kind class", "softmax_cross_entropy"}},
    };
    check_mistakes(table, std::size(table));
}

TEST_F(RecipeTest, MistakesOfYamlAreShownWithTheirPlace)
{
    const Mistake table[] = {
        {head + "train: {batch: 3\n", "", {""}},
        {head + "\ttrain: 3\n", "5:", {""}},
        {head + "train: 'open\n", "5:", {""}},
        {head + "a: b: c\n", "5:", {""}},
        {head + "train: {batch: 3, batch: 4}\n", "5:19", {"duplicate"}},
        {head + "data: {file: x}\n", "5:1", {"duplicate"}},
        {"", "", {"empty"}},
        {"# only a comment\n", "", {"empty"}},
        {head + std::string("\0train: 5\n", 10), "", {"0 byte"}},
    };
    check_mistakes(table, std::size(table));
}

TEST_F(RecipeTest, OptimizersAndTheirOptions)
{
    const Mistake table[] = {
        {head + "optimizer: {adamw: {lrr: 1}}\n",
         "5:21",
         {"unknown key 'optimizer.adamw.lrr'", "nearest is 'lr'"}},
        {head + "optimizer: {sgd: {lr: 1}, adam: {lr: 2}}\n", "5:", {"sgd", "adam", "one"}},
    };
    check_mistakes(table, std::size(table));
}

TEST_F(RecipeTest, AMissingFile)
{
    Recipe r;
    const tp_status st = read_file(r, dir + "/none.yaml");
    EXPECT_EQ(st, TP_ENOENT);
    EXPECT_EQ(tp_status_exit_code(st), 66);
    EXPECT_TRUE(has(tp_last_error(), dir + "/none.yaml: no such recipe")) << tp_last_error();
    EXPECT_EQ(read_file(r, dir), TP_EIO) << "a folder is no recipe";
}

/* ---- documents made to hurt ---- */

TEST_F(RecipeTest, NestedDeep)
{
    for (const size_t n : {30u, 1000u, 200000u}) {
        EXPECT_FALSE(refused(std::string(n, '[')).empty());
        EXPECT_FALSE(refused(std::string(n, '[') + std::string(n, ']')).empty());
        std::string maps;
        for (size_t i = 0; i < n; i++)
            maps += "{a: ";
        EXPECT_FALSE(refused(maps).empty());
        std::string dashes;
        for (size_t i = 0; i < n; i++)
            dashes += "- ";
        EXPECT_FALSE(refused(dashes + "x\n").empty());
    }
    EXPECT_TRUE(has(refused(std::string(30, '[') + std::string(30, ']')), "nested deeper than 24"));
}

TEST_F(RecipeTest, AMegabyte)
{
    std::string list = head + "train: {metrics: [a";
    while (list.size() < 1u << 20)
        list += ", a";
    EXPECT_TRUE(has(refused(list + "]}\n"), "train.metrics has"));
    EXPECT_TRUE(has(refused(head + "file: " + std::string(1 << 20, 'x') + "\n"), "unknown key"));
    EXPECT_TRUE(has(refused(head + "train: {batch: " + std::string(1 << 20, '9') + "}\n"), "at most 63"));
    EXPECT_TRUE(has(refused(head + std::string(1 << 20, 'k') + ": 1\n"), "5:"));
    const std::string comment = "#" + std::string(1 << 20, 'c') + "\n";
    good(comment + head);
    EXPECT_TRUE(has(refused(head + std::string(17 << 20, '\n')), "16 MiB"));
}

TEST_F(RecipeTest, BillionLaughs)
{
    std::string s = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
    for (int i = 1; i < 12; i++) {
        const std::string one = "*a" + std::to_string(i - 1);
        s += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + one;
        for (int k = 0; k < 9; k++)
            s += ", " + one;
        s += "]\n";
    }
    EXPECT_TRUE(has(refused(s), "anchors, aliases and tags"));
    EXPECT_FALSE(refused("data: &a {inputs: *a}\n").empty());
    EXPECT_FALSE(refused("data: {<<: *none}\n").empty());
}

TEST_F(RecipeTest, BytesThatAreNoText)
{
    std::string all;
    for (int i = 1; i < 256; i++)
        all += static_cast<char>(i);
    EXPECT_FALSE(refused(all).empty());
    EXPECT_FALSE(refused("\xff\xfe" + head).empty());
    EXPECT_FALSE(refused(head + "train: \xff\n").empty());
}

/* Every prefix of a good recipe, and every one with a byte replaced, is read or refused with one line. */
TEST_F(RecipeTest, DamagedRecipesAreReadOrRefused)
{
    const std::string text =
        head + "optimizer: {sgd: {lr: 0.1, nesterov: true}}\ntrain: {batch: 8, metrics: [mae]}\n";
    std::vector<std::string> damaged;
    for (size_t i = 0; i < text.size(); i++) {
        damaged.push_back(text.substr(0, i));
        for (const char c : {'{', ']', ':', '\n', '"', '*', '\t', '-', '9'}) {
            damaged.push_back(text);
            damaged.back()[i] = c;
        }
    }
    int fine = 0;
    for (const std::string &d : damaged) {
        Recipe r;
        const tp_status st = read(r, d);
        EXPECT_TRUE(st == TP_OK || st == TP_ERECIPE) << d;
        if (st == TP_OK) {
            fine++;
            fixpoint(r);
        } else {
            EXPECT_EQ(std::strchr(tp_last_error(), '\n'), nullptr) << tp_last_error();
        }
    }
    EXPECT_GT(fine, 10);
}

/* ---- help ---- */

TEST_F(RecipeTest, HelpNamesEveryKeyAndItsDefaultsAreThoseOfARecipe)
{
    char *out = nullptr;
    ASSERT_EQ(tp_recipe_help(&out), TP_OK);
    const std::string help = "\n" + std::string(out);
    tp_text_free(out);
    for (const tp_schema_row *table : {tp_schema, tp_schema_input, tp_schema_layer})
        for (const tp_schema_row *row = table; row->path != nullptr; row++) {
            const std::string indent = table == tp_schema ? "\n" : "\n  ";
            EXPECT_TRUE(has(help, indent + row->path + " ")) << row->path;
            EXPECT_TRUE(has(help, row->help)) << row->path;
        }
    for (int k = 1; k < TP_LAYER_KINDS; k++)
        EXPECT_TRUE(has(help, std::string(" ") + tp_layer_kind_name(static_cast<tp_layer_kind>(k)))) << k;
    for (int k = 0; tp_schema_optimizers[k] != nullptr; k++)
        EXPECT_TRUE(has(help, std::string(" ") + tp_schema_optimizers[k]));
    EXPECT_TRUE(has(help, "integer 1..1048576\n    samples of a step\n    default: 64\n")) << help;
}

} // namespace
