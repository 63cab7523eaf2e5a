"""From value names to Python identifiers: ``h[t-1]`` → ``h_prev``, ``d:i.pre`` → ``d_i_pre``, apart from the module's own."""

from __future__ import annotations

import keyword
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import sympy

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


_NUMBERS = {
    Fraction(0): "zero",
    Fraction(1): "one",
    Fraction(2): "two",
    Fraction(3): "three",
    Fraction(4): "four",
    Fraction(10): "ten",
    Fraction(1, 2): "half",
    Fraction(1, 3): "third",
    Fraction(2, 3): "two_thirds",
    Fraction(1, 4): "quarter",
    Fraction(3, 4): "three_quarters",
    Fraction(1, 5): "fifth",
    Fraction(1, 6): "sixth",
    Fraction(1, 8): "eighth",
    Fraction(1, 10): "tenth",
}


def number_name(value: sympy.Expr) -> str:
    """What a number is called: ``half``, ``minus_one``, ``c_0_05``; one that depends on the dims after them, ``sqrt_D``."""
    if not value.is_number:
        name = identifier(str(value))
        return name if len(name) <= _SHORT else "number"
    number = float(value)
    for known, word in _NUMBERS.items():
        if abs(number) == float(known):
            return f"minus_{word}" if number < 0 else word
    text = str(int(number)) if number.is_integer() else repr(number)
    name = identifier(f"c_{text}".replace("-", "_minus_"))
    return name if len(name) <= _SHORT else "number"


class Groups:
    """Words for values that lie side by side: what they have in common is said once, and four gates are one word.

    ``words`` is the legend, each word's members in their order: ``gates`` for ``[o, i, f, g]``, so that ``Uo, Ui, Uf, Ug`` are
    ``U_gates`` and the cotangents of their pre-activations ``d_gates_pre``. Whole ``params`` that have nothing in common are
    ``weights``. Where some values are halves (a sigmoid in terms of tanh takes half its sum) and others are not, the name
    does not tell: the lines that fill the buffer do.
    """

    def __init__(self, params: Collection[str] = ()) -> None:
        self.words: dict[tuple[str, ...], str] = {}
        self.params = params

    def word(self, members: tuple[str, ...]) -> str:
        """The word for ``members``, a new one if they have none yet."""
        if members not in self.words:
            kind = "weights" if set(members) <= set(self.params) else "gates"
            number = sum(word.rstrip("0123456789") == kind for word in self.words.values()) + 1
            self.words[members] = kind if number == 1 else f"{kind}{number}"
        return self.words[members]

    def used(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """The members of each word that stands in some of ``names``, identifiers of which it is a part."""
        found = {part for name in names for part in name.split("_")}
        return {word: members for members, word in self.words.items() if word in found}

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
        stems = {_stem(name) for name in plain}
        if len(stems) == 1:
            return f"{stems.pop()}s{half}"
        head, parts, tail = _common(plain, to_the_letter=_differ_within_words(plain))
        return f"{head}{'_' * bool(head and not head.endswith('_'))}{self.word(parts)}{tail}{half}"


_HALF = "_half"
_MANY, _SHORT = 4, 24
"""So many values are a word together; fewer are named one by one where the name is not long."""


def _stem(name: str) -> str:
    """A name without the number that tells it from others."""
    stem, _, number = name.rpartition("_")
    return stem if number.isdigit() else name


def _differ_within_words(names: Sequence[str]) -> bool:
    """Whether the words in which ``names`` first differ are equally long, as ``Ui`` and ``Uf`` are."""
    start = os.path.commonprefix(list(names)).rfind("_") + 1  # noqa: RUF071
    words = [name[start:].split("_")[0] for name in names]
    return len({*words}) > 1 and len({*map(len, words)}) == 1


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
