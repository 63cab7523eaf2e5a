"""`cupy.RawModule` and `cupy.RawKernel`: kernels that run on the CPU, and every argument looked at.

CuPy hands over pointers and bytes and looks at nothing. Here the parameters' C++ types come from the compiler, and an argument
that does not fit its parameter is an error, also where a GPU would happen to read the right bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import CudaHostError, LaunchError
from ..library import MOST_SHARED, MOST_STATIC_SHARED, Kernel, Parameter, load
from .array import MemoryPointer, ndarray
from .machine import CUDADriverError, Memory, active

SCALARS = frozenset(np.dtype(char).type for char in "?bhilqBHILQefd")
MOST_RESIDENT = 2048  # threads of a multiprocessor


class RawModule:
    """`cupy.RawModule`: compiled when a kernel is first asked for."""

    def __init__(
        self,
        code: str | None = None,
        *,
        path: str | None = None,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        translate_cucomplex: bool = False,
        enable_cooperative_groups: bool = False,
        name_expressions: Sequence[str] | None = None,
        jitify: bool | None = None,
    ) -> None:
        if (code is None) == (path is None):
            raise TypeError("Exactly one of `code` and `path` keyword arguments must be given.")
        if code is None or translate_cucomplex or jitify or backend != "nvrtc":
            raise NotImplementedError("RawModule of anything but text for NVRTC")
        if not isinstance(options, tuple):
            raise TypeError(f"Argument 'options' has incorrect type (expected tuple, got {type(options).__name__})")
        self.code = code
        self.options = options
        self.backend = backend
        self.enable_cooperative_groups = enable_cooperative_groups
        self.name_expressions = tuple(name_expressions or ())

    def get_function(self, name: str) -> RawKernel:
        """The kernel of that name."""
        kernels = load(self.code, self.options, self.name_expressions).kernels
        if name not in kernels:
            raise CUDADriverError(
                f'CUDA_ERROR_NOT_FOUND: named symbol not found: {name} (a kernel must be extern "C" or in name_expressions)'
            )
        return RawKernel._of(kernels[name], self)

    def compile(self, log_stream: Any = None) -> None:
        """Compiles now."""
        load(self.code, self.options, self.name_expressions)


class RawKernel:
    """`cupy.RawKernel`."""

    def __init__(
        self,
        code: str,
        name: str,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        translate_cucomplex: bool = False,
        *,
        enable_cooperative_groups: bool = False,
        jitify: bool | None = None,
    ) -> None:
        self._find: Callable[[], Kernel] = lambda: self._module.get_function(name).kernel
        self._module = RawModule(
            code=code,
            options=options,
            backend=backend,
            translate_cucomplex=translate_cucomplex,
            enable_cooperative_groups=enable_cooperative_groups,
            jitify=jitify,
        )
        self.name = self.__name__ = name
        self._kernel: Kernel | None = None
        self._dynamic: int | None = None

    @classmethod
    def _of(cls, kernel: Kernel, module: RawModule) -> RawKernel:
        self = cls.__new__(cls)
        self._module = module
        self.name = self.__name__ = kernel.name
        self._kernel = kernel
        self._dynamic = None
        return self

    @property
    def kernel(self) -> Kernel:
        """The compiled kernel."""
        if self._kernel is None:
            self._kernel = self._find()
        return self._kernel

    code = property(lambda self: self._module.code)
    options = property(lambda self: self._module.options)
    backend = property(lambda self: self._module.backend)
    enable_cooperative_groups = property(lambda self: self._module.enable_cooperative_groups)
    shared_size_bytes = property(lambda self: self.kernel.static_bytes)
    max_threads_per_block = property(lambda self: self.kernel.most_threads)

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        """How much dynamic shared memory a launch may ask for; more than 48 KB in all must be set here first."""
        return MOST_STATIC_SHARED - self.kernel.static_bytes if self._dynamic is None else self._dynamic

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size: int) -> None:
        if size + self.kernel.static_bytes > MOST_SHARED:
            raise CUDADriverError(f"CUDA_ERROR_INVALID_VALUE: {size} bytes are more than 227 KB less the static shared memory")
        self._dynamic = int(size)

    def compile(self, log_stream: Any = None) -> None:
        """Compiles now."""
        self.kernel  # noqa: B018

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: Sequence[Any], *, shared_mem: int = 0) -> None:
        kernel, machine = self.kernel, active()
        for what, sizes in (("grid", grid), ("block", block)):
            if not isinstance(sizes, tuple):
                raise TypeError(f"Argument '{what}' has incorrect type (expected tuple, got {type(sizes).__name__})")
        whole_grid, whole_block = (sizes_of(kernel, what, sizes) for what, sizes in (("grid", grid), ("block", block)))
        if len(args) != len(kernel.parameters):
            raise LaunchError(f"kernel {kernel.name} has {len(kernel.parameters)} parameters, {len(args)} arguments are given")
        values = [value_of(kernel, i, p, arg) for i, (p, arg) in enumerate(zip(kernel.parameters, args, strict=True))]
        kernel.check(whole_grid, whole_block, shared_mem)
        if shared_mem > self.max_dynamic_shared_size_bytes:
            most = self.max_dynamic_shared_size_bytes
            raise LaunchError(
                f"kernel {kernel.name}: {shared_mem} bytes of dynamic shared memory are more than its "
                f"max_dynamic_shared_size_bytes of {most}"
            )
        cooperative = bool(self.enable_cooperative_groups)
        if cooperative:
            check_resident(kernel, whole_grid, whole_block, shared_mem)
        memory = {arg.data.mem: None for arg in args if isinstance(arg, ndarray)}
        memory.update({arg.mem: None for arg in args if isinstance(arg, MemoryPointer)})

        def run() -> None:
            order, seed = machine.thread_order()
            machine.note("launches", kernel.name)
            sizes, seconds = (whole_grid, whole_block, values, shared_mem), machine.seconds
            kernel.launch(*sizes, cooperative=cooperative, order=order, seed=seed, seconds=seconds)

        def guarded(memories: tuple[Memory, ...] = tuple(memory)) -> None:
            run()
            look_at_guards(kernel, memories)

        # A graph must not keep memory alive, so what it records looks at no guards.
        machine.submit(f"kernel {kernel.name}", run if machine.capturing() else guarded, list(memory))


def sizes_of(kernel: Kernel, what: str, sizes: tuple[int, ...]) -> tuple[int, int, int]:
    """Three numbers."""
    if not 1 <= len(sizes) <= 3 or not all(isinstance(size, (int, np.integer)) for size in sizes):
        raise LaunchError(f"kernel {kernel.name}: a {what} is one to three whole numbers, not {sizes}")
    x, y, z = (*(int(size) for size in sizes), 1, 1)[:3]
    return x, y, z


def check_resident(kernel: Kernel, grid: Sequence[int], block: Sequence[int], shared: int) -> None:
    """That all blocks of a cooperative launch can be on the device at once, registers apart."""
    threads = block[0] * block[1] * block[2]
    each = MOST_RESIDENT // (-(-threads // 32) * 32)
    if kernel.static_bytes + shared:
        each = min(each, MOST_SHARED // (kernel.static_bytes + shared))
    most = each * active().multiprocessors
    if grid[0] * grid[1] * grid[2] > most:
        raise LaunchError(f"kernel {kernel.name}: the cooperative grid {tuple(grid)} exceeds {most} blocks, which fit at once")


def look_at_guards(kernel: Kernel, memories: Sequence[Memory]) -> None:
    """That the kernel wrote nothing just beside its arguments."""
    for memory in memories:
        if where := memory.harm():
            raise CudaHostError(f"kernel {kernel.name} wrote {where} of an array of {memory.size} bytes")


def value_of(kernel: Kernel, number: int, parameter: Parameter, arg: Any) -> bytes:
    """An argument's bytes, as CuPy passes them, if they are what the parameter takes."""
    here = f"kernel {kernel.name}, argument {number}"
    if isinstance(arg, ndarray):
        if not parameter.pointer:
            raise LaunchError(f"{here}: an array is given for a parameter of type {parameter}")
        if parameter.type not in ("void", "other", arg.dtype.name):
            raise LaunchError(f"{here}: an array of {arg.dtype} is given for a parameter of type {parameter}")
        if not arg._np.flags.c_contiguous:
            raise LaunchError(f"{here}: the array of shape {arg.shape} is not C-contiguous, its strides are {arg.strides}")
        return arg.data.ptr.to_bytes(8, "little")
    if isinstance(arg, MemoryPointer):
        if not parameter.pointer:
            raise LaunchError(f"{here}: a pointer is given for a parameter of type {parameter}")
        return arg.ptr.to_bytes(8, "little")
    if isinstance(arg, np.ndarray):
        if arg.size != 1:
            raise TypeError(
                f"You are trying to pass a numpy.ndarray of shape {arg.shape} as a kernel parameter. Only numpy.ndarrays of "
                "size one can be passed by value. If you meant to pass a pointer to __global__ memory, you need to pass a "
                "cupy.ndarray instead."
            )
        arg = arg.reshape(())[()]
    if arg is None:
        raise LaunchError(f"{here}: CuPy passes None as a null argument, not as a null pointer")
    if isinstance(arg, bool):
        # CuPy passes eight bytes, of which a bool parameter reads the first.
        scalar: Any = np.bool_(arg) if parameter.type == "bool" else np.int64(arg)
    elif isinstance(arg, int):
        scalar = np.int64(arg)
    elif isinstance(arg, float) and type(arg) is float:
        scalar = np.float64(arg)
    elif type(arg) in SCALARS:
        scalar = arg
    else:
        raise TypeError(f"Unsupported type {type(arg)}")
    if parameter.pointer or parameter.type != scalar.dtype.name:
        plain = type(arg) in (bool, int, float)
        how = f"a Python {type(arg).__name__}, which CuPy passes as {scalar.dtype}," if plain else f"a {scalar.dtype}"
        raise LaunchError(f"{here}: {how} is given for a parameter of type {parameter}")
    return bytes(scalar.tobytes())
