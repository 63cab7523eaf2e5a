"""Temporal order: which two symbols came, and which came first.

    python examples/temporal_order.py                         # LSTM, GRU and a simple network, five seeds: 40 s
    python examples/temporal_order.py --cell mgu --seeds 2                   # 5 s

A sequence begins with B, ends with E, and is made of a, b, c and d, drawn at random: they mean nothing. But in two places,
one in the first quarter and one between the middle and four fifths, stands X or Y. At the end the network says which of the
four pairs it was. It has to keep one bit for half the sequence, and not merely count: X, Y is another class than Y, X. A run
ends at the first test without a mistake.

Source: Sepp Hochreiter, Jürgen Schmidhuber. Long short-term memory. Neural Computation 9(8), 1997, experiment 6a, whose
sequences have about 100 steps. The places, and the published figures of networks with T = 50 and H = 4 (five seeds), are
those of https://github.com/cybertronai/schmidhuber-problems.
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

REPORT = Report("Temporal order", "share wrong", {"lstm": "5 of 5", "elman": "chance"}, "T = 50, H = 4", ("chance", 0.75))
SYMBOLS = "BEXYabcd"
X = SYMBOLS.index("X")


def draw(rng: np.random.Generator, count: int, length: int) -> Batch:
    """``count`` sequences; the targets [count] are 0 for XX, 1 for XY, 2 for YX, 3 for YY."""
    symbols = rng.integers(SYMBOLS.index("a"), len(SYMBOLS), size=(length, count))
    symbols[0], symbols[-1] = SYMBOLS.index("B"), SYMBOLS.index("E")
    first = rng.integers(max(3 * length // 50, 1), 12 * length // 50 + 1, size=count)  # 3 to 12 of 50
    second = rng.integers(length // 2, 4 * length // 5 + 1, size=count)  # 25 to 40
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
