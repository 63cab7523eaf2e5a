"""A character language model on real prose, trained through a generated module.

    python examples/char_lm.py                          # the LSTM, about two and a half minutes
    python examples/char_lm.py --cell gru --layers 2 --seconds 60
    python examples/char_lm.py --steps 500 --seed 1     # the same numbers on every run
    python examples/char_lm.py --checkpoint run.npz     # killed and started again, it goes on from its last checkpoint

The text is the language reference that every Python installation holds (``pydoc_data.topics``). The network reads one
character at a time and predicts the next one:

    x[t] = embedding[text[t]]        h[t] = cell(x[t], h[t-1], …)        p(text[t+1]) = softmax(readout @ h[t] + bias)

Everything recurrent comes from ``generated/<cell>_numpy.py``, and ``cellspec.layers`` stacks it: this folder holds the ends
(embedding, softmax), the optimiser and the bookkeeping, which is all that there is to write around a generated cell. The
yardstick is a Kneser-Ney character trigram model, tuned on the training text and measured on the same held-out characters.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lecture
import numpy as np
import snapshots
from char_model import Model, Streams, initial_weights, sample
from curve import Point, Progress, plot, show_training
from lecture import Adam, UsageError, at_least, load_cell
from numpy.random import Generator
from rich.console import Console
from rich.text import Text
from snapshots import Snapshot
from trigram import Corpus, Trigram, load_corpus

from cellspec import layers
from cellspec.layers import Layer, Stack

EVALUATIONS = 10  # points of the learning curve


# --- training ----------------------------------------------------------------------------------------------


class Budget(NamedTuple):
    """A number of steps, or of seconds."""

    steps: int | None
    seconds: float

    def spent(self, step: int, elapsed: float) -> float:
        """From 0 to 1."""
        return step / self.steps if self.steps is not None else min(elapsed / self.seconds, 1.0)


class Recipe(NamedTuple):
    """How to train."""

    rate: float  # Adam's, at its highest
    norm: float  # gradients are scaled down to it
    dropout: float  # the share of what goes from layer to layer, and to the read-out, that is hidden


class Training:
    """Truncated backpropagation through time: a run that can be stopped after any update, and taken up again.

    A chunk begins with the state that the one before it ended with. ``snapshot`` is all that what follows depends on.
    """

    def __init__(self, model: Model, test: Model, streams: Streams, held_out: Streams, rng: Generator, recipe: Recipe) -> None:
        self.model, self.test, self.streams, self.held_out, self.rng, self.recipe = model, test, streams, held_out, rng, recipe
        self.flat, unflatten = layers.flatten(model.weights)
        model.weights = test.weights = unflatten(self.flat)
        self.adam, self.best = Adam(self.flat), self.flat.copy()
        self.curve: list[Point] = []
        self.losses: list[float] = []  # since the last point
        self.state, self.at, self.step = model.initial_state(), streams.steps, 0

    def snapshot(self, elapsed: float) -> Snapshot:
        """Everything, ``elapsed`` seconds after the beginning."""
        adam = {"mean": self.adam.mean, "square": self.adam.square}
        state = {f"state.{place}": leaf for place, leaf in enumerate(layers.leaves(self.state))}
        values = {"step": self.step, "at": self.at, "losses": self.losses, "curve": self.curve, "elapsed": elapsed}
        return Snapshot({"flat": self.flat, "best": self.best} | adam | state, values | {"rng": self.rng.bit_generator.state})

    def restore(self, snapshot: Snapshot) -> float:
        """Go back to ``snapshot``; the seconds that had elapsed."""
        arrays, values = snapshot
        for into, name in ((self.flat, "flat"), (self.best, "best"), (self.adam.mean, "mean"), (self.adam.square, "square")):
            np.copyto(into, arrays[name])
        for place, leaf in enumerate(layers.leaves(self.state)):
            np.copyto(leaf, arrays[f"state.{place}"])
        self.step = self.adam.count = values["step"]
        self.at, self.losses, self.curve = values["at"], values["losses"], [Point(*point) for point in values["curve"]]
        self.rng.bit_generator.state = values["rng"]
        return float(values["elapsed"])

    def evaluate(self, elapsed: float) -> Point:
        """A point of the curve; the weights are kept if there were none better."""
        bits = float(np.mean(self.losses)) / math.log(2) if self.losses else math.nan
        self.losses = []
        point = Point(elapsed, self.step, bits, self.test.bits(self.held_out))
        if all(point.held_out < earlier.held_out for earlier in self.curve):
            np.copyto(self.best, self.flat)
        self.curve.append(point)
        return point

    def update(self, spent: float) -> None:
        """One step."""
        if self.at >= self.streams.steps:
            # Each pass begins elsewhere in the first chunk: gradients are not always cut off at the same characters.
            self.state, self.at = self.model.initial_state(), int(self.rng.integers(min(self.model.length, self.streams.steps)))
        chunk = self.streams.chunk(self.at, self.model.length)
        loss, self.state, context = self.model.forward(chunk, self.state, self.rng, self.recipe.dropout)
        gradient = self.model.backward(context)
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} at step {self.step}; a lower --rate may help")
        gradient, _ = layers.clip_by_global_norm(gradient, self.recipe.norm)
        self.adam.update(gradient, lecture.rate_at(self.recipe.rate, self.step, spent))
        self.losses.append(loss)
        self.at += self.model.length
        self.step += 1


class Keeper(NamedTuple):
    """Keeps a training's snapshots in a file, with what else must be the same for it to go on."""

    path: Path
    every: int  # updates
    made_with: dict[str, Any]

    def restore(self, training: Training) -> float:
        """Takes up what is in the file, if there is one; the seconds that had elapsed then."""
        try:
            found = snapshots.load(self.path)
        except (ValueError, OSError) as error:
            raise UsageError(str(error)) from None
        if found is None:
            return 0.0
        for name, value in self.made_with.items():
            if (other := found.values["made_with"].get(name)) != value:
                raise UsageError(f"{self.path} was made with another {name}: {other}, now {value}")
        return training.restore(found)

    def save(self, training: Training, elapsed: float) -> None:
        arrays, values = training.snapshot(elapsed)
        snapshots.save(self.path, Snapshot(arrays, values | {"made_with": self.made_with}))


