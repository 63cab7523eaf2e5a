"""Reading both ways: what kind of token each character of Python source belongs to.

    python examples/tagger.py                     # forwards alone, then both ways: 2.5 min
    python examples/tagger.py --cell gru --steps 100     # 30 s

The text is the standard library's own; the teacher is ``tokenize``. A sample is three lines, cut out of a file without what
stands around them, and each of its characters is white space or part of a keyword, a name, a number, a string, a comment or
an operator. Who reads forwards cannot know at the first letter of ``for`` whether it will be ``format``, nor at the top of a
docstring that it is one; who reads both ways can tell more often. Samples differ in length, and each is read from its own end.
Both networks have two layers and, as nearly as possible, the same number of parameters: the forward one has more units.

The baseline gives each character the kind that it has most often. All accuracies are those of files that were not trained
on, one in eight; they differ a little with the version of Python, whose files they are.

Source: Mike Schuster, Kuldip K. Paliwal. Bidirectional recurrent neural networks. IEEE Transactions on Signal Processing
45(11), 1997; Alex Graves, Jürgen Schmidhuber. Framewise phoneme classification with bidirectional LSTM and other neural
network architectures. Neural Networks 18, 2005, where forwards and both ways are compared.
"""

from __future__ import annotations

import argparse
import io
import keyword
import sys
import sysconfig
import time
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import lecture
import numpy as np
from lecture import Array, Floats, Net, Recipe
from numpy.random import Generator
from rich.console import Console

from cellspec.layers import AnyLayer, Bidirectional, Stack

KINDS = ("space", "keyword", "name", "number", "string", "comment", "operator")
OTHER = 96  # the place of all characters that are not ASCII, after "\n" and those from " " to "~"
EVERY = 8  # one file of so many is held out


# --- the text ----------------------------------------------------------------------------------------------


class Sample(NamedTuple):
    """A piece of source."""

    places: Array  # [n] its characters
    kinds: Array  # [n] what they belong to, as places in KINDS


def kinds_of(source: str) -> Array:
    """The kind of each character, as ``tokenize`` sees it."""
    lines = io.StringIO(source).readlines()
    starts = np.cumsum([0, 0, *map(len, lines)])  # of each row, from 1 on
    kinds = np.zeros(len(source), np.intp)
    opened: list[int] = []  # where the f-strings began that we are in: Python 3.12 makes several tokens of one
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        start, end = (starts[row] + column for row, column in (token.start, token.end))
        name = tokenize.tok_name[token.type]
        if name.endswith("STRING_START"):
            opened.append(start)
        elif name.endswith("STRING_END"):
            kinds[opened.pop() : end] = KINDS.index("string")
        elif name == "NAME":
            kinds[start:end] = KINDS.index("keyword" if keyword.iskeyword(token.string) else "name")
        elif name in ("NUMBER", "STRING", "COMMENT"):
            kinds[start:end] = KINDS.index(name.lower())
        elif name == "OP":
            kinds[start:end] = KINDS.index("operator")
    return kinds


def places_of(source: str) -> Array:
    """The place of each character in the alphabet."""
    codes = np.frombuffer(source.encode("utf-32-le"), np.uint32).astype(np.intp)
    return np.where((codes >= 32) & (codes < 127), codes - 31, np.where(codes == 10, 0, OTHER))


def samples(file: Path, lines: int) -> Iterator[Sample]:
    """The file in pieces of so many lines, up to 240 characters of each; those of white space alone are left out."""
    source = file.read_text("utf-8")
    places, kinds = places_of(source), kinds_of(source)
    ends = np.flatnonzero(places == 0)[lines - 1 :: lines] + 1
    for piece in zip(np.split(places, ends), np.split(kinds, ends), strict=True):
        if piece[1].any():
            yield Sample(*(part[:240] for part in piece))


def load(files: int, lines: int) -> tuple[list[Sample], list[Sample]]:
    """Samples to train on, and those of held-out files."""
    modules = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:files]
    train: list[Sample] = []
    held_out: list[Sample] = []
    for number, file in enumerate(modules):
        (train if number % EVERY else held_out).extend(samples(file, lines))
    return train, held_out


# --- networks ----------------------------------------------------------------------------------------------


def forwards(cell: ModuleType, hidden: int) -> Stack:
    """Two layers that read forwards."""
    return Stack(lecture.one_layer(cell, OTHER + 1, hidden), lecture.one_layer(cell, hidden, hidden))


def both_ways(cell: ModuleType, hidden: int) -> Stack:
    """Two layers that read both ways, with ``hidden`` units each way."""

    def both(inputs: int) -> Bidirectional:
        return Bidirectional(lecture.one_layer(cell, inputs, hidden), lecture.one_layer(cell, inputs, hidden))

    return Stack(both(OTHER + 1), both(2 * hidden))


def as_large(layer: AnyLayer, cell: ModuleType) -> Stack:
    """Two layers that read forwards, with as many parameters as ``layer``, or nearly."""
    sizes = range(1, 4 * layer.output_size)
    return forwards(cell, min(sizes, key=lambda hidden: abs(forwards(cell, hidden).parameter_count - layer.parameter_count)))


