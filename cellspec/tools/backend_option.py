"""``--backend`` of the command line, which offers the backends that there are, and looks for them only when it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

ALL = "all"
"""What stands for every backend that comes with cellspec."""


class BackendName(click.ParamType[str]):
    """The name of a backend; what names none is told by the command, which says what is near to it."""

    name = "backend"

    def __init__(self, *more: str) -> None:
        self.more = more

    def choices(self) -> tuple[str, ...]:
        """What may be said."""
        from cellspec.backends import registry

        return (*registry.names(), *self.more)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "|".join(self.choices())

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(name) for name in self.choices() if name.startswith(incomplete)]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return str(value)
