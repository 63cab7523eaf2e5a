"""The machine that times are taken on, and how much of it may be used."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # read when the libraries are loaded


def machine(threads: int) -> dict[str, Any]:
    """What the times were taken on."""
    model = platform.processor() or platform.machine()
    cpuinfo, meminfo = (read_fields(Path("/proc", name)) for name in ("cpuinfo", "meminfo"))
    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    return {
        "cpu": cpuinfo.get("model name", model),
        "cores": os.cpu_count(),
        "threads": threads,
        "caches": caches(),
        "memory": meminfo.get("MemTotal", "?"),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": ", ".join(filter(None, (f"{blas.get('name', '?')} {blas.get('version', '')}".strip(), kernels()))),
    }


def kernels() -> str:
    """The processor for which BLAS has chosen its kernels, such as ``Haswell kernels``; empty where nobody tells."""
    if importlib.util.find_spec("threadpoolctl") is None:
        return ""
    pools = importlib.import_module("threadpoolctl").threadpool_info()
    return next((f"{pool['architecture']} kernels" for pool in pools if pool.get("architecture")), "")


def held_back() -> str:
    """A sentence if OpenBLAS has not recognised a processor with AVX-512, and takes half the time that it could."""
    flags = read_fields(Path("/proc/cpuinfo")).get("flags", "").split()
    if "avx512f" not in flags or kernels().split(" ")[0] not in ("Haswell", "Zen", "Sandybridge", "Nehalem", "Prescott"):
        return ""
    return f"OpenBLAS takes its {kernels()}, and here is AVX-512: OPENBLAS_CORETYPE=SkylakeX may make products twice as fast"


def read_fields(file: Path) -> dict[str, str]:
    """``name: value`` by line, the first of each name; nothing where there is no such file."""
    if not file.exists():
        return {}
    lines = [line.partition(":") for line in file.read_text().splitlines()]
    return {key.strip(): value.strip() for key, _, value in reversed(lines)}


def caches() -> str:
    """The sizes of the first core's caches, where Linux tells."""
    folders = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"))
    found = (
        f"L{(at / 'level').read_text().strip()} {(at / 'type').read_text().strip()} {(at / 'size').read_text().strip()}"
        for at in folders
    )
    return ", ".join(found) or "?"


def available_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_processors(threads: int) -> None:
    """Lets this process and all that it starts use ``threads`` processors: XLA takes the size of its pool from that."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def pools(threads: int) -> dict[str, str]:
    """The environment in which thread pools have so many threads."""
    return dict.fromkeys(POOLS, str(threads))
