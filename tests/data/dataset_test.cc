#include "dataset_files.h"
#include "host/core/mem.h"
#include <cmath>
#include <cstring>
#include <fstream>
#include <gtest/gtest.h>
#include <map>
#include <set>
#include <sstream>
#include <vector>

class Dataset : public testing::Test
{
  protected:
    void SetUp() override
    {
        ASSERT_TRUE(DatasetFiles::get().made) << "make_datasets.py did not run";
        in.name = "x";
        spec.path = file("data.h5");
        spec.n_inputs = 1;
        spec.inputs = &in;
        spec.target_kind = TP_TARGET_CLASS;
        spec.target = "label";
        spec.split.kind = TP_SPLIT_DATASET;
        spec.split.dataset = "part";
    }
    const char *file(const std::string &name)
    {
        return names.insert(DatasetFiles::get().path(name)).first->c_str();
    }
    /* The spec is refused with this status, and the message has every one of these pieces. */
    void refused(tp_status want, std::initializer_list<const char *> pieces)
    {
        const Data data(spec);
        EXPECT_EQ(data.status, want) << tp_last_error();
        EXPECT_EQ(data.d, nullptr);
        for (const char *piece : pieces) {
            EXPECT_NE(std::strstr(tp_last_error(), piece), nullptr) << tp_last_error() << "\nlacks " << piece;
        }
    }
    static std::vector<int64_t> rows(const Data &data, tp_part part)
    {
        const int64_t *table = tp_data_part_table(data.d, part);
        return std::vector<int64_t>(table, table + tp_data_part_rows(data.d, part));
    }
    static std::map<std::string, std::vector<double>> numpy()
    {
        std::map<std::string, std::vector<double>> all;
        std::ifstream text(DatasetFiles::get().path("stats.txt"));
        for (std::string line; std::getline(text, line);) {
            std::istringstream words(line);
            std::string name;
            words >> name;
            for (double v; words >> v;)
                all[name].push_back(v);
        }
        return all;
    }
    std::set<std::string> names;
    tp_input_spec in = {};
    tp_data_spec spec = {};
};

/* ---- what opens ---- */

TEST_F(Dataset, GivesShapesDtypesAndRows)
{
    tp_input_spec inputs[5] = {};
    const char *const name[] = {"x", "image", "rgb", "ids", "wide"};
    const tp_input_kind kind[] = {TP_INPUT_DENSE, TP_INPUT_IMAGE, TP_INPUT_IMAGE, TP_INPUT_IDS,
                                  TP_INPUT_DENSE};
    for (int i = 0; i < 5; i++) {
        inputs[i].name = name[i];
        inputs[i].kind = kind[i];
    }
    inputs[1].crop_padding = 2;
    inputs[1].hflip = 1;
    spec.n_inputs = 5;
    spec.inputs = inputs;
    spec.weight = "weight";
    spec.time = "date";
    const Data data(spec);
    ASSERT_EQ(data.status, TP_OK) << tp_last_error();
    EXPECT_EQ(tp_data_rows(data.d), 100);
    EXPECT_TRUE(tp_data_resident(data.d));
    const char *const sample[] = {"(5)", "(1,6,4)", "(3,6,4)", "(2)", "(2)"};
    const tp_dtype dtype[] = {TP_F32, TP_U8, TP_U8, TP_I32, TP_F64};
    char text[TP_SHAPE_TEXT_SIZE];
    for (int i = 0; i < 5; i++) {
        const tp_data_input *x = tp_data_input_at(data.d, i);
        EXPECT_STREQ(tp_shape_text(x->array.sample, text, sizeof text), sample[i]);
        EXPECT_EQ(x->array.dtype, dtype[i]);
        EXPECT_EQ(x->array.values.shape.d[0], 100);
        EXPECT_EQ(tp_tensor_bytes(&x->array.values), 100 * x->array.row_bytes);
        EXPECT_EQ(x->n_norm, 0);
    }
    EXPECT_EQ(tp_data_input_at(data.d, 3)->n_categories, 7);
    EXPECT_EQ(tp_data_input_at(data.d, 1)->crop_padding, 2);
    EXPECT_EQ(tp_data_input_at(data.d, 1)->hflip, 1);
    const int32_t *ids = static_cast<const int32_t *>(tp_data_input_at(data.d, 3)->array.values.data);
    EXPECT_EQ(ids[2 * 13], 13 % 7);
    EXPECT_EQ(ids[2 * 13 + 1], 13 % 5);
    EXPECT_EQ(tp_data_weight(data.d)->dtype, TP_F64);
    EXPECT_EQ(tp_data_time(data.d)[3], 1006.0);
    EXPECT_EQ(tp_data_dropped(data.d), 0);
}

