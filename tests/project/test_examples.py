"""The character language model, small: it learns, repeats itself for a seed, survives a kill, and says what is missing."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from rich.console import Console

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SMALL = ["--hidden", "24", "--embedding", "8", "--batch", "16", "--length", "16", "--sample", "30"]


@pytest.fixture(scope="module")
def char_lm() -> Iterator[ModuleType]:
    """The program; its yardstick is tuned once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        import char_lm  # type: ignore[import-not-found, unused-ignore]

        corpus = char_lm.load_corpus()
        trigram = char_lm.Trigram.tuned(corpus.train, len(corpus.alphabet))
        patch.setattr(char_lm.Trigram, "tuned", lambda text, size: trigram)
        yield char_lm


def run(char_lm: ModuleType, *arguments: str) -> tuple[list[Any], str]:
    """The learning curve and all that was printed."""
    file = io.StringIO()
    curve = char_lm.run(char_lm.parse([*SMALL, *arguments]), Console(file=file, width=120))
    return curve, file.getvalue()


@pytest.mark.parametrize(("cell", "layers"), [("lstm", "1"), ("gru", "2"), ("elman", "1")])
def test_loss_falls(char_lm: ModuleType, cell: str, layers: str) -> None:
    curve, printed = run(char_lm, "--cell", cell, "--layers", layers, "--steps", "80", "--rate", "0.01")
    assert [point.step for point in curve] == list(range(8, 81, 8))
    assert curve[0].train > 6 and curve[-1].train < 5  # at the start all of about a hundred characters are equally likely
    assert curve[-1].held_out < curve[4].held_out < curve[0].held_out
    assert "\nheld out:" in printed and "A sample at temperature 0.7:\n\nThe " in printed


def test_same_seed_same_run(char_lm: ModuleType) -> None:
    def figures(seed: str) -> Any:
        curve, printed = run(char_lm, "--steps", "12", "--seed", seed)
        return [point[1:] for point in curve], printed[printed.index("A sample") :]

    assert figures("3") == figures("3")
    assert figures("3") != figures("4")


def a_model(length: int, batch: int, hidden: int = 7) -> Any:
    """Two layers, an alphabet of 20, and the weights as a vector."""
    from char_model import Model, initial_weights  # type: ignore[import-not-found, unused-ignore]
    from lecture import load_cell  # type: ignore[import-not-found, unused-ignore]

    from cellspec import layers

    cell = load_cell("lstm")
    stack = layers.Stack(layers.Layer(cell, I=5, H=hidden), layers.Layer(cell, I=hidden, H=hidden), dropout=0.3)
    flat, unflatten = layers.flatten(initial_weights(stack, np.random.default_rng(0), 20))
    return flat, Model(stack, unflatten(flat), length, batch)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_gradient(char_lm: ModuleType, dropout: float) -> None:
    """Along the gradient, the loss rises as fast as the gradient is long; one stream ends before the others."""
    flat, model = a_model(6, 4)
    chunk = char_lm.Streams(np.random.default_rng(0).integers(20, size=23), 4).chunk(0, 6)
    assert set(chunk.lengths) == {5, 6}

    def loss_of(distance: float, direction: Any = 0.0, start: Any = flat) -> Any:
        flat[:] = start + np.float32(distance) * direction
        rng = np.random.default_rng(1) if dropout else None
        return model.forward(chunk, model.initial_state(), rng, dropout)

    gradient = model.backward(loss_of(0.0)[2])
    norm = np.linalg.norm(gradient)
    direction, start = gradient / norm, flat.copy()
    slope = (loss_of(0.02, direction, start)[0] - loss_of(-0.02, direction, start)[0]) / 0.04
    assert slope == pytest.approx(norm, rel=5e-3)


def test_streams_ask_for_every_character_once(char_lm: ModuleType) -> None:
    text = np.random.default_rng(0).permutation(101)
    streams = char_lm.Streams(text, 8)
    chunks = list(streams.chunks(5))
    assert {chunk.text.shape for chunk in chunks} == {(5, 8)} and [chunk.lengths is None for chunk in chunks] == [
        True,
        True,
        False,
    ]
    asked = np.concatenate([chunk.targets for chunk in chunks])
    read = np.concatenate([chunk.text for chunk in chunks])
    assert sorted(asked[asked >= 0]) == sorted(text[1:])
    place = np.argsort(text)
    assert np.array_equal(place[asked[asked >= 0]], place[read[asked >= 0]] + 1)


def test_bits_do_not_depend_on_chunks(char_lm: ModuleType) -> None:
    """Streams read in one piece, or in chunks that carry the state and end with the streams."""
    streams = char_lm.Streams(np.random.default_rng(0).integers(20, size=102), 4)
    bits = [a_model(length, 4)[1].bits(streams) for length in (26, 7, 64)]
    assert bits == pytest.approx([bits[0]] * 3, rel=1e-6)


def test_trigram_probabilities_sum_to_one(char_lm: ModuleType) -> None:
    text = np.random.default_rng(0).integers(1, 6, size=400)  # 0 is never seen, most contexts are seen seldom
    trigram = char_lm.Trigram(text, 8, (0.7, 1.0, 1.2))
    assert (trigram.p > 0).all()
    np.testing.assert_allclose(trigram.p.sum(axis=-1), 1, rtol=0, atol=1e-12)


