"""The pretended devices: their memory and what was done with it, the order of streams, and the work that a capture records."""

from __future__ import annotations

import contextlib
import ctypes
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from ..compile import variant
from ..errors import CudaHostError

MIXER = 0x9E3779B97F4A7C15  # spreads neighbouring numbers
ALIGNMENT = 512  # as CuPy's memory pool aligns
GUARD = 2 * ALIGNMENT
PATTERN = b"\xa5\x5a" * (GUARD // 2)

libc = ctypes.CDLL(None)
libc.free.argtypes = [ctypes.c_void_p]
libc.posix_memalign.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_size_t]


class CUDARuntimeError(RuntimeError):
    """What the CUDA runtime refuses."""


class CUDADriverError(RuntimeError):
    """What the CUDA driver refuses."""


class Memory:
    """One allocation, all its bits set: a NaN of every width, and -1.

    Each is a block of its own from malloc, so that AddressSanitizer knows where it ends and when it was freed. Without the
    sanitizer there are guards at both ends, which each launch that is given the memory looks at.
    """

    def __init__(self, size: int, owner: object = None, pointer: int = 0) -> None:
        self.size = size
        self.owner = owner  # whose memory it is, if not ours
        self.machine = active()
        self.device = self.machine.device
        self.stream = self.machine.current()  # in whose order CuPy's pool gives it out again
        self.touched: dict[int, int] = {}  # by stream, its last piece of work with this memory
        self.constant = False  # whether all streams only read it, so that they need no order
        self.block = 0
        self.ptr = pointer
        self.guarded = False
        if owner is None and size:
            self.guarded = variant() == "plain"
            room = size + (2 * GUARD if self.guarded else 0)
            block = ctypes.c_void_p()
            if libc.posix_memalign(ctypes.byref(block), ALIGNMENT, room) or not block.value:
                raise MemoryError(f"no {size} bytes are to be had")
            self.block = block.value
            self.ptr = self.block + (GUARD if self.guarded else 0)
            ctypes.memset(self.ptr, 0xFF, size)
            if self.guarded:
                ctypes.memmove(self.ptr - GUARD, PATTERN, GUARD)
                ctypes.memmove(self.ptr + size, PATTERN, GUARD)
            self.machine.memories[self.ptr] = self
        self.bytes = (ctypes.c_uint8 * size).from_address(self.ptr) if size else b""

    def harm(self) -> str:
        """Where something was written beside this memory, if anywhere."""
        if not self.guarded:
            return ""
        for where, guard in (("behind the end", self.ptr + self.size), ("before the start", self.ptr - GUARD)):
            if ctypes.string_at(guard, GUARD) != PATTERN:
                ctypes.memmove(guard, PATTERN, GUARD)
                return where
        return ""

    def __del__(self) -> None:
        if self.block:
            self.machine.freed(self)
            libc.free(self.block)
            self.block = 0


@dataclass
class Seen:
    """What happened while a test watched."""

    allocations: list[str] = field(default_factory=list)
    synchronisations: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)  # between host and device
    launches: list[str] = field(default_factory=list)  # kernels, by name, when they run
    races: list[str] = field(default_factory=list)  # work of two streams with the same memory, and nothing to order them
    work: list[tuple[str, frozenset[int]]] = field(default_factory=list)  # all that streams do, and the id of each memory
    products: int = 0  # cuBLAS calls, when they run
    graphs: int = 0  # graphs launched


@dataclass
class Work:
    """One thing that a stream does; a graph holds these."""

    what: str
    run: Callable[[], None]
    memory: list[weakref.ref[Memory]]


