"""Layers around generated modules: stacks, both directions, residuals, dropout, saved parameters.

>>> from cellspec import layers
>>> from generated import lstm_numpy
>>> deep = layers.Stack(layers.Layer(lstm_numpy, I=64, H=128), layers.Layer(lstm_numpy, I=128, H=128), dropout=0.2)

Every layer has the functions of :class:`AnyLayer`. They hold no parameters and no state of a run: what is learnt is a tree of
arrays (nested named tuples) that goes in and out, as with the modules themselves. So threads may share them, and they can be
copied and pickled. Needs NumPy, and CuPy for CuPy's modules.
"""

from cellspec.layers.bidirectional import Bidirectional
from cellspec.layers.layer import Layer
from cellspec.layers.layout import Layout
from cellspec.layers.protocol import AnyLayer, Gradients
from cellspec.layers.residual import Residual
from cellspec.layers.stack import Stack
from cellspec.layers.storage import load, save
from cellspec.layers.trees import clip_by_global_norm, flatten, leaves, tree_map

__all__ = [
    "AnyLayer",
    "Bidirectional",
    "Gradients",
    "Layer",
    "Layout",
    "Residual",
    "Stack",
    "clip_by_global_norm",
    "flatten",
    "leaves",
    "load",
    "save",
    "tree_map",
]
