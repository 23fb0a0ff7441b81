"""The environment in which a result was computed: versions of software, devices."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections import Counter

import jax

#: Packages whose versions can change the numbers of a result.
_PACKAGES = (
    "ecgjax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "numpy",
    "scipy",
    "scikit-learn",
    "neurokit2",
    "matplotlib",
)


def describe_environment() -> dict[str, str]:
    """Returns descriptions of devices and system, and versions of packages, by name.

    Nothing in them identifies the machine or its user.
    """
    kinds = Counter(device.device_kind for device in jax.devices())
    return {
        "devices": ", ".join(f"{count} × {kind}" for kind, count in kinds.items()) + f" ({jax.default_backend()})",
        "processes": str(jax.process_count()),
        "processor": f"{platform.machine()}, {os.cpu_count()} cores",
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        **package_versions(),
    }


def installed_version(package: str) -> str | None:
    """Returns the version of a package, or None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def package_versions() -> dict[str, str]:
    """Returns the versions of the packages that can change the numbers of a result, by name."""
    return {name: importlib.metadata.version(name) for name in _PACKAGES}
