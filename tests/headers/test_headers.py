"""Each public header alone is C11 and C++17 without a warning, and so is every initializer macro it defines.

CC and CXX name the compilers."""

import os
import pathlib
import re
import subprocess
import unittest

INCLUDE = pathlib.Path(__file__).resolve().parents[2] / "include"
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", f"-I{INCLUDE}", "-"]
C11 = [os.environ.get("CC", "cc"), "-std=c11", "-xc", *STRICT]
CPP17 = [os.environ.get("CXX", "c++"), "-std=c++17", "-xc++", *STRICT]


def compiles(compiler, text):
    done = subprocess.run(compiler, input=text, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr


class Headers(unittest.TestCase):
    def setUp(self):
        self.headers = sorted((INCLUDE / "temper").glob("*.h"))
        self.assertGreater(len(self.headers), 5)

    def each(self, compiler):
        for header in self.headers:
            with self.subTest(header=header.name):
                text = f"#include <temper/{header.name}>\n"
                for name in re.findall(r"^#define (TP_\w+)_INIT\b", header.read_text(), re.MULTILINE):
                    text += f"extern {name.lower()} an_{name.lower()}; {name.lower()} an_{name.lower()} = {name}_INIT;\n"
                self.assertEqual(compiles(compiler, text), "")

    def test_each_alone_is_c11(self):
        self.each(C11)

    def test_each_alone_is_cpp17(self):
        self.each(CPP17)


if __name__ == "__main__":
    unittest.main()
