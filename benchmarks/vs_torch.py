#!/usr/bin/python3
"""Temper beside PyTorch: the same nets, data, batch and precision in both, one process each, in turns.

    benchmarks/vs_torch.py --device cuda --temper build/release/temper --out vs_torch.csv [--only mlp32 cnn] [--together]

A row: net, batch, precision, device, side (temper, eager, compile), rounds, samples/s (median, lowest, highest), seconds from
the start of the process to the end of the first step (median), and Temper's samples/s over this side's. PyTorch's processes
stay, compiled and warmed up, and wait for their turn; Temper's is a new one for each round, of which the first step and what
follows it until the second report do not count. With --together PyTorch's sides of all nets start at once, which saves
minutes and leaves their first step without a time; with --gate FILE the turns wait for that file. The note is PyTorch's version,
or why a side cannot run, which then has no numbers. Needs PyTorch and h5py; compile needs PyTorch 2.
"""

import argparse
import contextlib
import csv
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time

FIELDS = ["net", "batch", "precision", "device", "side", "rounds", "samples_per_second", "lowest", "highest",
          "first_step_seconds", "temper_over_this", "note"]  # fmt: skip


def mlp(widths):
    return f"{{builder: mlp, hidden: {widths}, activation: relu}}"


CNN = """{layers: [
    {conv: {filters: 32, kernel: 3, padding: 1, no_bias: true}}, batch_norm, relu, {max_pool: {kernel: 2}},
    {conv: {filters: 48, kernel: 3, padding: 1, no_bias: true}}, batch_norm, relu, {max_pool: {kernel: 2}},
    {conv: {filters: 96, kernel: 3, padding: 1, no_bias: true}}, batch_norm, relu, {max_pool: {kernel: 2}},
    flatten, {dense: {units: 128}}, relu, {dense: {units: 10}}]}"""

# name: inputs of a sample, classes (0: regression), rows, batch, steps of a round of Temper, precision, Temper's model
NETS = {
    "mlp32": ((32,), 0, 262144, 1024, 16384, "tf32", mlp([64, 64])),
    "mlp100": ((100,), 0, 262144, 1024, 8192, "tf32", mlp([512, 512, 256])),
    "mlp100-large": ((100,), 0, 262144, 16384, 2048, "tf32", mlp([512, 512, 256])),
    "embedding": ("ids", 0, 1048576, 65536, 1024, "tf32", "{builder: tabular, hidden: [256, 128]}"),
    "cnn": ((1, 28, 28), 10, 61440, 512, 2400, "tf32", CNN),
    "resnet18": ((3, 32, 32), 10, 20480, 512, 120, "bf16", "{builder: resnet18}"),
}
REPORTS = 5  # of a round of Temper; the first does not count

TORCH = '''
import sys, time
begin = time.perf_counter()
import json, h5py, torch
from torch import nn
spec = json.loads(sys.argv[1])
device = torch.device(spec["device"])
torch.manual_seed(1)
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = spec["precision"] != "fp32"

class Block(nn.Module):
    def __init__(self, c, m, stride):
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(c, m, 3, stride, 1, bias=False), nn.BatchNorm2d(m), nn.ReLU(),
                               nn.Conv2d(m, m, 3, 1, 1, bias=False), nn.BatchNorm2d(m))
        self.b = nn.Identity() if c == m and stride == 1 else nn.Sequential(
            nn.Conv2d(c, m, 1, stride, bias=False), nn.BatchNorm2d(m))
    def forward(self, x):
        return torch.relu(self.a(x) + self.b(x))

class Tabular(nn.Module):
    def __init__(self):
        super().__init__()
        self.e = nn.Embedding(150000, 32, sparse=True)
        self.n = nn.Sequential(nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 1))
    def forward(self, x):
        return self.n(self.e(x))

def dense(widths):
    layers = []
    for i, o in zip(widths, widths[1:]):
        layers += [nn.Linear(i, o), nn.ReLU()]
    return nn.Sequential(*layers[:-1])

def conv(c, m):
    return [nn.Conv2d(c, m, 3, padding=1, bias=False), nn.BatchNorm2d(m), nn.ReLU(), nn.MaxPool2d(2)]

def resnet():
    widths = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
    return nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), *[Block(*w) for w in widths],
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))

net = {"mlp32": lambda: dense([32, 64, 64, 1]), "mlp100": lambda: dense([100, 512, 512, 256, 1]),
       "mlp100-large": lambda: dense([100, 512, 512, 256, 1]), "embedding": Tabular,
       "cnn": lambda: nn.Sequential(*conv(1, 32), *conv(32, 48), *conv(48, 96), nn.Flatten(), nn.Linear(864, 128), nn.ReLU(),
                                    nn.Linear(128, 10)),
       "resnet18": resnet}[spec["net"]]().to(device)
with h5py.File(spec["data"]) as f:
    x, y = torch.from_numpy(f["x"][:]).to(device), torch.from_numpy(f["y"][:]).to(device)
if x.ndim == 4:
    net, x = net.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
sparse = [p for n, p in net.named_parameters() if n == "e.weight"]
rest = [p for n, p in net.named_parameters() if n != "e.weight"]
fused = {"fused": True} if device.type == "cuda" else {}
optimizers = [torch.optim.AdamW(rest, lr=1e-3, **fused)] + ([torch.optim.SparseAdam(sparse, lr=1e-3)] if sparse else [])
loss_of = nn.functional.cross_entropy if spec["classes"] else nn.functional.mse_loss
def loss_at(x, y):
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=spec["precision"] == "bf16"):
        return loss_of(net(x), y)

run = torch.compile(loss_at, mode="reduce-overhead") if spec["compile"] else loss_at
batch, n = spec["batch"], len(x)
order = torch.randperm(n, device=device)

def step(i):
    at = order[i * batch % (n - batch + 1):][:batch]
    loss = run(x[at], y[at])
    for o in optimizers:
        o.zero_grad(set_to_none=True)
    loss.backward()
    for o in optimizers:
        o.step()
    return loss

def wait():
    if device.type == "cuda":
        torch.cuda.synchronize()

step(0)
wait()
print(json.dumps({"first": time.perf_counter() - begin, "version": torch.__version__}), flush=True)
def seconds_of(steps):
    begin = time.perf_counter()
    for i in range(steps):
        step(i)
    wait()
    return time.perf_counter() - begin

seconds_of(20)
steps = max(5, int(20 * spec["seconds"] / seconds_of(20)))
for line in sys.stdin:
    print(json.dumps({"samples_per_second": steps * batch / seconds_of(steps)}), flush=True)
'''