class Machine:
    """The pretended devices, one or more, with their current streams and the schedule of threads."""

    def __init__(
        self,
        schedule: str = "forward",
        seed: int = 0,
        *,
        capture_products: bool = False,
        multiprocessors: int = 132,
        seconds: float = 60.0,
        devices: int = 1,
    ) -> None:
        self.schedule = schedule
        self.seed = seed
        self.capture_products = capture_products
        self.multiprocessors = multiprocessors
        self.seconds = seconds
        self.devices = devices
        self.device = 0  # the current one
        self.launched = 0
        self.watchers: list[Seen] = []
        self.stacks: dict[int, list[object]] = {}  # of `with stream:`, by device; stream.py looks after them
        self.clocks: dict[int, dict[int, int]] = {}  # by stream: how much of every stream's work comes before its next
        self.host: dict[int, int] = {}  # the same for what the host has waited for
        self.memories: weakref.WeakValueDictionary[int, Memory] = weakref.WeakValueDictionary()  # by address
        self.handles: dict[int, object] = {}  # cuBLAS's, by device; cublas.py looks after them
        self.said = ""  # why cuBLAS last refused something
        self.captures: dict[int, list[Work]] = {}  # by stream
        self.blocking_captures: set[int] = set()

    # --- what tests ask ---------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def watch(self) -> Iterator[Seen]:
        """Lists what happens inside the `with`."""
        seen = Seen()
        self.watchers.append(seen)
        try:
            yield seen
        finally:
            self.watchers.remove(seen)

    def memory_at(self, address: int, size: int = 0) -> Memory | None:
        """The memory in which so many bytes lie."""
        return next((m for m in self.memories.values() if m.ptr <= address and address + size <= m.ptr + m.size), None)

    def device_of(self, address: int) -> int:
        """The device of an address."""
        found = self.memory_at(address)
        return self.device if found is None else found.device

    def thread_order(self) -> tuple[str, int]:
        """The schedule of the next launch and its seed: another for each launch, the same ones in each run."""
        self.launched += 1
        return self.schedule, ((self.seed * 1000003 + self.launched) * MIXER >> 1) % 2**63

    # --- what the substitute reports ----------------------------------------------------------------------------

    def note(self, kind: str, what: str) -> None:
        """Something that tests may want to know of."""
        for seen in self.watchers:
            getattr(seen, kind).append(what)

    def allocate(self, size: int, what: str = "an array") -> Memory:
        """Memory of the device."""
        if self.capturing():
            raise CUDARuntimeError(f"{what} is allocated while a stream captures (cudaErrorStreamCaptureUnsupported)")
        self.note("allocations", what)
        return Memory(size)

    def hidden_copy(self, what: str) -> None:
        """CuPy copies an operand behind the caller's back: an allocation like any other."""
        if self.capturing():
            raise CUDARuntimeError(f"{what}: CuPy allocates a copy while a stream captures")
        self.note("allocations", what)

    def synchronise(self, what: str) -> None:
        """The host waits for the device."""
        if self.captures:
            raise CUDARuntimeError(f"{what} waits for the device while a stream captures (cudaErrorStreamCaptureUnsupported)")
        self.note("synchronisations", what)

    def copy(self, what: str) -> None:
        """Something goes from the host's memory to the device's, or back."""
        if self.capturing():
            raise RuntimeError("the current stream is capturing, so synchronous API calls are disallowed")
        self.note("copies", what)

    # --- streams --------------------------------------------------------------------------------------------------

    @property
    def streams(self) -> list[object]:
        """The current device's stack of `with stream:`."""
        return self.stacks.setdefault(self.device, [])

    def capturing(self) -> bool:
        """Whether the current stream captures."""
        return self.current() in self.captures

    def current(self) -> int:
        """The current stream's handle."""
        return int(getattr(self.streams[-1], "ptr", 0)) if self.streams else 0

    def order(self, stream: int, earlier: dict[int, int]) -> None:
        """What a stream is given from now on comes after so much of the others' work."""
        clock = self.clocks.setdefault(stream, {})
        for other, count in earlier.items():
            clock[other] = max(count, clock.get(other, 0))

    def awaited(self, streams: Iterable[int]) -> None:
        """The host has waited for streams: whatever it asks for from now on comes after their work."""
        for stream in streams:
            for other, count in self.clocks.get(stream, {}).items():
                self.host[other] = max(count, self.host.get(other, 0))

    def touch(self, what: str, stream: int, memory: Iterable[Memory]) -> None:
        """Work of a stream with memory; if another stream's work with it comes neither before nor after, that is noted."""
        self.order(stream, self.host)
        clock = self.clocks[stream]
        clock[stream] = clock.get(stream, 0) + 1
        memory = [one for one in memory if one.size]
        for seen in self.watchers:
            seen.work.append((what, frozenset(map(id, memory))))
        for one in (one for one in memory if not one.constant):
            for other, count in one.touched.items():
                if other != stream and clock.get(other, 0) < count:
                    self.note("races", f"{what} on stream {stream} beside work of stream {other} with {one.size} bytes")
            one.touched[stream] = clock[stream]

    def freed(self, memory: Memory) -> None:
        """Memory goes back to the pool, which gives it out again to work of the stream that it was taken on."""
        clock = self.clocks.get(memory.stream, {})
        for other, count in memory.touched.items():
            if other != memory.stream and max(clock.get(other, 0), self.host.get(other, 0)) < count:
                self.note(
                    "races", f"{memory.size} bytes are freed to stream {memory.stream} while stream {other} works with them"
                )

    def submit(self, what: str, run: Callable[[], None], memory: Iterable[Memory] = (), stream: int | None = None) -> None:
        """Work for the current stream, or another: done now, or recorded if the stream captures."""
        current = self.current() if stream is None else stream
        memory = list(memory)
        for one in memory:
            if one.size and one.machine is self and one.device != self.device:
                raise CudaHostError(f"{what} on device {self.device} takes memory of device {one.device}")
        if current in self.captures:
            self.captures[current].append(Work(what, run, [weakref.ref(m) for m in memory]))
            return
        self.touch(what, current, memory)
        if current == 0 and self.blocking_captures:
            raise CUDARuntimeError(
                f"{what} on the default stream while a blocking stream captures (cudaErrorStreamCaptureImplicit)"
            )
        run()

    def replay(self, work: Iterable[Work], stream: int) -> None:
        """A graph runs, with the addresses that it recorded."""
        for item in work:
            memory = [one for one in (reference() for reference in item.memory) if one is not None]
            if len(memory) < len(item.memory):
                raise CudaHostError(f"a graph runs {item.what} with memory that has been freed since it was captured")
            self.touch(item.what, stream, memory)
            item.run()


machine = Machine()


def active() -> Machine:
    """The machine in use."""
    return machine


@contextlib.contextmanager
def use(new: Machine) -> Iterator[Machine]:
    """Makes a machine the one in use."""
    global machine
    old, machine = machine, new
    try:
        yield new
    finally:
        machine = old
