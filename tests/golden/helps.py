"""What commands say of themselves: the text of `--help`, and every flag of ours."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import runpy
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from tests.golden.commands import ROOT, GoldenError, beside_each_other, commands, environment, packages
from tests.golden.normalise import words

#: Packages of others that commands import: loaded once for all the processes, in each of which one command is run.
_LOADED_ONCE = (
    "absl.app", "flax.nnx", "grain", "h5py", "jax", "matplotlib.figure", "ml_collections.config_flags", "neurokit2",
    "optax", "orbax.checkpoint.experimental.v1", "pandas", "pydicom", "scipy.signal", "sierraecg", "sklearn.ensemble",
    "sklearn.linear_model", "tensorboardX", "tensorflow_datasets", "wfdb",
)  # fmt: skip

#: Cores that commands are told of: `--num_workers` shows their number as its default.
_CORES = 2


def helps() -> dict[str, Any]:
    """Returns the help of every command: the lines of its text, and its flags."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_LOADED_ONCE))
    with tempfile.TemporaryDirectory() as folder:
        shown = beside_each_other(
            {
                f"{name} {flag}": lambda name=name, flag=flag: _output(context, name, flag, folder=Path(folder))
                for name in commands().values()
                for flag in ("--help", "--helpxml")
            }
        )
        texts = dict(shown)
    return {
        name: {"help": words(texts[f"{run_by} --help"]).splitlines(), "flags": _flags(texts[f"{run_by} --helpxml"])}
        for name, run_by in sorted(commands().items())
    }


def _output(context: Any, name: str, flag: str, *, folder: Path) -> str:
    """Returns what a command prints in a process of its own."""
    path = folder / f"{name}{flag}"
    process = context.Process(target=_show, args=(name, flag, str(path)))
    process.start()
    process.join()
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if not text:
        errors = path.with_suffix(".errors")
        raise GoldenError(f"{name} {flag} prints nothing: {errors.read_text() if errors.exists() else ''}")
    return text


def _show(name: str, flag: str, path: str) -> None:
    """Runs a command as `python -m` does; its output goes to a file, its errors to another."""
    gc.freeze()  # A collection would write to, and so copy, all that is shared with the process that loaded it.
    os.environ.clear()
    os.environ.update(environment())
    sys.path.insert(0, str(ROOT))
    sys.argv = [name, flag]
    os.cpu_count = lambda: _CORES
    errors = Path(path).with_suffix(".errors")
    with open(path, "w", encoding="utf-8") as sys.stdout, errors.open("w", encoding="utf-8") as sys.stderr:
        with contextlib.suppress(SystemExit):
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        sys.stdout.flush()


def _flags(text: str) -> dict[str, list[str]]:
    """Returns type, default and meaning of the flags in a `--helpxml` that the project defines."""
    found = {}
    for flag in ElementTree.fromstring(text).iter("flag"):
        values = [each.text or "" for each in flag.iter("enum_value")]
        if _is_ours(flag.findtext("file", "")):
            told = [flag.findtext(part, "") for part in ("type", "default", "meaning")]
            found[flag.findtext("name", "")] = [words(each) for each in (*told, *values)]
    return dict(sorted(found.items()))


def _is_ours(file: str) -> bool:
    return file.startswith(str(ROOT)) or file.partition(".")[0] in {package.name for package in packages()}
