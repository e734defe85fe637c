"""Writes tests/golden/optim.inc: five steps of each optimizer, and gradient clipping, as PyTorch does them.

Weights and gradients come from the formula of make_nn.py (fill): w = fill(shape, 0), the gradient of step s is
fill(shape, 10 + s). Lion, which PyTorch does not have, is Chen et al. 2023, algorithm 2, in a few lines."""
import os

import torch
from make_nn_fill import fill

torch.set_default_dtype(torch.float64)
SHAPE, STEPS = [3, 7], 5


class Lion(torch.optim.Optimizer):
    def __init__(self, params, lr, betas, weight_decay):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for w in group["params"]:
                m = self.state[w].setdefault("m", torch.zeros_like(w))
                update = torch.sign(beta1 * m + (1 - beta1) * w.grad) + group["weight_decay"] * w
                w -= group["lr"] * update
                m.mul_(beta2).add_(w.grad, alpha=1 - beta2)


def row(name, attr, lr, decay, make):
    w = fill(SHAPE, 0).requires_grad_()
    optimizer = make(w)
    for step in range(STEPS):
        w.grad = fill(SHAPE, 10 + step)
        optimizer.step()
    values = ", ".join(f"{v:.12g}" for v in w.detach().flatten().tolist())
    return f'    {{"{name}", {attr}, {lr}, {decay},\n     {{{values}}}}},\n'


O = torch.optim
ROWS = [
    row("sgd", "{TP_SGD, 0, 0, 0, 0, 0, 0, 0}", 0.1, 0, lambda w: O.SGD([w], 0.1)),
    row("sgd_decay", "{TP_SGD, 0, 0, 0, 0, 0, 0, 0}", 0.1, 0.3, lambda w: O.SGD([w], 0.1, weight_decay=0.3)),
    row("sgd_momentum", "{TP_SGD, 0, 0, 0, 0.9, 0, 0, 0}", 0.1, 0, lambda w: O.SGD([w], 0.1, momentum=0.9)),
    row("sgd_momentum_decay", "{TP_SGD, 0, 0, 0, 0.9, 0, 0, 0}", 0.1, 0.05,
        lambda w: O.SGD([w], 0.1, momentum=0.9, weight_decay=0.05)),
    row("sgd_nesterov", "{TP_SGD, 0, 0, 0, 0.9, 1, 0, 0}", 0.05, 0,
        lambda w: O.SGD([w], 0.05, momentum=0.9, nesterov=True)),
    row("sgd_nesterov_decay", "{TP_SGD, 0, 0, 0, 0.8, 1, 0, 0}", 0.05, 0.01,
        lambda w: O.SGD([w], 0.05, momentum=0.8, nesterov=True, weight_decay=0.01)),
    row("adam", "{TP_ADAM, 0.9, 0.999, 1e-8, 0, 0, 0, 0}", 0.02, 0, lambda w: O.Adam([w], 0.02)),
    row("adam_decay", "{TP_ADAM, 0.8, 0.99, 1e-3, 0, 0, 0, 0}", 0.02, 0.1,
        lambda w: O.Adam([w], 0.02, (0.8, 0.99), 1e-3, 0.1)),
    row("adamw", "{TP_ADAMW, 0.8, 0.99, 1e-3, 0, 0, 0, 0}", 0.02, 0,
        lambda w: O.AdamW([w], 0.02, (0.8, 0.99), 1e-3, 0)),
    row("adamw_decay", "{TP_ADAMW, 0.9, 0.999, 1e-8, 0, 0, 0, 0}", 0.02, 0.1,
        lambda w: O.AdamW([w], 0.02, weight_decay=0.1)),
    row("lion", "{TP_LION, 0.9, 0.99, 0, 0, 0, 0, 0}", 0.01, 0, lambda w: Lion([w], 0.01, (0.9, 0.99), 0)),
    row("lion_decay", "{TP_LION, 0.9, 0.99, 0, 0, 0, 0, 0}", 0.01, 0.2, lambda w: Lion([w], 0.01, (0.9, 0.99), 0.2)),
    row("rmsprop", "{TP_RMSPROP, 0, 0.99, 1e-8, 0, 0, 0, 0}", 0.01, 0, lambda w: O.RMSprop([w], 0.01)),
    row("rmsprop_momentum_decay", "{TP_RMSPROP, 0, 0.9, 1e-4, 0.7, 0, 0, 0}", 0.01, 0.1,
        lambda w: O.RMSprop([w], 0.01, 0.9, 1e-4, 0.1, 0.7)),
    row("adagrad", "{TP_ADAGRAD, 0, 0, 1e-10, 0, 0, 0, 0}", 0.1, 0, lambda w: O.Adagrad([w], 0.1)),
    row("adagrad_decay", "{TP_ADAGRAD, 0, 0, 1e-3, 0, 0, 0, 0}", 0.1, 0.2,
        lambda w: O.Adagrad([w], 0.1, weight_decay=0.2, eps=1e-3)),
]


def clipped(limit):
    a, b = torch.zeros(4, 5).requires_grad_(), torch.zeros(3).requires_grad_()
    a.grad, b.grad = fill([4, 5], 1), fill([3], 2)
    norm = torch.nn.utils.clip_grad_norm_([a, b], limit)
    return f"    {{{limit}, {norm:.12g}, {(a.grad / fill([4, 5], 1)).mean():.12g}}},\n"


with open(os.path.join(os.path.dirname(__file__), "optim.inc"), "w") as out:
    out.write("/* Written by make_optim.py with PyTorch " + torch.__version__.split("+")[0] + ". */\n")
    out.write("static const OptimGolden optim_goldens[] = {\n" + "".join(ROWS) + "};\n")
    out.write("static const ClipGolden clip_goldens[] = {\n" + "".join(map(clipped, (0.5, 1.5, 100.0))) + "};\n")
