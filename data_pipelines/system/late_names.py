"""Imports the modules of a package's public names when a name is first used, so that importing the package is cheap."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def late_names(
    package: str, modules: Mapping[str, str], *, others: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns the `__getattr__` and the `__dir__` of a package.

    Args:
        package: Name of the package.
        modules: Modules that define the public names, by name.
        others: Names that the package has besides these.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(modules[name]), name)

    return get, lambda: sorted({*modules, *others})
