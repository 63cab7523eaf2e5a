"""The module object that takes the place of `cupy`."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from ..errors import CompileError
from . import array, creation, cublas, machine, raw, reductions, stream, ufuncs
from .functions import PUBLIC

OF_NUMPY = (
    "dtype", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool_",
    "newaxis", "inf", "nan", "pi", "finfo", "iinfo", "result_type", "promote_types", "can_cast", "isscalar", "generic",
    "number", "integer", "floating",
)  # fmt: skip


def submodule(name: str, **content: Any) -> ModuleType:
    """A module with the given content."""
    result = ModuleType(name)
    result.__dict__.update(content)
    return result


def device_count() -> int:
    """As many as the machine pretends to have."""
    return machine.active().devices


def build() -> dict[str, ModuleType]:
    """`cupy` and its submodules, by name."""
    runtime = submodule(
        "cupy.cuda.runtime",
        CUDARuntimeError=machine.CUDARuntimeError,
        getDeviceCount=device_count,
        getDevice=lambda: machine.active().device,
        runtimeGetVersion=lambda: 13000,
        driverGetVersion=lambda: 13000,
        deviceSynchronize=lambda: stream.Device().synchronize(),
        streamCaptureModeGlobal=0,
        streamCaptureModeThreadLocal=1,
        streamCaptureModeRelaxed=2,
        is_hip=False,
    )
    driver = submodule("cupy.cuda.driver", CUDADriverError=machine.CUDADriverError)
    compiler = submodule("cupy.cuda.compiler", CompileException=CompileError)
    public = {"Stream": stream.Stream, "Event": stream.Event, "get_current_stream": stream.get_current_stream}
    streams = submodule("cupy.cuda.stream", **public)
    linalg = submodule("cupy.linalg", inv=reductions.inverse)
    products = cublas.Module("cupy.cuda.cublas")
    device = submodule("cupy.cuda.device", Device=stream.Device, get_cublas_handle=cublas.get_handle)
    cuda = submodule(
        "cupy.cuda",
        runtime=runtime,
        driver=driver,
        compiler=compiler,
        stream=streams,
        cublas=products,
        device=device,
        get_cublas_handle=cublas.get_handle,
        Graph=stream.Graph,
        Device=stream.Device,
        MemoryPointer=array.MemoryPointer,
        is_available=lambda: True,
        alloc=creation.alloc,
        __path__=[],
        **public,
    )
    cupy: ModuleType = submodule(
        "cupy",
        __version__="14.2.0",
        __path__=[],
        cuda=cuda,
        linalg=linalg,
        ndarray=array.ndarray,
        ufunc=ufuncs.ufunc,
        RawModule=raw.RawModule,
        RawKernel=raw.RawKernel,
        get_array_module=lambda *args: cupy if any(isinstance(arg, array.ndarray) for arg in args) else np,
        **PUBLIC,
        **{name: getattr(np, name) for name in OF_NUMPY},
    )
    special = submodule(
        "cupyx.scipy.special",
        erf=ufuncs.ufunc("erf", ufuncs.error_function),
        erfc=ufuncs.ufunc("erfc", ufuncs.complementary_error_function),
    )
    scipy = submodule("cupyx.scipy", special=special, __path__=[])
    cupyx = submodule("cupyx", scipy=scipy, __path__=[])
    modules = (cupy, linalg, cuda, runtime, driver, compiler, streams, products, device, cupyx, scipy, special)
    return {module.__name__: module for module in modules}
