"""The character language model, small: it learns, repeats itself for a seed, and says what is missing."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from rich.console import Console

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SMALL = ["--hidden", "24", "--embedding", "8", "--batch", "16", "--length", "16", "--sample", "30"]


@pytest.fixture
def char_lm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import char_lm  # type: ignore[import-not-found, unused-ignore]

    return char_lm


def run(char_lm: ModuleType, *arguments: str) -> tuple[list[Any], str]:
    """The learning curve and all that was printed."""
    file = io.StringIO()
    curve = char_lm.run(char_lm.parse([*SMALL, *arguments]), Console(file=file, width=120))
    return curve, file.getvalue()


@pytest.mark.parametrize("cell", ["lstm", "gru", "elman"])
def test_loss_falls(char_lm: ModuleType, cell: str) -> None:
    curve, printed = run(char_lm, "--cell", cell, "--steps", "80", "--rate", "0.01")
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


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_gradient(char_lm: ModuleType, dropout: float) -> None:
    """Along the gradient, the loss rises as fast as the gradient is long."""
    cell = char_lm.load_cell("lstm")
    rng = np.random.default_rng(0)
    model = char_lm.Model(cell, char_lm.initial_weights(cell, rng, 20, {"I": 5, "H": 7}, 5), 6, 4)
    flat, model.weights = model.weights.packed()
    flat_gradient, gradient = model.weights.packed()
    text, targets = rng.integers(20, size=(2, 6, 4))
    keep = char_lm.Recipe(rate=0.0, norm=1.0, dropout=dropout).keep(rng, (4, 7))
    _, _, context = model.forward(text, targets, model.initial_state(), keep)
    model.backward(context, gradient)
    norm = np.linalg.norm(flat_gradient)
    direction, start, far = flat_gradient / norm, flat.copy(), np.float32(0.02)

    def loss(distance: np.float32) -> Any:
        flat[:] = start + distance * direction
        return model.forward(text, targets, model.initial_state(), keep)[0]

    assert (loss(far) - loss(-far)) / (2 * far) == pytest.approx(norm, rel=5e-3)


def test_parts_of_the_gradient_are_whole(char_lm: ModuleType) -> None:
    """packed() gives views: what is written to a part is in the vector, in order, and nothing is left out."""
    cell = char_lm.load_cell("gru")
    weights = char_lm.initial_weights(cell, np.random.default_rng(0), 20, {"I": 5, "H": 7}, 5)
    flat, views = weights.packed()
    assert all(np.array_equal(view, array) for view, array in zip(views.arrays(), weights.arrays(), strict=True))
    for number, view in enumerate(views.arrays()):
        view[...] = number
    assert np.array_equal(flat, np.repeat(np.arange(len(views.arrays())), [array.size for array in weights.arrays()]))


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


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "char_lm.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--cell", "nosuch"), "there is no module generated.nosuch_numpy; `cellspec generate nosuch` writes it"),
        (("--cell", "../lstm"), "'../lstm' is not the name of a cell"),
        (("--dim", "Q=3"), "the cell lstm has no dim Q; it has I, H"),
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
