"""Writes tests/golden/losses.inc: each loss row by row, and its gradient, as PyTorch computes them.

x = scale * fill((5, 4), 0); targets: classes (0, 1, 2, 3, 1), or fill((5, 4), 1), or that moved into [0, 1] (as soft
labels, with each row divided by its sum). The gradient is that of sum(r * l), r = fill((5), 2). PyTorch means over columns where its reduction is none only by hand."""
import os

import torch
import torch.nn.functional as F
from make_nn_fill import fill

torch.set_default_dtype(torch.float64)
CLASSES = torch.tensor([0, 1, 2, 3, 1])
WEIGHTS = fill([4], 3) + 1.5


def row(name, scale, loss):
    x = (scale * fill([5, 4], 0)).requires_grad_()
    value = loss(x)
    (value * fill([5], 2)).sum().backward()
    braces = ["{" + ", ".join(f"{v:.12g}" for v in t.detach().flatten().tolist()) + "}" for t in (value, x.grad)]
    return f'    {{"{name}", {scale}, {{{braces[0]},\n      {braces[1]}}}}},\n'


def entropy(smoothing, weights):
    return lambda x: F.cross_entropy(x, CLASSES, WEIGHTS if weights else None, reduction="none",
                                     label_smoothing=smoothing)


def soft(x):
    target = (fill([5, 4], 1) + 1) / 2
    return F.cross_entropy(x, target / target.sum(1, keepdim=True), WEIGHTS, reduction="none", label_smoothing=0.1)


def columns(loss):
    return lambda x: loss(x, fill([5, 4], 1)).mean(1)


def pinball(q):
    return lambda x, t: torch.maximum(q * (t - x), (q - 1) * (t - x))


def bce(x):
    return F.binary_cross_entropy_with_logits(x, (fill([5, 4], 1) + 1) / 2, reduction="none").mean(1)


ROWS = []
for scale in (1.0, 10000.0):
    ROWS += [row("xent", scale, entropy(0.0, False)), row("xent_smooth", scale, entropy(0.1, False)),
             row("xent_weighted", scale, entropy(0.0, True)), row("xent_both", scale, entropy(0.1, True)),
             row("xent_soft", scale, soft), row("bce", scale, bce)]
for name, loss in (("mse", lambda x, t: F.mse_loss(x, t, reduction="none")),
                   ("mae", lambda x, t: F.l1_loss(x, t, reduction="none")),
                   ("huber", lambda x, t: F.huber_loss(x, t, reduction="none", delta=0.4)),
                   ("quantile", pinball(0.9))):
    ROWS.append(row(name, 1.0, columns(loss)))

with open(os.path.join(os.path.dirname(__file__), "losses.inc"), "w") as out:
    out.write("/* Written by make_losses.py with PyTorch " + torch.__version__.split("+")[0] + ". */\n")
    out.write("static const LossGolden loss_goldens[] = {\n" + "".join(ROWS) + "};\n")
