"""Work of several streams with the same memory."""

from __future__ import annotations

import contextlib
from typing import Any

import cupy as cp


@contextlib.contextmanager
def _in_turn(*streams: Any) -> Any:
    """The current stream; what it is given inside the ``with`` comes after what ``streams`` have been given, and before what they
    will be. The host waits for nothing.

    Memory goes back to CuPy's pool in the order of the stream that it was taken on: work of another stream with it stands in here.
    """
    here = cp.cuda.get_current_stream()
    others = [stream for stream in streams if stream != here]
    for stream in others:
        here.wait_event(stream.record())
    try:
        yield here
    finally:
        for stream in others:
            stream.wait_event(here.record())
