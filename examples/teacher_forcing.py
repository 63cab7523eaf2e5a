"""Teacher forcing, free running, scheduled sampling: a network that is to live on its own predictions.

    python examples/teacher_forcing.py                     # three ways to train, three seeds: 80 s
    python examples/teacher_forcing.py --seeds 1 --ahead 200     # 30 s

An LSTM reads twenty points of a sine wave of unknown frequency and phase, and goes on by itself: each of its predictions is
its next input. How is it to be trained?

- Teacher forcing: it reads true points throughout. The error of a single step becomes tiny. But in training it never stands
  where its own small errors will take it, and from there it does not know the way back: exposure bias.
- Free running: it reads its own predictions, from the first update on, while they are worthless.
- Scheduled sampling: a coin says at each step which of the two it reads, and the probability of the true point falls from 1
  to 0 in the course of the training, by an inverse sigmoid.

Coin and feedback are part of the cell, examples/fed_back.yaml: the loop over time is that of the generated module.

Source: Samy Bengio, Oriol Vinyals, Navdeep Jaitly, Noam Shazeer. Scheduled sampling for sequence prediction with recurrent
neural networks. 2015. They, too, find scheduled sampling best, and free running from the beginning poor. Their tasks are
captions of images, parsing and speech; the sine waves are a small stand-in.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import lecture
import numpy as np
from lecture import Floats, Recipe
from numpy.random import Generator
from rich.console import Console

import cellspec
from cellspec import layers

CELL = cellspec.build(cellspec.load(Path(__file__).resolve().with_name("fed_back.yaml")))
GIVEN = 20  # points that are given before it goes on by itself

# The probability with which a true point is read, as training goes from 0 to 1.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "teacher forcing": lambda spent: 1.0,
    "free running": lambda spent: 0.0,
    "scheduled sampling": lambda spent: 1 / (1 + math.exp(12 * (spent - 0.5))),
}


class Trained(NamedTuple):
    """A network, and its root mean squared errors on the test."""

    schedule: str
    one_step: float  # of the next point, when it reads true points only
    ahead: Floats  # [N] of the first to the N-th point after those that were given
    continued: Floats  # [N] what it makes of the first wave
    seconds: float


def waves(rng: Generator, count: int, points: int) -> Floats:
    """Sine waves [points, count, 1]; a step is 0.15 to 0.5 radians."""
    frequency, phase = rng.uniform(0.15, 0.5, count), rng.uniform(0, 2 * np.pi, count)
    return np.sin(frequency * np.arange(points)[:, None] + phase)[..., None].astype(np.float32)


def predict(params: Any, points: Floats, probability: float, rng: Generator) -> tuple[Floats, Any]:
    """Predictions of all ``points`` [T + 1, B, 1] but the first, and the tape.

    Those given are read as they are; of the others, each true one is read with the probability, else its own prediction.
    """
    x = points[:-1]
    teacher = (rng.random(x.shape) < probability).astype(np.float32)
    teacher[:GIVEN] = 1
    y, _, tape = CELL.forward(params, CELL.Inputs(x, teacher))
    return y, tape


def train(name: str, seed: int, options: argparse.Namespace) -> Trained:
    """A network trained by a schedule; the test waves are the same for all."""
    began = time.perf_counter()
    rng = np.random.default_rng(seed)
    flat, unflatten = layers.flatten(CELL.init_params(rng, I=1, H=options.hidden, dtype=np.float32))
    params = unflatten(flat)

    def learn(step: int) -> tuple[float, Floats]:
        points = waves(rng, options.batch, options.length + 1)
        y, tape = predict(params, points, SCHEDULES[name](step / options.steps), rng)
        loss, dy = lecture.squared_error(y, points[1:])
        return loss, layers.flatten(CELL.backward(params, tape, dy).params)[0]

    lecture.fit(flat, learn, Recipe(options.steps, options.rate, options.clip))
    test = waves(np.random.default_rng(lecture.TEST_SEED), options.test, GIVEN + options.ahead)
    errors, runs = [], []
    for probability in (1.0, 0.0):
        y, _ = predict(params, test, probability, rng)
        runs.append(y[GIVEN - 1 :, 0, 0])
        errors.append(np.sqrt(np.mean((y - test[1:]) ** 2, axis=(1, 2)))[GIVEN - 1 :])
    return Trained(name, float(errors[0].mean()), errors[1], runs[1], time.perf_counter() - began)


def run(options: argparse.Namespace, console: Console) -> list[Trained]:
    marks = [mark for mark in (1, 5, 10, 20, 40, 80) if mark <= options.ahead]
    title = f"Root mean squared error of a single step, and so many points ahead: median of {options.seeds}"
    table = lecture.results(title, "training", "one step", *map(str, marks), "seconds")
    found = []
    for name in SCHEDULES:
        runs = [train(name, seed, options) for seed in range(options.seed, options.seed + options.seeds)]
        ahead = np.median([run.ahead for run in runs], axis=0)
        one_step, seconds = (float(np.median([getattr(run, field) for run in runs])) for field in ("one_step", "seconds"))
        table.add_row(name, f"{one_step:.4f}", *(f"{ahead[mark - 1]:.3f}" for mark in marks), f"{seconds:.1f}")
        found.append(Trained(name, one_step, ahead, runs[0].continued, seconds))
    console.print(table)
    draw(found, options, console)
    return found


def draw(found: list[Trained], options: argparse.Namespace, console: Console) -> None:
    """Errors over the points ahead, and one wave as each network continues it."""
    ahead = np.arange(1, options.ahead + 1)
    wave = waves(np.random.default_rng(lecture.TEST_SEED), options.test, GIVEN + options.ahead)[:, 0, 0]
    with lecture.figure(options.figure, console, panels=2) as (errors, example):
        for trained in found:
            errors.plot(ahead, trained.ahead, label=trained.schedule)
            example.plot(ahead, trained.continued, label=trained.schedule)
        example.plot(np.arange(1 - GIVEN, options.ahead + 1), wave, color="0.6", linestyle="--", label="true", zorder=0)
        errors.set(yscale="log", xlabel="points ahead", ylabel="root mean squared error", title="On its own predictions")
        example.set(xlabel="points ahead", ylim=(-2, 2), title="A wave, continued")
        errors.legend()


PARSER = lecture.arguments(
    "teacher_forcing", "Train a network to go on by itself, in three ways.", hidden=32, batch=32, steps=3000, rate=1e-2
)
PARSER.add_argument("--seeds", type=lecture.at_least(1), default=3, metavar="N", help="runs of each")
PARSER.add_argument("--length", type=lecture.at_least(GIVEN), default=60, metavar="T", help="steps of a sequence in training")
PARSER.add_argument("--ahead", type=lecture.at_least(1), default=100, metavar="N", help="points to be continued in the test")
PARSER.add_argument("--test", type=lecture.at_least(1), default=500, metavar="N", help="waves in the test")

if __name__ == "__main__":
    sys.exit(lecture.main(PARSER, run))
