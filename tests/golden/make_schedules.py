"""Writes tests/golden/schedules.inc: the learning rate of every step by PyTorch's schedulers (run with PyTorch 1.13),
from a base lr of 1, so that it is the factor. Warm-up is LinearLR from 1/(W+1) over W steps, then the schedule."""
import math
import os
import warnings
import torch
from torch.optim import lr_scheduler as ls

warnings.simplefilter("ignore")


def optimizer():
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)


def walk(make, steps):
    opt = optimizer()
    scheduler, lrs = make(opt), []
    for _ in range(steps):
        lrs.append(opt.param_groups[0]["lr"])
        opt.step()
        scheduler.step()
    return lrs


def warm(make, total, fraction):
    w = math.floor(fraction * total)
    head = walk(lambda o: ls.LinearLR(o, 1 / (w + 1), 1.0, w), w) if w else []
    return head + walk(lambda o: make(o, total - w), total - w)


def constant(opt, steps):
    return ls.LambdaLR(opt, lambda i: 1.0)


def cosine(final):
    return lambda opt, steps: ls.CosineAnnealingLR(opt, steps, eta_min=final)


def linear(final):
    return lambda opt, steps: ls.LinearLR(opt, 1.0, final, steps)


def one_cycle(total, pct, div, final_div):
    def make(opt):
        return ls.OneCycleLR(opt, 1.0, total_steps=total, pct_start=pct, div_factor=div, final_div_factor=final_div,
                             cycle_momentum=False)
    # The last scheduler step would go past total_steps, so walk one less and read the last lr apart.
    opt = optimizer()
    scheduler, lrs = make(opt), [opt.param_groups[0]["lr"]]
    for _ in range(total - 1):
        opt.step()
        scheduler.step()
        lrs.append(opt.param_groups[0]["lr"])
    return lrs


def braces(values):
    return "{" + ", ".join(f"{v:.17g}" for v in values) + "}"


def schedule(name, kind, lrs, per_epoch=1, warmup=0.0, gamma=0.1, step_epochs=10.0, final=0.0, pct=0.3, div=25.0,
             final_div=1e4):
    return (f'    {{"{name}", {{TP_SCHEDULE_{kind}, {warmup}, {gamma}, {step_epochs}, {final}, {pct}, {div}, '
            f'{final_div}}}, {per_epoch},\n     {braces(lrs)}}},\n')


def schedules():
    yield schedule("constant", "CONSTANT", warm(constant, 5, 0))
    yield schedule("constant_warm", "CONSTANT", warm(constant, 10, 0.35), warmup=0.35)
    step = walk(lambda o: ls.StepLR(o, 12, 0.3), 40)
    yield schedule("step", "STEP", step, per_epoch=6, gamma=0.3, step_epochs=2.0)
    ramp = walk(lambda o: ls.LinearLR(o, 1 / 5, 1.0, 4), 4)
    yield schedule("step_warm", "STEP", ramp + step[4:], per_epoch=6, warmup=0.1, gamma=0.3, step_epochs=2.0)
    for name, f, kind in (("cosine", cosine, "COSINE"), ("linear", linear, "LINEAR")):
        yield schedule(name, kind, warm(f(0.0), 12, 0))
        yield schedule(name + "_final", kind, warm(f(0.2), 15, 0), final=0.2)
        yield schedule(name + "_warm", kind, warm(f(0.05), 25, 0.2), warmup=0.2, final=0.05)
        yield schedule(name + "_one_step", kind, warm(f(0.05), 1, 0), final=0.05)
    for name, n, pct, div, final_div in (("default", 20, 0.3, 25.0, 1e4), ("half", 17, 0.5, 10.0, 100.0),
                                         ("short_rise", 30, 0.1, 4.0, 1e3), ("all_rise", 8, 1.0, 25.0, 1e4),
                                         ("no_rise", 7, 0.1, 25.0, 1e4)):
        yield schedule("one_cycle_" + name, "ONE_CYCLE", one_cycle(n, pct, div, final_div), pct=pct, div=div,
                       final_div=final_div)


LOSS = [5, 4, 3.9999, 3.99, 3.99, 3.995, 4.2, 3.8, 3.8, 3.81, float("nan"), 3.9, 3.7999, 3.7, 3.71, 3.72, 3.73, 3.74,
        3.75, 3.76, 3.77, 3.78, 3.6, 3.6, 3.6, 3.6, 3.6, 3.6, 3.6, 3.6]
GAIN = [10 - v for v in LOSS]


def plateau(name, values, **o):
    p = dict(mode="min", factor=0.5, threshold=1e-4, threshold_mode="rel", patience=2, cooldown=0, min_lr=0.0)
    p.update(o)
    opt = optimizer()
    s, out = ls.ReduceLROnPlateau(opt, **p), []
    for v in values:
        s.step(v)
        out.append(opt.param_groups[0]["lr"])
    shown = "{" + ", ".join("NAN" if v != v else f"{v:.17g}" for v in values) + "}"
    return (f'    {{"{name}", {{{int(p["mode"] == "max")}, {p["factor"]}, {p["threshold"]}, '
            f'{int(p["threshold_mode"] == "abs")}, {p["patience"]}, {p["cooldown"]}, {p["min_lr"]}}},\n'
            f'     {shown},\n     {braces(out)}}},\n')


def plateaus():
    yield plateau("min_rel", LOSS)
    yield plateau("min_abs", LOSS, threshold=0.15, threshold_mode="abs")
    yield plateau("max_rel", GAIN, mode="max", threshold=0.02)
    yield plateau("max_abs", GAIN, mode="max", threshold=0.05, threshold_mode="abs")
    yield plateau("cooldown", LOSS, patience=1, cooldown=3)
    yield plateau("no_patience", LOSS, patience=0, factor=0.7)
    yield plateau("floor", LOSS, patience=0, factor=0.2, min_lr=0.03)
    yield plateau("least_cut", LOSS, patience=0, factor=0.01)


if __name__ == "__main__":
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "schedules.inc")
    with open(path, "w") as f:
        f.write(f"/* Written by make_schedules.py with PyTorch {torch.__version__}. */\n")
        f.write("static const std::vector<ScheduleGolden> schedule_goldens = {\n")
        for s in schedules():
            f.write(s)
        f.write("};\nstatic const std::vector<PlateauGolden> plateau_goldens = {\n")
        for s in plateaus():
            f.write(s)
        f.write("};\n")
