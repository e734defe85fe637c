"""The inputs of golden values, as a formula that tests/engine/net.h (golden_fill) repeats."""
import torch


def fill(shape, k):
    """float64 of this shape in [-1, 1): element i is ((7919 i + 104729 k + 13) mod 10007) / 5003.5 - 1."""
    n = 1
    for d in shape:
        n *= d
    i = torch.arange(n, dtype=torch.int64)
    return (((i * 7919 + k * 104729 + 13) % 10007).double() / 5003.5 - 1.0).reshape(shape)
