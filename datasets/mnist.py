#!/usr/bin/python3
"""Makes mnist.h5 from four IDX files of your own, gzipped or not.

    datasets/mnist.py train-images-idx3-ubyte train-labels-idx1-ubyte \\
                      t10k-images-idx3-ubyte t10k-labels-idx1-ubyte --out mnist.h5

    train/x uint8 (60000,1,28,28)   train/y uint8 (60000,)
    test/x  uint8 (10000,1,28,28)   test/y  uint8 (10000,)
"""

import argparse

import convert
import idx


def convert_mnist(arguments):
    idx.to_hdf5(arguments.out, "MNIST (LeCun, Cortes, Burges)",
                train=(arguments.train_images, arguments.train_labels),
                test=(arguments.test_images, arguments.test_labels))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        parser.add_argument(name, help="IDX file, may be gzipped")
    parser.add_argument("--out", default="mnist.h5", help="file to write (default: mnist.h5 here)")
    convert.main(convert_mnist, parser.parse_args())
