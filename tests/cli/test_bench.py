#!/usr/bin/python3
"""temper bench as a user meets it.

    tests/cli/test_bench.py PATH_OF_TEMPER
"""

import csv
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEMPER = sys.argv.pop() if len(sys.argv) > 1 else "temper"


def bench(*words):
    return subprocess.run([TEMPER, "bench", *words], capture_output=True, text=True, timeout=100, cwd=ROOT, check=False)


class Bench(unittest.TestCase):
    def check_fails(self, done, code, *words):
        self.assertEqual((done.returncode, done.stdout), (code, ""), done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)

    def shapes(self, text):
        file = tempfile.NamedTemporaryFile("w", suffix=".txt")
        self.addCleanup(file.close)
        file.write(text)
        file.flush()
        return file.name

    def test_table_and_json_show_the_same_rows(self):
        file = self.shapes("gemm 64x57,64x57,64 trans_b=1 act=tanh\nadd 7x9,9\ngemm 3x0,4x0,4 trans_b=1\n")
        done = bench("--shapes", file, "--json", "--runs", "30")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        head, *rows = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual(head["kind"], "head")
        for key in ("temper", "library", "machine", "device", "threads"):
            self.assertTrue(head[key], key)
        self.assertEqual(head["device_note"] == "", head["device"].startswith("cuda"))
        self.assertEqual({row["kind"] for row in rows}, {"row"})
        self.assertEqual([row["op"] for row in rows if row["impl"] == "ref"], ["gemm", "add", "gemm"])
        self.assertEqual([row["why"] for row in rows if row["state"] != "timed"], ["an input is empty"])
        for row in rows:
            if row["state"] == "timed":
                self.assertLessEqual(row["error"], row["tolerance"])
                self.assertEqual(row["cold"]["runs"], 30)
                self.assertGreaterEqual(row["hot"]["runs"], 30)
        self.assertEqual(rows[0]["attributes"], "trans_b=1 act=tanh")
        text = bench("--shapes", file, "add").stdout
        self.assertIn("roofline: copy", text)
        self.assertEqual(len([line for line in text.splitlines() if line.startswith("add ")]), 2)
        self.assertNotIn("gemm  ", text)

    def test_what_a_gpu_showed_becomes_rows(self):
        with tempfile.TemporaryDirectory() as folder:
            out, table = pathlib.Path(folder) / "out", pathlib.Path(folder) / "all.csv"
            out.mkdir()
            gpu = {"device": "cuda:0", "name": "A GPU", "driver": "13.0", "cublaslt": "13.1.0", "cudnn": "9.14.0"}
            (out / "devices.json").write_text(json.dumps([{"device": "cpu"}, gpu]))
            file = self.shapes("add 7x9,9\ngemm 3x0,4x0,4 trans_b=1\n")
            (out / "ops.jsonl").write_text(bench("--shapes", file, "--json").stdout)
            (out / "vs_torch.csv").write_text(
                "net,batch,precision,device,side,rounds,samples_per_second,lowest,highest,first_step_seconds,temper_over_this,note\n"
                "mlp32,1024,tf32,cuda,temper,3,200,190,210,0.5,1.0,\n"
                "mlp32,1024,tf32,cuda,eager,3,100,90,110,,2.0,PyTorch 2.11\n"
                "mlp32,1024,tf32,cuda,compile,0,,,,,,skipped: no compiler\n")  # fmt: skip
            run = {"parameters": 7, "step_ms": 2.0, "spread_ms": [1.9, 2.1], "stall_ms": 0.5}
            (out / "stall.json").write_text(json.dumps(run) + "\n")
            command = [sys.executable, ROOT / "benchmarks/collect.py", out, "--out", table,
                       "--source", "abc", "--date", "2026-01-02"]  # fmt: skip
            for _ in range(2):  # what is there stays
                subprocess.run(command, check=True)
            rows = list(csv.DictReader(table.read_text().splitlines()))
        self.assertEqual(rows[: len(rows) // 2], rows[len(rows) // 2 :])
        rows = rows[: len(rows) // 2]
        self.assertEqual({(r["date"], r["source"], r["device"]) for r in rows},
                         {("2026-01-02", "abc", "A GPU, driver 13.0, cuBLASLt 13.1.0, cuDNN 9.14.0")})  # fmt: skip
        self.assertEqual([(r["side"], r["measure"], r["value"], r["ratio"], r["note"]) for r in rows[:3]],
                         [("temper", "throughput", "200", "1.0", ""), ("temper", "first step", "0.5", "", ""),
                          ("eager", "throughput", "100", "2.0", "PyTorch 2.11")])  # fmt: skip
        timed = [r for r in rows if r["case"].startswith("add 7x9,9")]
        self.assertEqual([r["measure"] for r in timed], ["hot", "cold"] * (len(timed) // 2))
        self.assertTrue(all(float(r["low"]) <= float(r["value"]) <= float(r["high"]) for r in timed))
        self.assertFalse([r for r in rows if r["side"] == "onednn" and "gemm" in r["case"]])
        self.assertEqual([(r["measure"], r["value"]) for r in rows[-2:]], [("step", "2.0"), ("stall", "0.5")])

    def test_errors_are_one_line(self):
        self.check_fails(bench("gem"), 64, "'gem'", "'gemm'")
        self.check_fails(bench("gemm", "--runs", "3"), 64, "3", "20")
        self.check_fails(bench("gemm", "--runs", "many"), 64, "many")
        self.check_fails(bench("gemm", "--precision", "half"), 64, "half", "tf32")
        self.check_fails(bench("--shapes", "no/such"), 66, "no/such")
        file = self.shapes("add 7x9,9\n\nadd 7x9,8\n")
        self.check_fails(bench("--shapes", file), 65, f"{file}:3: ")
        self.check_fails(bench("gemm", "--device", "gpu"), 64, "gpu")

    def test_a_device_that_is_not_there(self):
        done = bench("add", "--device", "cuda")
        if done.returncode != 0:
            self.check_fails(done, 69, "no GPU: ")


if __name__ == "__main__":
    unittest.main(verbosity=1)
