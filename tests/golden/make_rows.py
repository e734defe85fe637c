#!/usr/bin/env python3
"""Writes a small HDF5 file of rows for run tests: in train/ (64) and test/ (32) x float64 (n,4), the sign of whose
sum is the class: y uint8 (n), onehot float32 (n,2), and weight float32 (n), every third of which is 0. In worse/ are
the rows of test/ under the other class, so that a model that learns gets worse there. outlier/ is train/ with one row
that float32 cannot hold. usage: make_rows.py OUT
"""
import sys

import h5py
import numpy as np

rng = np.random.default_rng(7)
with h5py.File(sys.argv[1], "w") as f:
    for name, n in (("train", 64), ("test", 32)):
        x = rng.normal(size=(n, 4))
        y = (x.sum(1) > 0).astype(np.uint8)
        other, other_y = ("outlier", y) if name == "train" else ("worse", 1 - y)
        loud = x.copy()
        if name == "train":
            loud[0] = 1e300
        for group, rows, classes in ((name, x, y), (other, loud, other_y)):
            f[f"{group}/x"] = rows
            f[f"{group}/y"] = classes
            f[f"{group}/onehot"] = np.eye(2, dtype=np.float32)[classes]
            f[f"{group}/weight"] = (np.arange(n) % 3 > 0).astype(np.float32)
