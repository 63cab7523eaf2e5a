"""Streams, graphs, devices: `cupy.cuda`, as far as it goes here.

Work is done as it is submitted, so that there is one order of things; what capturing forbids is refused.
"""

from __future__ import annotations

import itertools
from typing import Any

from .machine import CUDARuntimeError, Work, active

HANDLES = itertools.count(1 << 20)


class Stream:
    """`cupy.cuda.Stream`."""

    null: Stream

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int | None = None) -> None:
        if ptds:
            raise NotImplementedError("the per-thread default stream")
        self.ptr = 0 if null else next(HANDLES)
        self.is_non_blocking = non_blocking
        self.device_id = -1 if null else active().device

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.ptr == other.ptr

    def __hash__(self) -> int:
        return hash(self.ptr)

    def __enter__(self) -> Stream:
        active().streams.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        active().streams.pop()

    def use(self) -> Stream:
        """Makes it the current stream, for good."""
        active().streams.append(self)
        return self

    @property
    def done(self) -> bool:
        """Whether all its work is done: the host does not wait to know."""
        return self.ptr not in active().captures

    def synchronize(self) -> None:
        """The host waits."""
        active().synchronise("Stream.synchronize")
        active().awaited([self.ptr])

    def record(self, event: Event | None = None) -> Event:
        """An event of this moment."""
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Later work waits for an event: all is done in order anyway, but it is known for what comes when."""
        active().order(self.ptr, event.clock)

    def begin_capture(self, mode: int | None = None) -> None:
        """From now on work is recorded."""
        machine = active()
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self.ptr in machine.captures:
            raise CUDARuntimeError("cudaErrorIllegalState: the operation cannot be performed in the present state")
        machine.captures[self.ptr] = []
        if not self.is_non_blocking:
            machine.blocking_captures.add(self.ptr)

    def end_capture(self) -> Graph:
        """What was recorded."""
        machine = active()
        if self.ptr not in machine.captures:
            raise CUDARuntimeError("cudaErrorIllegalState: the stream does not capture")
        machine.blocking_captures.discard(self.ptr)
        return Graph._of(machine.captures.pop(self.ptr))

    def is_capturing(self) -> bool:
        """Whether it captures."""
        return self.ptr in active().captures


Stream.null = Stream(null=True)


class Graph:
    """`cupy.cuda.Graph`: work to be done as often as wanted, with the addresses that were recorded."""

    work: list[Work]

    def __init__(self) -> None:
        raise RuntimeError("currently this class cannot be initiated by the user and must be created via stream capture")

    @classmethod
    def _of(cls, work: list[Work]) -> Graph:
        self = cls.__new__(cls)
        self.work = work
        return self

    def launch(self, stream: Stream | None = None) -> None:
        """Does the work."""
        machine = active()
        if machine.captures:
            raise NotImplementedError("a graph launched while a stream captures")
        for seen in machine.watchers:
            seen.graphs += 1
        machine.replay(self.work, machine.current() if stream is None else stream.ptr)

    def upload(self, stream: Stream | None = None) -> None:
        """Nothing: the work is where it will run."""


class Event:
    """`cupy.cuda.Event`, which is always past."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self.ptr = next(HANDLES)
        self.done = True
        self.clock: dict[int, int] = {}  # how much of every stream's work it comes after

    def record(self, stream: Stream | None = None) -> None:
        """Now."""
        machine = active()
        self.clock = dict(machine.clocks.get(machine.current() if stream is None else stream.ptr, {}))

    def synchronize(self) -> None:
        """The host waits."""
        active().synchronise("Event.synchronize")
        active().host.update({s: max(n, active().host.get(s, 0)) for s, n in self.clock.items()})


def get_current_stream(device_id: int = -1) -> Stream:
    """The stream that work goes to."""
    streams = active().streams
    return streams[-1] if streams else Stream.null  # type: ignore[return-value]


class Device:
    """`cupy.cuda.Device`."""

    compute_capability = "90"

    def __init__(self, device: int | None = None) -> None:
        self.id = active().device if device is None else int(device)
        if not 0 <= self.id < active().devices:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self.before: list[int] = []

    @property
    def attributes(self) -> dict[str, Any]:
        """Those that launches depend on."""
        return {
            "MultiProcessorCount": active().multiprocessors,
            "MaxThreadsPerBlock": 1024,
            "MaxSharedMemoryPerBlock": 48 * 1024,
            "MaxSharedMemoryPerBlockOptin": 227 * 1024,
            "WarpSize": 32,
            "CooperativeLaunch": 1,
        }

    def synchronize(self) -> None:
        """The host waits."""
        active().synchronise("Device.synchronize")
        active().awaited(list(active().clocks))

    def use(self) -> Device:
        """Makes it the current one."""
        active().device = self.id
        return self

    def __enter__(self) -> Device:
        self.before.append(active().device)
        return self.use()

    def __exit__(self, *error: object) -> None:
        active().device = self.before.pop()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    def __int__(self) -> int:
        return self.id

    __hash__ = None  # type: ignore[assignment]
