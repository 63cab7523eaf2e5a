"""Signals that wait, within the process; what ends it is tested from outside."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from cellspec.tools import stopping


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The signals by which the program would have ended; none waits afterwards."""
    numbers: list[int] = []
    monkeypatch.setattr(stopping, "end", numbers.append)
    monkeypatch.setattr(stopping, "_waiting", None)
    yield numbers
    assert stopping._depth == 0


def test_a_signal_ends_the_program_at_once(ended: list[int]) -> None:
    stopping._arrived(signal.SIGINT, None)
    assert ended == [signal.SIGINT]


def test_a_signal_waits_where_it_is_deferred(ended: list[int]) -> None:
    with pytest.raises(stopping.Stopped) as stopped, stopping.deferred():
        stopping._arrived(signal.SIGTERM, None)
        assert ended == []
    assert stopped.value.args == (signal.SIGTERM,)


def test_a_check_ends_what_is_deferred(ended: list[int]) -> None:
    with stopping.deferred():
        stopping.check()
        with pytest.raises(stopping.Stopped), stopping.deferred():
            stopping._arrived(signal.SIGINT, None)
            stopping.check()
            pytest.fail("nothing comes behind")
        stopping._waiting = None
    assert ended == []


def test_who_asks_twice_does_not_wait(ended: list[int]) -> None:
    with pytest.raises(stopping.Stopped), stopping.deferred():
        stopping._arrived(signal.SIGINT, None)
        stopping._arrived(signal.SIGINT, None)
        assert ended == [signal.SIGINT]


def test_another_error_is_not_hidden(ended: list[int]) -> None:
    with pytest.raises(ZeroDivisionError), stopping.deferred():
        stopping._arrived(signal.SIGINT, None)
        raise ZeroDivisionError


def test_what_is_temporary_is_so_for_a_while() -> None:
    with stopping.temporary("a file"):
        assert "a file" in stopping._temporary
    assert "a file" not in stopping._temporary


def test_an_ignored_signal_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a background job of a shell."""
    ignored, default = stopping.signal.SIG_IGN, stopping.signal.SIG_DFL
    handlers = {signal.SIGINT: ignored, signal.SIGTERM: default}
    monkeypatch.setattr(stopping.signal, "getsignal", handlers.get)
    monkeypatch.setattr(stopping.signal, "signal", handlers.__setitem__)
    stopping.install()
    assert handlers == {signal.SIGINT: ignored, signal.SIGTERM: stopping._arrived}
