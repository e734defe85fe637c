#!/usr/bin/python3
"""PyTorch's side of recipes/fashion-cnn.yaml: the same net, init, augmentation, optimizer and schedule.

    benchmarks/torch_fashion.py --data fashion_mnist.h5 --seed 1 --epochs 10

Prints CSV: seed, epoch, mean training loss, test accuracy, seconds of training so far.
Needs the Debian packages python3-torch and python3-h5py.
"""

import argparse
import time

import h5py
import torch
from torch import nn
from torch.nn import functional

BATCH = 128
MAX_LR = 3e-3
WEIGHT_DECAY = 0.05
PAD = 1


def build_net():
    """x(N,1,28,28) to logits(N,10): 10 MFLOP forward a sample."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 48, 3, padding=1, bias=False), nn.BatchNorm2d(48), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(48, 96, 3, padding=1, bias=False), nn.BatchNorm2d(96), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(96 * 3 * 3, 128), nn.ReLU(),
        nn.Dropout(0.2), nn.Linear(128, 10),
    )  # fmt: skip


def augment(x, flip):
    """Random crop out of `PAD` zero pixels each way and, if asked, a horizontal flip; one draw a sample."""
    count, _, height, width = x.shape
    padded = functional.pad(x, [PAD] * 4)
    rows = torch.randint(0, 2 * PAD + 1, (count, 1)) + torch.arange(height)
    columns = torch.randint(0, 2 * PAD + 1, (count, 1)) + torch.arange(width)
    if flip:
        mirrored = torch.rand(count, 1) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    samples = torch.arange(count)[:, None, None, None]
    return padded[samples, 0, rows[:, None, :, None], columns[:, None, None, :]]


def make_optimizer(net):
    """AdamW whose decay skips biases and norms."""
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=MAX_LR)


def accuracy(net, x, y):
    net.eval()
    with torch.no_grad():
        batches = zip(x.split(1000), y.split(1000))
        right = sum((net(images).argmax(1) == labels).sum().item() for images, labels in batches)
    return right / len(y)


def load(path, part):
    with h5py.File(path) as file:
        x = torch.from_numpy(file[f"{part}/x"][:]).float() / 255
        y = torch.from_numpy(file[f"{part}/y"][:]).long()
    return x, y


def train(arguments):
    torch.manual_seed(arguments.seed)
    x, y = load(arguments.data, "train")
    test = load(arguments.data, "test")
    net = build_net()
    optimizer = make_optimizer(net)
    steps = -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, MAX_LR, total_steps=steps * arguments.epochs,
                                                   cycle_momentum=False)
    print("seed,epoch,train_loss,test_accuracy,train_seconds", flush=True)
    seconds = 0.0
    for epoch in range(1, arguments.epochs + 1):
        start, total = time.perf_counter(), 0.0
        net.train()
        for rows in torch.randperm(len(x)).split(BATCH):
            loss = functional.cross_entropy(net(augment(x[rows], arguments.flip)), y[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        seconds += time.perf_counter() - start
        row = f"{arguments.seed},{epoch},{total / len(x):.4f},{accuracy(net, *test):.4f},{seconds:.1f}"
        print(row, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", required=True, help="file made by datasets/fashion_mnist.py (or mnist.py)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1, help="threads for PyTorch (default: 1)")
    parser.add_argument("--no-flip", dest="flip", action="store_false", help="no horizontal flips (digits)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train(options)
