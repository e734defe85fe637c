#!/usr/bin/python3
"""The command as a user meets it: exit codes, messages, streams, and runs that are stopped and resumed.

    tests/cli/test_cli.py PATH_OF_TEMPER
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import h5py
import numpy

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEMPER = sys.argv.pop() if len(sys.argv) > 1 else "temper"
CHICAGO = str(ROOT / "recipes" / "chicago.yaml")
QUICK = ["--set", "train.epochs=2"]


def temper(*words, **options):
    options.setdefault("cwd", ROOT)
    return subprocess.run([TEMPER, *words], capture_output=True, text=True, timeout=100, **options)


class Case(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="temper-cli-"))
        self.addCleanup(shutil.rmtree, self.dir)

    def path(self, name):
        return str(self.dir / name)

    def write(self, name, text):
        (self.dir / name).write_text(text)
        return self.path(name)

    def check_fails(self, done, code, *words):
        """One line on stderr that holds all words, nothing on stdout, this exit code."""
        self.assertEqual(done.returncode, code, done.stderr + done.stdout)
        self.assertEqual(done.stdout, "")
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)


class Usage(Case):
    def test_help_goes_to_stdout(self):
        for words in (["help"], ["--help"], ["help", "train"], ["train", "--help"], ["help", "recipe"]):
            done = temper(*words)
            self.assertEqual((done.returncode, done.stderr), (0, ""), words)
            self.assertIn("train", done.stdout)

    def test_every_command_is_explained(self):
        text = temper("help").stdout
        for command in ("train", "evaluate", "predict", "inspect", "bench", "devices"):
            self.assertIn(f"temper {command}", text)

    def test_what_is_no_command_or_option(self):
        self.check_fails(temper(), 64, "no command")
        self.check_fails(temper("trian", CHICAGO), 64, "'trian'")
        self.check_fails(temper("train", CHICAGO, "--fast"), 64, "--fast")
        self.check_fails(temper("train"), 64, "one recipe")
        self.check_fails(temper("train", CHICAGO, CHICAGO), 64, "one recipe")
        self.check_fails(temper("evaluate", "m.safetensors"), 64, "--data")
        self.check_fails(temper("evaluate", "m", "--data", "d", "--time", "date"), 64, "--from")
        self.check_fails(temper("evaluate", "m", "--data", "d", "--from", "soon"), 64, "'soon'")
        self.check_fails(temper("predict", "m.safetensors"), 64, "--data")
        self.check_fails(temper("inspect"), 64, "one file")

    def test_devices(self):
        done = temper("devices", "--json")
        listed = {d["device"]: d for d in json.loads(done.stdout)}
        self.assertTrue(listed["cpu"]["available"])
        self.assertIn("cuda", listed)
        self.assertEqual(done.stderr, "")
        self.assertIn("cpu", temper("devices").stdout)

    def test_device_that_is_not_there(self):
        if json.loads(temper("devices", "--json").stdout)[1]["available"]:
            self.skipTest("there is a CUDA device")
        self.check_fails(temper("train", CHICAGO, "--device", "cuda"), 69, "no GPU: ")
        self.check_fails(temper("train", CHICAGO, "--device", "tpu"), 64, "tpu")


class BadInput(Case):
    def test_misspelt_key_names_line_column_and_the_nearest(self):
        text = pathlib.Path(CHICAGO).read_text().replace("batch:", "bach:")
        line = next(n for n, row in enumerate(text.splitlines(), 1) if "bach:" in row)
        column = text.splitlines()[line - 1].index("bach:") + 1
        recipe = self.write("typo.yaml", text)
        self.check_fails(temper("train", recipe), 78, f"typo.yaml:{line}:{column}:", "bach", "'batch'")

    def test_missing_files(self):
        self.check_fails(temper("train", self.path("none.yaml")), 66, "none.yaml")
        self.check_fails(temper("train", CHICAGO, "--data", self.path("none.h5")), 66, "none.h5")
        self.check_fails(temper("inspect", self.path("none")), 66, "none")

    def test_data_that_is_not_hdf5(self):
        self.check_fails(temper("train", CHICAGO, "--data", self.write("a.h5", "no data")), 65, "a.h5")

    def test_dataset_that_is_not_there(self):
        with h5py.File(self.path("d.h5"), "w") as file:
            file["xs"] = numpy.zeros((10, 57), "f4")
            file["y"] = numpy.zeros((10, 1), "f4")
            file["date"] = numpy.arange(10)
        self.check_fails(temper("train", CHICAGO, "--data", self.path("d.h5")), 65, "'x'", "xs")

    def test_not_finite_value(self):
        shutil.copy(ROOT / "datasets" / "chicago.h5", self.path("nan.h5"))
        with h5py.File(self.path("nan.h5"), "a") as file:
            file["x"][41, 3] = numpy.nan
        self.check_fails(temper("train", CHICAGO, "--data", self.path("nan.h5")), 65, "x", "row 41", "nan")
        done = temper("train", CHICAGO, "--data", self.path("nan.h5"), *QUICK, "--set", "data.non_finite=drop")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_empty_part(self):
        done = temper("train", CHICAGO, "--set", "data.split.train=[1950-01-01, 1951-01-01]")
        self.check_fails(done, 65, "train")

    def test_a_model_that_is_none(self):
        bad = self.write("m.safetensors", "no model")
        self.check_fails(temper("evaluate", bad, "--data", "datasets/chicago.h5"), 65, "m.safetensors")

    def test_output_that_cannot_be_made(self):
        self.write("file", "")
        self.check_fails(temper("train", CHICAGO, *QUICK, "--out", self.path("file/run")), 73, "file")


class Runs(Case):
    def train(self, name, *words):
        return temper("train", CHICAGO, "--out", self.path(name), *words)

    def test_json_is_one_object_and_nothing_else(self):
        done = self.train("run", *QUICK, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(done.stdout.splitlines()), 1)
        run = json.loads(done.stdout)
        self.assertEqual(run["status"], "ok")
        for key in ("run", "device", "steps", "seconds", "samples_per_second", "weights_hash"):
            self.assertIn(key, run)
        self.assertGreater(run["metrics"]["test"]["mae"], 0.0)
        self.assertEqual(run["metrics"]["validation"], {})
        for name in ("recipe.yaml", "metrics.jsonl", "manifest.json", "log.txt", "lock", "model.safetensors"):
            self.assertTrue((self.dir / "run" / name).exists(), name)
        lines = (self.dir / "run" / "metrics.jsonl").read_text().splitlines()
        self.assertEqual([json.loads(line)["epoch"] for line in lines], [1, 2])

    def test_quiet_says_nothing(self):
        done = self.train("run", *QUICK, "--quiet")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_plan_names_ops_and_times(self):
        done = self.train("run", *QUICK, "--dump-plan")
        self.assertIn("optimize", done.stdout)
        self.assertIn("us", done.stdout)

    def test_the_resolved_recipe_trains_to_the_same_weights(self):
        first = json.loads(self.train("a", *QUICK, "--json").stdout)
        again = temper("train", self.path("a/recipe.yaml"), "--out", self.path("b"), "--json")
        self.assertEqual(json.loads(again.stdout)["weights_hash"], first["weights_hash"])

    def test_evaluate_predict_inspect(self):
        self.assertEqual(self.train("run", *QUICK).returncode, 0)
        model, data = self.path("run/model.safetensors"), ["--data", "datasets/chicago.h5"]
        year = ["--time", "date", "--from", "2004-01-01", "--to", "2005-01-01"]
        done = temper("evaluate", model, *data, *year, "--metric", "mae", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        result = json.loads(done.stdout)
        self.assertEqual(result["samples"], 366)
        done = temper("predict", model, *data, *year, "--out", self.path("p.csv"))
        self.assertEqual((done.returncode, done.stdout), (0, ""))
        predicted = numpy.loadtxt(self.path("p.csv"))
        with h5py.File(ROOT / "datasets" / "chicago.h5") as file:
            days = file["date"][:]
            rows = (days >= 12418) & (days < 12784)
            target = file["y"][:][rows, 0]
        self.assertAlmostEqual(float(abs(predicted - target).mean()), result["metrics"]["mae"], places=5)
        self.assertEqual(len(temper("predict", model, *data, *year).stdout.splitlines()), 366)
        text = temper("inspect", model).stdout
        self.assertIn("0.weight", text)
        self.assertIn("64,57", text)
        unknown = temper("evaluate", model, *data, "--metric", "maee")
        self.check_fails(unknown, 78, "maee", "'mae'")

    def test_finished_run_trains_nothing(self):
        first = json.loads(self.train("run", *QUICK, "--json").stdout)
        done = self.train("run", *QUICK, "--json", "--resume")
        again = json.loads(done.stdout)
        self.assertEqual((again["status"], again["steps"]), ("already done", first["steps"]))
        self.assertEqual(again["weights_hash"], first["weights_hash"])
        self.assertIn("already done", self.train("run", *QUICK, "--resume").stdout)
        self.check_fails(self.train("run", *QUICK), 73, "--resume")
        self.check_fails(self.train("new", *QUICK, "--resume"), 66, "no such run directory")

    def test_divergence(self):
        sets = "optimizer.adamw.lr=1e6", "optimizer.adamw.weight_decay=1e6", "schedule.kind=constant"
        words = [word for s in sets for word in ("--set", s)]
        done = self.train("run", *words, "--quiet")
        self.check_fails(done, 11, "diverged")


class Signals(Case):
    """Long enough to be hit: about 10 s if nobody stops it."""

    WORDS = ["--set", "train.epochs=150", "--set", "train.report=5", "--set", "train.save=100000"]

    def start(self, name, *words):
        command = [TEMPER, "train", CHICAGO, "--out", self.path(name), *self.WORDS, *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)

    def wait_for_step(self, name):
        """Until there is a report, and a checkpoint where there will be one."""
        log = self.dir / name / "metrics.jsonl"
        for _ in range(600):
            if log.exists() and log.read_text().count("\n") >= 7:
                return
            time.sleep(0.02)
        self.fail("no report within 12 s")

    def test_sigterm_saves_and_resume_ends_on_the_same_weights(self):
        whole = json.loads(temper("train", CHICAGO, *self.WORDS, "--json").stdout)
        for number, stop in enumerate((signal.SIGTERM, signal.SIGINT)):
            name = f"run{number}"
            process = self.start(name)
            self.wait_for_step(name)
            process.send_signal(stop)
            _, err = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 75, err)
            self.assertIn("--resume", err)
            done = temper("train", CHICAGO, "--out", self.path(name), *self.WORDS, "--resume", "--json")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(json.loads(done.stdout)["weights_hash"], whole["weights_hash"])

    def test_busy_directory_and_sudden_death(self):
        saves = ["--set", "train.save=30"]
        process = self.start("run", *saves)
        self.wait_for_step("run")
        busy = temper("train", CHICAGO, "--out", self.path("run"), *self.WORDS, "--resume")
        self.check_fails(busy, 73, "run", str(process.pid))
        process.kill()
        process.communicate(timeout=60)
        words = [*self.WORDS, *saves, "--json"]
        done = temper("train", CHICAGO, "--out", self.path("run"), *words, "--resume")
        self.assertEqual(done.returncode, 0, done.stderr)
        whole = temper("train", CHICAGO, *words)
        self.assertEqual(json.loads(done.stdout)["weights_hash"], json.loads(whole.stdout)["weights_hash"])


class Terminal(Case):
    def test_progress_bar_on_a_terminal_only(self):
        try:
            master, slave = os.openpty()
        except OSError as error:
            self.skipTest(f"no terminal to be had: {error}")
        command = [TEMPER, "train", CHICAGO, "--set", "train.epochs=3"]
        process = subprocess.Popen(command, stdout=slave, stderr=subprocess.PIPE, cwd=ROOT)
        os.close(slave)
        text = b""
        while True:
            try:
                piece = os.read(master, 4096)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            text += piece
        os.close(master)
        self.assertEqual(process.wait(), 0, process.stderr.read())
        process.stderr.close()
        self.assertIn(b"[####", text)
        self.assertIn(b"samples/s", text)
        self.assertNotIn("[####", temper("train", CHICAGO, "--set", "train.epochs=3").stdout)


if __name__ == "__main__":
    unittest.main(verbosity=1)
