"""The part of ELF that is needed here: a file's sections, its symbols, and where a library keeps what."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TLS_OBJECT = 6  # a symbol's type: thread-local, here `__shared__`
FUNCTION = 2
SYMBOL_TABLE = 2  # a section's type


@dataclass(frozen=True)
class Section:
    """One section header, with its bytes."""

    name: str
    kind: int
    info: int
    link: int
    entry_size: int
    data: bytes


@dataclass(frozen=True)
class Symbol:
    """One row of the symbol table; ``section`` is an index into `Elf.sections`."""

    name: str
    kind: int
    section: int
    value: int
    size: int


def text_at(table: bytes, offset: int) -> str:
    """The zero-terminated string at an offset."""
    return table[offset : table.index(b"\0", offset)].decode()


class Elf:
    """A 64-bit little-endian ELF file: a shared library of the host's or a cubin."""

    def __init__(self, data: bytes) -> None:
        if data[:6] != b"\x7fELF\x02\x01":
            raise ValueError("not a 64-bit little-endian ELF file")
        start, entry, count, names = struct.unpack_from("<Q", data, 40) + struct.unpack_from("<3H", data, 58)
        headers = [struct.unpack_from("<IIQQQQIIQQ", data, start + i * entry) for i in range(count)]
        table = self.content(data, headers[names])
        self.sections = [Section(text_at(table, h[0]), h[1], h[7], h[6], h[9], self.content(data, h)) for h in headers]

    @classmethod
    def read(cls, path: Path) -> Elf:
        """The file at ``path``."""
        return cls(path.read_bytes())

    @staticmethod
    def content(data: bytes, header: tuple[int, ...]) -> bytes:
        """A section's bytes; one that takes no room in the file has none."""
        without_bytes = 8
        return b"" if header[1] == without_bytes else data[header[4] : header[4] + header[5]]

    def symbols(self) -> Iterator[Symbol]:
        """Every symbol of the full table, local ones too."""
        for section in self.sections:
            if section.kind == SYMBOL_TABLE:
                names = self.sections[section.link].data
                for offset in range(0, len(section.data), section.entry_size):
                    name, info, _, index, value, size = struct.unpack_from("<IBBHQQ", section.data, offset)
                    yield Symbol(text_at(names, name), info & 15, index, value, size)
