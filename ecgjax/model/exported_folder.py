"""The folder of an exported encoder: which files it has, whether they are whole, and what they say of the encoder."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipelines.prepared.dataset import CARD_FILE
from data_pipelines.system.digests import file_digest
from data_pipelines.system.plain_names import is_plain_name, why_elsewhere
from ecgjax.config.run_config import checkpoint_dir, kind_of_run
from ecgjax.errors import ConfigError
from ecgjax.export.file_names import (
    CONFIG_FILE,
    FORMAT,
    FORMAT_VERSION,
    FORMAT_VERSION_WITH_HEAD,
    PREPROCESSOR_FILE,
    SAMPLE_FILE,
    WEIGHTS_FILE,
    format_version,
)
from ecgjax.model.fields import Fields
from ecgjax.model.json_file import read_json
from ecgjax.settings.sections import flat

#: Files that are read and therefore checked; the folder may hold others.
READ_FILES = (PREPROCESSOR_FILE, WEIGHTS_FILE, SAMPLE_FILE)

_AGAIN = "copy the folder again, or export it again"


@dataclasses.dataclass(frozen=True)
class ExportedFolder:
    """A folder whose files are there and have their sizes and digests.

    Attributes:
        path: Folder.
        config: Content of `config.json`.
        preprocessor: Content of `preprocessor_config.json`.
        digests: SHA-256 of the files that are read, by name.
    """

    path: Path
    config: Mapping[str, Any]
    preprocessor: Mapping[str, Any]
    digests: Mapping[str, str]


def open_folder(folder: str | Path) -> ExportedFolder:
    """Checks the files of an exported encoder, before anything is made of them.

    Args:
        folder: Folder that `python -m ecgjax.export --out=` wrote.

    Raises:
        ConfigError: The path is something else, or a file is missing, damaged, of another version, or a link out of the
            folder.
    """
    path = _checked_path(folder)
    config = read_json(_own_file(path, CONFIG_FILE))
    _check_format(path, config)
    listed = Fields(path / CONFIG_FILE, config).mapping("files")
    for name in listed:
        if not is_plain_name(name):
            raise ConfigError(
                f"{path / CONFIG_FILE}: names the file {ascii(name)[:120]}, which is no plain file name; files of a "
                "model lie in its own folder, so this one was tampered with: get it again from where it comes from"
            )
    digests = {name: _checked_digest(path, name, listed.get(name)) for name in READ_FILES}
    return ExportedFolder(path, config, read_json(path / PREPROCESSOR_FILE), digests)


def _checked_path(folder: str | Path) -> Path:
    if "://" in str(folder):
        raise ConfigError(
            f"{folder}: models are read as files; copy the folder to this machine, and give its path here"
        )
    path = Path(folder)
    if path.is_file():
        raise ConfigError(
            f"{folder}: is a single file, and weights alone do not say how recordings are prepared; give the folder "
            f"that python -m ecgjax.export wrote, with its {CONFIG_FILE}"
        )
    if not path.is_dir():
        raise ConfigError(f"{folder}: no such folder; python -m ecgjax.export writes one")
    if (path / CARD_FILE).is_file():
        raise ConfigError(f"{folder}: is a data set and no model; python -m ecgjax.embed --input takes it")
    if (reason := why_elsewhere(path / CONFIG_FILE)) is not None:
        raise ConfigError(f"{path / CONFIG_FILE}: {reason}")
    if (model := model_of_fine_tuning(path)) is not None:
        raise ConfigError(f"{folder}: is the folder of a fine-tuning run, whose model is in {model}: give that folder")
    # A run keeps its settings under the same name.
    if checkpoint_dir(path).is_dir() or ((path / CONFIG_FILE).is_file() and is_of_a_run(path / CONFIG_FILE)):
        raise ConfigError(
            f"{folder}: is the folder of a run and no exported model; write one with python -m ecgjax.export "
            f"--workdir={folder} --out=DIR, and give DIR"
        )
    if not (path / CONFIG_FILE).is_file():
        raise ConfigError(
            f"{folder}: has no {CONFIG_FILE}, so it is no exported model; python -m ecgjax.export writes one"
        )
    return path


def model_of_fine_tuning(folder: str | Path) -> Path | None:
    """Returns the folder of the model in that of a fine-tuning run; None for any other folder.

    Raises:
        ConfigError: The configuration in it is no JSON object.
    """
    config = Path(folder) / CONFIG_FILE
    # A folder that may not be read is none that could be named better; who opens it says what is wrong.
    with contextlib.suppress(PermissionError):
        if config.is_file() and kind_of_run(flat(read_json(config))) == "fine-tuning":
            return Path(folder) / "model"
    return None


def is_of_a_run(path: Path) -> bool:
    """Returns whether a file of the name that runs and exports share holds the settings of a run.

    Raises:
        ConfigError: The file is no JSON object.
    """
    known = read_json(path)
    return "format" not in known and {"encoder", "optimizer"} <= known.keys()


def _check_format(path: Path, said: Mapping[str, Any]) -> None:
    if said.get("format") != FORMAT:
        raise ConfigError(
            f"{path / CONFIG_FILE}: 'format' is {ascii(said.get('format'))[:60]} and not {FORMAT!r}, so it is no "
            "model of ecgjax; python -m ecgjax.export writes one"
        )
    version, head = said.get("format_version"), said.get("head")
    known = (FORMAT_VERSION, FORMAT_VERSION_WITH_HEAD)
    if version not in known or isinstance(version, bool):
        raise ConfigError(
            f"{path / CONFIG_FILE}: 'format_version' is {ascii(version)[:60]}, and this ecgjax reads "
            f"{' and '.join(map(str, known))}; install the ecgjax that wrote it, or export the encoder with this one"
        )
    if version != format_version(has_head=head is not None):
        raise ConfigError(
            f"{path / CONFIG_FILE}: 'format_version' is {version} and 'head' is {ascii(head)[:60]}, but a folder has "
            f"version {FORMAT_VERSION} without a head and {FORMAT_VERSION_WITH_HEAD} with one; {_AGAIN}"
        )


def _own_file(folder: Path, name: str) -> Path:
    """Returns the path of a file that is there, and is no link out of the folder."""
    path = folder / name
    if (reason := why_elsewhere(path)) is not None:
        raise ConfigError(f"{path}: {reason}")
    if not path.is_file():
        raise ConfigError(f"{path}: is missing; {_AGAIN}")
    return path


def _checked_digest(folder: Path, name: str, listed: object) -> str:
    """Returns the digest of a file after it was compared with the listed size and digest."""
    path = _own_file(folder, name)
    if not isinstance(listed, Mapping):
        raise ConfigError(f"{folder / CONFIG_FILE}: 'files' does not list {name}; {_AGAIN}")
    size = path.stat().st_size
    if size != listed.get("bytes"):
        raise ConfigError(f"{path}: has {size} bytes and not the {listed.get('bytes')!r} of {CONFIG_FILE}; {_AGAIN}")
    digest = file_digest(path)
    if digest != listed.get("sha256"):
        raise ConfigError(f"{path}: its SHA-256 is {digest} and not that of {CONFIG_FILE}; {_AGAIN}")
    return digest
