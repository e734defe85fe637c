#!/usr/bin/python3
"""The command on GPUs that are there, and that are not: devices, what is said and with which exit code. The GPUs are
emulated on the CPU (tests/emu).

    tests/cli/test_cuda.py PATH_OF_TEMPER PATH_OF_THE_EMULATED_MODULE
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULE = sys.argv.pop() if len(sys.argv) > 2 else ""
TEMPER = sys.argv.pop() if len(sys.argv) > 1 else "temper"
CHICAGO = str(ROOT / "recipes" / "chicago.yaml")
QUICK = ["--set", "train.epochs=1", "--set", "train.batch=4096"]


def temper(*words, **variables):
    env = {**os.environ, "TEMPER_CUDA_MODULE": MODULE, "XDG_CACHE_HOME": "/dev/null", **variables}
    return subprocess.run([TEMPER, *words], capture_output=True, text=True, timeout=250, cwd=ROOT, env=env)


class Devices(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="temper-cuda-"))
        self.addCleanup(shutil.rmtree, self.dir)

    def check_fails(self, done, code, *words):
        """One line on stderr that holds all words, nothing on stdout, this exit code."""
        self.assertEqual(done.returncode, code, done.stderr + done.stdout)
        self.assertEqual((done.stdout, len(done.stderr.splitlines())), ("", 1), done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)

    def test_the_command_links_no_cuda_library(self):
        for file in (TEMPER, next(pathlib.Path(TEMPER).parent.glob("libtemper.so"))):
            linked = subprocess.run(["ldd", file], capture_output=True, text=True, check=True).stdout
            for name in ("cuda", "cublas", "cudnn", "nvidia"):
                self.assertNotIn(name, linked)

    def test_a_gpu_is_listed_with_what_it_has(self):
        (cpu, gpu) = json.loads(temper("devices", "--json").stdout)
        self.assertEqual((cpu["device"], gpu["device"]), ("cpu", "cuda:0"))
        self.assertEqual((gpu["capability"], gpu["multiprocessors"], gpu["driver"]), (90, 1, "13.0"))
        self.assertGreaterEqual(gpu["memory_bytes"], gpu["free_bytes"])
        self.assertEqual((gpu["cublaslt"], gpu["cudnn"]), ("13.0.0", "9.13.0"))
        self.assertIn("emulated on the CPU", temper("devices").stdout)

    def test_a_library_that_is_missing_is_a_line_and_no_error(self):
        done = temper("devices", TEMPER_EMU_NO_LIBRARIES="1")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("cuBLASLt not used: ", done.stdout)
        self.assertIn("cuDNN not used: ", done.stdout)

    def test_several_gpus(self):
        self.assertEqual(len(temper("devices", TEMPER_EMU_DEVICES="3").stdout.splitlines()), 4)
        run = temper("train", CHICAGO, *QUICK, "--device", "cuda:2", "--json", TEMPER_EMU_DEVICES="3")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertTrue(json.loads(run.stdout)["device"].startswith("cuda:2: "))
        self.check_fails(temper("train", CHICAGO, "--device", "cuda:3", TEMPER_EMU_DEVICES="3"), 69, "cuda:3", "3 GPUs")

    def test_why_there_is_no_gpu(self):
        """Each reason: in one line with exit 69 for cuda, in the line that auto begins with."""
        reasons = [
            ({"TEMPER_CUDA_MODULE": "/nowhere/libtemper_cuda.so"}, "no GPU: no module: /nowhere/libtemper_cuda.so"),
            ({"TEMPER_CUDA_MODULE": "libm.so.6"}, "no GPU: module libm.so.6 is not of this version of Temper"),
            ({"TEMPER_EMU_FAIL": "1:35"}, "no GPU: the NVIDIA driver is too old: it knows CUDA 13.0, 13.0 is wanted"),
            ({"TEMPER_EMU_DEVICES": "0"}, "no GPU: the NVIDIA driver finds none"),
            ({"TEMPER_EMU_FAIL": "1:999"}, "device count"),
            ({"TEMPER_EMU_FAIL": "1:2"}, "no GPU: out of memory"),
        ]
        for variables, words in reasons:
            self.check_fails(temper("train", CHICAGO, "--device", "cuda", **variables), 69, words)
            devices = temper("devices", **variables)
            self.assertEqual((devices.returncode, devices.stderr), (0, ""), words)
            self.assertIn(words, devices.stdout)
            fallen_back = temper("train", CHICAGO, *QUICK, **variables)
            self.assertEqual(fallen_back.returncode, 0, fallen_back.stderr)
            self.assertRegex(fallen_back.stdout.splitlines()[0], r"^on cpu: .*; fp32; data resident, [0-9.]+ MiB of float32$")
            self.assertIn(words, fallen_back.stdout.splitlines()[0])

    def test_auto_takes_the_gpu_and_says_so(self):
        run = temper("train", CHICAGO, *QUICK, "--out", str(self.dir / "run"))
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertRegex(run.stdout.splitlines()[0], r"^on cuda:0: emulated on the CPU, .*; tf32; data resident, .* of float32: .* free on the GPU$")
        manifest = json.loads((self.dir / "run" / "manifest.json").read_text())
        self.assertEqual(manifest["precision"], "tf32")
        self.assertIn("resident", (self.dir / "run" / "log.txt").read_text())
        model = str(self.dir / "run" / "model.safetensors")
        scores = [json.loads(temper("evaluate", model, "--data", "datasets/chicago.h5", "--device", device, "--json").stdout)
                  for device in ("cpu", "cuda")]  # fmt: skip
        self.assertAlmostEqual(scores[0]["metrics"]["mae"], scores[1]["metrics"]["mae"], 4)

    def test_algorithms_are_chosen_once(self):
        """The second run takes what the first has kept; what the library does not take any more is chosen again."""
        cache = self.dir / "cache"
        def run():
            done = temper("train", CHICAGO, *QUICK, "--device", "cuda", "--json", "--quiet", XDG_CACHE_HOME=str(cache))
            self.assertEqual(done.returncode, 0, done.stderr)
            return json.loads(done.stdout)["weights_hash"]
        first = run()
        kept = (cache / "temper" / "algorithms").read_text()
        self.assertRegex(kept.splitlines()[0], r"^2a00[0-9a-f]{124} cublaslt 130000, emulated on the CPU, driver CUDA 13.0, precision 1, ")
        self.assertEqual(run(), first)
        self.assertEqual((cache / "temper" / "algorithms").read_text(), kept)
        (cache / "temper" / "algorithms").write_text(kept.replace("\n2a00", "\n2b00").replace("2a00", "ffff", 1) + "no choice\n")
        self.assertEqual(run(), first)
        self.assertGreater(len((cache / "temper" / "algorithms").read_text()), len(kept))
        (self.dir / "file").write_text("no folder")
        cache = self.dir / "file"
        self.assertEqual(run(), first)

    def test_what_has_no_clock_is_not_timed(self):
        self.check_fails(temper("bench", "relu", "--device", "cuda"), 69, "emulated on the CPU", "has no clock")

    def test_precision(self):
        for name in ("fp32", "tf32", "bf16"):
            run = temper("train", CHICAGO, *QUICK, "--set", f"train.precision={name}")
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertIn(f"; {name}; data ", run.stdout.splitlines()[0])
        on_cpu = temper("train", CHICAGO, *QUICK, "--set", "train.precision=bf16", "--device", "cpu")
        self.assertIn("; fp32; data ", on_cpu.stdout.splitlines()[0])
        self.check_fails(temper("train", CHICAGO, "--set", "train.precision=fp8"), 78, "train.precision", "fp8", "bf16")

    def test_out_of_memory(self):
        """What does not fit is an error on a GPU that auto has chosen too, and not moved to the CPU."""
        for device in ("auto", "cuda"):
            done = temper("train", CHICAGO, "--quiet", "--device", device, TEMPER_EMU_MEMORY="50000")
            self.check_fails(done, 69, "bytes asked", "of 50000 free")

    def test_every_kind_of_loss_of_the_gpu(self):
        for call in (20, 120):
            for error in (700, 702, 710, *range(714, 720), 721, 810, 226, 911, 214, 220, 999):
                done = temper("train", CHICAGO, *QUICK, "--quiet", "--device", "cuda", TEMPER_EMU_FAIL=f"{call}:{error}")
                self.check_fails(done, 69, f"error {error}", "the GPU is lost to this process")

    def test_a_gpu_whose_memory_is_taken_is_none(self):
        """Calls 2 to 26 of the runtime open the device: auto goes on without it and says why, cuda does not."""
        reason = r"no GPU: out of memory on cuda:0 \(\d+ of \d+ bytes free\)"
        for call in (2, 5, 6, 9, 12):
            fail = {"TEMPER_EMU_FAIL": f"{call}:2"}
            done = temper("train", CHICAGO, "--device", "cuda", **fail)
            self.check_fails(done, 69)
            self.assertRegex(done.stderr, reason)
            fallen_back = temper("train", CHICAGO, *QUICK, **fail)
            self.assertEqual(fallen_back.returncode, 0, fallen_back.stderr)
            self.assertRegex(fallen_back.stdout.splitlines()[0], r"^on cpu: .*\(" + reason + r"\); fp32")

    def test_a_gpu_that_cannot_be_described_is_a_line_among_the_others(self):
        """The first call counts the two GPUs; these ask about the first one."""
        for call, error, words in ((3, 46, "error 46"), (6, 2, "out of memory on cuda:0")):
            broken = {"TEMPER_EMU_DEVICES": "2", "TEMPER_EMU_FAIL": f"{call}:{error}"}
            done = temper("devices", **broken)
            self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
            (_, first, second) = done.stdout.splitlines()
            self.assertTrue(first.startswith("cuda:0 "), first)
            self.assertIn(words, first)
            self.assertRegex(second, r"^cuda:1 +emulated on the CPU, ")
            (_, first, second) = json.loads(temper("devices", "--json", **broken).stdout)
            self.assertEqual((first["device"], first["available"]), ("cuda:0", False))
            self.assertIn(words, first["text"])
            self.assertEqual((second["device"], second["available"]), ("cuda:1", True))

    def test_the_build_of_the_driver(self):
        """Is shown, and an algorithm is kept for that build alone."""
        file, cache = self.dir / "version", self.dir / "cache"
        kept = 0
        for text, build, shown in (("Kernel Module  580.159.04  Tue Sep 23", "580.159.04", "driver 580.159.04 (CUDA 13.0)"),
                                   ("no number", None, "driver CUDA 13.0")):  # fmt: skip
            file.write_text(f"NVRM version: NVIDIA UNIX x86_64 {text}\n")
            known = {"TEMPER_EMU_DRIVER_FILE": str(file), "XDG_CACHE_HOME": str(cache)}
            gpu = json.loads(temper("devices", "--json", **known).stdout)[1]
            self.assertEqual((gpu["driver"], gpu["driver_build"]), ("13.0", build))
            self.assertIn(f", {shown}, runtime 13.0, ", temper("devices", **known).stdout)
            run = temper("train", CHICAGO, *QUICK, "--device", "cuda", **known)
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertIn(f", {shown}; ", run.stdout.splitlines()[0])
            choices = (cache / "temper" / "algorithms").read_text().splitlines()
            self.assertGreater(len(choices), kept)
            for line in choices[kept:]:
                self.assertIn(f", {shown}, ", line)
            kept = len(choices)


if __name__ == "__main__":
    unittest.main()
