#!/usr/bin/python3
"""Trains a recipe once for each seed and appends what it reached to benchmarks/quality.csv.

    benchmarks/quality.py recipes/fashion-cnn.yaml --data fashion_mnist.h5 --metric accuracy --seeds 1 2 3

The recipe is named as seen from the root of the source, every other file as seen from where this is called.

A row: date, version of the source, recipe, seed, metric on the test part, its value, steps, seconds of
training, device, hash of the weights, command.
"""

import argparse
import csv
import datetime
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FIELDS = ["date", "source", "recipe", "seed", "metric", "value", "steps", "seconds", "device", "weights_hash",
          "command"]  # fmt: skip


def source_version():
    """Of the checkout, or of what the bundle was made from."""
    made_from = ROOT / "SOURCE"
    if made_from.exists():
        return made_from.read_text().strip()
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def train(temper, recipe, data, seed, extra):
    """Returns (the JSON object of the run, the command without the folders of this machine)."""
    sets = [f"train.seed={seed}", *extra]
    command = ["temper", "train", recipe, *(word for s in sets for word in ("--set", s))]
    run = [temper, *command[1:], "--json", *(["--data", os.path.abspath(data)] if data else [])]
    done = subprocess.run(run, capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["it said nothing"]  # a signal (exit < 0) leaves no line
        sys.exit(f"{' '.join(command)}: exit {done.returncode}: {said[-1]}")
    shown = command + (["--data", pathlib.Path(data).name] if data else [])
    return json.loads(done.stdout.splitlines()[-1]), " ".join(shown)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("recipe", help="as seen from the root of the source, or absolute")
    parser.add_argument("--data")
    parser.add_argument("--metric", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--set", action="append", default=[], help="more overrides; {seed} is the seed")
    parser.add_argument("--temper", default="temper", help="the program (default: the installed one)")
    parser.add_argument("--out", default=str(ROOT / "benchmarks" / "quality.csv"))
    options = parser.parse_args()
    temper = os.path.abspath(options.temper) if os.sep in options.temper else options.temper  # else found by PATH
    out = pathlib.Path(options.out)
    with out.open("a", newline="") as file:
        rows = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if file.tell() == 0:
            rows.writeheader()
        for seed in options.seeds:
            extra = [s.format(seed=seed) for s in options.set]
            run, command = train(temper, options.recipe, options.data, seed, extra)
            rows.writerow({"date": datetime.date.today().isoformat(), "source": source_version(),
                           "recipe": pathlib.Path(options.recipe).stem, "seed": seed, "metric": options.metric,
                           "value": run["metrics"]["test"][options.metric], "steps": run["steps"],
                           "seconds": round(run["seconds"], 1), "device": run["device"],
                           "weights_hash": run["weights_hash"], "command": command})  # fmt: skip
            file.flush()


if __name__ == "__main__":
    main()