def test_trigram_against_counting_by_hand(char_lm: ModuleType) -> None:
    """p(c | a, b) of "abcabd…" worked out from the definition."""
    text = np.array([0, 1, 2, 0, 1, 3, 0, 1, 2])
    D = (0.5, 0.8, 1.1)
    p = char_lm.Trigram(text, 4, D).p
    # The trigrams are 012 twice and 120, 201, 013, 130, 301 once each. One character precedes each of 12, 20, 13 and 30, two
    # precede 01. One pair ends in 1, in 2 and in 3; two (20, 30) in 0.
    singles = np.array([2 - D[1], 1 - D[0], 1 - D[0], 1 - D[0]]) / 5 + (D[1] + 3 * D[0]) / 5 / 4
    after_1 = np.array([0, 0, 1 - D[0], 1 - D[0]]) / 2 + 2 * D[0] / 2 * singles
    after_01 = np.array([0, 0, 2 - D[1], 1 - D[0]]) / 3 + (D[1] + D[0]) / 3 * after_1
    np.testing.assert_allclose(p[0, 1], after_01, rtol=1e-12)
    np.testing.assert_allclose(p[3, 1], after_1, rtol=1e-12)  # 31 was never seen
    np.testing.assert_allclose(p[1, 1], after_1, rtol=1e-12)


def test_text_is_split_without_overlap(char_lm: ModuleType) -> None:
    corpus = char_lm.load_corpus()
    train, held_out = (set("".join(corpus.alphabet[i] for i in part).split("\n\n")) for part in corpus[1:])
    assert len(corpus.held_out) == pytest.approx(len(corpus.train) / 9, rel=1e-3)
    assert len(train & held_out) <= 1  # the paragraph that the cut goes through may leave a piece that is seen elsewhere


# --- checkpoints -------------------------------------------------------------------------------------------


def without_seconds(printed: str) -> str:
    """What does not depend on the clock: the lines but for the curve's first column, and not the plot."""
    return re.sub(r"^ +[\d.]+ (?= +\d+ )", "", printed.split("\n\n ")[0] + printed[printed.index("held out:") :], flags=re.M)


KEPT = ("--steps", "40", "--every", "4", "--layers", "2", "--dropout", "0.2", "--checkpoint")


def start_and_kill(file: Path, seconds: float = 0.0) -> None:
    """Starts the program, and kills it so many seconds after it has written its first checkpoint."""
    before = file.stat().st_mtime_ns if file.exists() else 0
    command = [sys.executable, str(EXAMPLES / "char_lm.py"), *SMALL, *KEPT, str(file)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and (not file.exists() or file.stat().st_mtime_ns == before):
            time.sleep(0.002)
        time.sleep(seconds)
        process.kill()  # SIGKILL: nothing is run before the end


def test_killed_and_started_again(char_lm: ModuleType, tmp_path: Path) -> None:
    """The same numbers and the same sample as without interruption, also from a finished run."""
    file = tmp_path / "run.npz"
    start_and_kill(file)
    killed_at = char_lm.snapshots.load(file).values["step"]
    assert 0 < killed_at < 40
    _, resumed = run(char_lm, *KEPT, str(file))
    _, whole = run(char_lm, *KEPT[:-1])
    _, again = run(char_lm, *KEPT, str(file))
    assert without_seconds(resumed) == without_seconds(whole) == without_seconds(again)
    assert char_lm.snapshots.load(file).values["step"] == 40


@pytest.mark.slow
def test_killed_at_any_moment(char_lm: ModuleType, tmp_path: Path) -> None:
    file, rng = tmp_path / "run.npz", np.random.default_rng(0)
    steps = [0]
    while steps[-1] < 24:
        start_and_kill(file, rng.uniform(0, 0.1))
        steps.append(char_lm.snapshots.load(file).values["step"])
    assert len(steps) > 2 and steps == sorted(set(steps))  # each run gets on
    assert without_seconds(run(char_lm, *KEPT, str(file))[1]) == without_seconds(run(char_lm, *KEPT[:-1])[1])


def test_a_checkpoint_is_whole(char_lm: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who fails while writing leaves the file that was there."""
    snapshots, file = char_lm.snapshots, tmp_path / "run.npz"
    snapshots.save(file, snapshots.Snapshot({"flat": np.arange(5.0)}, {"step": 1, "loss": float("nan")}))

    def no_space(handle: int) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(OSError, match="no space"):
            snapshots.save(file, snapshots.Snapshot({"flat": np.zeros(9)}, {"step": 2}))
    arrays, values = snapshots.load(file)
    assert np.array_equal(arrays["flat"], np.arange(5.0)) and values["step"] == 1
    assert snapshots.load(tmp_path / "missing.npz") is None
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"run\.npz is not a checkpoint"):
        snapshots.load(file)


def test_a_checkpoint_of_another_run(char_lm: ModuleType, tmp_path: Path) -> None:
    file = str(tmp_path / "run.npz")
    run(char_lm, "--steps", "2", "--checkpoint", file)
    with pytest.raises(char_lm.UsageError, match=r"run\.npz was made with another --rate: 0\.008, now 0\.1"):
        run(char_lm, "--steps", "2", "--checkpoint", file, "--rate", "0.1")


# --- the command -------------------------------------------------------------------------------------------


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "char_lm.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--cell", "nosuch"), "there is no module generated.nosuch_numpy; `cellspec generate nosuch` writes it"),
        (("--cell", "../lstm"), "'../lstm' is not the name of a cell"),
        (("--dim", "Q=3"), "the cell lstm has no dim Q; it has I, H"),
        (("--checkpoint", "/no/such/folder/run.npz"), "there is no folder for /no/such/folder/run.npz"),
        (("--batch", "1000000"), "--batch 1000000 times --length 48 is too much for this text"),
    ],
)
def test_one_sentence_and_status_2(arguments: tuple[str, ...], message: str) -> None:
    done = program(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"char_lm: {message}") and done.stderr.count("\n") == 1


def test_piped_output_is_plain() -> None:
    done = program("--steps", "4", "--hidden", "8", "--sample", "5")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout and "\r" not in done.stdout
