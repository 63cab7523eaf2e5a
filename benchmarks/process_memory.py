"""How much memory this process holds, and the most that it held. In bytes."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def status(field: str) -> int | None:
    """What Linux says of this process: ``VmRSS`` now, ``VmHWM`` at most."""
    with contextlib.suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return None


def resident() -> int:
    """What the process holds now; where the system does not say, the most that it ever held."""
    now = status("VmRSS")
    return peak() if now is None else now


def peak() -> int:
    """The most that the process held since ``forget_peak``; where that does nothing, since it began."""
    most = status("VmHWM")
    if most is None:
        import resource  # Unix has it

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return most


def forget_peak() -> None:
    """Lets ``peak`` begin anew, where the system can do that (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