TEST_F(Dataset, CountsClassesOfEveryPart)
{
    const Data data(spec);
    ASSERT_EQ(data.status, TP_OK) << tp_last_error();
    const tp_data_target *t = tp_data_target_of(data.d);
    EXPECT_EQ(t->n_classes, 4);
    EXPECT_EQ(t->n_outputs, 4);
    EXPECT_EQ(t->array.sample.nd, 0);
    for (int c = 0; c < 4; c++) {
        EXPECT_EQ(t->class_count[TP_TRAIN][c], 15);
        EXPECT_EQ(t->class_count[TP_VALIDATION][c], 5);
        EXPECT_EQ(t->class_count[TP_TEST][c], 5);
    }
}

TEST_F(Dataset, OneHotMultiLabelAndRegressionTargets)
{
    spec.target = "onehot";
    spec.target_kind = TP_TARGET_ONEHOT;
    const Data onehot(spec);
    ASSERT_EQ(onehot.status, TP_OK) << tp_last_error();
    EXPECT_EQ(tp_data_target_of(onehot.d)->n_classes, 4);
    EXPECT_EQ(tp_data_target_of(onehot.d)->class_count[TP_TRAIN][3], 15);
    spec.target = "multi";
    spec.target_kind = TP_TARGET_MULTILABEL;
    const Data multi(spec);
    ASSERT_EQ(multi.status, TP_OK) << tp_last_error();
    EXPECT_EQ(tp_data_target_of(multi.d)->n_outputs, 3);
    spec.target = "y";
    spec.target_kind = TP_TARGET_REGRESSION;
    const Data y(spec);
    ASSERT_EQ(y.status, TP_OK) << tp_last_error();
    EXPECT_EQ(tp_data_target_of(y.d)->n_outputs, 1);
    EXPECT_EQ(tp_data_target_of(y.d)->n_classes, 0);
    spec.target_kind = TP_TARGET_NONE;
    const Data none(spec);
    ASSERT_EQ(none.status, TP_OK) << tp_last_error();
    EXPECT_EQ(tp_data_target_of(none.d), nullptr);
}

/* ---- splits ---- */

