"""The oracle: a cell's equations evaluated and differentiated straight from the :class:`~cellspec.cell.Cell`.

It reads the equations and the ``definition`` column of :data:`cellspec.model.primitives.PRIMITIVES`, nothing else: no table of
derivatives, no later stage of the compiler. What generated code computes is compared against it.

* :func:`forward`: the equations in float64, step by step.
* :func:`exact_gradients`: the unrolled equations over scalars, ``sympy.diff`` for every scalar equation, 50 digits.
* :func:`jvp`: dual numbers in float64, for shapes at which the exact gradients would take too long.
* :func:`rounded_forward` and :func:`rounded_jvp`: the first and the last with every number moved as rounding might.

All but the exact gradients and the probe take :class:`Masks`: lengths, resets and direction, as generated code does.
"""

from cellspec.oracle.duals import Tangents, jvp
from cellspec.oracle.exact import Exact, exact_gradients
from cellspec.oracle.masks import Masks
from cellspec.oracle.rounding import Rounding, rounded_forward, rounded_jvp
from cellspec.oracle.scalars import NoValue
from cellspec.oracle.values import Forward, Probe, forward, infer_dims, probe

__all__ = [
    "Exact",
    "Forward",
    "Masks",
    "NoValue",
    "Probe",
    "Rounding",
    "Tangents",
    "exact_gradients",
    "forward",
    "infer_dims",
    "jvp",
    "probe",
    "rounded_forward",
    "rounded_jvp",
]
