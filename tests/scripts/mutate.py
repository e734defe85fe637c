#!/usr/bin/python3
"""Plants each error of tests/mutations.txt in a copy of the source, one at a time, and shows that a test fails.

    tests/scripts/mutate.py [FIRST [LAST]]     numbers of the mutations to try; all by default
    tests/scripts/mutate.py --fit              only says which no longer fit the source; takes no time

Format of the list: a line "@ file | test program | filter", then a line beginning with "-" that holds a piece of the
file (it must occur there once) and one beginning with "+" that holds what to put in its place; \\n stands for the end of
a line. "#" begins a comment.
Exit status 1 if a mutation survives, does not compile or no longer fits the source.
"""

import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "mutate"
ENVIRONMENT = dict(os.environ, OMP_NUM_THREADS="1", TEMPER_TEST_SCHEDULES="3")
COPIED = ["CMakeLists.txt", "benchmarks", "cmake", "datasets", "host", "include", "kernels", "recipes", "tests", "README.md",
          "LICENSE"]  # fmt: skip


def read_list():
    mutations, head, old = [], None, None
    for number, line in enumerate((ROOT / "tests" / "mutations.txt").read_text().splitlines(), 1):
        if line.startswith("@"):
            head = [part.strip() for part in line[1:].split("|")]
        elif line.startswith("-"):
            old = line[1:].strip().replace("\\n", "\n")
        elif line.startswith("+"):
            mutations.append((*head, old, line[1:].strip().replace("\\n", "\n")))
        elif line.strip() and not line.startswith("#"):
            sys.exit(f"tests/mutations.txt:{number}: not understood: {line}")
    return mutations


def run(command, seconds):
    try:
        done = subprocess.run(command, cwd=WORK / "source", env=ENVIRONMENT, capture_output=True, text=True,
                              timeout=seconds)  # fmt: skip
    except subprocess.TimeoutExpired:
        return 124, "too slow"
    return done.returncode, done.stdout + done.stderr


def prepare(programs):
    shutil.rmtree(WORK / "source", ignore_errors=True)
    (WORK / "source").mkdir(parents=True)
    for name in COPIED:  # as new files: what the last run planted may still be built in
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, WORK / "source" / name, copy_function=shutil.copy)
        else:
            shutil.copy(path, WORK / "source" / name)
    # A mutation may leave a variable unused.
    command = ["cmake", "--compile-no-warning-as-error", "-S", str(WORK / "source"), "-B", str(WORK / "build"),
               "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Mutate", "-DCMAKE_C_FLAGS=-O1", "-DCMAKE_CXX_FLAGS=-O1",
               "-DTEMPER_NVCC=FALSE"]  # fmt: skip
    if shutil.which("ccache"):
        command += [f"-DCMAKE_{language}_COMPILER_LAUNCHER=ccache" for language in ("C", "CXX")]
    for step in (command, ["ninja", "-C", str(WORK / "build"), *programs]):
        code, text = run(step, 1800)
        if code != 0:
            sys.exit(f"the unchanged source does not build:\n{text[-2000:]}")


def passes(program, tests):
    """Exit status of the tests of one program."""
    binary = WORK / "build" / "tests" / program
    return run([str(binary), f"--gtest_filter={tests}", "--gtest_brief=1"], 600)


def attempt(file, program, tests, old, new):
    """What became of one mutation: 'caught', or what is wrong with it."""
    path = WORK / "source" / file
    text = path.read_text()
    if text.count(old) != 1:
        return f"occurs {text.count(old)} times"
    path.write_text(text.replace(old, new))
    try:
        code, output = run(["ninja", "-C", str(WORK / "build"), program], 600)
        if code != 0:
            return "does not compile: " + next((line for line in output.splitlines() if "error" in line), "")
        code, _ = passes(program, tests)
        return "caught" if code != 0 else "SURVIVED"
    finally:
        path.write_text(text)


def fit(mutations):
    """Exit status 1, and a line each, if there are mutations whose piece does not occur once in their file."""
    bad = 0
    for number, (file, _, _, old, new) in enumerate(mutations, 1):
        path = ROOT / file
        times = path.read_text().count(old) if path.is_file() else 0
        if times != 1 or old == new:
            bad += 1
            print(f"{number} {file}: occurs {times} times: {old[:80]}")
    print(f"{len(mutations) - bad} of {len(mutations)} mutations fit the source")
    return bad != 0


def main():
    mutations = read_list()
    if sys.argv[1:] == ["--fit"]:
        sys.exit(fit(mutations))
    first = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    last = min(int(sys.argv[2]) if len(sys.argv) > 2 else len(mutations), len(mutations))
    prepare(sorted({m[1] for m in mutations[first - 1 : last]}))
    for program in sorted({m[1] for m in mutations[first - 1 : last]}):
        code, output = passes(program, ":".join(sorted({m[2] for m in mutations[first - 1 : last] if m[1] == program})))
        if code != 0:
            sys.exit(f"{program} fails on the unchanged source:\n{output[-2000:]}")
    bad = 0
    for number, mutation in enumerate(mutations[first - 1 : last], first):
        result = attempt(*mutation)
        bad += result != "caught"
        print(f"{number:3} {mutation[0]:32} {result:10} {mutation[3][:40]} -> {mutation[4][:40]}", flush=True)
    print(f"{last - first + 1 - bad} of {last - first + 1} caught")
    sys.exit(bad != 0)


if __name__ == "__main__":
    main()
