"""Sharing: classes of values that lie in the same place, one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Classes:
    """Sets of values, each at first alone, that are joined one by one; the root of a class names it.

    The members of a class are kept, the root's first, so that what is asked of all of them takes no longer than they are many.
    """

    parents: dict[str, str] = field(default_factory=dict)
    members: dict[str, list[str]] = field(default_factory=dict)  # by root

    @classmethod
    def of(cls, names: Iterable[str]) -> Classes:
        """Every name in a class of its own."""
        return cls(members={name: [name] for name in names})

    def add(self, name: str) -> None:
        """One more value, alone."""
        self.members[name] = [name]

    def root(self, name: str) -> str:
        """The name of the class of ``name``."""
        root = name
        while (above := self.parents.get(root, root)) != root:
            root = above
        while name != root:  # the way is shorter the next time
            self.parents[name], name = root, self.parents[name]
        return root

    def together(self, name: str) -> list[str]:
        """The values of the class of ``name``."""
        return self.members[self.root(name)]

    def join(self, name: str, other: str) -> tuple[str, str] | None:
        """Make the class of ``name`` a part of that of ``other``: the roots of both, or None if they are the same."""
        below, root = self.root(name), self.root(other)
        if below == root:
            return None
        self.parents[below] = root
        self.members[root] += self.members.pop(below)
        return below, root
