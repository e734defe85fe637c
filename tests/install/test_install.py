"""Installs a build, moves the tree, and builds and runs the README's program against it.

usage: test_install.py BUILD; everything is made in BUILD/install_test. CC and CXX name the compilers."""

import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(sys.argv.pop(1)).resolve() if len(sys.argv) > 1 else SOURCE / "build/release"
WORK = BUILD / "install_test"
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def readme_block(language):
    """The one block of a language in the README's library section."""
    section = (SOURCE / "README.md").read_text().split("## Use it as a C library\n")[1].split("\n## ")[0]
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return block


def declared():
    """Names that the public headers declare with TP_API."""
    names = set()
    for header in (SOURCE / "include/temper").glob("*.h"):
        text = re.sub(r"^#define.*?[^\\]$|/\*.*?\*/", "", header.read_text(), flags=re.MULTILINE | re.DOTALL)
        for declaration in re.findall(r"TP_API\b([^;]*);", text):
            names.add(re.search(r"\b(tp_\w+)\s*(?:\(|\[|$)", declaration).group(1))
    return names


class Installed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        shutil.rmtree(WORK, ignore_errors=True)
        WORK.mkdir()
        run("cmake", "--install", BUILD, "--prefix", WORK / "first")
        cls.prefix = (WORK / "first").rename(WORK / "moved")
        (library,) = cls.prefix.glob("lib*/**/libtemper.so")
        cls.libdir = library.parent
        cls.source = WORK / "app.c"
        cls.source.write_text(readme_block("c"))
        cls.pc = {**os.environ, "PKG_CONFIG_PATH": str(cls.libdir / "pkgconfig")}

    def check(self, app, **options):
        out = run(app, SOURCE / "recipes/chicago.yaml", SOURCE / "datasets/chicago.h5", f"{app}.run", **options)
        scores = {name: float(value) for name, value in re.findall(r"^test (\w+) (\S+)$", out, re.MULTILINE)}
        self.assertLess({"loss", "mae"}, scores.keys(), out)
        self.assertTrue(all(math.isfinite(value) for value in scores.values()), out)
        self.assertLess(scores["mae"], 2)
        self.assertTrue(pathlib.Path(f"{app}.run/model.safetensors").is_file())

    def build_with_pkg_config(self, app, *compiler):
        flags = run("pkg-config", "--cflags", "--libs", "temper", env=self.pc).split()
        run(*compiler, *STRICT, self.source, "-o", app, *flags)
        self.check(app, env={**os.environ, "LD_LIBRARY_PATH": str(self.libdir)})

    def test_readme_program_with_pkg_config(self):
        self.assertIn("$(pkg-config --cflags --libs temper)", readme_block("sh"))
        self.build_with_pkg_config(WORK / "app_c", os.environ.get("CC", "cc"), "-std=c11")

    def test_readme_program_as_cpp17(self):
        self.build_with_pkg_config(WORK / "app_cpp", os.environ.get("CXX", "c++"), "-std=c++17", "-xc++")

    def test_readme_program_with_find_package(self):
        lists = f"cmake_minimum_required(VERSION 3.25)\nproject(app C)\n{readme_block('cmake')}"
        (WORK / "CMakeLists.txt").write_text(lists)
        run("cmake", "-S", WORK, "-B", WORK / "app_cmake", "-G", "Ninja", f"-Dtemper_ROOT={self.prefix}")
        run("cmake", "--build", WORK / "app_cmake")
        self.check(WORK / "app_cmake/app")

    def test_readme_program_says_what_is_wrong(self):
        app = WORK / "app_fail"
        flags = run("pkg-config", "--cflags", "--libs", "temper", env=self.pc).split()
        run(os.environ.get("CC", "cc"), self.source, "-o", app, *flags, f"-Wl,-rpath,{self.libdir}")
        done = subprocess.run([app, "nowhere.yaml", "x.h5", WORK / "none"], capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stdout), (66, ""))
        self.assertIn("nowhere.yaml", done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1)

    def test_command_runs_where_the_tree_was_moved(self):
        self.assertIn("usage: temper", run(self.prefix / "bin/temper", "help"))

    def test_library_exports_what_the_headers_declare(self):
        lines = run("nm", "-D", "--defined-only", self.libdir / "libtemper.so").splitlines()
        exported = {line.split()[-1] for line in lines}
        self.assertEqual(sorted(exported ^ declared()), [])
        self.assertEqual([name for name in exported if not name.startswith("tp_")], [])

    def test_installed_text_names_no_folder_of_this_machine(self):
        for file in self.prefix.rglob("*"):
            if file.suffix in (".pc", ".cmake", ".h"):
                text = file.read_text()
                for folder in (BUILD, SOURCE, WORK):
                    self.assertNotIn(str(folder), text, file)

    def test_every_public_header_is_installed(self):
        there = sorted(file.name for file in (self.prefix / "include/temper").iterdir())
        self.assertEqual(there, sorted(file.name for file in (SOURCE / "include/temper").iterdir()))


if __name__ == "__main__":
    unittest.main()