def batch(chosen: Sequence[Sample]) -> tuple[Floats, Array, Array]:
    """x [T, B, 97], targets [T, B] with -1 in the padding, lengths [B]."""
    lengths = np.array([len(sample.kinds) for sample in chosen])
    places, kinds = np.full((2, lengths.max(), len(chosen)), -1)
    for column, sample in enumerate(chosen):
        places[: lengths[column], column], kinds[: lengths[column], column] = sample
    return np.eye(OTHER + 1, dtype=np.float32)[places], kinds, lengths  # the padding is some character, and is not read


def confusion(net: Net, test: Sequence[Sample], size: int = 64) -> Array:
    """How many characters of each kind (rows) the net takes for each kind (columns). Samples of like lengths go together."""
    counts = np.zeros((len(KINDS), len(KINDS)), np.intp)
    ordered = sorted(test, key=lambda sample: len(sample.kinds))
    for start in range(0, len(ordered), size):
        x, kinds, lengths = batch(ordered[start : start + size])
        taken = net.forward(x, lengths)[0].argmax(axis=2)
        np.add.at(counts, (kinds[kinds >= 0], taken[kinds >= 0]), 1)
    return counts


def baseline(train: Sequence[Sample], test: Sequence[Sample]) -> Array:
    """The same of the most frequent kind of each character."""
    seen = np.zeros((OTHER + 1, len(KINDS)), np.intp)
    counts = np.zeros((len(KINDS), len(KINDS)), np.intp)
    for sample in train:
        np.add.at(seen, (sample.places, sample.kinds), 1)
    for sample in test:
        np.add.at(counts, (sample.kinds, seen.argmax(axis=1)[sample.places]), 1)
    return counts


def train_net(layer: AnyLayer, train: Sequence[Sample], rng: Generator, options: argparse.Namespace) -> Net:
    """A network trained on samples drawn from ``train``."""
    net = Net(layer, rng, len(KINDS))

    def learn(step: int) -> tuple[float, Floats]:
        x, kinds, lengths = batch([train[number] for number in rng.integers(len(train), size=options.batch)])
        z, context = net.forward(x, lengths)
        loss, dz = lecture.softmax_cross_entropy(z, kinds)
        return loss, net.backward(context, dz)

    lecture.fit(net.flat, learn, Recipe(options.steps, options.rate, options.clip))
    return net


# --- the program -------------------------------------------------------------------------------------------


class Result(NamedTuple):
    """What a tagger did on the held-out files."""

    name: str
    parameters: int
    accuracy: float
    by_kind: Floats  # [7] the share of each kind's characters that were taken for it
    seconds: float


def result(name: str, parameters: int, counts: Array, seconds: float) -> Result:
    right = counts.diagonal()
    return Result(name, parameters, right.sum() / counts.sum(), right / np.maximum(counts.sum(axis=1), 1), seconds)


def run(options: argparse.Namespace, console: Console) -> list[Result]:
    train, held_out = load(options.files, options.lines)
    rng = np.random.default_rng(lecture.TEST_SEED)
    test = [held_out[number] for number in rng.permutation(len(held_out))[: options.test]]
    counts = baseline(train, test)
    console.print(
        f"{len(train):,} samples of {options.lines} lines to train on; {counts.sum():,} characters of held-out files\n"
    )
    results = [result("baseline", 0, counts, 0.0)]
    cell = lecture.load_cell(options.cell)
    wide = both_ways(cell, options.hidden)
    for name, layer in (("forwards", as_large(wide, cell)), ("both ways", wide)):
        began = time.perf_counter()
        net = train_net(layer, train, np.random.default_rng(options.seed), options)
        results.append(result(name, net.flat.size, confusion(net, test), time.perf_counter() - began))
    table = lecture.results(f"Characters tagged rightly ({options.cell})", "", *(found.name for found in results))
    table.add_row("all", *(f"{found.accuracy:.2%}" for found in results))
    for place, kind in enumerate(KINDS):
        table.add_row(kind, *(f"{found.by_kind[place]:.1%}" for found in results))
    table.add_row("parameters", *(f"{found.parameters:,}" for found in results))
    table.add_row("seconds", *(f"{found.seconds:.0f}" for found in results))
    console.print(table)
    with lecture.figure(options.figure, console) as (panel,):
        for place, found in enumerate(results):
            panel.bar(
                np.arange(len(KINDS)) + 0.28 * (place - 1), found.by_kind, 0.26, label=f"{found.name}: {found.accuracy:.1%}"
            )
        panel.set_xticks(range(len(KINDS)), KINDS)
        panel.set(ylim=(0, 1.15), ylabel="share tagged rightly", title="Kinds of tokens, by character")
        panel.legend(loc="upper center", ncols=3)
    return results


PARSER = lecture.arguments("tagger", "Tag the characters of Python source.", hidden=32, batch=32, steps=1000, rate=1e-2)
PARSER.add_argument("--cell", default="lstm", help="a cell with a module in generated/")
PARSER.add_argument("--lines", type=lecture.at_least(1), default=3, metavar="N", help="lines of a sample")
PARSER.add_argument(
    "--files", type=lecture.at_least(2), default=1000, metavar="N", help="modules at most, to train on and held out"
)
PARSER.add_argument("--test", type=lecture.at_least(1), default=2000, metavar="N", help="samples that are tested, at most")

if __name__ == "__main__":
    sys.exit(lecture.main(PARSER, run))
