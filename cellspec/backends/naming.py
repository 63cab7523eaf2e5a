"""From value names to Python identifiers: ``h[t-1]`` → ``h_prev``, ``d:i.pre`` → ``d_i_pre``, apart from the module's own."""

from __future__ import annotations

import keyword
import os
import re
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


def identifier(name: str) -> str:
    """A readable identifier for a value name; different names may give the same one."""
    if name.startswith("%"):
        return "tmp"
    name = re.sub(r"\*(\d*)$", r"_factor\1", name)
    name = name.replace("[t-1]", "_prev")
    name = re.sub(r"\[t-(\d+)\]", r"_lag\1", name)
    for written, spelled in _SPELLING:
        name = name.replace(written, spelled)
    name = re.sub(r"\W+", "_", name).strip("_")
    name = re.sub(r"__+", "_", name)
    return name if name.isidentifier() and not keyword.iskeyword(name) else f"v_{name}"


class Groups:
    """Words for values that lie side by side: what they have in common is said once, and four gates are one word.

    ``words`` is the legend, each word's members in their order: ``gates`` for ``[o, i, f, g]``, so that ``Uo, Ui, Uf, Ug`` are
    ``U_gates`` and the cotangents of their pre-activations ``d_gates_pre``. Where some of the values are halves (a sigmoid in
    terms of tanh takes half its sum) and others are not, the name does not tell: the lines that fill the buffer do.
    """

    def __init__(self) -> None:
        self.words: dict[tuple[str, ...], str] = {}

    def name(self, names: Sequence[str]) -> str:
        """One identifier for neighbours."""
        if len(names) == 1:
            return names[0]
        half = _HALF if all(name.endswith(_HALF) for name in names) else ""
        plain = [name.removesuffix(_HALF) for name in names]
        head, parts, tail = _common(plain, to_the_letter=False)
        short = f"{head}{'_'.join(parts)}{tail}{half}"
        if len(parts) < _MANY and len(short) <= _SHORT:
            return short
        head, parts, tail = _common(plain, to_the_letter=True)
        if parts not in self.words:
            number = len(self.words) + 1
            self.words[parts] = "gates" if number == 1 else f"gates_{number}"
        return f"{head}{'_' * bool(head and not head.endswith('_'))}{self.words[parts]}{tail}{half}"


_HALF = "_half"
_MANY, _SHORT = 4, 24
"""So many values are a word together; fewer are named one by one where the name is not long."""


def _common(names: Sequence[str], *, to_the_letter: bool) -> tuple[str, tuple[str, ...], str]:
    """What names begin with and end with, and what is between, never empty; whole words of it, unless ``to_the_letter``."""
    head = os.path.commonprefix(list(names))  # noqa: RUF071
    if not to_the_letter:
        head = head[: head.rfind("_") + 1]
    while head and any(len(name) == len(head) or name[len(head)] == "_" for name in names):
        head = head[:-1]
    tail = os.path.commonprefix([name[len(head) + 1 :][::-1] for name in names])[::-1]  # noqa: RUF071
    tail = tail[tail.find("_") :] if "_" in tail else ""
    return head, tuple(name[len(head) : len(name) - len(tail)] for name in names), tail


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
