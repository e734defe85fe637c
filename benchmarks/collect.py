#!/usr/bin/python3
"""Rows of results.csv from a folder that ./dev gpu has filled.

    benchmarks/collect.py OUT [--out benchmarks/results.csv] [--date 2026-11-27] [--source COMMIT]

A row: date, source, device with the versions of its libraries, benchmark, case, side (an implementation of an op, or a
program), measure, unit, runs, value (median), low and high (quartiles of an op, lowest and highest round of vs_torch.py), ratio
(of an op: share of the roofline; of vs_torch.py: Temper's throughput over this side's). What was not timed has no row.
"""

import argparse
import csv
import datetime
import json
import pathlib

from quality import source_version

FIELDS = ["date", "source", "device", "benchmark", "case", "side", "measure", "unit", "runs", "value", "low", "high", "ratio",
          "note"]  # fmt: skip
ROOT = pathlib.Path(__file__).resolve().parent


def device_of(folder):
    """The GPU and the versions that speak for it."""
    gpu = next(d for d in json.loads((folder / "devices.json").read_text()) if d["device"].startswith("cuda"))
    return f"{gpu['name']}, driver {gpu['driver']}, cuBLASLt {gpu['cublaslt']}, cuDNN {gpu['cudnn']}"


def vs_torch(path):
    for row in csv.DictReader(path.open()):
        if not row["samples_per_second"]:
            continue
        fixed = {"benchmark": "vs_torch.py", "case": f"{row['net']} batch={row['batch']} {row['precision']}",
                 "side": row["side"], "note": row["note"]}  # fmt: skip
        yield fixed | {"measure": "throughput", "unit": "samples/s", "runs": row["rounds"], "value": row["samples_per_second"],
                       "low": row["lowest"], "high": row["highest"], "ratio": row["temper_over_this"]}  # fmt: skip
        if row["first_step_seconds"]:
            yield fixed | {"measure": "first step", "unit": "s", "runs": row["rounds"], "value": row["first_step_seconds"]}


def ops(path):
    precision = ""
    for line in path.read_text().splitlines():
        row = json.loads(line)
        fixed = {"benchmark": "temper bench"}
        if row["kind"] == "head":
            precision = row["precision"]
            fixed |= {"case": f"roofline {precision}", "measure": "rate"}
            yield fixed | {"side": "copy", "unit": "GB/s", "value": f"{row['copy_bytes_per_second'] / 1e9:.1f}"}
            yield fixed | {"side": "gemm", "unit": "GFLOP/s", "value": f"{row['gemm_flops_per_second'] / 1e9:.1f}"}
        elif row["state"] == "timed":
            words = (row["op"], row["shape"], row["attributes"], precision)
            fixed |= {"case": " ".join(word for word in words if word), "side": row["impl"], "unit": "us"}
            for cache in ("hot", "cold"):
                t = row[cache]
                times = {to: f"{t[of] * 1e6:.2f}" for to, of in (("value", "median"), ("low", "low"), ("high", "high"))}
                yield fixed | times | {"measure": cache, "runs": t["runs"], "ratio": f"{t['share']:.3f}"}


def stall(path):
    run = json.loads(path.read_text().splitlines()[-1])
    fixed = {"benchmark": "checkpoint_stall.py", "case": f"{run['parameters']} parameters", "side": "temper", "unit": "ms"}
    low, high = run["spread_ms"]
    yield fixed | {"measure": "step", "value": run["step_ms"], "low": low, "high": high}
    yield fixed | {"measure": "stall", "runs": 1, "value": run["stall_ms"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "results.csv")
    parser.add_argument("--date", default=datetime.date.today().isoformat(), help="of the measurement")
    parser.add_argument("--source", default=source_version(), help="what was measured (default: this checkout)")
    options = parser.parse_args()
    fixed = {"date": options.date, "source": options.source, "device": device_of(options.folder)}
    with options.out.open("a", newline="") as file:
        rows = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if file.tell() == 0:
            rows.writeheader()
        for pattern, reader in (("vs_torch.csv", vs_torch), ("*.jsonl", ops), ("stall.log", stall)):
            for path in sorted(options.folder.glob(pattern)):
                rows.writerows(fixed | row for row in reader(path))


if __name__ == "__main__":
    main()
