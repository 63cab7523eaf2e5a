"""The checking substitute for `cupy`: the parts of CuPy 14 that generated code uses, over the CPU's memory.

`module.build` makes the module object that `substitute` puts in `sys.modules`. What CuPy has and this has not is an
AttributeError or a NotImplementedError, never a quiet approximation.
"""
