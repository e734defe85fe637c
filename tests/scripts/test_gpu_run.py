"""tests/gpu/run.sh and what reads its results, without a GPU: a script plays the command.

A part that is wrong, late or without time says so; hashes are compared; benchmarks/collect.py takes what was measured, or
nothing; benchmarks/quality.py finds its files; benchmarks/vs_torch.py stands what PyTorch says and how it ends."""

import csv
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
HASHES = ROOT / "tests/gpu/hashes.sh"

# Prints what run.sh and collect.py look at. One row of large.txt is wrong; those of products.txt take long.
TEMPER = """#!/bin/sh
head='{"kind": "head", "precision": "tf32", "copy_bytes_per_second": 1e12, "gemm_flops_per_second": 1e13}'
time='{"runs": 3, "median": 1e-6, "low": 1e-6, "high": 2e-6, "share": 0.5}'
case='"op": "add", "impl": "own", "shape": "4", "attributes": ""'
row='{"kind": "row", '$case', "state": "timed", "hot": '$time', "cold": '$time'}'
case "$*" in
"devices --json") echo '[{"device": "cuda:0", "name": "NVIDIA", "driver": "13.0", "cublaslt": "13", "cudnn": "9"}]' ;;
devices) echo "cuda:0   a GPU" ;;
*products.txt) echo "$head"; exec sleep 60 ;;
*large.txt) echo "$head"; echo "$row"; echo 'temper: 1 row was WRONG' >&2; exit 70 ;;
bench*) echo "$head"; echo "$row" ;;
*) [ -f datasets/chicago.h5 ] || exit 66; echo '{"weights_hash":"ab12"}' ;;
esac
"""
STALL = {"parameters": 7, "step_ms": 1.0, "spread_ms": [0.9, 1.1], "stall_ms": 0.5}
QUALITY = "date,source,recipe,seed,metric,value,steps,seconds,device,weights_hash,command\n"


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.out = self.folder / "out"

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path


