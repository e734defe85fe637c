#!/usr/bin/python3
"""Makes movielens.h5: 100,004 MovieLens ratings of 9,066 movies by 671 users, as R's dslabs has them.

    datasets/movielens.py --out movielens.h5

Needs the Debian packages r-base-core, r-cran-dslabs and python3-h5py. GroupLens restricts redistribution
of the ratings, so this runs on the user's machine and its output is never committed.

    user    int32   (N,)   0-based, dense; the dataset user_ids has the original userId of each
    movie   int32   (N,)   0-based, dense; the dataset movie_ids has the original movieId of each
    rating  float32 (N,1)  0.5 to 5 stars
    time    int64   (N,)   seconds since 1970-01-01
"""

import argparse

import numpy as np

import convert

CHUNK_ROWS = 16384


def convert_movielens(arguments):
    rows = convert.read_r_table("movielens.R", "r-cran-dslabs")
    with convert.new_file(arguments.out) as file:
        for name, column in (("user", "userId"), ("movie", "movieId")):
            ids, dense = np.unique([int(row[column]) for row in rows], return_inverse=True)
            convert.add(file, name, dense.astype("<i4"), CHUNK_ROWS)
            convert.add(file, f"{name}_ids", ids.astype("<i4"), CHUNK_ROWS,
                        meaning=f"{column} of each dense {name}")
        rating = np.array([[float(row["rating"])] for row in rows], dtype="<f4")
        convert.add(file, "rating", rating, CHUNK_ROWS, names=["rating"], units=["stars"])
        time = np.array([int(row["timestamp"]) for row in rows], dtype="<i8")
        convert.add(file, "time", time, CHUNK_ROWS, units="seconds since 1970-01-01")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", default="movielens.h5", help="file to write (default: movielens.h5 here)")
    convert.main(convert_movielens, parser.parse_args())
