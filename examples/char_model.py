"""A character language model around any layer: embedding, layer, softmax; text in streams; sampling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from lecture import Array, Floats, softmax_cross_entropy
from numpy.random import Generator
from trigram import Indices, encode

from cellspec import layers
from cellspec.layers import AnyLayer

# --- text --------------------------------------------------------------------------------------------------


class Chunk(NamedTuple):
    """Streams of characters side by side, from one step to another."""

    text: Indices  # [T, B]
    targets: Indices  # [T, B] the character after each; -1 behind a stream's end
    lengths: Array | None  # [B] where streams end within the chunk; None if none does


class Streams:
    """``text`` cut into ``batch`` streams, as long as one another but for a character. All characters of the text but the first
    are targets, each once."""

    def __init__(self, text: Indices, batch: int) -> None:
        bounds = np.linspace(0, len(text) - 1, batch + 1).astype(np.intp)
        self.lengths = np.diff(bounds)
        self.steps = int(self.lengths.max())
        self.text, self.targets = np.zeros((self.steps, batch), np.intp), np.full((self.steps, batch), -1)
        for column, (start, end) in enumerate(pairwise(bounds)):
            self.text[: end - start, column] = text[start:end]
            self.targets[: end - start, column] = text[start + 1 : end + 1]

    def chunk(self, at: int, length: int) -> Chunk:
        """Steps ``at`` to ``at + length``, filled up behind the end."""
        lengths = np.clip(self.lengths - at, 0, length)
        if lengths.min() == length:
            return Chunk(self.text[at : at + length], self.targets[at : at + length], None)
        behind = ((0, max(at + length - self.steps, 0)), (0, 0))
        text, targets = (part[at : at + length] for part in (self.text, self.targets))
        return Chunk(np.pad(text, behind), np.pad(targets, behind, constant_values=-1), lengths)

    def chunks(self, length: int) -> Iterator[Chunk]:
        """All of the text, chunk after chunk."""
        for at in range(0, self.steps, length):
            yield self.chunk(at, length)


# --- the model ---------------------------------------------------------------------------------------------


class Weights(NamedTuple):
    """All that is learnt; also the shape of a gradient."""

    layer: Any
    embedding: Floats  # [V, I]
    readout: Floats  # [V, D]
    bias: Floats  # [V]


def initial_weights(layer: AnyLayer, rng: Generator, size: int) -> Weights:
    """Weights for an alphabet of ``size``."""
    params = layer.init_params(rng)
    embedding = rng.standard_normal((size, layer.input_size), dtype=np.float32)
    readout = rng.standard_normal((size, layer.output_size), dtype=np.float32) / np.float32(math.sqrt(layer.output_size))
    return Weights(params, embedding, readout, np.zeros(size, np.float32))


class Model:
    """Embedding, layer and softmax read-out, with memory for chunks of ``length`` steps of ``batch`` streams."""

    def __init__(self, layer: AnyLayer, weights: Weights, length: int, batch: int) -> None:
        self.layer, self.weights, self.length, self.batch = layer, weights, length, batch
        self.workspace = layer.workspace(weights.layer, length, batch)

    def initial_state(self) -> Any:
        return self.layer.init_state(self.weights.layer, self.batch)

    def forward(self, chunk: Chunk, state: Any, rng: Generator | None = None, dropout: float = 0.0) -> tuple[float, Any, Any]:
        """chunk, state -> (mean of -log p(target), final state, what ``backward`` needs).

        With ``rng``, dropout is active: within the layer, and on the way to the read-out, where one draw serves all steps.

        With a one-hot input the cell would multiply W by vectors that are zero but for a single one. Gathering the rows of
        an embedding costs next to nothing, and the cell's input has I numbers instead of one for each character.
        """
        weights = self.weights
        x = weights.embedding[chunk.text]
        y, final, tape = self.layer.forward(weights.layer, x, state, lengths=chunk.lengths, rng=rng, workspace=self.workspace)
        keep = None
        if rng is not None and dropout:
            keep = (rng.random(y.shape[1:]) >= dropout).astype(np.float32) / np.float32(1 - dropout)
            y = y * keep
        y = y.reshape(-1, y.shape[2])  # [T*B, D]
        loss, dz = softmax_cross_entropy(y @ weights.readout.T + weights.bias, chunk.targets.ravel())
        # The next call overwrites the workspace's arrays: what shall outlive it is copied.
        return loss, layers.tree_map(np.copy, final), (chunk.text, keep, y, dz, tape)

    def backward(self, context: Any) -> Floats:
        """The gradient of ``forward``'s loss, as one vector. Nothing comes back through the final state: that is what truncates
        backpropagation through time."""
        text, keep, y, dz, tape = context
        dy = (dz @ self.weights.readout).reshape(*text.shape, -1)
        if keep is not None:
            dy *= keep
        grads = self.layer.backward(self.weights.layer, tape, dy)
        # A character that occurred several times collects several rows of dx: one product with the one-hot matrix.
        one_hot = np.zeros((len(y), len(self.weights.bias)), np.float32)
        one_hot[np.arange(len(y)), text.ravel()] = 1
        embedding = one_hot.T @ grads.x.reshape(len(y), -1)
        gradient: Floats = layers.flatten(Weights(grads.params, embedding, dz.T @ y, dz.sum(axis=0)))[0]
        return gradient

    def bits(self, streams: Streams) -> float:
        """Bits per character, each stream read from the initial state on."""
        state, total = self.initial_state(), 0.0
        for chunk in streams.chunks(self.length):
            loss, state, _ = self.forward(chunk, state)
            total += loss * np.count_nonzero(chunk.targets >= 0)
        return total / int(streams.lengths.sum()) / math.log(2)


def sample(
    layer: AnyLayer, weights: Weights, alphabet: str, rng: Generator, count: int, temperature: float, prompt: str
) -> str:
    """``count`` characters that continue ``prompt``, each drawn from the model's own prediction and fed back by ``step``."""
    packed, state = layer.pack(weights.layer), layer.init_state(weights.layer, 1)
    written = [int(place) for place in encode(prompt, alphabet)]
    for position in range(len(prompt) + count - 1):
        y, state = layer.step(packed, weights.embedding[written[position], None], state)
        if position + 1 == len(written):
            logits = (weights.readout @ y[0] + weights.bias).astype(np.float64) / temperature
            p = np.exp(logits - logits.max())
            written.append(int(rng.choice(len(p), p=p / p.sum())))
    return "".join(alphabet[place] for place in written)
