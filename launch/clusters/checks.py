"""Checks of what a launcher is asked for, before it reaches a cluster that says less about what is wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence

from data_pipelines.buckets.addresses import is_remote
from ecgjax.errors import ConfigError

_LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PART = r"[a-z0-9]+([._-]+[a-z0-9]+)*"
_IMAGE = re.compile(rf"{_PART}(:\d+(?=/))?(/{_PART})*(:\w[\w.-]{{0,127}})?(@sha256:[0-9a-f]{{64}})?")
_PLAIN = re.compile(r"[A-Za-z0-9_.,:;=@/+\[\]&|*!()-]+")

#: Longest name of a host, and so of a pod and of a virtual machine (RFC 1123).
LONGEST_NAME = 63


def check_name(flag: str, name: str, *, longest: int = LONGEST_NAME, why: str = "", of: str = "a host's name") -> str:
    """Returns a name after checking that it can be part of a host's name.

    Args:
        flag: Name of the flag that gives it.
        name: Name to check.
        longest: Largest number of characters.
        why: Reason for a smaller number, for the message.
        of: What it names, for the message.

    Raises:
        ConfigError: The name has other characters than a-z, 0-9 and -, begins or ends with another one than it may, or
            is too long.
    """
    if not _LABEL.fullmatch(name):
        raise ConfigError(
            f"--{flag}={name!r} cannot be part of {of}: a-z, 0-9 and - are allowed, with a letter first and "
            "no - at the end"
        )
    if len(name) > longest:
        raise ConfigError(f"--{flag}={name} has {len(name)} characters; {longest} are possible{why and f': {why}'}")
    return name


def check_plain(flag: str, value: str) -> str:
    """Returns a value after checking that it needs no quotes, which a directive of a batch script cannot have.

    Args:
        flag: Name of the flag that gives it.
        value: Value to check.

    Raises:
        ConfigError: The value is empty, or has blanks, quotes or other characters that a shell reads as its own.
    """
    if not _PLAIN.fullmatch(value):
        raise ConfigError(
            f"--{flag}={value!r} cannot stand in the head of a batch script: it must have no blank, quote or %"
        )
    return value


def check_local(flag: str, folder: str) -> str:
    """Returns the value of a flag that names a folder, after checking that it is no address in a bucket.

    Args:
        flag: Name of the flag that gives it.
        folder: Path of the folder.

    Raises:
        ConfigError: It is an address.
    """
    if is_remote(folder):
        raise ConfigError(f"--{flag}={folder}: is no folder of a machine; give one, such as where a bucket is mounted")
    return folder


#: Variables that have another value in every process, or that clusters and launchers set.
_OF_THE_PLACE = (
    "ECGJAX_PROCESS_ID", "ECGJAX_NUM_PROCESSES", "JAX_LOCAL_DEVICE_IDS", "CUDA_VISIBLE_DEVICES", "JOB_COMPLETION_INDEX",
    "JOB_INDEX", "TPU_WORKER_ID", "MEGASCALE_SLICE_ID", "SLURM_PROCID",
)  # fmt: skip


def check_image(image: str) -> str:
    """Returns the value of `--image` after checking that it names an image.

    Args:
        image: Name of the image, with its registry and tag.

    Raises:
        ConfigError: It is empty, or has characters or an order of parts that no registry takes.
    """
    if not image:
        raise ConfigError("--image=… must be given: the image of the containers (docker/ has files to build one from)")
    if not _IMAGE.fullmatch(image):
        raise ConfigError(
            f"--image={image!r} is no name of an image; write it as registry.example/name:TAG, in small letters "
            "but for the tag"
        )
    return image


def variables_of(texts: Sequence[str], *, reserved: Sequence[str] = ()) -> tuple[tuple[str, str], ...]:
    """Returns the variables of `--env=NAME=VALUE` as (name, value).

    Args:
        texts: Values of the flag.
        reserved: Names of further variables that the launcher sets itself.

    Raises:
        ConfigError: A text has no `=`, its name cannot be one or comes twice, or the launcher sets it itself.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not _VARIABLE.fullmatch(name) or "\0" in value:
            raise ConfigError(f"--env={text!r} is no variable; write --env=NAME=VALUE")
        if name in found:
            raise ConfigError(f"--env={name} is given twice; leave one out")
        if name in (*_OF_THE_PLACE, *reserved):
            raise ConfigError(f"--env={name}: the launcher or the cluster sets this variable itself; leave it out")
        found[name] = value
    return tuple(found.items())


def flag_of(words: Sequence[str], name: str) -> str | None:
    """Returns the last value that a command's words give a flag; None for none.

    Args:
        words: Program and its arguments.
        name: Name of the flag.
    """
    value = None
    for place, word in enumerate(words):
        flag, equals, rest = word.partition("=")
        if flag in (f"--{name}", f"-{name}"):
            value = rest if equals else next(iter(words[place + 1 : place + 2]), None)
    return value


def shared_words(commands: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Returns the words that all commands begin with, and the rest of each."""
    length = 0
    for column in zip(*commands, strict=False):
        if len({*column}) > 1:
            break
        length += 1
    return list(commands[0][:length]), [list(words[length:]) for words in commands]
