"""The adding problem: two numbers, far apart, among many; their sum at the end.

    python examples/adding_problem.py                              # LSTM, GRU and a simple network, three seeds: 45 s
    python examples/adding_problem.py --cell lstm --length 400     # a longer memory: 2 min
    python examples/adding_problem.py --cell mgu brc --seeds 1              # 15 s

Every step brings a number, uniform in [-1, 1], and a mark. Two steps are marked, one in each half of the sequence; at the last
step the network says the sum of their numbers. Who always says 0 has a mean squared error of 2/3. To do better, a number has to
be kept, unharmed by what comes after it, for half the sequence on average. A simple network forgets it, or its gradient
vanishes on the way back; a cell with gates learns to close them. A run ends at the first test with an error of 0.0005 or less.

Source: Sepp Hochreiter, Jürgen Schmidhuber. Long short-term memory. Neural Computation 9(8), 1997, experiment 4, without its
third mark and with a fixed length, as later work has it. The published figures, of networks with T = 100 and H = 8, are
those of https://github.com/cybertronai/schmidhuber-problems (one seed; of five, the LSTM's worst is 0.0046).
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

REPORT = Report(
    "Adding problem", "mean squared error", {"lstm": "0.0007", "elman": "0.07"}, "T = 100, H = 8", ("always 0", 2 / 3)
)


def draw(rng: np.random.Generator, count: int, length: int) -> Batch:
    """``count`` sequences; the targets [count, 1] are sums."""
    x = np.zeros((length, count, 2), np.float32)
    x[:, :, 0] = rng.uniform(-1, 1, (length, count))
    samples = np.arange(count)
    first, second = rng.integers(length // 2, size=count), rng.integers(length // 2, length, size=count)
    x[first, samples, 1] = x[second, samples, 1] = 1
    return Batch(x, (x[first, samples, 0] + x[second, samples, 0])[:, None])


def mean_squared_error(z: Floats, targets: Array) -> float:
    return lecture.squared_error(z[-1], targets)[0]


def run(options: argparse.Namespace, console: Console) -> list[Run]:
    def batch(rng: np.random.Generator, count: int) -> Batch:
        return draw(rng, count, options.length)

    task = Task(2, 1, batch, contest.last_step(lecture.squared_error), mean_squared_error, goal=5e-4)
    return contest.compare(task, REPORT, options, console)


PARSER = contest.arguments("adding_problem", "Add two of many numbers.", hidden=8, batch=32, steps=5000, rate=2e-2, seeds=3)
PARSER.add_argument("--length", type=lecture.at_least(10), default=100, metavar="T", help="steps of a sequence")

if __name__ == "__main__":
    sys.exit(lecture.main(PARSER, run))
