"""Temporal order: which two symbols came, and which came first.

    python examples/temporal_order.py                         # LSTM, GRU and a simple network, five seeds: 25 s
    python examples/temporal_order.py --cell mgu --seeds 2

A sequence begins with B, ends with E, and is made of a, b, c and d, drawn at random: they mean nothing. But in two places,
after about an eighth and about half of the sequence, stands X or Y. At the end the network says which of the four pairs it was.
It has to keep one bit for half the sequence, and not merely add them up: X, Y is another class than Y, X.

Source: Sepp Hochreiter, Jürgen Schmidhuber. Long short-term memory. Neural Computation 9(8), 1997, experiment 6a, whose
sequences have about 100 steps; the places are here in proportion. The published figures are those of small networks
(T = 50, H = 4). A run ends at the first test without a mistake.
"""

from __future__ import annotations

import argparse
import sys

import contest
import lecture
import numpy as np
from contest import Batch, Report, Run, Task
from lecture import Array, Floats
from rich.console import Console

REPORT = Report("Temporal order", "share wrong", {"lstm": "solved", "elman": "chance"}, "T = 50, H = 4", ("chance", 0.75))
SYMBOLS = "BEXYabcd"
X = SYMBOLS.index("X")


def draw(rng: np.random.Generator, count: int, length: int) -> Batch:
    """``count`` sequences; the targets [count] are 0 for XX, 1 for XY, 2 for YX, 3 for YY."""
    symbols = rng.integers(SYMBOLS.index("a"), len(SYMBOLS), size=(length, count))
    symbols[0], symbols[-1] = SYMBOLS.index("B"), SYMBOLS.index("E")
    first = rng.integers(length // 10, length // 5 + 1, size=count)
    second = rng.integers(length // 2, 3 * length // 5 + 1, size=count)
    was_y = rng.integers(2, size=(2, count))
    symbols[first, np.arange(count)] = X + was_y[0]
    symbols[second, np.arange(count)] = X + was_y[1]
    return Batch(np.eye(len(SYMBOLS), dtype=np.float32)[symbols], 2 * was_y[0] + was_y[1])


def share_wrong(z: Floats, targets: Array) -> float:
    return float(np.mean(z[-1].argmax(axis=1) != targets))


def run(options: argparse.Namespace, console: Console) -> list[Run]:
    def batch(rng: np.random.Generator, count: int) -> Batch:
        return draw(rng, count, options.length)

    task = Task(len(SYMBOLS), 4, batch, contest.last_step(lecture.softmax_cross_entropy), share_wrong, goal=0.0)
    return contest.compare(task, REPORT, options, console)


PARSER = contest.arguments(
    "temporal_order", "Tell in which order two symbols came.", hidden=4, batch=16, steps=8000, rate=1e-2, seeds=5
)
PARSER.add_argument("--length", type=lecture.at_least(10), default=50, metavar="T", help="steps of a sequence")

if __name__ == "__main__":
    sys.exit(lecture.main(PARSER, run))
