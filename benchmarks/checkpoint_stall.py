#!/usr/bin/python3
"""How long a checkpoint holds training up: the step behind a save beside the median step, in one run.

    benchmarks/checkpoint_stall.py --device cuda --temper build/release/temper [--width 7872] [--steps 40]

A perceptron of two square layers, 124 million parameters by default, with AdamW: three times as many numbers are saved. A report
after every step gives its time; the one behind the save holds the snapshot. Prints one JSON object; needs h5py.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile


def measure(options, folder):
    import h5py
    import numpy

    draw = numpy.random.default_rng(1)
    with h5py.File(folder / "data.h5", "w") as file:
        file["x"] = draw.standard_normal((64 * options.steps, 16), "f4")
        file["y"] = draw.standard_normal((64 * options.steps, 1), "f4")
    (folder / "recipe.yaml").write_text(f"""\
data:
  inputs: [{{name: x, kind: dense}}]
  target: {{name: "y", kind: regression}}
  split: {{by: fraction, validation: 0, test: 0}}
model: {{builder: mlp, hidden: [{options.width}, {options.width}, {options.width}], activation: relu}}
objective: {{loss: mse}}
optimizer: {{adamw: {{lr: 1e-5}}}}
train: {{batch: 64, epochs: 1, report: 1, save: {options.steps // 2}, seed: 1}}
""")
    command = [options.temper, "train", folder / "recipe.yaml", "--data", folder / "data.h5", "--device", options.device,
               "--out", folder / "run", "--json", "--quiet"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"checkpoint_stall: exit {done.returncode}: {done.stderr.strip()}")
    at = [json.loads(line)["seconds"] for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [1000 * (b - a) for a, b in zip(at, at[1:])]
    usual = statistics.median(steps[3:])
    parameters = 2 * options.width**2 + 16 * options.width + 4 * options.width + 1
    return {"device": json.loads(done.stdout.splitlines()[-1])["device"], "parameters": parameters,
            "step_ms": round(usual, 3), "spread_ms": [round(x, 3) for x in statistics.quantiles(steps[3:], n=4)[::2]],
            "step_behind_the_save_ms": round(steps[options.steps // 2 - 1], 3),
            "stall_ms": round(steps[options.steps // 2 - 1] - usual, 3)}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--temper", default="temper")
    parser.add_argument("--width", type=int, default=7872)
    parser.add_argument("--steps", type=int, default=40)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(parser.parse_args(), pathlib.Path(folder))))


if __name__ == "__main__":
    main()
