"""Values on the command lines of the benchmarks."""

from __future__ import annotations

import argparse


def shape(text: str) -> tuple[int, ...]:
    """Four sizes: T,B,I,H."""
    sizes = text.split(",")
    if len(sizes) != 4 or not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
        raise argparse.ArgumentTypeError(f"{text!r} is not four sizes T,B,I,H")
    return tuple(map(int, sizes))


def names(text: str) -> list[str]:
    """Names between commas."""
    return [name.strip() for name in text.split(",")]
