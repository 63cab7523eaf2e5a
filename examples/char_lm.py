"""A character language model on real prose, trained through a generated module.

    python examples/char_lm.py                          # the LSTM, about two and a half minutes
    python examples/char_lm.py --cell gru --seconds 60
    python examples/char_lm.py --steps 500 --seed 1     # the same numbers on every run

The text is the language reference that every Python installation holds (``pydoc_data.topics``). The network reads one
character at a time and predicts the next one:

    x[t] = embedding[text[t]]        h[t] = cell(x[t], h[t-1], …)        p(text[t+1]) = softmax(readout @ h[t] + bias)

Everything recurrent comes from ``generated/<cell>_numpy.py``: this file holds the ends (embedding, softmax), the
optimiser and the bookkeeping, which is all that there is to write around a generated cell. The yardstick is a
Kneser-Ney character trigram model, tuned on the training text and measured on the same held-out characters.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

# Before NumPy is loaded. The products of one step are small: two threads gain a third here, but when something else is running
# they wait for one another, busily, and lose far more than that. One thread also gives the same bits whatever the machine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from curve import Point, Progress, plot, show_training
from numpy.random import Generator
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text
from trigram import Indices, Trigram, encode, load_corpus

Floats = NDArray[np.float32]

EVALUATIONS = 10  # points of the learning curve


# --- the model ---------------------------------------------------------------------------------------------


class Weights(NamedTuple):
    """All that is learnt; also the shape of a gradient."""

    cell: Any  # the generated module's Params, itself a NamedTuple of arrays
    embedding: Floats  # [V, I]
    readout: Floats  # [V, D]
    bias: Floats  # [V]

    def arrays(self) -> list[Floats]:
        return [*self.cell, self.embedding, self.readout, self.bias]

    def packed(self) -> tuple[Floats, Weights]:
        """A copy in one flat vector, and weights that are views of it: clipping and Adam then know nothing of cells."""
        flat = np.concatenate([array.ravel() for array in self.arrays()])
        ends = np.cumsum([array.size for array in self.arrays()])
        views = [part.reshape(array.shape) for part, array in zip(np.split(flat, ends[:-1]), self.arrays(), strict=True)]
        *cell, embedding, readout, bias = views
        return flat, Weights(type(self.cell)(*cell), embedding, readout, bias)


class Model:
    """Embedding, cell and softmax read-out, with the buffers for sequences of ``length`` steps and ``batch`` samples."""

    def __init__(self, cell: ModuleType, weights: Weights, length: int, batch: int) -> None:
        size, width = weights.embedding.shape
        self.cell, self.weights, self.length, self.batch = cell, weights, length, batch
        self.workspace = cell.Workspace(length, batch, weights.cell)
        self.x = np.empty((length, batch, width), np.float32)
        self.y = np.empty((length, batch, weights.readout.shape[1]), np.float32)
        self.dy = np.empty_like(self.y)
        self.p = np.empty((length * batch, size), np.float32)
        self.one_hot = np.empty((length * batch, size), np.float32)

    def initial_state(self) -> Any:
        return self.cell.init_state(self.weights.cell, self.batch)

    def forward(self, text: Indices, targets: Indices, state: Any, keep: Floats | None = None) -> tuple[float, Any, Any]:
        """text [T, B], targets [T, B], state -> (mean of -log p(target), final state, what ``backward`` needs).

        ``keep [B, D]`` multiplies the cell's output at every step on its way to the read-out (dropout).

        With a one-hot input the cell would multiply W by vectors that are zero but for a single one. Gathering the rows of
        an embedding costs next to nothing, and the cell's input has I numbers instead of one for each character.
        """
        weights = self.weights
        np.take(weights.embedding, text, axis=0, out=self.x, mode="clip")
        y, final, tape = self.cell.forward(weights.cell, self.x, state, workspace=self.workspace)
        if keep is not None:
            y = np.multiply(y, keep, out=self.y)
        y = y.reshape(len(self.p), -1)  # [T*B, D]
        p = np.matmul(y, weights.readout.T, out=self.p)
        p += weights.bias
        p -= p.max(axis=1, keepdims=True)
        np.exp(p, out=p)
        p /= p.sum(axis=1, keepdims=True)
        right = p[np.arange(len(p)), targets.ravel()]
        loss = -np.log(np.maximum(right, np.float32(1e-30))).mean(dtype=np.float64)
        # The next call overwrites the workspace's arrays: what shall outlive it is copied.
        return float(loss), type(final)(*(array.copy() for array in final)), (text, targets, keep, y, tape)

    def backward(self, context: Any, gradient: Weights) -> None:
        """Writes the gradient of ``forward``'s loss into ``gradient``. Nothing comes back through the final state: that is
        what truncates backpropagation through time."""
        text, targets, keep, y, tape = context
        rows = np.arange(len(y))
        dz = self.p  # d loss / d logits = (p - one_hot(target)) / (T*B), in the place of p
        dz[rows, targets.ravel()] -= 1
        dz /= len(y)
        np.matmul(dz.T, y, out=gradient.readout)
        np.sum(dz, axis=0, out=gradient.bias)
        np.matmul(dz, self.weights.readout, out=self.dy.reshape(y.shape))
        if keep is not None:
            self.dy *= keep
        grads = self.cell.backward(self.weights.cell, tape, self.dy, workspace=self.workspace)
        for into, array in zip(gradient.cell, grads.params, strict=True):
            np.copyto(into, array)
        # A character that occurred several times collects several rows of dx: one product with the one-hot matrix.
        self.one_hot.fill(0)
        self.one_hot[rows, text.ravel()] = 1
        np.matmul(self.one_hot.T, grads.x.reshape(len(y), -1), out=gradient.embedding)

    def bits(self, runs: Indices) -> float:
        """Bits per character over ``runs [n*T + 1, B]``, each column read from the initial state on."""
        state, losses = self.initial_state(), []
        for text, targets in chunks(runs, self.length):
            loss, state, _ = self.forward(text, targets, state)
            losses.append(loss)
        return float(np.mean(losses)) / math.log(2)


def initial_weights(cell: ModuleType, rng: Generator, size: int, dims: dict[str, int], width: int) -> Weights:
    """Weights for an alphabet of ``size``. What the cell gives out (its state h, c, or neither) it says itself, in one step."""
    params = cell.init_params(rng, **dims, dtype=np.float32)
    y, _ = cell.step(params, np.zeros((1, width), np.float32), cell.init_state(params, 1))
    embedding = rng.standard_normal((size, width), dtype=np.float32)
    readout = rng.standard_normal((size, y.shape[1]), dtype=np.float32) / np.float32(math.sqrt(y.shape[1]))
    return Weights(params, embedding, readout, np.zeros(size, np.float32))


def sample(
    cell: ModuleType, weights: Weights, alphabet: str, rng: Generator, count: int, temperature: float, prompt: str
) -> str:
    """``count`` characters that continue ``prompt``, each drawn from the model's own prediction and fed back by ``step``."""
    packed, state = cell.pack(weights.cell), cell.init_state(weights.cell, 1)
    written = [int(place) for place in encode(prompt, alphabet)]
    for position in range(len(prompt) + count - 1):
        y, state = cell.step(packed, weights.embedding[written[position], None], state)
        if position + 1 == len(written):
            logits = (weights.readout @ y[0] + weights.bias).astype(np.float64) / temperature
            p = np.exp(logits - logits.max())
            written.append(int(rng.choice(len(p), p=p / p.sum())))
    return "".join(alphabet[place] for place in written)


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