def make_data(path, shape, classes, rows):
    import h5py
    import numpy

    draw = numpy.random.default_rng(1)
    with h5py.File(path, "w") as file:
        if shape == "ids":
            file["x"] = draw.integers(0, 150000, rows)
        else:
            file["x"] = draw.standard_normal((rows, *shape), "f4")
        file["y"] = draw.integers(0, classes, rows) if classes else draw.standard_normal((rows, 1), "f4")


def write_recipe(path, shape, classes, batch, precision, model, epochs):
    model = " ".join(model.split())
    kind = "ids, categories: 150000" if shape == "ids" else ("image" if len(shape) == 3 else "dense")
    if shape == "ids":
        model = model.replace("}", ", embedding_dim: 32}")
    path.write_text(textwrap.dedent(f"""\
        data:
          inputs: [{{name: x, kind: {kind}}}]
          target: {{name: "y", kind: {"class" if classes else "regression"}}}
          split: {{by: fraction, validation: 0, test: 0}}
        model: {model}
        objective: {{loss: {"softmax_cross_entropy" if classes else "mse"}}}
        optimizer: {{adamw: {{lr: 1e-3}}}}
        train: {{batch: {batch}, epochs: {epochs}, precision: {precision}, seed: 1}}
        """))


class Temper:
    """A new process for each round."""

    note = ""

    def __init__(self, options, recipe, data, steps):
        self.command = [options.temper, "train", str(recipe), "--data", str(data), "--device", options.device]
        self.steps = steps
        self.first = []

    def started(self):
        return ""

    def take_turn(self):
        begin = time.perf_counter()
        process = subprocess.Popen([*self.command, "--set", "train.report=1", "--set", "train.epochs=1"],
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # fmt: skip
        for line in process.stdout:
            if line.startswith("step "):
                self.first.append(time.perf_counter() - begin)
                break
        process.kill()
        process.communicate()
        done = subprocess.run([*self.command, "--set", f"train.report={max(1, self.steps // REPORTS)}"],
                              capture_output=True, text=True)  # fmt: skip
        rates = [float(line.split(" samples/s")[0].split()[-1]) for line in done.stdout.splitlines()
                 if line.startswith("step ")]  # fmt: skip
        if done.returncode != 0 or not rates:
            raise RuntimeError((done.stderr.strip().splitlines() or ["no step"])[-1])
        return statistics.median(rates[1:] or rates)

    def end(self):
        pass


class Torch:
    """One process, which says when it has made its first step, and takes a turn for each line it is sent."""

    def __init__(self, spec, keep_first=True):
        environment = dict(os.environ, TORCHINDUCTOR_COMPILE_THREADS="4")  # many compile at a time
        self.errors = tempfile.TemporaryFile("w+")  # a pipe that nobody reads would fill up and hold the process
        self.process = subprocess.Popen([sys.executable, "-c", TORCH, json.dumps(spec)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.errors, text=True,
                                        env=environment)  # fmt: skip
        self.keep_first = keep_first
        self.first = []
        self.note = ""

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.communicate()
            self.errors.seek(0)
            raise RuntimeError((self.errors.read().strip().splitlines() or ["failed"])[-1][:200])
        return json.loads(line)

    def started(self):
        answer = self.answer()
        self.note = f"PyTorch {answer['version']}"
        if self.keep_first:
            self.first.append(answer["first"])

    def take_turn(self):
        with contextlib.suppress(BrokenPipeError):  # of a process that has died: answer() says why
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        return self.answer()["samples_per_second"]

    def end(self):
        self.process.kill()
        self.process.communicate()
        self.errors.close()


class Net:
    """One net and its three sides."""

    def __init__(self, options, name, folder):
        self.name = name
        shape, classes, rows, batch, steps, self.precision, model = NETS[name]
        rows = min(rows, options.rows)
        self.batch = min(batch, rows)
        steps = max(int(options.scale * steps), REPORTS)
        epochs = max(1, steps * self.batch // rows)
        data, recipe = folder / f"{name}.h5", folder / f"{name}.yaml"
        make_data(data, shape, classes, rows)
        write_recipe(recipe, shape, classes, self.batch, self.precision, model, epochs)
        self.options = options
        self.spec = {"net": name, "data": str(data), "device": options.device, "batch": self.batch, "classes": classes,
                     "precision": self.precision, "seconds": options.scale}  # fmt: skip
        self.sides = {"temper": Temper(options, recipe, data, epochs * (rows // self.batch))}
        self.rates = {"temper": [], "eager": [], "compile": []}
        self.notes = {}

    def start(self, side):
        self.sides[side] = Torch({**self.spec, "compile": side == "compile"},
                                 not self.options.together)  # fmt: skip

    def attempt(self, side, call):
        """What the side does, unless it has failed before."""
        if side in self.notes:
            return None
        try:
            return call(self.sides[side])
        except RuntimeError as error:
            self.notes[side] = f"skipped: {error}"
            return None

    def await_start(self, side):
        self.attempt(side, lambda s: s.started())

    def round(self):
        for side, rates in self.rates.items():
            rate = self.attempt(side, lambda s: s.take_turn())
            if rate is not None:
                rates.append(rate)

    def rows(self):
        own = statistics.median(self.rates["temper"]) if "temper" not in self.notes else 0
        for side, rates in self.rates.items():
            self.sides[side].end()
            row = {"net": self.name, "batch": self.batch, "precision": self.precision, "device": self.options.device, "side": side}
            if side in self.notes:
                yield {**row, "rounds": 0, "note": self.notes[side]}
            else:
                yield {**row, **figures(rates, self.sides[side].first, own), "note": self.sides[side].note}


def figures(rates, first, own):
    middle = statistics.median(rates)
    return {"rounds": len(rates), "samples_per_second": round(middle), "lowest": round(min(rates)),
            "highest": round(max(rates)), "first_step_seconds": round(statistics.median(first), 3) if first else "",
            "temper_over_this": round(own / middle, 2) if own else ""}  # fmt: skip


def measure(options, nets, write):
    for net in nets:
        for side in ("eager", "compile"):
            net.start(side)
            if not options.together:
                net.await_start(side)
    for net in nets if options.together else []:
        net.await_start("eager")
        net.await_start("compile")
    while options.gate and not pathlib.Path(options.gate).exists():
        time.sleep(0.1)
    for net in nets:
        for _ in range(options.rounds):
            net.round()
        for row in net.rows():
            write(row)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--temper", default="temper")
    parser.add_argument("--only", nargs="+", default=list(NETS), choices=list(NETS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the length of a round, about a second")
    parser.add_argument("--rows", type=int, default=1 << 20, help="of a data set, at most")
    parser.add_argument("--together", action="store_true", help="start PyTorch's sides of all nets at once")
    parser.add_argument("--gate", help="wait for this file once every side of --together has started")
    parser.add_argument("--out", default="vs_torch.csv")
    options = parser.parse_args()
    with open(options.out, "w", newline="") as file, tempfile.TemporaryDirectory() as folder:
        rows = csv.DictWriter(file, FIELDS, lineterminator="\n")
        rows.writeheader()

        def write(row):
            rows.writerow(row)
            file.flush()
            print(", ".join(f"{k} {v}" for k, v in row.items() if v != ""), flush=True)

        measure(options, [Net(options, name, pathlib.Path(folder)) for name in options.only], write)


if __name__ == "__main__":
    main()
