"""What Ctrl-C and SIGTERM do to the program: it ends at once with one word, and leaves nothing behind.

*Invariant*: from :func:`install` on, which the program calls before it imports anything large, a signal raises no exception
wherever it happens to arrive; so none can be swallowed by a library or shown as a traceback. Where ending at once would leave
processes behind, the signal waits (:class:`deferred`) until :func:`check` is called.

Nothing here concerns those who import cellspec as a library: without :func:`install` signals do what they did.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any
else:
    import _signal as signal  # the part that is built in: nothing has to be read, so that there is no time to be interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_temporary: set[str] = set()
_depth = 0
_waiting: int | None = None


def install() -> None:
    """End the program by :func:`_arrived`; a signal that is ignored, as in a background job of a shell, stays so."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _arrived)


def _arrived(number: int, frame: Any) -> None:
    global _waiting
    if _depth and _waiting is None:  # who asks twice does not want to wait
        _waiting = number
    else:
        end(number)


def end(number: int) -> None:
    """End the program: remove what is temporary, say a word, and go, with the status that shells expect."""
    for path in tuple(_temporary):
        try:  # noqa: SIM105 - contextlib would have to be imported
            os.unlink(path)
        except OSError:
            pass
    show_cursor = b"\x1b[?25h" if os.isatty(2) else b""  # a progress bar hides it
    try:  # noqa: SIM105
        sys.stdout.flush()
    except Exception:  # a closed pipe, or a flush that this signal has interrupted
        pass
    try:  # noqa: SIM105
        os.write(2, show_cursor + b"Aborted!\n")
    except OSError:
        pass
    os._exit(128 + number)


def check() -> None:
    """End the program if a signal has arrived that was to wait."""
    if _waiting is not None:
        raise Stopped(_waiting)


class Stopped(BaseException):
    """The program is to end: what has been started is ended on the way out."""


class deferred:
    """``with deferred():`` signals wait for :func:`check`, which is called at the end as well."""

    def __enter__(self) -> None:
        global _depth
        _depth += 1

    def __exit__(self, *error: object) -> None:
        global _depth
        _depth -= 1
        if error[0] is None:
            check()


class temporary:
    """``with temporary(path):`` the file at ``path`` goes with the program if a signal ends it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> None:
        _temporary.add(self.path)

    def __exit__(self, *error: object) -> None:
        _temporary.discard(self.path)