def clip(gradient: Floats, limit: float) -> float:
    """Scales ``gradient`` in place to a norm of at most ``limit``; the norm before."""
    norm = math.sqrt(float(np.dot(gradient, gradient)))
    if norm > limit:
        gradient *= limit / norm
    return norm


# --- training ----------------------------------------------------------------------------------------------


def streams(text: Indices, batch: int) -> Indices:
    """``text`` cut into ``batch`` runs of equal length, side by side: ``[n, batch]``, time-major as the cell wants it."""
    n = len(text) // batch
    return np.ascontiguousarray(text[: n * batch].reshape(batch, n).T)


def chunks(runs: Indices, length: int, start: int = 0) -> Iterator[tuple[Indices, Indices]]:
    """Consecutive pairs ``(text, targets)``, both ``[length, batch]``, the targets one character ahead."""
    for at in range(start, len(runs) - length, length):
        yield runs[at : at + length], runs[at + 1 : at + length + 1]


def evaluation_runs(text: Indices, batch: int = 32, about: int = 64) -> tuple[Indices, int]:
    """``text`` as streams of a whole number of equal chunks, and their length.

    The network and the trigram model predict the same characters: all of ``text`` but a few at its end.
    """
    runs = streams(text, batch)
    steps = len(runs) - 1
    length = steps // math.ceil(steps / about)
    return runs[: steps // length * length + 1], length


class Budget(NamedTuple):
    """A number of steps, or of seconds since ``began``."""

    steps: int | None
    seconds: float
    began: float

    def spent(self, step: int) -> float:
        """From 0 to 1."""
        if self.steps is not None:
            return step / self.steps
        return min((time.perf_counter() - self.began) / self.seconds, 1.0)


class Recipe(NamedTuple):
    """How to train."""

    rate: float  # Adam's, at its highest
    norm: float  # gradients are scaled down to it
    dropout: float  # the share of the cell's outputs hidden from the read-out

    def rate_at(self, step: int, spent: float) -> float:
        """A warm-up of 20 steps, then half a cosine down to a hundredth."""
        return self.rate * min((step + 1) / 20, 1.0) * (0.505 + 0.495 * math.cos(math.pi * spent))

    def keep(self, rng: Generator, shape: tuple[int, ...]) -> Floats | None:
        """Zeros, with the probability ``dropout``, and numbers that make up for them. One draw serves a whole chunk."""
        if not self.dropout:
            return None
        return (rng.random(shape) >= self.dropout).astype(np.float32) / np.float32(1 - self.dropout)


def train(
    model: Model, test: Model, text: Indices, held_out: Indices, rng: Generator, budget: Budget, recipe: Recipe
) -> Iterator[Progress]:
    """Trains ``model`` in place by truncated backpropagation through time.

    A chunk begins with the state that the one before it ended with. Every so often ``test`` reads ``held_out``.
    """
    flat, weights = model.weights.packed()
    flat_gradient, gradient = model.weights.packed()
    model.weights = test.weights = weights
    adam = Adam(flat)
    runs = streams(text, model.batch)
    step, points = 0, 0
    losses: list[float] = []
    while True:
        state = model.initial_state()
        # Each pass begins elsewhere in the first chunk: gradients are not always cut off at the same characters.
        for inputs, targets in chunks(runs, model.length, start=int(rng.integers(model.length))):
            spent = budget.spent(step)
            point = None
            if spent * EVALUATIONS >= points + 1:
                points = int(spent * EVALUATIONS)
                bits = float(np.mean(losses)) / math.log(2) if losses else math.nan
                losses.clear()
                point = Point(time.perf_counter() - budget.began, step, bits, test.bits(held_out))
            yield Progress(spent, step, point)
            if spent >= 1:
                return
            keep = recipe.keep(rng, model.y.shape[1:])
            loss, state, context = model.forward(inputs, targets, state, keep)
            if not math.isfinite(loss):
                raise FloatingPointError(f"the loss is {loss} at step {step}; a lower --rate may help")
            losses.append(loss)
            model.backward(context, gradient)
            clip(flat_gradient, recipe.norm)
            adam.update(flat_gradient, recipe.rate_at(step, spent))
            step += 1


# --- the program -------------------------------------------------------------------------------------------


class UsageError(Exception):
    """One sentence for whoever typed the command."""


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


def dim(text: str) -> tuple[str, int]:
    """An argparse type: ``P=64``."""
    name, equals, value = text.partition("=")
    if not (equals and value.isdecimal() and int(value) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=NUMBER")
    return name, int(value)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="char_lm.py",
        description="Train a character language model through a generated cell.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--cell", default="lstm", help="a cell with a module in generated/")
    add("--hidden", type=at_least(1), default=256, metavar="H", help="units")
    add("--embedding", type=at_least(1), default=64, metavar="I", help="width of the cell's input")
    add("--dim", type=dim, action="append", default=[], metavar="NAME=N", help="another dim of the cell, in place of --hidden")
    add("--batch", type=at_least(1), default=32, metavar="B", help="sequences side by side")
    add("--length", type=at_least(1), default=48, metavar="T", help="steps between updates")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--seconds", type=at_least(1, float), default=150.0, help="time for the whole run")
    budget.add_argument("--steps", type=at_least(1), help="updates instead of seconds: the run can be repeated exactly")
    add("--rate", type=at_least(0, float), default=8e-3, help="Adam's highest learning rate")
    add("--clip", type=at_least(0, float), default=1.0, metavar="NORM", help="largest norm of the gradient")
    add("--dropout", type=at_least(0, float), default=0.25, help="share of the cell's outputs hidden from the read-out")
    add("--seed", type=at_least(0), default=0, help="of the weights, the chunks and the sample")
    add("--sample", type=at_least(0), default=400, metavar="N", help="characters to write at the end")
    add("--temperature", type=at_least(0.01, float), default=0.7, help="of the sample")
    options = parser.parse_args(argv)
    if options.dropout >= 1:
        parser.error("--dropout is less than 1")
    return options


def run(options: argparse.Namespace, console: Console) -> list[Point]:
    """The whole program, from the text to the sample; the learning curve."""
    began = time.perf_counter()
    cell = load_cell(options.cell)
    corpus = load_corpus()
    if len(corpus.train) // options.batch <= 2 * options.length:
        raise UsageError(f"--batch {options.batch} times --length {options.length} is too much for this text")
    dims = {name: options.hidden for name in cell.DIMS} | ({"I": options.embedding} if "I" in cell.DIMS else {})
    for name, value in options.dim:
        if name not in dims:
            raise UsageError(f"the cell {options.cell} has no dim {name}; it has {', '.join(dims)}")
        dims[name] = value
    rng = np.random.default_rng(options.seed)
    weights = initial_weights(cell, rng, len(corpus.alphabet), dims, dims.get("I", options.hidden))
    model = Model(cell, weights, options.length, options.batch)

    held_out, length = evaluation_runs(corpus.held_out)
    test = Model(cell, weights, length, held_out.shape[1])
    yardstick = Trigram.tuned(corpus.train, len(corpus.alphabet)).bits(held_out)

    def say(line: str) -> None:
        console.print(Text(line.encode(console.encoding, "replace").decode(console.encoding)), soft_wrap=True)

    within, count = (sum(array.size for array in arrays) for arrays in (weights.cell, weights.arrays()))
    sizes = ", ".join(f"{name} = {value}" for name, value in dims.items())
    say(f"text      {len(corpus.train):,} characters, {held_out.size:,} held out, {len(corpus.alphabet)} different ones")
    say(f"model     {options.cell}, {sizes}: {within:,} parameters, {count:,} with embedding and read-out")
    say(f"training  {options.batch} sequences side by side, {options.length} steps between updates")
    say(f"trigram   {yardstick:.3f} bits per character of the held-out text (Kneser-Ney)\n")

    budget = Budget(options.steps, options.seconds, began)
    recipe = Recipe(options.rate, options.clip, options.dropout)
    curve = show_training(console, train(model, test, corpus.train, held_out, rng, budget, recipe), yardstick)
    if len(curve) > 1:
        say("\n" + plot(curve, yardstick, plain=not console.encoding.lower().startswith("utf")))
    final = curve[-1].held_out
    verdict = f"{yardstick - final:.3f} better than" if final < yardstick else f"{final - yardstick:.3f} short of"
    say(f"\nheld out: {final:.3f} bits per character, {verdict} the trigram model's {yardstick:.3f}")
    if options.sample:
        text = sample(cell, model.weights, corpus.alphabet, rng, options.sample, options.temperature, prompt="The ")
        say(f"\nA sample at temperature {options.temperature:g}:\n\n{text}")
    return curve


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 the training broke down, 2 usage."""
    options = parse(argv)
    try:
        run(options, Console(highlight=False))
    except UsageError as error:
        print(f"char_lm: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"char_lm: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
