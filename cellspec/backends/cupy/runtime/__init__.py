"""Run-time functions of generated CuPy modules, and CUDA that is in each of them; see :mod:`cellspec.backends.included`."""
