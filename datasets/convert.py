"""What the converters share: an R script's table, and HDF5 files whose bytes depend on the data alone."""

import contextlib
import csv
import os
import pathlib
import subprocess
import sys
import tempfile

import h5py
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent


class ConversionError(Exception):
    """A conversion that cannot go on; the message names the file or package at fault."""


def read_r_table(script, package):
    """Rows (dictionaries of strings) of the CSV that `script` writes; it needs the Debian `package`."""
    with tempfile.TemporaryDirectory() as folder:
        table = pathlib.Path(folder) / "table.csv"
        try:
            done = subprocess.run(["Rscript", "--vanilla", str(HERE / script), str(table)],
                                  capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise ConversionError(f"Rscript not found: apt-get install r-base-core {package}") from None
        if done.returncode != 0:
            reason = " ".join(done.stderr.split())
            raise ConversionError(f"{script} failed (it needs the Debian package {package}): {reason}")
        with open(table, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))


@contextlib.contextmanager
def new_file(path):
    """An open h5py.File that takes the name `path` only when it is complete."""
    path = pathlib.Path(path)
    part = path.with_name(path.name + ".part")
    try:
        with h5py.File(part, "w", libver=("earliest", "v110")) as file:
            yield file
        os.replace(part, path)
    except OSError as error:
        raise ConversionError(f"cannot write {path}: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def add(file, name, values, chunk_rows, **attributes):
    """Stores an array in gzip chunks of `chunk_rows` rows; attributes are strings or lists of strings."""
    chunks = (min(chunk_rows, values.shape[0]),) + values.shape[1:]
    # Shuffling pays for numbers of several bytes only.
    dataset = file.create_dataset(name, data=values, chunks=chunks, compression="gzip", compression_opts=6,
                                  shuffle=values.dtype.itemsize > 1, track_times=False)
    for key, value in attributes.items():
        dataset.attrs[key] = fixed_strings(value)


def fixed_strings(value):
    """Strings of a fixed length: readers need no global heap for them."""
    return np.asarray(value).astype("S")


def main(convert, arguments):
    """Runs convert(arguments); a failure is one line on stderr and exit code 1."""
    try:
        convert(arguments)
    except ConversionError as error:
        print(f"{pathlib.Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(1)
