/* loss_test.cc - losses and their gradients against PyTorch, extreme logits included. */
#include "tests/engine/net.h"

namespace
{

struct LossGolden {
    const char *name;
    double scale;
    Results want; /* l (5), dx (5,4) */
};

#include "tests/golden/losses.inc"

const Dims x_dims = {5, 4};

/* Rows in [0, 1] that sum to 1. */
std::vector<double> soft_labels()
{
    std::vector<double> t = golden_fill(20, 1, 0.5, 0.5);
    for (size_t i = 0; i < 20; i += 4) {
        const double sum = t[i] + t[i + 1] + t[i + 2] + t[i + 3];
        for (size_t k = i; k < i + 4; k++)
            t[k] /= sum;
    }
    return t;
}

tp_val loss_named(Net &n, const std::string &name, tp_val x)
{
    if (name.rfind("xent", 0) == 0) {
        const bool soft = name == "xent_soft", both = soft || name == "xent_both";
        const bool weighted = both || name == "xent_weighted", smooth = both || name == "xent_smooth";
        return tp_softmax_cross_entropy(n.g, x,
                                        soft ? n.var(x_dims, soft_labels()) : n.ints({5}, {0, 1, 2, 3, 1}),
                                        weighted ? n.filled({4}, 3, 1, 1.5) : 0, smooth ? 0.1 : 0.0);
    }
    if (name == "bce")
        return tp_bce_with_logits(n.g, x, n.filled(x_dims, 1, 0.5, 0.5));
    const tp_val target = n.filled(x_dims, 1);
    return name == "mse"     ? tp_mse(n.g, x, target)
           : name == "mae"   ? tp_mae(n.g, x, target)
           : name == "huber" ? tp_huber(n.g, x, target, 0.4)
                             : tp_quantile(n.g, x, target, 0.9);
}

TEST(LossTest, ValuesAndGradientsMatchPyTorch)
{
    for (const LossGolden &c : loss_goldens)
        for (const tp_dtype dtype : both_dtypes) {
            Net n(dtype);
            const tp_val x = n.filled(x_dims, 0, c.scale);
            const tp_val l = tp_output(n.g, loss_named(n, c.name, x));
            const tp_val f = tp_reduce_sum(n.g, tp_mul(n.g, l, n.filled({5}, 2)), 0, 0);
            tp_val dx = 0;
            tp_grad(n.g, f, 1, &x, &dx);
            tp_output(n.g, dx);
            tp_plan *p = nullptr;
            ASSERT_EQ(tp_plan_new(&p, n.g, cpu_device(), nullptr), TP_OK) << tp_last_error();
            ASSERT_EQ(tp_plan_run(p), TP_OK);
            expect_golden({read_value(p, n.g, l), read_value(p, n.g, dx)}, c.want, dtype, c.name);
            tp_plan_free(p);
        }
}

/* One-hot rows in place of class numbers are the same loss. */
TEST(LossTest, OneHotLabelsAreClassNumbers)
{
    for (const tp_dtype dtype : both_dtypes) {
        Net n(dtype);
        const tp_val x = n.filled(x_dims, 0, 3.0);
        std::vector<double> hot(20, 0.0);
        const int classes[] = {0, 1, 2, 3, 1};
        for (size_t i = 0; i < 5; i++)
            hot[4 * i + static_cast<size_t>(classes[i])] = 1.0;
        const tp_val a = tp_output(n.g, loss_named(n, "xent_smooth", x));
        const tp_val b = tp_output(n.g, tp_softmax_cross_entropy(n.g, x, n.var(x_dims, hot), 0, 0.1));
        tp_plan *p = nullptr;
        ASSERT_EQ(tp_plan_new(&p, n.g, cpu_device(), nullptr), TP_OK) << tp_last_error();
        ASSERT_EQ(tp_plan_run(p), TP_OK);
        expect_near(read_value(p, n.g, b), read_value(p, n.g, a), dtype == TP_F64 ? 1e-12 : 1e-6, "one-hot");
        tp_plan_free(p);
    }
}

} // namespace
