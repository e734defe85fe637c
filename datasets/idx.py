"""IDX files (the format of MNIST and its kin) to one HDF5 file: train/x, train/y, test/x and test/y."""

import gzip
import math
import struct

import numpy as np

import convert

CHUNK_ROWS = 1000
UBYTE = 0x08
MAX_RANK = 8


def read_idx(path):
    """The uint8 array of an IDX file, gzipped or not. Header: two zeros, type, rank, big-endian sizes."""
    try:
        with open(path, "rb") as file:
            data = file.read()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError) as error:
        raise convert.ConversionError(f"cannot read {path}: {error}") from error
    if len(data) < 4 or data[:2] != b"\0\0":
        raise convert.ConversionError(f"{path} is not an IDX file")
    kind, rank = data[2], data[3]
    if kind != UBYTE or not 1 <= rank <= MAX_RANK or len(data) < 4 + 4 * rank:
        raise convert.ConversionError(f"{path} is not an IDX file of bytes: type {kind:#04x}, rank {rank}")
    shape = struct.unpack_from(f">{rank}I", data, 4)
    body = len(data) - 4 - 4 * rank
    if body != math.prod(shape):
        raise convert.ConversionError(f"{path} says shape {shape}, but holds {body} values")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def read_pair(images, labels):
    """x(N,1,H,W) and y(N) of two IDX files."""
    x, y = read_idx(images), read_idx(labels)
    if x.ndim != 3 or y.ndim != 1 or len(x) != len(y):
        raise convert.ConversionError(
            f"{images} has shape {x.shape} and {labels} {y.shape}: not images with one label each")
    return x[:, np.newaxis], y


def to_hdf5(out, source, train, test):
    """Writes images of `train` and `test`, each a pair (images path, labels path), to the file `out`."""
    parts = {"train": read_pair(*train), "test": read_pair(*test)}
    with convert.new_file(out) as file:
        file.attrs["source"] = convert.fixed_strings(source)
        for name, (x, y) in parts.items():
            convert.add(file, f"{name}/x", x, CHUNK_ROWS)
            convert.add(file, f"{name}/y", y, CHUNK_ROWS)
