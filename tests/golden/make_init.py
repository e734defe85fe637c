"""Writes tests/golden/init.inc: what PyTorch draws first weights from (run with PyTorch 1.13).

For each shape of a weight: fan in and out, the half-width of the default and of Xavier's uniform distribution and
the deviation of Kaiming's normal one, measured from PyTorch's own calls where they draw and from its fans."""
import os
import torch
from torch.nn import init

CASES = [("dense", torch.nn.Linear(300, 200)), ("dense wide", torch.nn.Linear(7, 9000)),
         ("conv 3x3", torch.nn.Conv2d(16, 64, 3)), ("conv 5x3", torch.nn.Conv2d(12, 80, (5, 3))),
         ("conv groups", torch.nn.Conv2d(32, 64, 3, groups=4)), ("conv 1-D", torch.nn.Conv1d(24, 90, 5))]

torch.manual_seed(1)
lines = []
for name, layer in CASES:
    w = layer.weight.detach()
    fan_in, fan_out = init._calculate_fan_in_and_fan_out(w)
    gain = init.calculate_gain("leaky_relu", 5 ** 0.5)  # what Linear and Conv reset with
    default, xavier = 3 ** 0.5 * gain / fan_in ** 0.5, (6 / (fan_in + fan_out)) ** 0.5
    kaiming = init.calculate_gain("relu") / fan_in ** 0.5
    for bound, draw in (default, layer.weight), (xavier, init.xavier_uniform_(torch.empty_like(w))):
        assert 0.99 * bound < draw.detach().abs().max() <= bound * (1 + 1e-6), name
    assert abs(init.kaiming_normal_(torch.empty_like(w), nonlinearity="relu").std() / kaiming - 1) < 0.03, name
    assert layer.bias.detach().abs().max() <= default * (1 + 1e-6), name  # the bias has the bound of the weights
    shape = list(w.shape) + [0] * (4 - w.dim())
    lines.append(f'    {{"{name}", {w.dim()}, {{{", ".join(map(str, shape))}}}, {getattr(layer, "groups", 1)}, '
                 f"{fan_in}, {fan_out}, {default:.9g}, {xavier:.9g}, {kaiming:.9g}}},\n")
with open(os.path.join(os.path.dirname(__file__), "init.inc"), "w") as f:
    f.write(f"/* Written by make_init.py with PyTorch {torch.__version__}. */\n" + "".join(lines))
