"""Run-time functions of generated NumPy modules; see :mod:`cellspec.backends.included`."""
