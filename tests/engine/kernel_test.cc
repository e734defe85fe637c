/* kernel_test.cc - what the cases of the ops cannot say of their kernels: inputs that are refused. */
#include "tests/engine/emulated.h"
#include "tests/engine/op_case.h"
#include <limits>

namespace
{

typedef std::vector<std::vector<double>> Values;

/* The message of an op that does not take its inputs. */
std::string refused(const char *op, const char *inputs, const void *attr)
{
    const tp_case c = {inputs, 0, 0, 0, attr, 0, 0};
    Values values;
    for (const tp_tensor &in : parse_inputs(inputs))
        values.emplace_back(in.dtype == TP_DTYPE_NONE ? 0 : static_cast<size_t>(tp_shape_len(in.shape)));
    const CaseGraph cg(cpu_device(), tp_op_find(op), c, TP_F32, values);
    EXPECT_EQ(tp_graph_status(cg.g), TP_ESHAPE) << op << " " << inputs;
    return tp_last_error();
}

TEST(Kernels, InputsThatNoKernelTakesAreRefusedWhenTheGraphIsBuilt)
{
    const tp_norm_attr norm = {1e-5, 0.1, 1, TP_ACT_NONE};
    const tp_reduce_attr last = {2, 1};

    EXPECT_NE(refused("reduce_max_grad", "3x0,3x1,3x1", &last).find("no elements"), std::string::npos);
    EXPECT_NE(refused("reduce_max_grad", "0x3,0x1,0x1", &last).find("no elements"), std::string::npos);
    EXPECT_NE(refused("batch_norm", "4x3,3,3,3,3,4:bf16", &norm).find("weight is bfloat16"),
              std::string::npos);
    EXPECT_NE(refused("batch_norm_grad", "4x3,3,3,3,4x3,4:f16", &norm).find("weight is float16"),
              std::string::npos);
}

} // namespace
