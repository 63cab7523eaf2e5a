"""The keys of a spec file and what may stand under them: one set of tables for the loader and the JSON schema."""

from __future__ import annotations

from cellspec.language.spec import Initialiser
from cellspec.model.primitives import CALLABLE, PRIMITIVES

KEYS = {
    "name": "The cell's name: an identifier, equal to the file's stem.",
    "title": "What the cell is, in one line.",
    "doc": "What the cell does, in a few sentences.",
    "cite": "The source of the equations, or a list of sources.",
    "extends": "The name of a parent spec, beside this file or among the shipped ones.",
    "remove": "Names of the parent's equations, params, states or inputs to drop; braces expand.",
    "dims": "Every free identifier of the shapes, in the order of the generated keyword arguments.",
    "hyper": "Numeric constants, fixed when generating; --set name=value overrides them.",
    "inputs": "The input streams, one value a step: {x: I, dt: 1}.",
    "states": "What is carried from step to step: a shape, or {shape, init}.",
    "outputs": "States or intermediates given out at each step; default: the first state.",
    "params": "What is learnt: a shape, or {shape, init, trainable, repeat}.",
    "activations": "Local names of pointwise functions; --set name=function replaces them.",
    "functions": "Local functions, inlined where they are called: 'ln(v, s, b)': s*(v - mean(v))/sqrt(var(v) + 1e-5) + b.",
    "equations": "A literal block (|) of equations such as h[t] = tanh(W @ x[t] + U @ h[t-1] + b), and of loops over them.",
    "expect": "Facts that are checked: params, stages, recurrence, bound.",
}
CITE_KEYS = ("key", "title", "authors", "year", "doi", "url", "note")
EXPECT_KEYS = ("params", "stages", "recurrence", "bound")
RECURRENCES = ("dense", "elementwise", "linear")
VARIABLE_KEYS = {"an input": ("shape",), "a state": ("shape", "init"), "a param": ("shape", "init", "trainable", "repeat")}
PLAIN_INITIALISERS = {
    "zeros": Initialiser("constant", (0,)),
    "ones": Initialiser("constant", (1,)),
    "identity": Initialiser("identity"),
    "uniform": Initialiser("uniform"),
    "glorot_uniform": Initialiser("glorot_uniform"),
    "glorot_normal": Initialiser("glorot_normal"),
    "orthogonal": Initialiser("orthogonal"),
}
NUMBERED_INITIALISERS = {"normal": "normal: std", "uniform": "uniform: [low, high]", "chrono": "chrono: Tmax"}
MATRIX_INITIALISERS = ("identity", "glorot_uniform", "glorot_normal", "orthogonal")
ACTIVATIONS = tuple(name for name in CALLABLE if PRIMITIVES[name].arity == 1)
