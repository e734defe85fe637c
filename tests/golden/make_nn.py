"""Writes tests/golden/nn.inc: what PyTorch says about convolution, pooling and norms (run with PyTorch 1.13).

Inputs come from a formula (make_nn_fill.py) that tests/engine/net.h repeats, so only attributes and results are
stored. Results are y, then the gradient of sum(r * y) for each input, r = fill of y's shape with the next number."""
import os
import torch
import torch.nn.functional as F
from make_nn_fill import fill

torch.set_default_dtype(torch.float64)


def braces(values):
    return "{" + ", ".join(f"{float(v):.9g}" for v in values) + "}"


def results(f, inputs):
    for t in inputs:
        t.requires_grad_()
    y = f(*inputs)
    (y * fill(y.shape, len(inputs))).sum().backward()
    flat = [y.detach().flatten()] + [t.grad.flatten() for t in inputs]
    return "{" + ",\n     ".join(braces(v) for v in flat) + "}"


def ints(values, n=None):
    values = list(values)
    return "{" + ", ".join(str(v) for v in values + [0] * ((n or len(values)) - len(values))) + "}"


ACT = {"NONE": lambda v: v, "RELU": torch.relu, "TANH": torch.tanh, "SIGMOID": torch.sigmoid}


def conv(name, x, w, bias, stride, pad, dilation, groups, act):
    op = F.conv1d if len(x) == 3 else F.conv2d
    inputs = [fill(x, 0), fill(w, 1)] + ([fill(w[:1], 2)] if bias else [])
    got = results(lambda a, b, c=None: ACT[act](op(a, b, c, stride, pad, dilation, groups)), inputs)
    return (f'    {{"{name}", {ints(x)}, {ints(w)}, {int(bias)}, {{{ints(stride, 2)}, {ints(pad, 2)}, '
            f'{ints(dilation, 2)}, {groups}, TP_ACT_{act}, 0}},\n    {got}}},\n')


def pool(name, kind, x, kernel, stride, pad):
    op = {"max": {3: F.max_pool1d, 4: F.max_pool2d}, "avg": {3: F.avg_pool1d, 4: F.avg_pool2d}}[kind][len(x)]
    got = results(lambda a: op(a, kernel, stride or None, pad), [fill(x, 0)])
    return (f'    {{"{name}", {int(kind == "max")}, {ints(x)}, {{{ints(kernel, 2)}, {ints(stride, 2)}, '
            f'{ints(pad, 2)}, 0}},\n    {got}}},\n')


def norm(name, kind, x, groups, epsilon):
    c = x[-1] if kind == "LAYER" else x[1]
    inputs = [fill(x, 0) * 2 + 3, fill([c], 1), fill([c], 2)]
    mean, var = fill([c], 5), fill([c], 6) + 2
    op = {"BATCH": lambda a, g, b: F.batch_norm(a, mean, var, g, b, True, 0.1, epsilon),
          "EVAL": lambda a, g, b: F.batch_norm(a, mean, var, g, b, False, 0.1, epsilon),
          "LAYER": lambda a, g, b: F.layer_norm(a, [c], g, b, epsilon),
          "GROUP": lambda a, g, b: F.group_norm(a, groups, g, b, epsilon)}[kind]
    got = results(op, inputs)
    return (f'    {{"{name}", {kind}, {ints(x)}, {groups}, {epsilon},\n    {got},\n'
            f'    {braces(mean)}, {braces(var)}}},\n')


TABLES = [
    ("ConvGolden conv_goldens", [
        conv("pixel", [1, 1, 1, 1], [1, 1, 1, 1], True, [1, 1], [0, 0], [1, 1], 1, "NONE"),
        conv("same_relu", [2, 3, 5, 6], [4, 3, 3, 3], True, [1, 1], [1, 1], [1, 1], 1, "RELU"),
        conv("stride_uneven", [2, 3, 8, 7], [2, 3, 3, 2], False, [2, 3], [1, 0], [1, 1], 1, "NONE"),
        conv("dilation_tanh", [1, 2, 9, 8], [3, 2, 3, 3], True, [1, 2], [2, 1], [2, 3], 1, "TANH"),
        conv("groups_sigmoid", [2, 4, 4, 5], [6, 2, 3, 3], True, [1, 1], [1, 1], [1, 1], 2, "SIGMOID"),
        conv("depthwise", [2, 3, 6, 5], [3, 1, 3, 3], True, [2, 1], [1, 1], [1, 1], 3, "NONE"),
        conv("depthwise_multiplier", [1, 3, 5, 5], [6, 1, 2, 2], False, [1, 1], [0, 0], [1, 1], 3, "NONE"),
        conv("pointwise", [2, 5, 3, 4], [7, 5, 1, 1], True, [1, 1], [0, 0], [1, 1], 1, "RELU"),
        conv("wide", [1, 9, 5, 4], [10, 9, 3, 3], True, [1, 1], [1, 1], [1, 1], 1, "RELU"),
        conv("line", [2, 3, 11], [4, 3, 3], True, [2], [2], [2], 1, "RELU"),
        conv("line_depthwise", [2, 4, 9], [4, 1, 5], True, [1], [2], [1], 4, "NONE"),
    ]),
    ("PoolGolden pool_goldens", [
        pool("max_2x2", "max", [2, 2, 6, 4], [2, 2], [], [0, 0]),
        pool("max_overlap", "max", [1, 2, 7, 9], [3, 3], [2, 2], [1, 1]),
        pool("max_uneven", "max", [1, 3, 5, 6], [2, 3], [1, 2], [1, 0]),
        pool("max_line", "max", [2, 2, 11], [3], [2], [1]),
        pool("avg_2x2", "avg", [2, 2, 6, 4], [2, 2], [], [0, 0]),
        pool("avg_overlap", "avg", [1, 2, 7, 9], [3, 3], [2, 2], [1, 1]),
        pool("avg_uneven", "avg", [1, 3, 5, 6], [2, 3], [1, 2], [1, 0]),
        pool("avg_line", "avg", [2, 2, 11], [3], [2], [1]),
    ]),
    ("NormGolden norm_goldens", [
        norm("batch_rows", "BATCH", [7, 5], 1, 1e-5),
        norm("batch_image", "BATCH", [3, 4, 3, 5], 1, 1e-3),
        norm("batch_line", "BATCH", [2, 3, 17], 1, 1e-5),
        norm("eval_rows", "EVAL", [4, 3], 1, 1e-5),
        norm("eval_image", "EVAL", [2, 3, 4, 3], 1, 1e-5),
        norm("layer_rows", "LAYER", [5, 19], 1, 1e-5),
        norm("layer_3d", "LAYER", [2, 3, 33], 1, 1e-6),
        norm("group_image", "GROUP", [2, 6, 3, 4], 3, 1e-5),
        norm("group_one", "GROUP", [2, 4, 5], 1, 1e-5),
        norm("group_each", "GROUP", [3, 4, 7], 4, 1e-5),
    ]),
]

with open(os.path.join(os.path.dirname(__file__), "nn.inc"), "w") as out:
    out.write("/* Written by make_nn.py with PyTorch " + torch.__version__.split("+")[0] + ". */\n")
    for name, rows in TABLES:
        out.write(f"static const {name}[] = {{\n{''.join(rows)}}};\n")
