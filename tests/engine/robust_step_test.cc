/* robust_step_test.cc - the one idea: a robust, regularised training step is graph code like any other. PGD
 * on the inputs (Madry et al. 2018), elastic weight consolidation on the weights (Kirkpatrick et al. 2017),
 * clipping and AdamW are written here with public builders alone, and the plan shows what they cost. */
#include "host/core/mem.h"
#include "tests/engine/net.h"

namespace
{

const double eps = 0.1, alpha = 0.03;
const Dims x_dims = {8, 6}, w1_dims = {12, 6}, w2_dims = {3, 12};

struct Robust : Net {
    tp_val x, y, w[4], lr, t, adv, data_loss, total, clip, grads[4];
    int attack_nodes; /* of the graph, all before those of training */
    tp_plan *plan = nullptr;

    Robust(tp_dtype real, int attacks, bool update) : Net(real)
    {
        x = filled(x_dims, 0, 0.4, 0.5); /* within [0.1, 0.9] */
        y = ints({8}, {0, 1, 2, 0, 1, 2, 0, 1});
        const Dims dims[4] = {w1_dims, {12}, w2_dims, {3}};
        for (int i = 0; i < 4; i++)
            w[i] = filled(dims[i], i + 1, 0.5);
        tp_graph_scope(g, "attack");
        adv = x;
        for (int k = 0; k < attacks; k++)
            adv = attack_once(adv);
        adv = tp_output(g, tp_detach(g, adv));
        attack_nodes = tp_graph_size(g);
        tp_graph_scope(g, "train");
        data_loss = tp_output(g, loss_of(adv));
        total = tp_output(g, tp_add(g, data_loss, penalty(dims)));
        tp_grad(g, total, 4, w, grads);
        for (tp_val v : grads)
            tp_output(g, v);
        if (update)
            adamw(dims);
        EXPECT_EQ(tp_plan_new(&plan, g, cpu_device(), nullptr), TP_OK) << tp_last_error();
    }
    ~Robust()
    {
        tp_plan_free(plan);
    }

