"""CUDA C++ as a language of the C family: what it calls numbers, and the names that mean something in the text of a kernel."""

from __future__ import annotations

from cellspec.backends.fused.c_family import KEYWORDS, Dialect

CUDA = Dialect(
    target="cuda",
    auxiliary=(
        "logistic(a, e) = (a > 0 ? real(1) : e)*(1/(1 + e))",  # e is exp(-|a|), which never leaves the range
        "signed_as(b, r) = r != 0 && (r < 0) != (b < 0) ? r + b : r",
    ),
    real="real({})",
    infinity="INFINITY",
    argument="real {}",
    definition="__device__ inline real {name}({arguments}) {{ return {value}; }}",
)
"""``real`` is the type of gate arithmetic, which the head of a module defines beside ``stored``."""

WORDS = ("half", "atomic", "threadIdx", "blockIdx", "blockDim", "gridDim", "warpSize", "dim3", "real", "stored", "keep")
"""What CUDA's headers define, and the head of a module."""

ROW_FUNCTIONS = {
    "sum_units": "sum_row",
    "sum_across": "sum_of_column",
    "largest_unit": "largest_of_row",
    "running_sum": "running_sums<false>",
    "running_sum_back": "running_sums<true>",
}
"""The functions by which a block works on a row, by the kernels that do the same for many."""

RESERVED = (*KEYWORDS, *CUDA.names, *WORDS, *(text.partition("<")[0] for text in ROW_FUNCTIONS.values()))
"""Names that have a meaning in the text of kernels, whatever a kernel does."""
