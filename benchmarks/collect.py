#!/usr/bin/python3
"""Rows of results.csv, and of quality.csv beside it, from a folder that ./dev gpu has filled.

    benchmarks/collect.py OUT [--out benchmarks/results.csv] [--date 2026-11-27] [--source COMMIT]

The folder is read as a whole before anything is appended; what cannot be read is named by file and line, and nothing is
written. Rows of quality.csv are taken as quality.py wrote them.

A row of results.csv: date, source, device with the versions of its libraries, benchmark, case, side (an implementation of an
op, or a program), measure, unit, runs, value (median), low and high (quartiles of an op, lowest and highest round of
vs_torch.py), ratio (of an op: share of the roofline; of vs_torch.py: Temper's throughput over this side's). What was not timed
has no row.
"""

import argparse
import csv
import datetime
import io
import json
import pathlib
import sys

from quality import FIELDS as QUALITY_FIELDS
from quality import source_version

FIELDS = ["date", "source", "device", "benchmark", "case", "side", "measure", "unit", "runs", "value", "low", "high", "ratio",
          "note"]  # fmt: skip
ROOT = pathlib.Path(__file__).resolve().parent


def device_of(folder):
    """The GPU and the versions that speak for it."""
    gpu = next(d for d in json.loads((folder / "devices.json").read_text()) if d["device"].startswith("cuda"))
    return f"{gpu['name']}, driver {gpu.get('driver_build') or gpu['driver']}, cuBLASLt {gpu['cublaslt']}, cuDNN {gpu['cudnn']}"


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


def objects(path):
    """The JSON objects of a file, one a line. A last line without an end is of a run that was stopped, and is left out."""
    text = path.read_text()
    whole, _, rest = text.rpartition("\n")
    if rest:
        print(f"collect: {path.name}: ends within a line, which is left out", file=sys.stderr)
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            sys.exit(f"collect: {path}:{number}: {error}; nothing was appended")


def ops(path):
    precision = ""
    for row in objects(path):
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
    for run in objects(path):
        fixed = {"benchmark": "checkpoint_stall.py", "case": f"{run['parameters']} parameters", "side": "temper", "unit": "ms"}
        low, high = run["spread_ms"]
        yield fixed | {"measure": "step", "value": run["step_ms"], "low": low, "high": high}
        yield fixed | {"measure": "stall", "runs": 1, "value": run["stall_ms"]}


def as_csv(fields, rows):
    text = io.StringIO()
    csv.DictWriter(text, fields, lineterminator="\n").writerows(rows)
    return text.getvalue()


def append(path, fields, text):
    if not text:
        return
    with path.open("a", newline="") as file:
        file.write((",".join(fields) + "\n" if file.tell() == 0 else "") + text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "results.csv")
    parser.add_argument("--date", default=datetime.date.today().isoformat(), help="of the measurement")
    parser.add_argument("--source", default=source_version(), help="what was measured (default: this checkout)")
    options = parser.parse_args()
    if options.out.parent.resolve() == options.folder.resolve():
        parser.error("--out must not lie in the folder that is read")
    fixed = {"date": options.date, "source": options.source, "device": device_of(options.folder)}
    results = [fixed | row
               for pattern, reader in (("vs_torch.csv", vs_torch), ("*.jsonl", ops), ("stall.json", stall))
               for path in sorted(options.folder.glob(pattern)) for row in reader(path)]  # fmt: skip
    quality = [row for path in options.folder.glob("quality.csv") for row in csv.DictReader(path.open())]
    results, quality = as_csv(FIELDS, results), as_csv(QUALITY_FIELDS, quality)
    append(options.out, FIELDS, results)
    append(options.out.with_name("quality.csv"), QUALITY_FIELDS, quality)


if __name__ == "__main__":
    main()
