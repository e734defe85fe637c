#!/usr/bin/python3
"""Lines and branches of our own kernels that the op tests reach on the emulated GPU, by gcov; fails under 95 % and 90 %.

    tests/scripts/coverage.py [BUILD]      BUILD is made if it is not there (default build/coverage)

Counted are the .cu and .cuh files of kernels/, as the emulated module compiles them; of those that call NVIDIA's
libraries the kernels alone, as one: they are small. Not counted are branches that hand on an error of a launch or of a call (cuda_device_test.cc makes those fail), or
that only an exception would take; those of kernels/math.h, which is otherwise inlined, are math_test.cc's. A line of a
template counts as reached if one of its instances reaches it.
"""

import collections
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
LINES, BRANCHES = 0.95, 0.90
CALL_LIBRARIES = {"libraries.cu", "libraries.cuh", "cublaslt.cu", "cudnn.cu", "cudnn.cuh"}
HANDS_ON = ("TP_LAUNCH", "TP_TRY", "TP_CHECK", "TP_CUDA")


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command[:3]))}: exit {done.returncode}\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def build(folder):
    run("cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", "-DTEMPER_NVCC=FALSE", "-DCMAKE_BUILD_TYPE=Coverage",
        "-DCMAKE_C_FLAGS=-O1", "-DCMAKE_CXX_FLAGS=-O0 --coverage -DTP_MATH=TP_HD", "-DCMAKE_SHARED_LINKER_FLAGS=--coverage",
        "-DCMAKE_MODULE_LINKER_FLAGS=--coverage", "-DCMAKE_EXE_LINKER_FLAGS=--coverage")  # fmt: skip
    run("cmake", "--build", folder, "--target", "engine_tests")


def kernel_lines(source):
    """Numbers of the lines that kernels are made of: from __global__ to the brace that ends the function."""
    inside, found = False, set()
    for number, line in enumerate(source, 1):
        inside |= line.startswith("__global__")
        if inside:
            found.add(number)
        inside &= line != "}"
    return found


def count(folder):
    """file -> line -> times it ran, and file -> (line, number of the branch) -> times it was taken. A line is its number;
    of the files that call libraries its file and number."""
    lines, branches = collections.defaultdict(collections.Counter), collections.defaultdict(collections.Counter)
    for data in sorted(folder.glob("tests/CMakeFiles/temper_cuda_emu.dir/**/*.cu.gcda")):
        report = run("gcov", "--json-format", "--stdout", "--branch-probabilities", data, cwd=folder)
        for file in json.loads(report)["files"]:
            path = (folder / file["file"]).resolve()  # ccache may have made it relative
            if path.suffix not in (".cu", ".cuh") or ROOT / "kernels" not in path.parents:
                continue
            name = str(path.relative_to(ROOT))
            source = path.read_text().splitlines()
            beside = path.name in CALL_LIBRARIES
            counted = kernel_lines(source) if beside else range(len(source) + 1)
            for line in file["lines"]:
                if line["line_number"] not in counted:
                    continue
                place = f"{name}:{line['line_number']}" if beside else line["line_number"]
                to = "kernels beside calls of libraries" if beside else name
                lines[to][place] += line["count"]
                if any(word in source[line["line_number"] - 1] for word in HANDS_ON):
                    continue
                for number, branch in enumerate(b for b in line["branches"] if not b["throw"]):
                    branches[to][place, number] += branch["count"]
    return lines, branches


def share(counts):
    return sum(n > 0 for n in counts.values()) / len(counts) if counts else 1.0


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "coverage").resolve()
    build(folder)
    for data in folder.rglob("*.gcda"):
        data.unlink()
    run(folder / "tests" / "engine_tests", "--gtest_brief=1", "--gtest_filter=*CudaOpCase*:CudaDevice*:Kernels*-*Long",
        env={**os.environ, "OMP_NUM_THREADS": "1", "TEMPER_TEST_SCHEDULES": "2"})  # fmt: skip
    lines, branches = count(folder)
    bad = 0
    for name in sorted(lines):
        line, branch = share(lines[name]), share(branches[name])
        low = line < LINES or branch < BRANCHES
        bad += low
        missed = sorted(n for n, count in lines[name].items() if count == 0)
        print(f"{name:36} lines {line:7.1%}  branches {branch:7.1%}{'  LOW' if low else ''}  {missed if missed else ''}")
    all_lines = collections.Counter({(f, n): c for f in lines for n, c in lines[f].items()})
    all_branches = collections.Counter({(f, n): c for f in branches for n, c in branches[f].items()})
    print(f"{'all':36} lines {share(all_lines):7.1%}  branches {share(all_branches):7.1%}")
    return 1 if bad or not lines else 0


if __name__ == "__main__":
    sys.exit(main())
