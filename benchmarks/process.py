"""A contender's process, from both sides: ``Worker`` asks, ``serve`` answers, each with one line of JSON.

An answer ``{"error": …, "missing": true}`` says that the contender is not installed, without ``missing`` that it failed.
Contenders have processes of their own for their thread pools, their device memory, and what breaks when one of them does.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

SENTENCE = 300  # characters of a library's message that are kept


class Failure(Exception):
    """One sentence: why there is no measurement."""


class Missing(Failure):
    """The contender is not installed."""


class Worker:
    """A contender's process. ``patience``: how many seconds an answer may take; without it, any time."""

    def __init__(self, python: str, script: Path, environment: dict[str, str], patience: float | None = None) -> None:
        self.patience = patience
        try:
            self.process = subprocess.Popen(
                [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | environment
            )
        except OSError as error:
            raise Failure(f"{python}: {error.strerror}") from None

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request; a Failure where there is none."""
        self.send(**request)
        return self.receive()

    def send(self, **request: Any) -> None:
        """A request whose answer is taken later by ``receive``: until then other processes can work."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # ``receive`` finds out
            print(json.dumps(request), file=self.process.stdin, flush=True)

    def receive(self) -> dict[str, Any]:
        """The answer to the request that was sent."""
        assert self.process.stdout is not None
        if self.patience is not None and not select.select([self.process.stdout], [], [], self.patience)[0]:
            self.process.kill()
            raise Failure(f"no answer within {self.patience:g} s")
        line = self.process.stdout.readline()
        if not line:
            raise Failure(f"its process ended with status {self.process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise (Missing if reply.get("missing") else Failure)(reply["error"])
        return reply

    def close(self, force: bool = False) -> None:
        """Ends the process: it stops where its input does, or at once."""
        if force:
            self.process.kill()
        self.process.communicate()


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
    """Answers until stdin ends. Whatever a library prints goes to stderr: stdout holds answers and nothing else."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except ModuleNotFoundError as error:
            reply = {"error": f"no module named {error.name}", "missing": True}
        except Exception as error:
            reply = {"error": sentence(error)}
        print(json.dumps(reply), file=replies, flush=True)
    return 0


def sentence(error: BaseException) -> str:
    """What is to be said of an exception: its type and the first line of its message, cut where it is very long."""
    if isinstance(error, Failure):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= SENTENCE else text[: SENTENCE - 1] + "…"
