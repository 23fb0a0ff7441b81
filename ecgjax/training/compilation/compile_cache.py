"""Compiled programs that are kept between the starts of a run, so that a restart need not compile again."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import jax
from jax._src.compilation_cache import decompress_executable
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from ecgjax.errors import ConfigError

#: Folder of the compiled programs in that of the run.
CACHE_DIR = "compile_cache"

#: Values of `config.compile_cache` that are no folders.
AUTO, WORKDIR = "auto", "workdir"

#: Least seconds of a compilation whose program is kept: a start has hundreds of small ones.
_LEAST_S = 0.1

#: Options of JAX that are set, with their values; XLA's own cache would add its path to the key of every program.
_OPTIONS = {
    "jax_persistent_cache_min_compile_time_secs": _LEAST_S,
    "jax_persistent_cache_min_entry_size_bytes": 0,
    "jax_persistent_cache_enable_xla_caches": "none",
}


def cache_folder(setting: str, workdir: str | Path, *, platform: str) -> Path | None:
    """Returns the folder that compiled programs are kept in, or None where none are.

    Args:
        setting: Value of `config.compile_cache`.
        workdir: Folder of the run.
        platform: Platform of the devices, such as "cpu".
    """
    if not setting or (setting == AUTO and (platform == "cpu" or os.environ.get("JAX_COMPILATION_CACHE_DIR"))):
        return None
    folder = Path(workdir) / CACHE_DIR if setting in (AUTO, WORKDIR) else Path(setting)
    # A program for a CPU uses its instructions, and JAX's key does not tell one CPU from another.
    return (folder / f"cpu-{_cpu_digest()}" if platform == "cpu" else folder).absolute()


@contextlib.contextmanager
def kept_programs(setting: str, workdir: str | Path) -> Iterator[Path | None]:
    """Lets JAX keep what it compiles inside, and take what it finds there; yields the folder, or None for none.

    A folder that cannot be written costs a warning. Of several processes the first one writes.

    Args:
        setting: Value of `config.compile_cache`.
        workdir: Folder of the run.

    Raises:
        ConfigError: The setting names a folder that cannot be made.
    """
    check_setting(setting)
    folder = cache_folder(setting, workdir, platform=jax.default_backend())
    if folder is None:
        yield None
        return
    options = {**_OPTIONS, "jax_compilation_cache_dir": str(folder)}
    before = {name: jax.config.values[name] for name in options}
    if jax.process_index() == 0:
        _remove_cut(folder)
    try:
        _set(options)
        yield folder
    finally:
        _set(before)


@contextlib.contextmanager
def no_programs_kept() -> Iterator[None]:
    """Lets JAX compile inside whatever it compiles, and neither take it from a cache nor keep it."""
    before = jax.config.values["jax_enable_compilation_cache"]
    _set({"jax_enable_compilation_cache": False})
    try:
        yield
    finally:
        _set({"jax_enable_compilation_cache": before})


def check_setting(setting: str) -> None:
    """Raises a `ConfigError` where `config.compile_cache` names a folder that cannot be made."""
    if "://" in setting:
        raise ConfigError(
            f"config.compile_cache={setting} is no folder of this machine; mount the bucket, and give its path there"
        )
    if setting not in ("", AUTO, WORKDIR):
        try:
            Path(setting).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"config.compile_cache={setting} cannot be made a folder ({error.strerror}); give another, or "
                f'"{WORKDIR}" for {CACHE_DIR} in the folder of the run'
            ) from error


def _remove_cut(folder: Path) -> None:
    """Removes programs that a kill has cut while JAX wrote them: it would neither take nor replace them."""
    for path in folder.glob("*-cache"):
        try:
            decompress_executable(path.read_bytes())
        except OSError:
            continue
        except Exception:  # Each library for compression has errors of its own.
            with contextlib.suppress(OSError):
                path.unlink()


def _set(options: dict[str, object]) -> None:
    for name, value in options.items():
        jax.config.update(name, value)
    reset_cache()  # JAX looks at its options when the cache is first used, and never again.


def _cpu_digest(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Returns a digest of the model and the instructions of this machine's CPU."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = list(os.uname())
    told = {line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part", "vendor_id"))}
    return hashlib.sha256("\n".join(sorted(told or lines)).encode()).hexdigest()[:12]
