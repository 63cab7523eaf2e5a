"""The templates that modules are made from."""

from __future__ import annotations

import jinja2


def environment(backend: str) -> jinja2.Environment:
    """The templates of a backend, and behind them those that all share."""
    own = jinja2.PackageLoader(f"cellspec.backends.{backend}", "templates")
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader([own, jinja2.PackageLoader("cellspec.backends", "templates")]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
