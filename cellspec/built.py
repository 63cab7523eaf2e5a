"""The modules that :func:`cellspec.build` has made in this process: where copies and pickles find their classes.

A class of such a module is found by one name here, ``<module>:<class>``, without a point, which pickle's protocols before the
fourth know nothing of; the module's name ends with a digest of its text. So a pickle of parameters, of any protocol, is read
wherever the same cell has been built, in this process or another. Modules live as long as they are used.
"""

from __future__ import annotations

import hashlib
import re
import sys
import threading
from types import ModuleType
from weakref import WeakValueDictionary

_MODULES: WeakValueDictionary[str, ModuleType] = WeakValueDictionary()
_LOCK = threading.Lock()


def register(module: ModuleType, text: str) -> ModuleType:
    """``module`` itself, whose classes can be found from now on; ``text`` is what it was made of."""
    name = f"{module.__name__}_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    with _LOCK:
        number = next(n for n in range(1, len(_MODULES) + 2) if _numbered(name, n) not in _MODULES)
        found = _numbered(name, number)
        _MODULES[found] = module
    for item in list(vars(module).values()):
        if isinstance(item, type) and item.__module__ == module.__name__:
            item.__module__, item.__qualname__ = __name__, f"{found}:{item.__qualname__}"
            item._module = module  # type: ignore[attr-defined]  # which lives as long as its classes
    return module


def module_of(kind: type) -> ModuleType | None:
    """The module, built here or imported, that ``kind`` is a class of; None if it is neither."""
    found: ModuleType | None = getattr(kind, "_module", None) or sys.modules.get(kind.__module__)
    return found


def __getattr__(name: str) -> type:
    """The class of this name: that of its module, or of one made of the same text."""
    parts = re.fullmatch(r"((\w+_[0-9a-f]{12})(?:_\d+)?):(\w+)", name)
    if parts is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    own, text, kind = parts.groups()
    for other in (own, *sorted(found for found in list(_MODULES) if found.startswith(text))):
        if (module := _MODULES.get(other)) is not None:
            made: type = getattr(module, kind)
            return made
    raise LookupError(f"{own} was made by cellspec.build elsewhere: build the same cell here before what it pickled is read")


def _numbered(name: str, number: int) -> str:
    """Modules of the same text have numbers."""
    return name if number == 1 else f"{name}_{number}"
