#!/usr/bin/python3
"""Checks the rules by which the same .cu files are compiled for a GPU and for the emulated one (kernels/cuda.cuh). Prints
one line for each place that breaks one.

    tests/scripts/rules.py [ROOT]
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[2]).resolve()

# What only a GPU understands -> the files that may say it, each time beside a plain twin (#else).
RULES = [
    (r"<<<", "launches are made with TP_LAUNCH", {"kernels/cuda.cuh"}),
    (r"\b__shared__\b", "shared memory is declared with TP_SHARED or TP_DYN_SHARED", {"kernels/cuda.cuh"}),
    (r"\basm\b|\b__asm__\b", "PTX stands in kernels/cuda.cuh and kernels/math.h", {"kernels/cuda.cuh", "kernels/math.h"}),
    (r"\bw?mma::|\bwgmma\b|\b__pipeline_\w+|\bmemcpy_async\b|\bcooperative_groups\b", "what only a GPU has stands in kernels/cuda.cuh",
     {"kernels/cuda.cuh"}),
]  # fmt: skip


def without_comments(text):
    """The text with comments, and the inside of strings, blank; lines stay where they are."""
    def blank(match):
        if match[0].startswith('"'):
            return '""'
        return re.sub(r"[^\n]", " ", match[0])
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:[^"\\\n]|\\.)*"', blank, text, flags=re.DOTALL)


def has_twin(lines, at):
    """Whether line number `at` stands in a conditional that has an #else."""
    opened, around = [], None
    for number, line in enumerate(lines):
        if re.match(r"\s*#\s*if", line):
            opened.append([number, False])
        elif re.match(r"\s*#\s*el", line) and opened:
            opened[-1][1] = True
        elif re.match(r"\s*#\s*endif", line) and opened:
            begin, other = opened.pop()
            if begin < at < number and other:
                around = begin
    return around is not None


def main():
    errors = []
    for folder in ("kernels", "host"):
        for file in sorted((ROOT / folder).rglob("*")):
            if file.suffix not in (".c", ".h", ".cu", ".cuh"):
                continue
            name = str(file.relative_to(ROOT))
            lines = without_comments(file.read_text()).splitlines()
            for number, line in enumerate(lines):
                for pattern, rule, allowed in RULES:
                    if not re.search(pattern, line):
                        continue
                    if name not in allowed:
                        errors.append(f"{name}:{number + 1}: {rule}")
                    elif not has_twin(lines, number):
                        errors.append(f"{name}:{number + 1}: has no plain twin")
    print("\n".join(errors), end="\n" if errors else "")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
