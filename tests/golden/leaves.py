"""Every leaf of every config: its type and value, in the published and in the small size."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.golden.commands import ROOT, GoldenError

#: Config of a training → its variants, the first being what it is without one.
TRAINED: dict[str, tuple[str, ...]] = {
    "clocs": ("cmsc", "cmlc", "cmsmlc"),
    "dade_1m": ("single", "dual", "intersegment"),
    "dml_hemodynamics": ("l1", "dtw"),
    "measured_waves": ("alone", "simclr"),
    "pclr": ("",),
    "physioclr": ("",),
    "quickstart": ("", "waves"),
    "real_recordings": ("simclr", "dml", "physioclr", "dade", "waves"),
    "simclr": ("", "patients"),
    "supervised_dml": ("binary,unnormalised", "regression,unnormalised"),
    "three_kg": ("",),
}

#: Variants whose leaves are recorded and no steps: they came after the steps, which are of the machine that made them.
_LEAVES_ALONE: dict[str, tuple[str, ...]] = {"supervised_dml": ("binary", "regression")}

#: Configs that have one size.
ONE_SIZE = ("cross_validation", "quickstart", "real_recordings")

#: Configs that train nothing, and modules beside the configs that are none.
_OTHERS = ("cross_validation", "finetune")
_NONE = ("__init__", "base", "variants")


def small_configs() -> list[str]:
    """Returns every config of a training in its small size, as `--config` takes it after `configs/`."""
    return [
        argument(name, variant, "" if name in ONE_SIZE else "small")
        for name, variants in TRAINED.items()
        for variant in variants
    ]


def argument(name: str, *parts: str) -> str:
    """Returns the file of a config and what stands behind its colon."""
    after = ",".join(filter(None, parts))
    return f"{name}.py:{after}" if after else f"{name}.py"


def leaves() -> dict[str, dict[str, str]]:
    """Returns the leaves of every config: all of the first, and of each other what differs from it.

    Raises:
        GoldenError: There is a config file that is not listed here, or none that is.
    """
    files = {path.stem for path in (ROOT / "configs").glob("*.py")} - set(_NONE)
    if differing := sorted(files ^ {*TRAINED, *_OTHERS}):
        raise GoldenError(f"configs that are not both listed and there: {', '.join(differing)}")
    found = {config: _leaves_of(config) for config in sorted(_every_config())}
    first = found["simclr.py"]
    differing = {
        config: {name: own.get(name, "absent") for name in sorted({*own, *first}) if own.get(name) != first.get(name)}
        for config, own in found.items()
    }
    return differing | {"simclr.py": first, **{argument(name): found[argument(name)] for name in _OTHERS}}


def _every_config() -> Iterator[str]:
    yield from map(argument, _OTHERS)
    for name, variants in TRAINED.items():
        for variant in (*variants, *_LEAVES_ALONE.get(name, ())):
            yield from {argument(name, variant), argument(name, variant, "" if name in ONE_SIZE else "small")}


def _leaves_of(config: str) -> dict[str, str]:
    file, _, after = config.partition(":")
    return dict(sorted(_flat(_module(ROOT / "configs" / file).get_config(*filter(None, [after])))))


def _flat(section: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name in section:
        value = section[name]
        if hasattr(value, "get_type"):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", f"{section.get_type(name).__name__} {value!r}"


def _module(path: Path) -> Any:
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    spec = importlib.util.spec_from_file_location(f"golden_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
