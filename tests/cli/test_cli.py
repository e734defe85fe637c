#!/usr/bin/python3
"""The command as a user meets it: exit codes, messages, streams, and runs that are stopped and resumed.

    tests/cli/test_cli.py PATH_OF_TEMPER
"""

import array
import fcntl
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import termios
import threading
import time
import unittest

import h5py
import numpy

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEMPER = sys.argv.pop() if len(sys.argv) > 1 else "temper"
CHICAGO = str(ROOT / "recipes" / "chicago.yaml")
QUICK = ["--set", "train.epochs=2"]
DATA = ["--data", "datasets/chicago.h5"]
YEAR = ["--time", "date", "--from", "2004-01-01", "--to", "2005-01-01"]
# 2003's second half is the validation part.
VALIDATED = ["--set", "data.split.train=[2001-01-22, 2003-07-01]", "--set", "data.split.validation=[2003-07-01, 2004-01-01]"]

# Every option with a value, and those that each command takes.
VALUES = {"data": "d", "out": "o", "device": "cpu", "set": "train.seed=1", "resume": None, "dump-plan": None, "group": "g",
          "time": "t", "from": "1", "to": "2", "metric": "mae", "weight": "w", "slice": "s", "by-class": None, "shapes": "s",
          "runs": "20", "precision": "fp32", "json": None, "quiet": None}  # fmt: skip
