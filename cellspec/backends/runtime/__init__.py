"""Run-time functions of the generated modules of every backend; see :mod:`cellspec.backends.included`."""