def train(training: Training, budget: Budget, began: float, keeper: Keeper | None) -> Iterator[Progress]:
    """Runs ``training`` to the end of its budget; first come the points that it has already."""
    for point in training.curve:
        yield Progress(budget.spent(point.step, point.seconds), point.step, point)
    while True:
        elapsed = time.perf_counter() - began
        spent = budget.spent(training.step, elapsed)
        due = spent * EVALUATIONS >= len(training.curve) + 1
        yield Progress(spent, training.step, training.evaluate(elapsed) if due else None)
        done = spent >= 1
        if not done:
            training.update(spent)
        if keeper is not None and (done or training.step % keeper.every == 0):
            keeper.save(training, time.perf_counter() - began)
        if done:
            return


# --- the program -------------------------------------------------------------------------------------------


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
    add("--layers", type=at_least(1), default=1, metavar="N", help="cells on top of one another")
    add("--embedding", type=at_least(1), default=64, metavar="I", help="width of the cell's input")
    add("--dim", type=dim, action="append", default=[], metavar="NAME=N", help="another dim of the cell, in place of --hidden")
    add("--batch", type=at_least(1), default=32, metavar="B", help="sequences side by side")
    add("--length", type=at_least(1), default=48, metavar="T", help="steps between updates")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--seconds", type=at_least(1, float), default=150.0, help="time for the whole run")
    budget.add_argument("--steps", type=at_least(1), help="updates instead of seconds: the run can be repeated exactly")
    add("--rate", type=at_least(0, float), default=8e-3, help="Adam's highest learning rate")
    add("--clip", type=at_least(1e-6, float), default=1.0, metavar="NORM", help="largest norm of the gradient")
    add("--dropout", type=at_least(0, float), default=0.25, help="share of a layer's outputs hidden from what reads them")
    add("--seed", type=at_least(0), default=0, help="of the weights, the chunks and the sample")
    add("--checkpoint", type=Path, metavar="FILE", help="where to keep the run, and from where to go on with it")
    add("--every", type=at_least(1), default=100, metavar="N", help="updates between checkpoints")
    add("--sample", type=at_least(0), default=400, metavar="N", help="characters to write at the end")
    add("--temperature", type=at_least(0.01, float), default=0.7, help="of the sample")
    options = parser.parse_args(argv)
    if options.dropout >= 1:
        parser.error("--dropout is less than 1")
    return options


