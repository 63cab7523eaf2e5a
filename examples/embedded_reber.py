"""The embedded Reber grammar: what came second decides what comes last but one.

    python examples/embedded_reber.py                     # LSTM, GRU and a simple network, ten seeds: 70 s
    python examples/embedded_reber.py --cell lstm_1997 --seeds 3              # 10 s

A string is B, then T or P, then a string of the Reber grammar, then again the T or P of before, then E: BTBPVVETE, for example.
After each symbol the network says which may come next, at most places one of two. All but one of these predictions take a
short memory; the last but one takes a symbol that is kept while the inner string goes by. A string is wrong if somewhere a
symbol that may not follow gets as great a probability as one that may. A cell has solved the task at the first test without
a wrong string; there the run ends.

Source: Axel Cleeremans, David Servan-Schreiber, James L. McClelland. Finite state automata and simple recurrent networks.
Neural Computation 1(3), 1989; Sepp Hochreiter, Jürgen Schmidhuber. Long short-term memory. Neural Computation 9(8), 1997,
experiment 1, where Elman's network never solves it. There the training has 256 strings; here they are drawn afresh for
every batch, and the recurrent matrix of the simple network begins orthogonal: it solves the task with most seeds. The
published figure is that of https://github.com/cybertronai/schmidhuber-problems (H = 8, an LSTM of 1997).
"""

from __future__ import annotations

import argparse
import sys
from typing import NamedTuple

import contest
import lecture
import numpy as np
from contest import Batch, Report, Run, Task
from lecture import Array, Floats
from rich.console import Console

# Who keeps nothing still guesses half of the last but one symbols.
REPORT = Report("Embedded Reber grammar", "share wrong", {"lstm": "10 of 10"}, "H = 8", ("chance", 0.5))
SYMBOLS = "BTPSXVE"
# From each node, the symbols that may come and the nodes that they lead to; E leads out.
GRAMMAR = ({"T": 1, "P": 2}, {"S": 1, "X": 3}, {"T": 2, "V": 4}, {"X": 2, "S": 5}, {"P": 3, "V": 5}, {"E": -1})


def embedded(rng: np.random.Generator) -> tuple[str, list[str]]:
    """A string, and for each of its symbols all that might have stood there."""
    kept = "TP"[rng.integers(2)]
    text, allowed = ["B", kept, "B"], ["B", "TP", "B"]
    node = 0
    while node >= 0:
        allowed.append("".join(GRAMMAR[node]))
        text.append(allowed[-1][rng.integers(len(allowed[-1]))])
        node = GRAMMAR[node][text[-1]]
    return "".join([*text, kept, "E"]), [*allowed, kept, "E"]


class Targets(NamedTuple):
    """What is asked after each symbol."""

    following: Array  # [T, B] the symbol that follows, -1 in the padding
    allowed: Array  # [T, B, 7] what may follow, nothing in the padding


def draw(rng: np.random.Generator, count: int) -> Batch:
    """``count`` strings, padded behind."""
    strings = [embedded(rng) for _ in range(count)]
    lengths = np.array([len(text) - 1 for text, _ in strings])
    x = np.zeros((lengths.max(), count, len(SYMBOLS)), np.float32)
    following, allowed = np.full(x.shape[:2], -1), np.zeros(x.shape, bool)
    for sample, (text, choices) in enumerate(strings):
        places = [SYMBOLS.index(symbol) for symbol in text]
        for t, successors in enumerate(choices[1:]):
            x[t, sample, places[t]] = 1
            following[t, sample] = places[t + 1]
            allowed[t, sample, [SYMBOLS.index(symbol) for symbol in successors]] = True
    return Batch(x, Targets(following, allowed), lengths)


def cross_entropy(z: Floats, targets: Targets) -> tuple[float, Floats]:
    return lecture.softmax_cross_entropy(z, targets.following)


def share_wrong(z: Floats, targets: Targets) -> float:
    """Of the strings, those in which a symbol that may not follow is at some place as probable as one that may."""
    least, most = np.where(targets.allowed, z, np.inf).min(axis=2), np.where(targets.allowed, -np.inf, z).max(axis=2)
    return float(np.mean(((most >= least) & (targets.following >= 0)).any(axis=0)))


def run(options: argparse.Namespace, console: Console) -> list[Run]:
    task = Task(len(SYMBOLS), len(SYMBOLS), draw, cross_entropy, share_wrong, goal=0.0)
    return contest.compare(task, REPORT, options, console)


PARSER = contest.arguments(
    "embedded_reber", "Predict strings of an embedded Reber grammar.", hidden=8, batch=16, steps=5000, rate=1e-2, seeds=10
)

if __name__ == "__main__":
    sys.exit(lecture.main(PARSER, run))
