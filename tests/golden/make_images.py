#!/usr/bin/env python3
"""Writes a small HDF5 file of images for run tests: train/x uint8 (160,1,8,8), train/y uint8, and test/ likewise (32).

Class k has a bright 3x3 patch at its own place, so that a small network learns it. usage: make_images.py OUT
"""
import sys

import h5py
import numpy as np

rng = np.random.default_rng(5)
with h5py.File(sys.argv[1], "w") as f:
    for name, n in (("train", 160), ("test", 32)):
        y = (np.arange(n) % 3).astype(np.uint8)
        x = rng.integers(0, 60, (n, 1, 8, 8)).astype(np.uint8)
        for i, k in enumerate(y):
            x[i, 0, 2 * k : 2 * k + 3, 3:6] += 150
        f.create_dataset(f"{name}/x", data=x, chunks=(20, 1, 8, 8), compression="gzip", shuffle=True)
        f.create_dataset(f"{name}/y", data=y)
