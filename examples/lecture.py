"""What the programs in this folder share: Adam, losses, a cell with a linear read-out, training, tables and figures."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

# Before NumPy is loaded: programs import this module first. The products of one step are small: two threads gain a third here,
# but when something else is running they wait for one another, busily, and lose far more than that. One thread also gives the
# same bits whatever the machine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from cellspec import layers
from cellspec.layers import AnyLayer

Floats = NDArray[np.float32]
Array = NDArray[Any]

TEST_SEED = 10**9  # of the samples that errors are measured on: the same for every seed of the training


class UsageError(Exception):
    """One sentence for whoever typed the command."""


# --- learning ----------------------------------------------------------------------------------------------


class Adam:
    """Adam on one flat vector, in place."""

    def __init__(self, flat: Floats, decay: tuple[float, float] = (0.9, 0.99), epsilon: float = 1e-8) -> None:
        self.flat, self.decay, self.epsilon, self.count = flat, decay, epsilon, 0
        self.mean, self.square, self.scratch = np.zeros_like(flat), np.zeros_like(flat), np.zeros_like(flat)

    def update(self, gradient: Floats, rate: float) -> None:
        """mean, square <- running averages of g, g²; flat <- flat - rate * mean / (sqrt(square) + epsilon), bias-corrected."""
        (b1, b2), scratch = self.decay, self.scratch
        self.count += 1
        self.mean *= b1
        self.mean += np.multiply(gradient, 1 - b1, out=scratch)
        self.square *= b2
        np.multiply(gradient, gradient, out=scratch)
        scratch *= 1 - b2
        self.square += scratch
        np.divide(self.square, 1 - b2**self.count, out=scratch)
        np.sqrt(scratch, out=scratch)
        scratch += self.epsilon
        np.divide(self.mean, scratch, out=scratch)
        scratch *= rate / (1 - b1**self.count)
        self.flat -= scratch


def rate_at(rate: float, step: int, spent: float) -> float:
    """A warm-up of 20 steps to ``rate``, then half a cosine down to a hundredth of it as ``spent`` goes from 0 to 1."""
    return rate * min((step + 1) / 20, 1.0) * (0.505 + 0.495 * math.cos(math.pi * spent))


def squared_error(z: Floats, targets: Floats) -> tuple[float, Floats]:
    """The mean of (z - target)², and its gradient by z."""
    error = z - targets
    return float(np.mean(error * error, dtype=np.float64)), error * np.float32(2 / error.size)


def softmax_cross_entropy(z: Floats, targets: NDArray[np.intp]) -> tuple[float, Floats]:
    """The mean of -log softmax(z)[target], and its gradient by z; z is [..., K], targets [...], where -1 asks for nothing."""
    rows, wanted = z.reshape(-1, z.shape[-1]), targets.ravel()
    asked = np.flatnonzero(wanted >= 0)
    p = np.exp(rows - rows.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    right = p[asked, wanted[asked]]
    loss = -np.log(np.maximum(right, np.float32(1e-30))).mean(dtype=np.float64)
    p[asked, wanted[asked]] -= 1
    p[wanted < 0] = 0
    p /= len(asked)
    return float(loss), p.reshape(z.shape)


class Weights(NamedTuple):
    """All that is learnt; also the shape of a gradient."""

    layer: Any
    readout: Floats  # [K, D]
    bias: Floats  # [K]


class Net:
    """A layer and a linear read-out at every step: ``z[t] = readout @ y[t] + bias``. ``flat`` is all that is learnt."""

    def __init__(self, layer: AnyLayer, rng: Generator, outputs: int) -> None:
        params, width = layer.init_params(rng), layer.output_size
        readout = rng.standard_normal((outputs, width), dtype=np.float32) / np.float32(math.sqrt(width))
        self.layer = layer
        self.flat, unflatten = layers.flatten(Weights(params, readout, np.zeros(outputs, np.float32)))
        self.weights = unflatten(self.flat)

    def forward(self, x: Floats, lengths: Array | None = None) -> tuple[Floats, Any]:
        """x [T, B, I] -> (z [T, B, K], what ``backward`` needs)."""
        y, _, tape = self.layer.forward(self.weights.layer, x, lengths=lengths)
        return y @ self.weights.readout.T + self.weights.bias, (y, tape)

    def backward(self, context: Any, dz: Floats) -> Floats:
        """The gradient of a loss by ``flat``, given that by z."""
        y, tape = context
        rows = dz.reshape(-1, dz.shape[-1])
        grads = self.layer.backward(self.weights.layer, tape, dz @ self.weights.readout)
        gradient: Floats = layers.flatten(Weights(grads.params, rows.T @ y.reshape(len(rows), -1), rows.sum(axis=0)))[0]
        return gradient


class Recipe(NamedTuple):
    """How to train."""

    steps: int
    rate: float  # Adam's, at its highest
    norm: float  # gradients are scaled down to it


def fit(
    flat: Floats, learn: Callable[[int], tuple[float, Floats]], recipe: Recipe, done: Callable[[int], bool] = lambda step: False
) -> None:
    """Trains ``flat`` in place until ``done(steps taken)``. ``learn(step)``: a new batch's loss, its gradient by ``flat``."""
    adam = Adam(flat)
    for step in range(recipe.steps):
        loss, gradient = learn(step)
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} at step {step}; a lower --rate may help")
        gradient, _ = layers.clip_by_global_norm(gradient, recipe.norm)
        adam.update(gradient, rate_at(recipe.rate, step, step / recipe.steps))
        if done(step + 1):
            return


