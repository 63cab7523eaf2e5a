"""From value names to Python identifiers: ``h[t-1]`` → ``h_prev``, ``d:i.pre`` → ``d_i_pre``, apart from the module's own."""

from __future__ import annotations

import keyword
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

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


def _shortened(name: str) -> str:
    """A long name without words from its middle; one that is a single word stays, as it is a spec's own."""
    first, *words = name.split("_")
    while len(words) > 1 and len("_".join((first, *words))) > _LONGEST:
        del words[-2]
    return "_".join((first, *words))


_LONGEST = 23
"""Longer names are shortened; what a number or a suffix adds keeps them within 30 characters."""


@dataclass(frozen=True)
class Like:
    """A wish to be called as ``name`` is, with ``suffix`` behind."""

    name: str
    suffix: str


Wanted = str | Like


@dataclass
class Wishes:
    """Names that are not identifiers yet: each is told from the others, and it is known what it is to be called."""

    groups: Groups = field(default_factory=Groups)
    wanted: dict[str, Wanted] = field(default_factory=dict)  # in the order in which they were asked for
    by_key: dict[object, str] = field(default_factory=dict)

    def get(self, key: object, wanted: Wanted) -> str:
        """The name of ``key``, which is to be called ``wanted``."""
        if key not in self.by_key:
            plain = f"{wanted.name}{wanted.suffix}" if isinstance(wanted, Like) else wanted
            name, number = plain, 2
            while name in self.wanted:
                name, number = f"{plain}_{number}", number + 1
            self.wanted[name] = wanted
            self.by_key[key] = name
        return self.by_key[key]

    def together(self, names: Sequence[str]) -> str:
        """What to call neighbours of these names, to be handed to :meth:`get`."""
        return self.groups.name(names)

    def granted(self, taken: Iterable[str]) -> dict[str, str]:
        """An identifier for each, none of those that are ``taken``."""
        names = Names(taken)
        found: dict[str, str] = {}
        for name, wanted in self.wanted.items():
            if isinstance(wanted, Like):
                wanted = f"{found.get(wanted.name, wanted.name)}{wanted.suffix}"
            found[name] = names.get(name, wanted)
        return found


class Names:
    """Hands out identifiers, each once."""

    def __init__(self, reserved: Iterable[str], groups: Groups | None = None) -> None:
        self.taken = set(reserved)
        self.groups = groups or Groups()
        self.by_key: dict[object, str] = {}

    def get(self, key: object, wanted: str) -> str:
        """The identifier of ``key``: ``wanted``, or ``wanted`` with a number where that is taken."""
        if key not in self.by_key:
            wanted = _shortened(wanted)
            name, number = wanted, 2
            while name in self.taken:
                name, number = f"{wanted}_{number}", number + 1
            self.taken.add(name)
            self.by_key[key] = name
        return self.by_key[key]

    def together(self, names: Sequence[str]) -> str:
        """What to call neighbours of these names: a wish, to be handed to :meth:`get`."""
        return self.groups.name(names)