    tp_val loss_of(tp_val in)
    {
        const tp_val h = tp_gemm(g, in, w[0], w[1], {0, 1, TP_ACT_TANH});
        const tp_val out = tp_gemm(g, h, w[2], w[3], {0, 1, TP_ACT_NONE});
        return tp_reduce_mean(g, tp_softmax_cross_entropy(g, out, y, 0, 0.0), 0, 0);
    }
    /* One step up the loss by the sign of its gradient, back into the eps ball around x and into [0, 1]. */
    tp_val attack_once(tp_val at)
    {
        const tp_val from = tp_detach(g, at);
        tp_val dx = 0;
        tp_grad(g, loss_of(from), 1, &from, &dx);
        const tp_val up = tp_add(g, from, tp_mul(g, tp_sign(g, dx), tp_scalar(g, dtype, alpha)));
        const tp_val ball = tp_add(g, x, tp_clip(g, tp_sub(g, up, x), -eps, eps));
        return tp_clip(g, ball, 0.0, 1.0);
    }
    tp_val penalty(const Dims *dims)
    {
        tp_val sum = 0;
        for (int i = 0; i < 4; i++) {
            const tp_val anchor = filled(dims[i], i + 11, 0.5), fisher = filled(dims[i], i + 21, 0.5, 0.6);
            const tp_val p = tp_quad_penalty(g, w[i], anchor, fisher, tp_scalar(g, dtype, 0.3));
            sum = sum != 0 ? tp_add(g, sum, p) : p;
        }
        return sum;
    }
    void adamw(const Dims *dims)
    {
        std::vector<tp_val> s1, s2;
        for (int i = 0; i < 4; i++) {
            s1.push_back(var(dims[i], {}));
            s2.push_back(var(dims[i], {}));
        }
        lr = var({1}, {0.01});
        t = ints({1}, {0});
        clip = tp_output(g, tp_clip_norm(g, 4, grads, total, 1.0));
        tp_count(g, t, clip);
        const std::vector<double> table = {1, 0.01, 1, 0, 1, 0.01, 1, 0};
        tp_optimize(g, lr, t, clip, var({4, 2}, table), 4, w, grads, s1.data(), s2.data(), nullptr, nullptr,
                    {TP_ADAMW, 0.9, 0.999, 1e-8, 0, 0, 0, 0});
    }
    std::vector<double> read(tp_val v)
    {
        return read_value(plan, g, v);
    }
    double run_and_read(tp_val v)
    {
        EXPECT_EQ(tp_plan_run(plan), TP_OK) << tp_last_error();
        return read(v)[0];
    }
    /* Nodes of this op among the attack's, also those that the plan would drop because nobody reads them. */
    int built(const std::string &op) const
    {
        int n = 0;
        for (int i = 0; i < attack_nodes; i++)
            n += op == tp_graph_op_name(g, i);
        return n;
    }
    /* Lines of the dumped plan in this scope that hold all the words. */
    int lines(const char *scope, const std::vector<std::string> &words) const
    {
        char *text = nullptr;
        EXPECT_EQ(tp_plan_text(plan, &text), TP_OK);
        std::istringstream all(text);
        int n = 0;
        for (std::string line; std::getline(all, line);) {
            bool is = line.find(std::string(" ") + scope + " ") != std::string::npos;
            for (const std::string &word : words)
                is = is && line.find(word) != std::string::npos;
            n += is;
        }
        tp_text_free(text);
        return n;
    }
};

TEST(RobustStep, AttacksStayInTheBallAndRaiseTheLoss)
{
    Robust clean(TP_F32, 0, false), one(TP_F32, 1, false), seven(TP_F32, 7, false);
    const double at_clean = clean.run_and_read(clean.data_loss), at_one = one.run_and_read(one.data_loss),
                 at_seven = seven.run_and_read(seven.data_loss);
    EXPECT_GT(at_one, at_clean);
    EXPECT_GT(at_seven, at_one);
    const std::vector<double> x = clean.read(clean.adv), adv = seven.read(seven.adv);
    double farthest = 0.0;
    for (size_t i = 0; i < x.size(); i++) {
        farthest = std::max(farthest, std::fabs(adv[i] - x[i]));
        EXPECT_GE(adv[i], 0.0);
        EXPECT_LE(adv[i], 1.0);
    }
    EXPECT_LE(farthest, eps + 1e-6);
    EXPECT_GT(farthest, eps - 1e-6) << "seven steps of 0.03 reach the edge of the ball";
}

/* The gradient of the whole loss with the attack held fixed, in double, against central differences. */
TEST(RobustStep, GradientsOfTheWholeLossAreRight)
{
    Robust r(TP_F64, 7, false);
    r.run_and_read(r.total);
    const std::vector<double> adv = r.read(r.adv);
    for (int i = 0; i < 4; i++) {
        const std::vector<double> grad = r.read(r.grads[i]), w = r.read(r.w[i]),
                                  direction = golden_fill(w.size(), 40 + i);
        double slope = 0.0, value[2];
        for (size_t k = 0; k < grad.size(); k++)
            slope += grad[k] * direction[k];
        for (int side = 0; side < 2; side++) {
            Robust moved(TP_F64, 0, false); /* its x is the attacked one, its weights are moved */
            std::memcpy(moved.storage[0].data(), adv.data(), adv.size() * sizeof(double));
            double *to = reinterpret_cast<double *>(moved.storage[static_cast<size_t>(i) + 2].data());
            for (size_t k = 0; k < w.size(); k++)
                to[k] = w[k] + (side == 0 ? 1e-6 : -1e-6) * direction[k];
            value[side] = moved.run_and_read(moved.total);
        }
        EXPECT_NEAR((value[0] - value[1]) / 2e-6, slope, 1e-7 * (1.0 + std::fabs(slope))) << "weight " << i;
    }
}

TEST(RobustStep, AttackPassesHoldNoWeightGradientAndNoMoreMemory)
{
    Robust none(TP_F32, 0, true), one(TP_F32, 1, true), seven(TP_F32, 7, true);
    /* Two layers: an attack needs their two input gradients, training one of these and two of weight and
     * bias.
     */
    EXPECT_EQ(seven.built("matmul"), 14) << "the graph holds a gradient that was not asked for";
    EXPECT_EQ(seven.built("gemm_weight_grad"), 0) << "the graph holds a weight gradient";
    EXPECT_EQ(seven.built("reduce_sum"), 0) << "the graph holds a bias gradient";
    /* What goes on through an activation is one product with it. */
    EXPECT_EQ(seven.lines("attack", {"matmul"}), 7);
    EXPECT_EQ(seven.lines("attack", {"gemm_input_grad"}), 7);
    EXPECT_EQ(seven.lines("attack", {"tanh_grad"}), 0) << "an activation's gradient of its own";
    EXPECT_EQ(seven.lines("train", {"matmul"}), 0);
    EXPECT_EQ(seven.lines("train", {"gemm_input_grad"}), 1);
    EXPECT_EQ(seven.lines("train", {"gemm_weight_grad"}), 2);
    EXPECT_EQ(seven.lines("attack", {"gemm"}), 21);
    EXPECT_EQ(seven.lines("attack", {"gemm_weight_grad"}), 0);
    EXPECT_EQ(seven.lines("attack", {"(12,6)  ["}), 0) << "an attack computes something of w1's shape";
    EXPECT_EQ(seven.lines("attack", {"(3,12)  ["}), 0) << "an attack computes something of w2's shape";
    EXPECT_EQ(seven.lines("attack", {"reduce_sum"}), 0) << "a bias gradient";
    EXPECT_EQ(seven.lines("train", {"(12,6)  ["}), 2) << "the penalty's gradient and the sum of both";
    EXPECT_EQ(seven.lines("train", {}), none.lines("train", {})) << "training costs more with an attack";
    EXPECT_LE(tp_plan_arena_bytes(seven.plan), tp_plan_arena_bytes(one.plan));
}

/* The clean input may be asked for beside the detached one that the loss sees: nothing flows back to it. */
TEST(RobustStep, NothingFlowsThroughADetach)
{
    Robust r(TP_F64, 0, false);
    const tp_val wrt[2] = {r.x, tp_detach(r.g, r.x)};
    tp_val grads[2] = {0, 0};
    tp_grad(r.g, r.loss_of(wrt[1]), 2, wrt, grads);
    EXPECT_EQ(tp_graph_status(r.g), TP_OK) << tp_last_error();
    EXPECT_EQ(grads[0], 0u);
    EXPECT_NE(grads[1], 0u);
}

/* Counts what this library allocates; oneDNN takes small blocks of its own for each primitive that it runs.
 */
TEST(RobustStep, TrainsWithoutAllocating)
{
    Robust r(TP_F32, 7, true);
    const double before = r.run_and_read(r.total);
    const uint64_t allocations = tp_alloc_count();
    for (int i = 0; i < 200; i++)
        ASSERT_EQ(tp_plan_run(r.plan), TP_OK);
    EXPECT_EQ(tp_alloc_count(), allocations);
    EXPECT_LT(r.read(r.total)[0], 0.8 * before);
    EXPECT_EQ(r.read(r.t)[0], 201.0);
    EXPECT_LE(r.read(r.clip)[0], 1.0);
}

} // namespace
