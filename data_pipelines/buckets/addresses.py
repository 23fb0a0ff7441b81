"""Addresses of folders in buckets, `gs://bucket/folder` and `s3://bucket/folder`, checked without asking the store."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from pathlib import Path

from data_pipelines.errors import DataError

#: Kind of address → package with its driver, and where the driver finds credentials.
DRIVERS = {"gs": "gcsfs", "s3": "s3fs"}

#: What installs the drivers.
INSTALL = "pip install 'ecgjax[buckets]'"

#: Length of the part of a local name that is there to be read.
_MOST_LETTERS = 100

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def is_remote(place: object) -> bool:
    """Returns whether a place that a user gave is an address, and no path."""
    return "://" in str(place)


def local_path(given: str, *, flag: str) -> Path:
    """Returns the path of a file or folder that is read or written where it lies, which no address in a bucket is.

    Args:
        given: Path as a user gave it.
        flag: Flag or setting that it was given to, for messages.

    Raises:
        DataError: It is an address.
    """
    if is_remote(given):
        raise DataError(
            f"--{flag}={given}: is no path on this machine; copy it here, or mount the bucket, and give its path"
        )
    return Path(given)


def checked(given: str, *, flag: str) -> str:
    """Returns the address of a folder in a bucket, without a slash at its end.

    Args:
        given: Address as a user gave it.
        flag: Flag or setting that it was given to, for messages.

    Raises:
        DataError: It is no address of a folder in a bucket, holds credentials, or the driver is not installed.
    """
    scheme, _, rest = given.partition("://")
    bucket, _, key = rest.rstrip("/").partition("/")
    if "@" in bucket or "?" in rest:
        # Whatever stands there may be a password, so the value is not shown.
        raise DataError(
            f"--{flag}={scheme}://…: an address holds no credentials; leave them to the environment or to the files "
            "of the store's own tools, and give scheme://bucket/folder"
        )
    if scheme not in DRIVERS:
        known = " and ".join(f"{each}://" for each in DRIVERS)
        raise DataError(f"--{flag}={given}: buckets are reached at {known}; give such an address, or a local folder")
    if not _BUCKET.fullmatch(bucket):
        raise DataError(f"--{flag}={given}: names no bucket; give {scheme}://bucket/folder")
    parts = key.split("/")
    if not key or not all(part.strip() and part not in (".", "..") and part.isprintable() for part in parts):
        raise DataError(f"--{flag}={given}: names no folder in the bucket; give {scheme}://{bucket}/folder")
    if importlib.util.find_spec(DRIVERS[scheme]) is None:
        raise DataError(f"--{flag}={given}: {scheme}:// needs the package {DRIVERS[scheme]}: {INSTALL}")
    return f"{scheme}://{bucket}/{key}"


def below(folder: Path, address: str) -> Path:
    """Returns the path for a local copy of a checked address, which no other address has and none lies in.

    Args:
        folder: Folder of local copies.
        address: Address, as `checked` returns it.
    """
    scheme, _, rest = address.partition("://")
    bucket, _, key = rest.partition("/")
    readable = re.sub(r"[^A-Za-z0-9.-]+", "_", key)[-_MOST_LETTERS:]
    return folder / scheme / bucket / f"{readable}-{hashlib.sha256(address.encode()).hexdigest()[:8]}"