def make_layers(options: argparse.Namespace) -> list[Layer]:
    """The cell, as often as asked."""
    cell = load_cell(options.cell)
    dims = {name: options.hidden for name in cell.DIMS} | ({"I": options.embedding} if "I" in cell.DIMS else {})
    for name, value in options.dim:
        if name not in dims:
            raise UsageError(f"the cell {options.cell} has no dim {name}; it has {', '.join(dims)}")
        dims[name] = value
    stack = [Layer(cell, **dims)]
    for _ in range(1, options.layers):
        stack.append(Layer(cell, **dims | ({"I": stack[-1].output_size} if "I" in cell.DIMS else {})))
    return stack


def keeper_for(options: argparse.Namespace, corpus: Corpus) -> Keeper | None:
    """What keeps the run in a file, if it is to be kept."""
    if options.checkpoint is None:
        return None
    if not options.checkpoint.absolute().parent.is_dir():
        raise UsageError(f"there is no folder for {options.checkpoint}")
    free = ("checkpoint", "every", "sample", "temperature")
    text = hashlib.sha256(corpus.train.tobytes() + corpus.held_out.tobytes()).hexdigest()
    made_with = {f"--{name}": value for name, value in vars(options).items() if name not in free}
    made_with |= {"--dim": [list(pair) for pair in options.dim], "text": text, "cell": load_cell(options.cell).SPEC_SHA256}
    return Keeper(options.checkpoint, options.every, made_with)


def run(options: argparse.Namespace, console: Console) -> list[Point]:
    """The whole program, from the text to the sample; the learning curve."""
    began = time.perf_counter()
    first, *others = make_layers(options)
    layer = Stack(first, *others, dropout=options.dropout)
    corpus = load_corpus()
    if len(corpus.train) // options.batch <= 2 * options.length:
        raise UsageError(f"--batch {options.batch} times --length {options.length} is too much for this text")
    rng = np.random.default_rng(options.seed)
    weights = initial_weights(layer, rng, len(corpus.alphabet))
    model = Model(layer, weights, options.length, options.batch)
    test = Model(layer, weights, length=64, batch=32)
    yardstick = Trigram.tuned(corpus.train, len(corpus.alphabet)).bits(corpus.held_out)
    recipe = Recipe(options.rate, options.clip, options.dropout)
    streams, held_out = Streams(corpus.train, model.batch), Streams(corpus.held_out, test.batch)
    training = Training(model, test, streams, held_out, rng, recipe)
    keeper = keeper_for(options, corpus)
    if keeper is not None:
        began -= keeper.restore(training)

    def say(line: str) -> None:
        console.print(Text(line.encode(console.encoding, "replace").decode(console.encoding)), soft_wrap=True)

    sizes = ", ".join(f"{name} = {value}" for name, value in first.dims.items())
    depth = "" if options.layers == 1 else f"{options.layers} layers of "
    characters = f"{len(corpus.train):,} characters, {len(corpus.held_out):,} held out, {len(corpus.alphabet)} different ones"
    parameters = f"{layer.parameter_count:,} parameters, {training.flat.size:,} with embedding and read-out"
    say(f"text      {characters}")
    say(f"model     {depth}{options.cell}, {sizes}: {parameters}")
    say(f"training  {options.batch} sequences side by side, {options.length} steps between updates")
    say(f"trigram   {yardstick:.3f} bits per character of the held-out text (Kneser-Ney)\n")

    steps = train(training, Budget(options.steps, options.seconds), began, keeper)
    curve = show_training(console, steps, yardstick)
    if len(curve) > 1:
        say("\n" + plot(curve, yardstick, plain=not console.encoding.lower().startswith("utf")))
    final = curve[-1].held_out
    verdict = f"{yardstick - final:.3f} better than" if final < yardstick else f"{final - yardstick:.3f} short of"
    say(f"\nheld out: {final:.3f} bits per character, {verdict} the trigram model's {yardstick:.3f}")
    best = min(curve, key=lambda point: point.held_out)
    if best.held_out < final:
        say(f"best: {best.held_out:.3f} after {best.step:,} updates; these weights write the sample")
    if options.sample:
        np.copyto(training.flat, training.best)
        text = sample(layer, model.weights, corpus.alphabet, rng, options.sample, options.temperature, prompt="The ")
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