# --- the ends of a program ---------------------------------------------------------------------------------


def results(title: str, *headings: str) -> Table:
    """An empty table; its first column is text, the others are figures."""
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left")
    return table


@contextlib.contextmanager
def figure(file: Path, console: Console, panels: int = 1) -> Iterator[Sequence[Any]]:
    """A row of empty Matplotlib panels, saved to ``file`` in the end: the same bytes for the same results."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "cellspec"
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    whole, row = pyplot.subplots(1, panels, figsize=(6.4 * panels, 4.2), squeeze=False, layout="constrained")
    yield row[0]
    whole.savefig(file, **({"metadata": {"Date": None}} if file.suffix == ".svg" else {}))
    pyplot.close(whole)
    console.print(f"The figure is in {file}.", soft_wrap=True)


def load_cell(name: str) -> ModuleType:
    """The generated module of a cell, from this repository or wherever Python finds ``generated``."""
    if not name.isidentifier():
        raise UsageError(f"{name!r} is not the name of a cell")
    module = f"generated.{name}_numpy"
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    try:
        cell = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in ("generated", module):
            raise
        raise UsageError(f"there is no module {module}; `cellspec generate {name}` writes it for a shipped cell") from None
    finally:
        sys.path.pop()
    for several, what in (("Inputs", "inputs"), ("Outputs", "outputs")):
        if hasattr(cell, several):
            raise UsageError(f"the cell {name} has several {what}; this program feeds one and reads one")
    return cell


def one_layer(cell: ModuleType, inputs: int, hidden: int) -> layers.Layer:
    """A layer of a cell; every dim but that of its input is ``hidden``."""
    if "I" not in cell.DIMS:
        raise UsageError(f"the cell {cell.CELL} has no dim I: its inputs are as many as its units")
    dims: dict[str, Any] = {name: hidden for name in cell.DIMS} | {"I": inputs}
    return layers.Layer(cell, **dims)


def at_least(least: float, kind: type[int] | type[float] = int) -> Any:
    """An argparse type: a number of ``kind`` that is ``least`` or more."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value < math.inf:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {what} of at least {least:g}")
        return value

    return parse


def drawing(text: str) -> Path:
    """An argparse type: a file for a figure."""
    if not text.endswith((".svg", ".png")):
        raise argparse.ArgumentTypeError(f"{text!r} does not end with .svg or .png")
    return Path(text)


def arguments(name: str, description: str, **defaults: Any) -> argparse.ArgumentParser:
    """The options that all lectures have: how to train, and where the figure goes."""
    parser = argparse.ArgumentParser(
        prog=f"{name}.py", description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--hidden", type=at_least(1), metavar="H", help="units")
    add("--batch", type=at_least(1), metavar="B", help="samples side by side")
    add("--steps", type=at_least(1), help="updates at most")
    add("--rate", type=at_least(0, float), help="Adam's highest learning rate")
    add("--clip", type=at_least(1e-6, float), default=1.0, metavar="NORM", help="largest norm of the gradient")
    add("--seed", type=at_least(0), default=0, help="the first seed, of weights and samples")
    add("--figure", type=drawing, default=Path(f"{name}.svg"), metavar="FILE", help="where to draw, .svg or .png")
    parser.set_defaults(**defaults)
    return parser


def main(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace, Console], Any]) -> int:
    """Exit status: 0 done, 1 the training broke down, 2 usage."""
    options = parser.parse_args()
    try:
        if importlib.util.find_spec("matplotlib") is None:
            raise UsageError("there is no module matplotlib, which draws the figure; pip install matplotlib")
        run(options, Console(highlight=False))
    except (UsageError, FloatingPointError) as error:
        print(f"{parser.prog.removesuffix('.py')}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0
