#!/usr/bin/python3
"""Small files in place of the data sets that recipes name, so that every shipped recipe can be run for a few steps where
the real ones are not: fashion_mnist.h5, mnist.h5 and movielens.h5, with the datasets, types, shapes and ranges of theirs.

    tests/gpu/stand_ins.py FOLDER

An image is its class's pattern and noise, both in blocks of 4x4 pixels; a rating is its user's mean and its movie's. What a
recipe reaches on them means nothing.
"""

import pathlib
import sys

import h5py
import numpy as np

IMAGES = {"train": 2560, "test": 256}  # 20 batches of 128
RATINGS, USERS, MOVIES = 26000, 671, 9066  # four fifths of them are 40 batches of 512


def images(path, seed):
    rng = np.random.default_rng(seed)
    patterns = rng.integers(0, 128, (10, 7, 7))
    with h5py.File(path, "w") as file:
        for part, n in IMAGES.items():
            y = rng.integers(0, 10, n)
            blocks = patterns[y] + rng.integers(0, 128, (n, 7, 7))
            x = blocks.repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)[:, None]
            file.create_dataset(f"{part}/x", data=x, chunks=(128, 1, 28, 28), compression="gzip", shuffle=True)
            file.create_dataset(f"{part}/y", data=y.astype(np.uint8))


def ratings(path):
    rng = np.random.default_rng(3)
    user, movie = rng.integers(0, USERS, RATINGS), rng.integers(0, MOVIES, RATINGS)
    user[0], movie[0] = USERS - 1, MOVIES - 1  # both tables have their size
    stars = 3 + rng.normal(0, 0.5, USERS)[user] + rng.normal(0, 0.5, MOVIES)[movie]
    with h5py.File(path, "w") as file:
        for name, ids in (("user", user), ("movie", movie)):
            file.create_dataset(name, data=ids.astype(np.int32), chunks=(4096,), compression="gzip", shuffle=True)
        file.create_dataset("rating", data=np.clip(stars.round(1), 0.5, 5).astype(np.float32)[:, None])


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    images(folder / "fashion_mnist.h5", 1)
    images(folder / "mnist.h5", 2)
    ratings(folder / "movielens.h5")