ROWS = {"data", "device", "group", "time", "from", "to", "json"}
TAKES = {"train": {"data", "out", "device", "set", "resume", "dump-plan", "json", "quiet"},
         "evaluate": ROWS | {"metric", "weight", "slice", "by-class"},
         "predict": ROWS | {"out"},
         "inspect": {"json"},
         "bench": {"device", "shapes", "runs", "precision", "json"},
         "devices": {"json"},
         "help": set()}  # fmt: skip


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
        self.check_fails(temper("predict", "m.safetensors"), 64, "--data")
        self.check_fails(temper("inspect"), 64, "one file")
        self.check_fails(temper("devices", "cpu"), 64, "devices wants no argument", "1 given")
        self.check_fails(temper("help", "train", "recipe"), 64, "one topic", "2 given")
        self.check_fails(temper("help", "trian"), 64, "'trian'")
        self.check_fails(temper("trian", "--help"), 64, "'trian'")

    def test_options_are_those_of_the_command(self):
        for command, takes in TAKES.items():
            text = temper("help", command).stdout
            self.assertEqual(set(re.findall(r"--([a-z-]+)", text.splitlines()[2] + text.split("\n      [")[0])) - takes, set())
            for option, value in VALUES.items():
                words = [f"--{option}"] + ([value] if value else [])
                self.assertEqual(f"--{option}" in text, option in takes, (command, option))
                done = temper(command, *words, "a", "b")
                self.assertEqual(f"{command} takes no --{option} " in done.stderr, option not in takes, done.stderr)
                if option not in takes:
                    self.check_fails(done, 64, command, f"--{option}")

    def test_rows_are_chosen_in_one_way(self):
        for command in ("evaluate", "predict"):
            words = [command, "m", "--data", "d"]
            self.check_fails(temper(*words, "--from", "2001-01-01", "--to", "2002-01-01"), 64, "--time")
            self.check_fails(temper(*words, "--to", "2002-01-01"), 64, "--time")
            self.check_fails(temper(*words, *YEAR, "--group", "g"), 64, "--group", "--time")
            self.check_fails(temper(*words, "--time", "date"), 64, "--from", "--to")
            self.check_fails(temper(*words, *YEAR[:4]), 64, "--from", "--to")
            self.check_fails(temper(*words, "--time", "date", "--to", "2002-01-01"), 64, "--from", "--to")
            self.check_fails(temper(*words, *YEAR[:4], "--to", "2004-01-01"), 64, "later --to")
            self.check_fails(temper(*words, *YEAR), 66, "m: no such file")

    def test_times(self):
        words = ["evaluate", "m", *DATA, "--time", "date", "--from"]
        for text in ("soon", "", "nan", "2001-02-31", "2001-02-29", "2001-13-01", "2001-12-31x", "2001-12"):
            self.check_fails(temper(*words, text, "--to", "2030-01-01"), 64, f"--from: '{text}'", "2001-12-31")
        for text in ("2004-02-29", "11000", "-inf"):
            self.check_fails(temper(*words, text, "--to", "2030-01-01"), 66, "m: no such file")

    def test_counts(self):
        for text in ("4294967316", "2147483648", "99999999999999999999", "0", "-1", "", "20x"):
            self.check_fails(temper("bench", "add", "--runs", text), 64, "--runs", "from 1 to 2147483647", f"'{text}'")
        self.check_fails(temper("train", CHICAGO, *["--set", "train.seed=1"] * 256, "--set", "b=2"), 64, "256", "--set", "'b=2'")
        metrics = ["--metric", "mae"] * 16
        self.check_fails(temper("evaluate", "m", *DATA, *metrics), 66, "m: no such file")
        self.check_fails(temper("evaluate", "m", *DATA, *metrics, "--metric", "r2"), 64, "16", "--metric", "'r2'")
        self.check_fails(temper("bench", *["add"] * 40, "gem"), 64, "'gem'", "'gemm'")

    def test_a_run_to_go_on_with_has_a_directory(self):
        self.check_fails(temper("train", CHICAGO, "--resume"), 64, "--resume", "--out")

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
        model = self.path("run/model.safetensors")
        done = temper("evaluate", model, *DATA, *YEAR, "--metric", "mae", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        result = json.loads(done.stdout)
        self.assertEqual(result["samples"], 366)
        done = temper("predict", model, *DATA, *YEAR, "--out", self.path("p.csv"))
        self.assertEqual((done.returncode, done.stdout), (0, ""))
        predicted = numpy.loadtxt(self.path("p.csv"))
        with h5py.File(ROOT / "datasets" / "chicago.h5") as file:
            days = file["date"][:]
            rows = (days >= 12418) & (days < 12784)
            target = file["y"][:][rows, 0]
        self.assertAlmostEqual(float(abs(predicted - target).mean()), result["metrics"]["mae"], places=5)
        self.assertEqual(len(temper("predict", model, *DATA, *YEAR).stdout.splitlines()), 366)
        text = temper("inspect", model).stdout
        self.assertIn("0.weight", text)
        self.assertIn("64,57", text)
        unknown = temper("evaluate", model, *DATA, "--metric", "maee")
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


class Output(Case):
    """What a run, a model and predictions give out, and what happens where it does not fit."""

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="temper-model-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        temper("train", CHICAGO, *QUICK, "--out", str(cls.folder / "run"))
        cls.model = str(cls.folder / "run" / "model.safetensors")

    def predict(self, name, *words, **options):
        return temper("predict", self.model, *DATA, *words, "--out", self.path(name), **options)

    def test_inspect_as_json(self):
        done = temper("inspect", self.model, "--json")
        self.assertEqual((done.returncode, done.stderr, len(done.stdout.splitlines())), (0, "", 1))
        held, text = json.loads(done.stdout), temper("inspect", self.model).stdout
        self.assertEqual((held["status"], held["file"]), ("ok", self.model))
        self.assertEqual(held["tensors"][0], {"name": "0.weight", "dtype": "float32", "shape": [64, 57]})
        self.assertEqual(len(held["tensors"]), 6)
        self.assertEqual(json.loads(held["metadata"]["temper.model"])["target"], "y")
        self.assertIn("dense: {units: 64}", held["metadata"]["temper.layers"])
        self.assertEqual(text.splitlines()[-1], f"hash {held['hash']}")
        (checkpoint, *_) = (self.folder / "run" / "checkpoints").iterdir()
        held = json.loads(temper("inspect", str(checkpoint), "--json").stdout)
        self.assertGreater(int(held["metadata"]["temper.step"]), 0)

    def test_evaluating_says_on_what(self):
        self.assertRegex(temper("evaluate", self.model, *DATA, *YEAR).stdout, r"^366 samples on cpu: .* \(no GPU: .*\)\n")
        chosen = temper("evaluate", self.model, *DATA, *YEAR, "--device", "cpu", "--json")
        self.assertEqual(json.loads(chosen.stdout)["device_note"], "")

    def test_predict_as_json(self):
        done = self.predict("p.csv", *YEAR, "--json")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        said = json.loads(done.stdout)
        self.assertTrue(said.pop("device").startswith("cpu: "))
        self.assertTrue(said.pop("device_note").startswith("no GPU: "))
        self.assertEqual(said, {"status": "ok", "model": self.model, "samples": 366, "outputs": 1, "out": self.path("p.csv")})
        self.assertEqual(len((self.dir / "p.csv").read_text().splitlines()), 366)
        for words in ([], ["--out", "-"]):
            self.check_fails(temper("predict", self.model, *DATA, "--json", *words), 64, "--json", "--out FILE")

    def test_paths_that_are_not_utf8(self):
        folder, shown = os.fsencode(self.dir) + b"/\xc3\xa9\xff\xe2\x82", str(self.dir) + "/\u00e9\ufffd\ufffd\ufffd"
        run = temper("train", CHICAGO, *QUICK, "--out", folder, "--json")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(json.loads(run.stdout)["run"], shown)
        model = folder + b"/model.safetensors"
        for words, key in ((["evaluate", model, *DATA], "model"), (["inspect", model], "file"),
                           (["predict", model, *DATA, "--out", folder + b"/p"], "model")):  # fmt: skip
            done = temper(*words, "--json")
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertEqual(json.loads(done.stdout)[key], shown + "/model.safetensors")
        with open(folder + b"/shapes", "w", encoding="utf-8") as file:
            file.write("add 0,0\n")
        done = temper("bench", "--shapes", folder + b"/shapes", "--json")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(json.loads(done.stdout.splitlines()[-1])["from"], shown + "/shapes")

    def test_standard_output_that_is_full(self):
        (self.dir / "shapes").write_text("add 0,0\n")
        bench, recipe = ["bench", "--shapes", self.path("shapes")], ["train", CHICAGO, *QUICK]
        commands = [["help"], ["help", "recipe"], ["train", "--help"], ["devices"], ["devices", "--json"], bench, [*bench, "--json"],
                    ["inspect", self.model], ["inspect", self.model, "--json"], ["evaluate", self.model, *DATA],
                    ["evaluate", self.model, *DATA, "--json"], ["predict", self.model, *DATA],
                    ["predict", self.model, *DATA, "--out", self.path("p.csv"), "--json"], recipe, [*recipe, "--quiet", "--json"]]  # fmt: skip
        for command in commands:
            with open("/dev/full", "w", encoding="utf-8") as full:
                done = subprocess.run([TEMPER, *command], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
            self.assertEqual(done.returncode, 74, command)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
            self.assertRegex(done.stderr, "^temper: standard output: (writing: )?(No space left on device|not all of it)")
        with open("/dev/full", "w", encoding="utf-8") as full:  # what went wrong first is what is said
            done = subprocess.run([TEMPER, "train", CHICAGO, "--data", "none", "--dump-plan"], stdout=full, stderr=subprocess.PIPE,
                                  text=True, cwd=ROOT, check=False)  # fmt: skip
        self.assertEqual((done.returncode, len(done.stderr.splitlines())), (66, 1))

    def test_predictions_that_do_not_fit(self):
        def small():
            resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

        self.check_fails(temper("predict", self.model, *DATA, "--out", "/dev/full"), 74, "/dev/full: ", "No space left")
        few = temper("predict", self.model, *DATA, *YEAR[:-1], "2004-01-05", "--out", "/dev/full")
        self.check_fails(few, 74, "/dev/full: ", "No space left")
        self.write("p.csv", "old\n")
        self.check_fails(self.predict("p.csv", preexec_fn=small), 74, "p.csv: ", "File too large")
        self.assertEqual(os.listdir(self.dir), ["p.csv"])
        self.assertEqual((self.dir / "p.csv").read_text(), "old\n")

    def test_predictions_that_cannot_be_made(self):
        """The file is tried before the data is read; where the data is bad, nothing is left."""
        none = ["--data", self.path("none.h5")]
        self.write("file", "")
        for name, why in (("no/p.csv", "No such file or directory"), ("file/p.csv", "Not a directory"), ("", "Is a directory"),
                          ("n" * 300, "File name too long")):  # fmt: skip
            self.check_fails(self.predict(name, *none), 73, name, "cannot be created", why)
        self.check_fails(self.predict("n/" * 2500, *none), 73, "n/n/n/")
        self.check_fails(self.predict("file", *none), 66, "none.h5")
        self.assertEqual(os.listdir(self.dir), ["file"])
        self.check_fails(temper("predict", self.path("none"), *DATA, "--out", "/dev/full"), 66, "none")

    def test_predictions_take_the_place_of_a_file(self):
        whole = temper("predict", self.model, *DATA, "--out", "-").stdout
        self.assertGreater(len(whole.splitlines()), 5000)
        self.write("p.csv", "old\n")
        os.chmod(self.path("p.csv"), 0o600)
        def leave_one():  # as a process with the same number would that was killed
            self.write(f"q.csv.tmp-{os.getpid()}-0", "half")
        self.write("target", "old\n")
        os.symlink("target", self.path("link"))
        for name in ("p.csv", "q.csv", "link"):
            done = self.predict(name, preexec_fn=leave_one if name == "q.csv" else None)
            self.assertEqual((done.returncode, (self.dir / name).read_text()), (0, whole))
        self.assertEqual(stat.S_IMODE(os.stat(self.path("p.csv")).st_mode), 0o600)
        mask = os.umask(0)
        os.umask(mask)
        self.assertEqual(stat.S_IMODE(os.stat(self.path("q.csv")).st_mode), 0o666 & ~mask)
        self.assertEqual(os.readlink(self.path("link")), "target")
        self.assertEqual(sorted(re.sub(r"\d+-0", "", name) for name in os.listdir(self.dir)),
                         ["link", "p.csv", "q.csv", "q.csv.tmp-", "target"])  # fmt: skip

    def test_predictions_into_a_pipe(self):
        whole = temper("predict", self.model, *DATA).stdout
        os.mkfifo(self.path("pipe"))
        got = []
        reader = threading.Thread(target=lambda: got.append((self.dir / "pipe").read_text()), daemon=True)
        reader.start()
        self.assertEqual(self.predict("pipe").returncode, 0)
        reader.join(10)
        self.assertEqual(got, [whole])
        self.assertTrue(stat.S_ISFIFO(os.stat(self.path("pipe")).st_mode))
        self.assertEqual(temper("predict", self.model, *DATA, "--out", "/dev/stdout").stdout, whole)

    def test_a_signal_leaves_no_half_file(self):
        with h5py.File(self.path("zeros.h5"), "w") as file:  # a second's work
            file.create_dataset("x", (400000, 57), "f4", chunks=(4096, 57), compression="gzip")[:] = 0
        command = [TEMPER, "predict", self.model, "--data", self.path("zeros.h5"), "--out", self.path("p.csv")]
        for stop, effect, code, left in ((signal.SIGTERM, signal.SIG_DFL, -signal.SIGTERM, {"zeros.h5"}),
                                         (signal.SIGINT, signal.SIG_DFL, -signal.SIGINT, {"zeros.h5"}),
                                         (signal.SIGHUP, signal.SIG_DFL, -signal.SIGHUP, {"zeros.h5"}),
                                         (signal.SIGHUP, signal.SIG_IGN, 0, {"zeros.h5", "p.csv"})):  # fmt: skip
            process = subprocess.Popen(command, preexec_fn=lambda number=stop, does=effect: signal.signal(number, does))
            while process.poll() is None and len(os.listdir(self.dir)) == 1:
                time.sleep(0.001)
            process.send_signal(stop)
            self.assertEqual(process.wait(60), code)
            self.assertEqual(set(os.listdir(self.dir)), left)


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


    def start_and_fill(self, name):
        """A run that cannot go on, since nobody reads the lines that it prints."""
        read, write = os.pipe()
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
        command = [TEMPER, "train", CHICAGO, "--out", self.path(name), *self.WORDS]
        process = subprocess.Popen(command, stdout=write, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        os.close(write)
        self.addCleanup(process.kill)
        held, before = array.array("i", [0]), -1
        for _ in range(200):
            fcntl.ioctl(read, termios.FIONREAD, held)
            if held[0] == before > 3000:
                return process, open(read, encoding="utf-8")
            before = held[0]
            time.sleep(0.1)
        self.fail("the pipe is not full after 20 s")

    def wait_until_asked(self, process, number):
        """Until the process has taken this signal, after which it has the usual effect."""
        for _ in range(500):
            caught = re.search(r"^SigCgt:\s*(\w+)", pathlib.Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
            if not int(caught[1], 16) >> (number - 1) & 1:
                return
            time.sleep(0.01)
        self.fail("a second signal would not end the process")

    def test_a_second_signal_ends_the_process(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            process, lines = self.start_and_fill(f"run{number}")
            with lines:
                process.send_signal(number)
                self.wait_until_asked(process, number)
                self.assertIsNone(process.poll())
                process.send_signal(number)
                self.assertEqual(process.wait(20), -number)
            process.stderr.close()

    def test_what_is_printed_when_a_signal_comes_is_printed(self):
        """The signal comes while the one report, of the last step, waits for a full pipe: the run has nothing to stop."""
        read, write = os.pipe()
        size = fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
        os.write(write, b"." * size)
        command = [TEMPER, "train", CHICAGO, "--out", self.path("run"), "--set", "train.epochs=1"]
        process = subprocess.Popen(command, stdout=write, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        self.addCleanup(process.kill)
        os.close(write)
        metrics = self.dir / "run" / "metrics.jsonl"
        for _ in range(500):
            if metrics.exists() and metrics.read_text().endswith("\n"):
                break
            time.sleep(0.02)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        self.wait_until_asked(process, signal.SIGINT)
        with open(read, encoding="utf-8") as lines:
            text = lines.read()
        _, err = process.communicate(timeout=60)
        self.assertEqual((process.returncode, err), (0, ""))
        self.assertRegex(text, r"^\.+on cpu[^\n]*\nstep (\d+)/\1 [^\n]*\n\1 steps in ")


class Terminal(Case):
    def show(self, *words, stop_after=None):
        """(exit code, what a terminal is sent) of a training run, stopped after so many reports if they are given."""
        try:
            master, slave = os.openpty()
        except OSError as error:
            self.skipTest(f"no terminal to be had: {error}")
        process = subprocess.Popen([TEMPER, "train", CHICAGO, *words], stdout=slave, stderr=slave, cwd=ROOT)
        os.close(slave)
        text, stopped = b"", False
        while True:
            try:
                piece = os.read(master, 4096)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            text += piece
            if stop_after and not stopped and text.count(b"\r[") >= stop_after:
                process.send_signal(signal.SIGINT)
                stopped = True
        os.close(master)
        return process.wait(), text.decode()

    def test_progress_bar_on_a_terminal_only(self):
        code, text = self.show("--set", "train.epochs=3")
        self.assertEqual(code, 0, text)
        self.assertIn("[####", text)
        self.assertIn("samples/s", text)
        self.assertRegex(text, r"100%[^\n\r]*\r\n\d+ steps in")
        self.assertNotIn("[####", temper("train", CHICAGO, "--set", "train.epochs=3").stdout)

    def test_the_line_of_the_bar_ends_when_the_run_does(self):
        stop = ["--set", "train.best.metric=mae", "--set", "train.early_stop.patience=1", "--set", "optimizer.adamw.lr=1e-9"]
        code, text = self.show(*VALIDATED, *stop, "--set", "train.epochs=50")
        self.assertEqual(code, 0, text)
        self.assertNotIn("100%", text)
        self.assertRegex(text, r"%[^\n\r]*\r\n\d+ steps in")
        code, text = self.show("--set", "train.epochs=100000", "--out", self.path("run"), stop_after=2)
        self.assertEqual(code, 75, text)
        self.assertRegex(text, r"%[^\n\r]*\r\ntemper: stopped at step \d+")
        code, text = self.show("--set", "optimizer.adamw.lr=1e6", "--set", "optimizer.adamw.weight_decay=1e6", "--set",
                               "schedule.kind=constant", "--set", "train.report=1", "--set", "train.max_bad_steps=3")  # fmt: skip
        self.assertEqual(code, 11, text)
        self.assertRegex(text, r"%[^\n\r]*\r\ntemper: training diverged")

    def test_time_left_is_by_the_steps_of_this_process(self):
        words = ["--set", "train.epochs=1000000", "--set", "train.report=5", "--set", "train.save=10000000", "--out", self.path("run")]
        self.assertEqual(self.show(*words, stop_after=100)[0], 75)
        log, metrics = self.dir / "run" / "log.txt", self.dir / "run" / "metrics.jsonl"
        known = len(metrics.read_text().splitlines())
        code, text = self.show(*words, "--resume", stop_after=3)
        self.assertEqual(code, 75, text)
        total = int(re.findall(r"from step \d+ of (\d+)", log.read_text())[-1])
        first, second = [json.loads(line) for line in metrics.read_text().splitlines()[known : known + 2]]
        self.assertGreater(first["step"], 500)
        left = [int(n) for n in re.findall(r"(\d+) s left", text)]
        expected = (total - first["step"]) * 64 / first["samples_per_second"]
        self.assertAlmostEqual(left[0] / expected, 1, 1)
        expected = (total - second["step"]) * (second["seconds"] - first["seconds"]) / (second["step"] - first["step"])
        self.assertAlmostEqual(left[1] / expected, 1, 1)

    def test_metrics_have_their_names(self):
        text = temper("train", CHICAGO, *QUICK, *VALIDATED).stdout
        for part in ("validation", "test"):
            self.assertEqual(re.findall(rf"^  {part} (\w+) [-\d.e]+$", text, re.MULTILINE), ["loss", "mae", "rmse", "r2"])


if __name__ == "__main__":
    unittest.main(verbosity=1)
