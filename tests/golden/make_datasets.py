"""Writes the HDF5 files that tests/data/dataset_test.cc and stream_test.cc open, and what NumPy says of them.

usage: make_datasets.py FOLDER
Besides the files: stats.txt, one line a value list: name, then numbers.
"""
import sys
from pathlib import Path

import h5py
import numpy as np

N = 100
out = Path(sys.argv[1])
rng = np.random.default_rng(7)
stats = open(out / "stats.txt", "w")


def note(name, values):
    stats.write(" ".join([name] + [f"{v:.17g}" for v in np.asarray(values, np.float64).ravel()]) + "\n")


def changed(array, where, value):
    copy = array.copy()
    copy[where] = value
    return copy


def tables():
    x = (rng.normal(size=(N, 5)) * [1, 100, 0, 1e-3, 5] + [0, 1e4, 3, 0, -7]).astype(np.float32)
    image = rng.integers(0, 256, (N, 6, 4)).astype(np.uint8)
    rgb = rng.integers(0, 256, (N, 3, 6, 4)).astype(np.uint8)
    label = np.arange(N, dtype=np.int64) % 4
    onehot = np.eye(4, dtype=np.uint8)[label]
    part = np.where(np.arange(N) < 60, 0, np.where(np.arange(N) < 80, 1, 2)).astype(np.uint8)
    return {
        "x": x,
        "half": x[:, [0, 4]].astype(np.float16),
        "wide": (rng.normal(size=(N, 2)) + 1e6).astype(np.float64),
        "image": image,
        "rgb": rgb,
        "ids": np.stack([np.arange(N) % 7, np.arange(N) % 5], 1).astype(np.int32),
        "y": rng.normal(size=(N, 1)).astype(np.float32),
        "label": label,
        "onehot": onehot,
        "multi": (rng.random((N, 3)) < 0.4).astype(np.float32),
        "weight": rng.random(N) + 0.5,
        "date": (np.arange(N) * 2 + 1000).astype(np.int32),
        "part": part,
        # one thing wrong in each
        "x_nan": changed(changed(x, (17, 3), np.nan), (40, 0), np.inf),
        "y_nan": changed(rng.normal(size=(N, 1)).astype(np.float32), (41, 0), -np.inf),
        "x_short": x[:99],
        "x_empty": np.zeros((N, 0), np.float32),
        "x_none": np.zeros((0, 5), np.float32),
        "x_huge": np.full((N, 1), 1e300),
        "label_bad": changed(label, 33, 9),
        "label_negative": changed(label, 34, -1),
        "label_late": changed(label, 90, 4),
        "label_float": label.astype(np.float32),
        "onehot_bad": changed(onehot, (35, slice(None)), [1, 1, 0, 0]),
        "onehot_range": changed(onehot.astype(np.float32), (36, 0), 1.5),
        "multi_range": changed(np.zeros((N, 3), np.float32), (37, 2), -0.5),
        "ids_negative": changed(np.zeros((N, 2), np.int32), (38, 1), -3),
        "ids_large": changed(np.zeros((N, 1), np.uint64), 39, 2**63),
        "weight_negative": changed(np.ones(N, np.float32), 42, -0.25),
        "weight_zero": np.zeros(N, np.float32),
        "weight_wide": np.zeros((N, 2), np.float32),
        "date_nan": changed((np.arange(N) * 2.0 + 1000), 43, np.nan),
        "part_bad": changed(part, 44, 3),
        "part_one": np.ones(N, np.uint8),
    }


def one_file(name, arrays, **storage):
    with h5py.File(out / name, "w") as f:
        for key, value in arrays.items():
            chunked = storage if value.size else {}
            f.create_dataset(key, data=value, **chunked)


def of_train(arrays):
    """Statistics of rows 0..59, the train part of the dataset 'part'."""
    for key in ("x", "half", "wide"):
        v = arrays[key][:60].astype(np.float64)
        note(f"{key}.mean", v.mean(0))
        note(f"{key}.std", v.std(0))
        note(f"{key}.min", v.min(0))
        note(f"{key}.max", v.max(0))
    for key, axes in (("image", None), ("rgb", (0, 2, 3))):
        v = arrays[key][:60].astype(np.float64)
        note(f"{key}.mean", v.mean(axes))
        note(f"{key}.std", v.std(axes))


def parts(arrays):
    cuts = {"train": slice(0, 50), "validation": slice(50, 70), "test": slice(70, 100)}
    with h5py.File(out / "groups.h5", "w") as groups:
        for part, rows in cuts.items():
            one_file(f"{part}.h5", {k: arrays[k][rows] for k in ("x", "label")}, chunks=True)
            for key in ("x", "label"):
                groups[f"{part}/{key}"] = arrays[key][rows]
    one_file("test_double.h5", {"x": arrays["x"].astype(np.float64), "label": arrays["label"]})
    one_file("test_narrow.h5", {"x": arrays["x"][:, :4], "label": arrays["label"]})


def stream():
    """1003 rows that know their number; the rows of part 0 are scattered."""
    n = 1003
    number = np.arange(n)
    with h5py.File(out / "stream.h5", "w") as f:
        f.create_dataset("x", data=(number[:, None] * 8 + np.arange(8)).astype(np.float32), chunks=(32, 8),
                         compression="gzip")
        f.create_dataset("id", data=number.astype(np.int32), chunks=(50,))
        f.create_dataset("y", data=(number % 11).astype(np.int16))
        f.create_dataset("weight", data=(number + 1).astype(np.float64))
        f.create_dataset("part", data=(number % 3 == 0).astype(np.uint8))


arrays = tables()
one_file("data.h5", arrays)
one_file("chunked.h5", arrays, chunks=True, compression="gzip", shuffle=True)
one_file("other.h5", {**arrays, "x": changed(arrays["x"], (99, 4), 0)})
of_train(arrays)
parts(arrays)
stream()
stats.close()