TEST_F(Dataset, SplitByTimeIsHalfOpen)
{
    spec.time = "date";
    spec.split.kind = TP_SPLIT_TIME;
    const double from[] = {1000, 1020, 1040}, to[] = {1020, 1040, 1042};
    std::memcpy(spec.split.from, from, sizeof from);
    std::memcpy(spec.split.to, to, sizeof to);
    const Data data(spec);
    ASSERT_EQ(data.status, TP_OK) << tp_last_error();
    EXPECT_EQ(rows(data, TP_TRAIN), (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
    EXPECT_EQ(rows(data, TP_VALIDATION).front(), 10);
    EXPECT_EQ(rows(data, TP_VALIDATION).back(), 19);
    EXPECT_EQ(rows(data, TP_TEST), (std::vector<int64_t>{20}));
}

TEST_F(Dataset, SplitByFractionCoversEveryRowOnce)
{
    spec.split.kind = TP_SPLIT_FRACTION;
    spec.split.validation = 0.2;
    spec.split.test = 0.1;
    spec.split.seed = 4;
    const Data data(spec), again(spec);
    spec.split.seed = 5;
    const Data other(spec);
    ASSERT_EQ(data.status, TP_OK) << tp_last_error();
    std::set<int64_t> all;
    for (int p = 0; p < TP_PARTS; p++)
        for (int64_t row : rows(data, (tp_part)p))
            EXPECT_TRUE(all.insert(row).second) << row;
    EXPECT_EQ(all.size(), 100u);
    EXPECT_EQ(rows(data, TP_TRAIN).size(), 70u);
    EXPECT_EQ(rows(data, TP_VALIDATION).size(), 20u);
    EXPECT_EQ(rows(data, TP_TEST), rows(again, TP_TEST));
    EXPECT_NE(rows(data, TP_TEST), rows(other, TP_TEST));
    EXPECT_NE(rows(data, TP_TEST).back() - rows(data, TP_TEST).front(), 9); /* not one run of rows */
}

TEST_F(Dataset, SplitByFilesAndByGroupsAgree)
{
    spec.path = nullptr;
    spec.split.kind = TP_SPLIT_FILES;
    for (int p = 0; p < TP_PARTS; p++)
        spec.split.source[p] = file(std::string(tp_part_name((tp_part)p)) + ".h5");
    const Data files(spec);
    ASSERT_EQ(files.status, TP_OK) << tp_last_error();
    spec.path = file("groups.h5");
    spec.split.kind = TP_SPLIT_GROUPS;
    for (int p = 0; p < TP_PARTS; p++)
        spec.split.source[p] = tp_part_name((tp_part)p);
    const Data groups(spec);
    ASSERT_EQ(groups.status, TP_OK) << tp_last_error();
    spec.path = file("data.h5");
    spec.split.kind = TP_SPLIT_ALL;
    const Data whole(spec);
    ASSERT_EQ(whole.status, TP_OK) << tp_last_error();
    EXPECT_EQ(tp_data_part_rows(files.d, TP_TRAIN), 50);
    EXPECT_EQ(rows(files, TP_VALIDATION).front(), 50);
    EXPECT_EQ(rows(files, TP_TEST).back(), 99);
    EXPECT_EQ(rows(files, TP_TEST), rows(groups, TP_TEST));
    for (const Data *d : {&files, &groups})
        EXPECT_EQ(std::memcmp(tp_data_input_at(d->d, 0)->array.values.data,
                              tp_data_input_at(whole.d, 0)->array.values.data, 100 * 5 * sizeof(float)),
                  0);
    EXPECT_STREQ(tp_data_hash(files.d), tp_data_hash(groups.d));
}

TEST_F(Dataset, AllRowsInOnePartWithGivenSizes)
{
    spec.split.kind = TP_SPLIT_ALL;
    spec.split.all = TP_TEST;
    spec.n_classes = 6;
    const float shift[] = {1, 2, 3, 4, 5}, scale[] = {5, 4, 3, 2, 1};
    in.normalize = TP_NORM_GIVEN;
    in.shift = shift;
    in.scale = scale;
    in.n_norm = 5;
    const Data data(spec);
    ASSERT_EQ(data.status, TP_OK) << tp_last_error();
    EXPECT_EQ(tp_data_part_rows(data.d, TP_TRAIN), 0);
    EXPECT_EQ(tp_data_part_table(data.d, TP_TRAIN), nullptr);
    EXPECT_EQ(tp_data_part_rows(data.d, TP_TEST), 100);
    EXPECT_EQ(tp_data_target_of(data.d)->n_classes, 6);
    EXPECT_EQ(tp_data_target_of(data.d)->class_count[TP_TEST][5], 0);
    EXPECT_EQ(tp_data_input_at(data.d, 0)->n_norm, 5);
    EXPECT_EQ(tp_data_input_at(data.d, 0)->shift[2], 3.0f);
    EXPECT_EQ(tp_data_input_at(data.d, 0)->scale[1], 4.0f);
}

/* ---- normalisation, against NumPy ---- */

TEST_F(Dataset, StandardIsNumPysMeanAndDeviationOfTheTrainPart)
{
    const std::map<std::string, std::vector<double>> want = numpy();
    in.normalize = TP_NORM_STANDARD;
    for (const char *name : {"x", "half", "wide", "image", "rgb"})
        for (int64_t limit : {0, -1}) {
            in.name = name;
            in.kind = std::strlen(name) == 5 || name[0] == 'r' ? TP_INPUT_IMAGE : TP_INPUT_DENSE;
            spec.resident_bytes = limit;
            const Data data(spec);
            ASSERT_EQ(data.status, TP_OK) << tp_last_error();
            const tp_data_input *x = tp_data_input_at(data.d, 0);
            const std::vector<double> &mean = want.at(std::string(name) + ".mean");
            const std::vector<double> &std = want.at(std::string(name) + ".std");
            ASSERT_EQ(x->n_norm, (int64_t)mean.size()) << name;
            for (size_t j = 0; j < mean.size(); j++) {
                EXPECT_EQ(x->shift[j], (float)mean[j]) << name << j;
                EXPECT_NEAR((double)x->scale[j] * (std[j] > 0 ? std[j] : 1), 1, 1e-7) << name << j;
            }
        }
}

TEST_F(Dataset, MinmaxMapsTheTrainPartToZeroAndOne)
{
    const std::map<std::string, std::vector<double>> want = numpy();
    in.normalize = TP_NORM_MINMAX;
    const Data data(spec);
    ASSERT_EQ(data.status, TP_OK) << tp_last_error();
    const tp_data_input *x = tp_data_input_at(data.d, 0);
    for (size_t j = 0; j < 5; j++) {
        const double low = want.at("x.min")[j], width = want.at("x.max")[j] - low;
        EXPECT_EQ(x->shift[j], (float)low);
        EXPECT_EQ(x->scale[j], width > 0 ? (float)(1 / width) : 1.0f);
    }
}

TEST_F(Dataset, ScaleIsTheFactorForEveryChannel)
{
    in.name = "rgb";
    in.kind = TP_INPUT_IMAGE;
    in.normalize = TP_NORM_SCALE;
    in.factor = 1.0 / 255;
    const Data data(spec);
    ASSERT_EQ(data.status, TP_OK) << tp_last_error();
    const tp_data_input *x = tp_data_input_at(data.d, 0);
    ASSERT_EQ(x->n_norm, 3);
    for (int j = 0; j < 3; j++) {
        EXPECT_EQ(x->shift[j], 0.0f);
        EXPECT_EQ(x->scale[j], 1.0f / 255);
    }
}

/* ---- hash ---- */

TEST_F(Dataset, HashDependsOnContentOnly)
{
    const Data data(spec);
    in.name = "/x";
    spec.path = file("chunked.h5");
    spec.resident_bytes = -1;
    const Data chunked(spec);
    spec.path = file("other.h5");
    const Data other(spec);
    ASSERT_EQ(data.status, TP_OK) << tp_last_error();
    ASSERT_EQ(chunked.status, TP_OK) << tp_last_error();
    ASSERT_EQ(other.status, TP_OK) << tp_last_error();
    EXPECT_EQ(std::strlen(tp_data_hash(data.d)), 64u);
    EXPECT_STREQ(tp_data_hash(data.d), tp_data_hash(chunked.d));
    EXPECT_STRNE(tp_data_hash(data.d), tp_data_hash(other.d));
    EXPECT_FALSE(tp_data_resident(chunked.d));
    EXPECT_EQ(tp_data_input_at(chunked.d, 0)->array.values.data, nullptr);
}

/* ---- non-finite values ---- */

TEST_F(Dataset, NonFiniteRowsAreRefusedByDefault)
{
    in.name = "x_nan";
    refused(TP_EDATA, {"data.h5: x_nan: row 17", "value 3", "nan", "2 rows", "finite"});
    in.name = "x";
    spec.target = "y_nan";
    spec.target_kind = TP_TARGET_REGRESSION;
    refused(TP_EDATA, {"y_nan: row 41", "-inf"});
}

TEST_F(Dataset, NonFiniteRowsAreDroppedAndCounted)
{
    in.name = "x_nan";
    in.normalize = TP_NORM_STANDARD;
    spec.target = "y_nan";
    spec.target_kind = TP_TARGET_REGRESSION;
    spec.nonfinite = TP_NONFINITE_DROP;
    const Data data(spec);
    ASSERT_EQ(data.status, TP_OK) << tp_last_error();
    EXPECT_EQ(tp_data_dropped(data.d), 3);
    EXPECT_EQ(tp_data_part_rows(data.d, TP_TRAIN), 57);
    for (int64_t row : rows(data, TP_TRAIN))
        EXPECT_TRUE(row != 17 && row != 40 && row != 41);
    for (int j = 0; j < 5; j++)
        EXPECT_TRUE(std::isfinite(tp_data_input_at(data.d, 0)->shift[j]));
}

TEST_F(Dataset, NonFiniteTime)
{
    spec.time = "date_nan";
    spec.split.kind = TP_SPLIT_TIME;
    spec.split.from[TP_TRAIN] = 1000;
    spec.split.to[TP_TRAIN] = 2000;
    refused(TP_EDATA, {"date_nan: row 43", "nan"});
    spec.nonfinite = TP_NONFINITE_DROP;
    const Data data(spec);
    ASSERT_EQ(data.status, TP_OK) << tp_last_error();
    EXPECT_EQ(tp_data_part_rows(data.d, TP_TRAIN), 99);
    spec.split.kind = TP_SPLIT_ALL;
    const Data all(spec);
    ASSERT_EQ(all.status, TP_OK) << tp_last_error();
    EXPECT_EQ(tp_data_part_rows(all.d, TP_TRAIN), 99);
    EXPECT_EQ(tp_data_dropped(all.d), 1);
}

/* ---- what is refused ---- */

TEST_F(Dataset, MissingFileAndDataset)
{
    in.name = "imag";
    refused(TP_EDATA, {"data.h5", "no dataset 'imag'", "nearest is 'image'"});
    spec.path = file("groups.h5");
    spec.split.kind = TP_SPLIT_GROUPS;
    spec.split.source[TP_TRAIN] = "train";
    spec.split.source[TP_TEST] = "tests";
    in.name = "x";
    refused(TP_EDATA, {"groups.h5", "no dataset 'tests/x'", "nearest is 'test/x'"});
    spec.path = file("nowhere.h5");
    refused(TP_ENOENT, {"nowhere.h5"});
}

TEST_F(Dataset, WrongRank)
{
    in.kind = TP_INPUT_IMAGE;
    refused(TP_EDATA, {"x has shape (100,5)", "(N,H,W) or (N,C,H,W)"});
    in.name = "rgb";
    in.kind = TP_INPUT_IDS;
    refused(TP_EDATA, {"rgb has shape (100,3,6,4)", "(N) or (N,K)"});
    in.kind = TP_INPUT_DENSE;
    spec.target = "onehot";
    refused(TP_EDATA, {"onehot has shape (100,4)", "(N) or (N,1)"});
    spec.target = "label";
    spec.target_kind = TP_TARGET_ONEHOT;
    refused(TP_EDATA, {"label has shape (100)", "(N,classes)"});
    spec.target_kind = TP_TARGET_CLASS;
    spec.weight = "weight_wide";
    refused(TP_EDATA, {"weight_wide has shape (100,2)", "one number a row"});
}

TEST_F(Dataset, NoRowsOrNoColumns)
{
    in.name = "x_none";
    refused(TP_EDATA, {"x_none has no rows"});
    in.name = "x_empty";
    refused(TP_EDATA, {"x_empty has shape (100,0)"});
}

TEST_F(Dataset, LengthsThatDiffer)
{
    in.name = "x_short";
    refused(TP_EDATA, {"label has 100 rows", "the 99 of x_short"});
}

TEST_F(Dataset, FloatsWhereIntegersAreWanted)
{
    spec.target = "label_float";
    refused(TP_EDATA, {"label_float is float32", "integer"});
    spec.target = "label";
    in.kind = TP_INPUT_IDS;
    refused(TP_EDATA, {"x is float32", "integer"});
}

TEST_F(Dataset, ClassOutOfRange)
{
    spec.n_classes = 4;
    spec.target = "label_bad";
    refused(TP_EDATA, {"label_bad: row 33", "class is 9", "0 to 3"});
    spec.target = "label_negative";
    refused(TP_EDATA, {"label_negative: row 34", "class is -1", "0 to 3"});
    spec.n_classes = 0;
    spec.target = "label_late";
    refused(TP_EDATA, {"label_late: row 90", "class is 4", "0 to 3", "train part"});
    spec.n_classes = INT64_C(1) << 30;
    refused(TP_EINVAL, {"n_classes is 1073741824"});
}

TEST_F(Dataset, IndicatorsThatAreNone)
{
    spec.target_kind = TP_TARGET_ONEHOT;
    spec.target = "onehot_bad";
    refused(TP_EDATA, {"onehot_bad: row 35", "sums to 2", "want 1"});
    spec.target = "onehot_range";
    refused(TP_EDATA, {"onehot_range: row 36", "class 0 is 1.5", "[0, 1]"});
    spec.target_kind = TP_TARGET_MULTILABEL;
    spec.target = "multi_range";
    refused(TP_EDATA, {"multi_range: row 37", "class 2 is -0.5", "[0, 1]"});
    spec.target = "multi";
    spec.n_classes = 5;
    refused(TP_EDATA, {"multi has 3 columns", "5 classes"});
}

TEST_F(Dataset, IdsOutOfRange)
{
    in.kind = TP_INPUT_IDS;
    in.name = "ids_negative";
    refused(TP_EDATA, {"ids_negative: row 38", "id is -3", "at least 0"});
    in.name = "ids_large";
    refused(TP_EDATA, {"ids_large: row 39", "id is 9.22337203685478e+18", "2147483648"});
    in.name = "ids";
    in.n_categories = 6;
    refused(TP_EDATA, {"ids: row 6", "id is 6", "below 6"});
}

TEST_F(Dataset, WeightsOutOfRange)
{
    spec.weight = "weight_negative";
    refused(TP_EDATA, {"weight_negative: row 42", "-0.25", "at least 0"});
    spec.weight = "weight_zero";
    refused(TP_EDATA, {"weight_zero", "train part", "all 0"});
}

TEST_F(Dataset, ErrorsOfTheSplit)
{
    spec.split.dataset = "part_bad";
    refused(TP_EDATA, {"part_bad: row 44", "is 3", "0 (train), 1 (validation) or 2 (test)"});
    spec.split.dataset = "part_one";
    refused(TP_EDATA, {"the train part has no rows"});
    spec.split.kind = TP_SPLIT_TIME;
    refused(TP_EINVAL, {"time dataset"});
    spec.time = "date";
    refused(TP_EDATA, {"no part with rows"});
    const double from[] = {1000, 1020, 5000}, to[] = {1020, 1040, 6000};
    std::memcpy(spec.split.from, from, sizeof from);
    std::memcpy(spec.split.to, to, sizeof to);
    refused(TP_EDATA, {"the test part has no rows", "date in [5000, 6000)", "[1000, 1198]"});
    spec.split.to[TP_TRAIN] = 1021;
    refused(TP_EINVAL, {"train [1000, 1021) overlaps validation [1020, 1040)"});
    spec.split.to[TP_TRAIN] = 999;
    refused(TP_EINVAL, {"train goes from 1000 to 999"});
    spec.split.kind = TP_SPLIT_FRACTION;
    spec.split.validation = 0.7;
    spec.split.test = 0.3;
    refused(TP_EINVAL, {"0.7", "0.3", "below 1"});
    spec.split.validation = 0.001;
    refused(TP_EDATA, {"the validation part has no rows"});
    spec.split.kind = TP_SPLIT_FILES;
    refused(TP_EINVAL, {"split by files needs at least one"});
    spec.split.kind = TP_SPLIT_DATASET;
    spec.split.dataset = nullptr;
    refused(TP_EINVAL, {"split by dataset"});
    spec.split.kind = (tp_split_kind)77;
    refused(TP_EINVAL, {"no split 77"});
}

TEST_F(Dataset, FilesOfASplitThatDoNotAgree)
{
    spec.path = nullptr;
    spec.split.kind = TP_SPLIT_FILES;
    spec.split.source[TP_TRAIN] = file("train.h5");
    spec.split.source[TP_TEST] = file("test_double.h5");
    refused(TP_EDATA, {"test_double.h5: x is float64", "want float32"});
    spec.split.source[TP_TEST] = file("test_narrow.h5");
    refused(TP_EDATA, {"test_narrow.h5: rows of x have shape (4)", "want (5)"});
}

TEST_F(Dataset, NormalisationThatCannotBe)
{
    in.normalize = TP_NORM_SCALE;
    refused(TP_EINVAL, {"input x", "scale factor is 0"});
    in.normalize = TP_NORM_GIVEN;
    refused(TP_EINVAL, {"given normalisation has 0 values"});
    const float four[] = {1, 1, 1, 1};
    in.shift = in.scale = four;
    in.n_norm = 4;
    refused(TP_EDATA, {"x has 5 features", "the 4 of the normalisation given"});
    in.normalize = TP_NORM_STANDARD;
    in.kind = TP_INPUT_IDS;
    refused(TP_EINVAL, {"ids are categories"});
    in.kind = TP_INPUT_DENSE;
    in.name = "x_huge";
    refused(TP_EDATA, {"x_huge", "1e+300", "float32"});
    in.name = "x";
    spec.split.kind = TP_SPLIT_ALL;
    spec.split.all = TP_TEST;
    spec.n_classes = 4;
    refused(TP_EINVAL, {"fitted on the train part"});
    in.normalize = TP_NORM_NONE;
    spec.n_classes = 0;
    refused(TP_EINVAL, {"n_classes", "train part"});
}

TEST_F(Dataset, SpecsThatMakeNoSense)
{
    in.hflip = 1;
    refused(TP_EINVAL, {"input x", "images only"});
    in.hflip = 0;
    in.crop_padding = -1;
    refused(TP_EINVAL, {"crop padding is -1"});
    in.crop_padding = 0;
    in.n_categories = -1;
    refused(TP_EINVAL, {"n_categories is -1"});
    in.n_categories = 0;
    in.name = "";
    refused(TP_EINVAL, {"input 0 has no dataset name"});
    in.name = "x";
    spec.n_classes = -2;
    refused(TP_EINVAL, {"n_classes is -2"});
    spec.n_classes = 0;
    spec.target = nullptr;
    refused(TP_EINVAL, {"target has no dataset name"});
    spec.target = "label";
    spec.path = nullptr;
    refused(TP_EINVAL, {"no file"});
    spec.n_inputs = 0;
    refused(TP_EINVAL, {"0 inputs"});
}

/* Every allocation on the way may fail: the error comes back, and nothing leaks (run under ASan). */
TEST_F(Dataset, OutOfMemoryAtEveryAllocation)
{
    in.normalize = TP_NORM_STANDARD;
    spec.weight = "weight";
    spec.time = "date";
    int n = 1;
    for (tp_status st = TP_ENOMEM; st == TP_ENOMEM && n < 10000; n++) {
        tp_alloc_fail_at((uint64_t)n, 1);
        const Data data(spec);
        tp_alloc_fail_at(0, 0);
        st = data.status;
        EXPECT_TRUE(st == TP_OK || st == TP_ENOMEM) << n << ": " << tp_last_error();
    }
    EXPECT_GT(n, 20);
    EXPECT_LT(n, 10000);
}
