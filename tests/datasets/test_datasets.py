"""Tests of the converters in datasets/. Run: /usr/bin/python3 -m unittest discover -s tests/datasets"""

import gzip
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest

import h5py
import numpy as np

DATASETS = pathlib.Path(__file__).resolve().parents[2] / "datasets"
FASHION_MNIST = pathlib.Path("/usr/share/datasets/fashion-mnist")


def run(script, *arguments, **options):
    command = [sys.executable, DATASETS / script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def has_r_package(name):
    try:
        done = subprocess.run(["Rscript", "--vanilla", "-e", f'stopifnot(requireNamespace("{name}"))'],
                              capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return done.returncode == 0


def needs(present, package):
    return unittest.skipUnless(present, f"skipped: the Debian package {package} is missing")


needs_modeldata = needs(has_r_package("modeldata"), "r-cran-modeldata")
needs_dslabs = needs(has_r_package("dslabs"), "r-cran-dslabs")
needs_fashion_mnist = needs(FASHION_MNIST.is_dir(), "dataset-fashion-mnist")


def write_idx(path, values, kind=0x08, compress=False):
    header = bytes([0, 0, kind, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    data = header + values.tobytes()
    path.write_bytes(gzip.compress(data) if compress else data)


class InFolder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.out = self.folder / "out.h5"


class Chicago(InFolder):
    def test_committed_file_is_as_documented(self):
        with h5py.File(DATASETS / "chicago.h5") as file:
            x, y, date = file["x"], file["y"], file["date"]
            self.assertEqual((x.shape, x.dtype, x.compression), ((5698, 57), np.dtype("<f4"), "gzip"))
            self.assertEqual((y.shape, y.dtype), ((5698, 1), np.dtype("<f4")))
            self.assertEqual((date.shape, date.dtype), ((5698,), np.dtype("<i4")))
            self.assertEqual(len(x.attrs["names"]), 57)
            self.assertEqual(len(x.attrs["units"]), 57)
            some = [x.attrs["names"][i] for i in (0, 47, 48, 54)]
            self.assertEqual(some, [b"Austin", b"Cubs_Home", b"monday", b"sunday"])
            self.assertTrue(np.isfinite(x[:]).all() and np.isfinite(y[:]).all())
            # Days run without a gap; 2001-01-22 was a Monday.
            np.testing.assert_array_equal(date[:], 11344 + np.arange(5698))
            np.testing.assert_array_equal(x[:, 48:55].argmax(axis=1), np.arange(5698) % 7)
            np.testing.assert_array_equal(x[:, 48:55].sum(axis=1), 1)
            np.testing.assert_allclose((x[:, 55:] ** 2).sum(axis=1), 1, rtol=1e-6)
            self.assertEqual(x[0, 0], np.float32(1.463))
            self.assertEqual(y[0, 0], np.float32(15.732))

    @needs_modeldata
    def test_conversion_gives_the_committed_file(self):
        done = run("chicago.py", "--out", self.out)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        with h5py.File(self.out) as made, h5py.File(DATASETS / "chicago.h5") as committed:
            self.assertEqual(sorted(made), sorted(committed))
            for name in committed:
                np.testing.assert_array_equal(made[name][:], committed[name][:])
                for key, value in committed[name].attrs.items():
                    np.testing.assert_array_equal(made[name].attrs[key], value)

    def test_without_r_the_packages_are_named(self):
        done = run("chicago.py", "--out", self.out, env={"PATH": str(self.folder)})
        self.assertEqual(done.returncode, 1)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertIn("r-base-core r-cran-modeldata", done.stderr)
        self.assertFalse(self.out.exists())

    @needs_modeldata
    def test_an_output_that_cannot_be_written_is_named(self):
        out = self.folder / "nowhere" / "out.h5"
        done = run("chicago.py", "--out", out)
        self.assertEqual((done.returncode, len(done.stderr.splitlines())), (1, 1), done.stderr)
        self.assertIn(str(out), done.stderr)

    @needs_modeldata
    def test_bytes_depend_on_the_data_alone(self):
        again = self.folder / "again.h5"
        for out in (self.out, again):
            self.assertEqual(run("chicago.py", "--out", out).returncode, 0)
        self.assertEqual(self.out.read_bytes(), again.read_bytes())


class Idx(InFolder):
    def setUp(self):
        super().setUp()
        random = np.random.default_rng(1)
        self.images = random.integers(0, 256, (1203, 28, 28), dtype=np.uint8)
        self.labels = random.integers(0, 10, 1203, dtype=np.uint8)
        self.paths = [self.folder / name for name in ("train_x", "train_y", "test_x", "test_y")]
        write_idx(self.paths[0], self.images, compress=True)
        write_idx(self.paths[1], self.labels)
        write_idx(self.paths[2], self.images[:7])
        write_idx(self.paths[3], self.labels[:7], compress=True)

    def refused(self, *words):
        done = run("mnist.py", *self.paths, "--out", self.out)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)
        self.assertEqual([path.name for path in self.folder.glob("*.h5*")], [])

    def test_gzipped_and_plain_files_convert(self):
        done = run("mnist.py", *self.paths, "--out", self.out)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        with h5py.File(self.out) as file:
            self.assertEqual(file["train/x"].chunks, (1000, 1, 28, 28))
            self.assertEqual(file["train/x"].compression, "gzip")
            np.testing.assert_array_equal(file["train/x"][:, 0], self.images)
            np.testing.assert_array_equal(file["train/y"][:], self.labels)
            np.testing.assert_array_equal(file["test/x"][:, 0], self.images[:7])
            np.testing.assert_array_equal(file["test/y"][:], self.labels[:7])

    def test_a_file_cut_short_is_refused(self):
        self.paths[2].write_bytes(self.paths[2].read_bytes()[:-1])
        self.refused("test_x", "(7, 28, 28)", "5487")

    def test_a_cut_gzip_stream_is_refused(self):
        self.paths[0].write_bytes(self.paths[0].read_bytes()[:-100])
        self.refused("train_x")

    def test_a_file_of_another_kind_is_refused(self):
        self.paths[0].write_bytes(b"not an IDX file")
        self.refused("train_x", "not an IDX file")

    def test_another_element_type_is_refused(self):
        write_idx(self.paths[1], self.labels.astype(">i4"), kind=0x0C)
        self.refused("train_y", "0x0c")

    def test_counts_that_differ_are_refused(self):
        write_idx(self.paths[3], self.labels[:6])
        self.refused("test_x", "(7, 28, 28)", "(6,)")

    def test_a_missing_file_is_refused(self):
        self.paths[1].unlink()
        self.refused("train_y")


class FashionMnist(InFolder):
    @needs_fashion_mnist
    def test_whole_set_converts(self):
        done = run("fashion_mnist.py", "--out", self.out)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        with h5py.File(self.out) as file:
            for part, rows in (("train", 60000), ("test", 10000)):
                x = file[f"{part}/x"]
                self.assertEqual((x.shape, x.dtype), ((rows, 1, 28, 28), np.uint8))
                self.assertEqual(x.chunks, (1000, 1, 28, 28))
                np.testing.assert_array_equal(np.bincount(file[f"{part}/y"][:]), [rows // 10] * 10)
            # The mean that papers on this set give for normalisation.
            self.assertAlmostEqual(file["train/x"][:].mean() / 255, 0.2860, places=4)

    def test_a_missing_folder_is_named(self):
        done = run("fashion_mnist.py", "--out", self.out, "--from", self.folder / "nowhere")
        self.assertEqual(done.returncode, 1)
        self.assertIn("nowhere", done.stderr)
        self.assertIn("dataset-fashion-mnist", done.stderr)


class MovieLens(InFolder):
    @needs_dslabs
    def test_ids_are_dense_and_keep_their_origin(self):
        done = run("movielens.py", "--out", self.out)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        with h5py.File(self.out) as file:
            for name, count in (("user", 671), ("movie", 9066)):
                ids = file[name][:]
                self.assertEqual((ids.shape, ids.dtype), ((100004,), np.dtype("<i4")))
                np.testing.assert_array_equal(np.unique(ids), np.arange(count))
            self.assertEqual(file["movie_ids"][file["movie"][0]], 31)
            self.assertEqual((file["rating"].shape, file["rating"].dtype), ((100004, 1), np.dtype("<f4")))
            self.assertEqual((file["rating"][0, 0], file["time"][0]), (2.5, 1260759144))
            self.assertEqual((file["rating"][:].min(), file["rating"][:].max()), (0.5, 5))


if __name__ == "__main__":
    unittest.main()
