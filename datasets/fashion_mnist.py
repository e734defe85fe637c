#!/usr/bin/python3
"""Makes fashion_mnist.h5 from the IDX files of Debian's package dataset-fashion-mnist.

    datasets/fashion_mnist.py --out fashion_mnist.h5 [--from FOLDER]

    train/x uint8 (60000,1,28,28)   train/y uint8 (60000,)
    test/x  uint8 (10000,1,28,28)   test/y  uint8 (10000,)
"""

import argparse
import pathlib

import convert
import idx

DEBIAN_FOLDER = pathlib.Path("/usr/share/datasets/fashion-mnist")


def convert_fashion_mnist(arguments):
    folder = arguments.folder
    if not folder.is_dir():
        raise convert.ConversionError(f"no {folder}: apt-get install dataset-fashion-mnist or give --from")
    idx.to_hdf5(arguments.out, "Fashion-MNIST (Zalando SE, MIT licence)",
                train=(folder / "train-images-idx3-ubyte.gz", folder / "train-labels-idx1-ubyte.gz"),
                test=(folder / "t10k-images-idx3-ubyte.gz", folder / "t10k-labels-idx1-ubyte.gz"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", default="fashion_mnist.h5",
                        help="file to write (default: fashion_mnist.h5 here)")
    parser.add_argument("--from", dest="folder", type=pathlib.Path, default=DEBIAN_FOLDER,
                        help=f"folder of the four .gz files (default: {DEBIAN_FOLDER})")
    convert.main(convert_fashion_mnist, parser.parse_args())