class Hashes(Folder):
    KNOWN = "# a comment\nadd 0 own 2,2 aa\nadd 1 own 3 bb\nmul 0 own 2*4x3 cc\n"

    def compare(self, found):
        command = [HASHES, self.write("known", self.KNOWN), self.write("found", found)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    def test_equal_ones_pass_and_so_do_new_ones(self):
        self.assertEqual(self.compare(self.KNOWN), (0, "3 equal, 0 differ, 0 new, 0 not made\n"))
        self.assertEqual(self.compare("sub 0 own 2 dd\n" + self.KNOWN), (0, "3 equal, 0 differ, 1 new, 0 not made\n"))

    def test_one_that_differs_is_named(self):
        found = "add 0 own 2,2 ab\nmul 0 own 2*4x3 cc\n"
        self.assertEqual(self.compare(found), (1, "1 equal, 1 differ (add 0 own 2,2), 0 new, 1 not made\n"))

    def test_nothing_to_compare_is_no_success(self):
        self.assertEqual(self.compare("sub 0 own 2 dd\n")[0], 1)
        self.assertEqual(self.compare("")[0], 1)
        self.assertNotEqual(subprocess.run([HASHES, "/nowhere", "/nowhere"], capture_output=True, check=False).returncode, 0)


class Run(Folder):
    def run_it(self, parts, temper=TEMPER, **environment):
        program = self.write("temper", temper)
        program.chmod(0o755)
        command = [ROOT / "tests/gpu/run.sh", self.out, program, "/bin/true", "/nowhere"]
        self.write("bin/python3", "#!/bin/sh\nexit 1\n").chmod(0o755)  # without h5py and PyTorch
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "PARTS": parts, "DATA": "", **environment}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, cwd="/", check=False)
        self.assertEqual(done.stderr, "")
        lines = (line.split(None, 3) for line in (self.out / "summary.txt").read_text().splitlines())
        return done.returncode, {name: said for _, _, name, said in lines}

    def test_without_a_gpu_nothing_is_claimed(self):
        without = "#!/bin/sh\necho 'cuda  no GPU: WHY'\n"
        self.assertEqual(self.run_it("check bench vs_torch", without), (0, {"gpu": "skipped: no GPU: WHY"}))

    def test_a_wrong_row_fails_and_the_right_ones_are_kept(self):
        code, said = self.run_it("bench vs_torch", DEADLINE="3")
        self.assertEqual((code, said["large"]), (1, "failed: exit 70: temper: 1 row was WRONG"))
        self.assertEqual(len((self.out / "large.jsonl").read_text().splitlines()), 2)
        self.assertRegex(said["products"], "^skipped: not done after [1-3] s$")
        self.assertEqual(said["bench"], "skipped: no time left")
        self.assertEqual(said["stall"], "skipped: no h5py")
        self.assertEqual(said["quality-fashion-cnn"], "skipped: no DATA/fashion_mnist.h5")
        self.assertEqual(said["vs_torch"], "skipped: no PyTorch with CUDA, or no h5py")
        self.assertEqual(said["collect"], "skipped: no time left")

    def test_the_figures_of_all_parts_are_one_table(self):
        _, said = self.run_it("bench", TEMPER.replace("exec sleep 60", "echo \"$row\"").replace("exit 70", ""))
        self.assertEqual(said["collect"], "passed")
        rows = list(csv.DictReader((self.out / "csv/results.csv").read_text().splitlines()))
        self.assertEqual(sum(row["measure"] == "hot" for row in rows), 3)

    def test_recipes_find_their_data_from_any_folder(self):
        _, said = self.run_it("check", REPEATS="2")
        self.assertEqual(said["repeats"], "passed: 2 runs: ab12")

    def test_every_shipped_recipe_is_compared(self):
        stand_ins = self.folder / "stand-ins"
        subprocess.run([sys.executable, ROOT / "tests/gpu/stand_ins.py", stand_ins], check=True)
        self.write("data/movielens.h5", "")
        _, said = self.run_it("check", REPEATS="2", STAND_INS=str(stand_ins), DATA=str(self.folder / "data"))
        compared = {name for name in said if name.startswith("parity-")}
        self.assertEqual(compared, {"parity-chicago", "parity-streamed", "parity-movielens", "parity-fashion-cnn-stand-in",
                                    "parity-fashion-resnet18-stand-in", "parity-mnist-cnn-stand-in"})  # fmt: skip
        recipes = {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
        self.assertEqual({name[7:].removesuffix("-stand-in") for name in compared} - {"streamed"}, recipes)

    def test_a_run_that_fails_passes_no_check(self):
        code, said = self.run_it("check", TEMPER.replace("*) [", "*) echo 'temper: WHY' >&2; exit 70; ["))
        self.assertEqual((code, said["repeats"]), (1, "failed: exit 1: temper: WHY"))
        for name in ("parity-chicago", "parity-streamed", "resume"):
            self.assertRegex(said[name], "^failed: exit 1: ")

    def test_a_check_that_is_late_has_failed(self):
        code, said = self.run_it("check", TEMPER.replace("*) [", "*) exec sleep 60; ["), DEADLINE="2")
        self.assertEqual(code, 1)
        self.assertRegex(said["parity-chicago"], "^failed: not done after [12] s$")
        self.assertRegex(said["repeats"], "^failed: not done after [12] s$")
        self.assertEqual(said["resume"], "skipped: no time left")


class Collect(Folder):
    def setUp(self):
        super().setUp()
        program = self.write("temper", TEMPER)
        self.write("out/devices.json", subprocess.check_output(["sh", program, "devices", "--json"], text=True))
        self.rows = subprocess.check_output(["sh", program, "bench"], text=True)
        self.write("out/stall.json", json.dumps(STALL) + "\n")
        self.write("out/quality.csv", QUALITY + "2026-01-01,abc,r,1,mae,0.5,1,0.1,cuda:0,00,temper\n")

    def collect(self):
        command = [sys.executable, ROOT / "benchmarks/collect.py", self.out, "--out", self.folder / "results.csv"]
        return subprocess.run([*command, "--source", "abc"], capture_output=True, text=True, check=False)

    def read(self, name):
        with (self.folder / name).open() as file:
            return list(csv.DictReader(file))

    def test_takes_every_row_and_adds_to_what_is_there(self):
        self.write("out/large.jsonl", self.rows)
        for times in (1, 2):
            self.assertEqual(self.collect().stderr, "")
            measures = [row["measure"] for row in self.read("results.csv")]
            self.assertEqual(measures, ["rate", "rate", "hot", "cold", "step", "stall"] * times)
            self.assertEqual([row["value"] for row in self.read("quality.csv")], ["0.5"] * times)

    def test_leaves_out_half_a_line_at_the_end(self):
        self.write("out/large.jsonl", self.rows + '{"kind": "ro')
        done = self.collect()
        self.assertEqual((done.returncode, len(self.read("results.csv"))), (0, 6))
        self.assertIn("large.jsonl: ends within a line", done.stderr)

    def test_appends_nothing_if_a_line_is_no_json(self):
        self.write("out/large.jsonl", self.rows + "temper: WRONG\n" + self.rows)
        done = self.collect()
        self.assertEqual(done.returncode, 1)
        self.assertIn("large.jsonl:3: ", done.stderr)
        self.assertFalse((self.folder / "results.csv").exists() or (self.folder / "quality.csv").exists())


class Quality(Folder):
    def quality(self, temper, data):
        self.write("temper", temper).chmod(0o755)
        command = [sys.executable, ROOT / "benchmarks/quality.py", "recipes/chicago.yaml", "--metric", "mae", "--seeds", "1"]
        command += ["--temper", "./temper", "--data", data, "--out", "quality.csv"]
        return subprocess.run(command, capture_output=True, text=True, cwd=self.folder, check=False)

    def test_files_are_those_of_the_callers_folder(self):
        self.write("data.h5", "")
        run = {"metrics": {"test": {"mae": 0.25}}, "steps": 1, "seconds": 0.5, "device": "cpu", "weights_hash": "00"}
        done = self.quality(f"#!/bin/sh\nfor last; do :; done\n[ -f \"$last\" ] && echo '{json.dumps(run)}'\n", "data.h5")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        with (self.folder / "quality.csv").open() as file:
            (row,) = csv.DictReader(file)
        self.assertEqual(row["value"], "0.25")
        self.assertTrue(row["command"].endswith("--data data.h5"), row["command"])

    def test_a_signal_is_told(self):
        done = self.quality("#!/bin/sh\nkill -9 $$\n", "data.h5")
        self.assertEqual(done.returncode, 1)
        self.assertIn("exit -9: it said nothing", done.stderr)


class VsTorch(unittest.TestCase):
    FLOOD = "import sys; sys.stderr.write('warning\\n' * 100000); print('{\"version\": \"0\", \"first\": 1}', flush=True)\n"

    def side(self, after):
        sys.path.insert(0, str(ROOT / "benchmarks"))
        self.addCleanup(sys.path.pop, 0)
        import vs_torch

        before, vs_torch.TORCH = vs_torch.TORCH, self.FLOOD + after
        self.addCleanup(setattr, vs_torch, "TORCH", before)
        side = vs_torch.Torch({})
        self.addCleanup(side.end)
        side.started()
        return side

    def test_warnings_do_not_hold_it(self):
        side = self.side("input(); print('{\"samples_per_second\": 5}', flush=True)")
        self.assertEqual((side.first, side.take_turn()), ([1], 5))

    def test_one_that_dies_says_why(self):
        side = self.side("sys.exit('WHY')")
        side.process.wait()
        with self.assertRaisesRegex(RuntimeError, "^WHY$"):
            side.take_turn()


if __name__ == "__main__":
    unittest.main()
