"""Other layouts of sequences, for the outermost layer."""

from __future__ import annotations


class Layout:
    pass
