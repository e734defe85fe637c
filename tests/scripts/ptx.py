#!/usr/bin/python3
"""Compiles every .cu file to PTX and refuses what would make results depend on the order of threads: float atomics.

    tests/scripts/ptx.py [NVCC]
"""

import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# atom and red on any float type; an exchange or a compare of bits does not add.
FLOAT_ATOMIC = re.compile(r"^\s*(?:@%\w+\s+)?((?:atom|red)[.\w:]*\.(?:add|min|max)[.\w]*\.(?:f16|f16x2|bf16|bf16x2|f32|f64)\b.*)$", re.MULTILINE)


def compile_ptx(nvcc, source):
    command = [nvcc, "-std=c++17", "-I.", "-Iinclude", "-arch=compute_90", "-fmad=false", "-ptx", "-o", "-", str(source)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        return [f"{source}: does not compile: {done.stderr.strip().splitlines()[-1]}"]
    return [f"{source}: {match.strip()}" for match in FLOAT_ATOMIC.findall(done.stdout)]


def main():
    nvcc = sys.argv[1] if len(sys.argv) > 1 else shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    sources = [path.relative_to(ROOT) for folder in ("kernels", "host") for path in sorted((ROOT / folder).rglob("*.cu"))]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [line for lines in pool.map(lambda source: compile_ptx(nvcc, source), sources) for line in lines]
    print("\n".join(found), end="\n" if found else "")
    print(f"{len(sources)} files, {len(found)} float atomics")
    return 1 if found or not sources else 0


if __name__ == "__main__":
    sys.exit(main())
