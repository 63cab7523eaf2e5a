"""From value names to Python identifiers: ``h[t-1]`` → ``h_prev``, ``d:i.pre`` → ``d_i_pre``, apart from the module's own."""

from __future__ import annotations

import keyword
import os
from collections.abc import Iterable, Sequence

_SPELLING = (
    ("[t]", ""),
    (" given", "_given"),
    (" total", "_total"),
    (" each", "_each"),
    (" blocks", "_blocks"),
    ("|", "_"),
    ("<-", "_next"),
    ("~", "_all"),
    ("+", "_base"),
    ("*", "_"),
    ("d:", "d_"),
    (".T@", "T_"),
    ("⊗", "_x_"),
    ("/2", "_half"),
    ("²", "_squared"),
    ("@", "_"),
)
_LONGEST = 32


def identifier(name: str) -> str:
    """A readable identifier for a value name; different names may give the same one."""
    if name.startswith("%"):
        return "tmp"
    name = _lags(_factor(name).replace("[t-1]", "_prev"))
    for written, spelled in _SPELLING:
        name = name.replace(written, spelled)
    words = "".join(char if char.isalnum() or char == "_" else "_" for char in name).split("_")
    name = "_".join(word for word in words if word)
    return name if name.isidentifier() and not keyword.iskeyword(name) else f"v_{name}"


def _factor(name: str) -> str:
    """A name that ends with ``*`` or ``*2``: a factor of what stands before."""
    stem = name.rstrip("0123456789")
    return f"{stem[:-1]}_factor{name[len(stem) :]}" if stem.endswith("*") else name


def _lags(name: str) -> str:
    """``[t-3]`` as ``_lag3``."""
    first, *others = name.split("[t-")
    for other in others:
        steps, bracket, rest = other.partition("]")
        first += f"_lag{steps}{rest}" if bracket and steps.isdigit() else f"[t-{other}"
    return first


def together(names: Sequence[str]) -> str:
    """One identifier for neighbours: what they have in common is said once (``d_i_f_g_pre``)."""
    if len(names) == 1:
        return names[0]
    head = os.path.commonprefix(list(names))  # noqa: RUF071
    head = head[: head.rfind("_") + 1]
    tail = os.path.commonprefix([name[len(head) :][::-1] for name in names])[::-1]  # noqa: RUF071
    tail = tail[tail.find("_") :] if "_" in tail else ""
    middle = "_".join(name[len(head) : len(name) - len(tail)] for name in names)
    joined = f"{head}{middle}{tail}"
    return joined if len(joined) <= _LONGEST else f"{head}{names[0][len(head) : len(names[0]) - len(tail)]}_etc{tail}"


class Names:
    """Hands out identifiers, each once."""

    def __init__(self, reserved: Iterable[str]) -> None:
        self.taken = set(reserved)
        self.by_key: dict[object, str] = {}

    def get(self, key: object, wanted: str) -> str:
        """The identifier of ``key``: ``wanted``, or ``wanted`` with a number where that is taken."""
        if key not in self.by_key:
            name, number = wanted, 2
            while name in self.taken:
                name, number = f"{wanted}_{number}", number + 1
            self.taken.add(name)
            self.by_key[key] = name
        return self.by_key[key]
