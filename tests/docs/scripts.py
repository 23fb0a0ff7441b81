"""The scripts of docs/pictures, which are no package, as modules."""

import importlib.util
from types import ModuleType

from tests.golden.commands import ROOT

PICTURES = ROOT / "docs" / "pictures"


def picture_script(name: str) -> ModuleType:
    """Returns the script of a name without extension."""
    spec = importlib.util.spec_from_file_location(f"pictures_{name}", PICTURES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
