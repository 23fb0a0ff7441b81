"""What goes wrong with a store, in words: the drivers raise errors of many types, and some hold what was sent."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from data_pipelines.system.visible_text import visible

_MOST_LETTERS = 200

#: Variables of the environment whose values are never shown.
_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")

_SIGNED = re.compile(r"((?:signature|credential|token|authorization|secret|key-?id)[\w-]*\s*[=:]\s*)\S+", re.IGNORECASE)
_BEARER = re.compile(r"(Bearer|Basic|AWS4-HMAC-SHA256)\s+\S+", re.IGNORECASE)

_NO_CREDENTIALS = {
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound",
    "DefaultCredentialsError", "RefreshError", "TokenRetrievalError", "SSOTokenLoadError", "UnauthorizedSSOTokenError",
}  # fmt: skip
_UNREACHABLE = {
    "EndpointConnectionError", "ClientConnectorError", "ConnectTimeoutError", "ConnectionClosedError",
    "ServerDisconnectedError", "ClientConnectorDNSError", "HTTPClientError", "ConnectionError", "ReadTimeoutError",
    "ServerTimeoutError", "ClientOSError",
}  # fmt: skip
_REFUSED = re.compile(
    r"AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken|Forbidden|Unauthori[sz]ed|"
    r"Invalid Credentials|Anonymous caller|\b40[13]\b"
)
_NO_BUCKET = re.compile(r"NoSuchBucket|bucket does not exist|bucket not found|\bb/[^/\s]+/o$", re.IGNORECASE)

#: What is done where a store lets nobody in.
_RIGHTS = "check the credentials of this machine, and their rights on the bucket"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def is_of_bucket(error: BaseException) -> bool:
    """Returns whether it is the bucket that is missing, and not a file in it."""
    return any(_NO_BUCKET.search(f"{type(each).__name__}: {each}") for each in _chain(error))


def in_words(error: BaseException, *, bucket: str) -> str:
    """Returns the cause of an error and the remedy, in one clause without credentials.

    Args:
        error: Error of a driver.
        bucket: Name of the bucket.
    """
    errors = list(_chain(error))
    names = {kind.__name__ for each in errors for kind in type(each).__mro__}
    text = " ".join(f"{type(each).__name__}: {each}" for each in errors)
    if is_of_bucket(error):
        return f"there is no bucket {visible(bucket)}; make it, or name another"
    if names & _NO_CREDENTIALS:
        return f"no credentials were found; {_RIGHTS}"
    if "PermissionError" in names or _REFUSED.search(text):
        return f"the store refuses access; {_RIGHTS}"
    if names & _UNREACHABLE:
        return "the store cannot be reached; check the address, the network, and that the store is up"
    return f"{type(error).__name__}: {without_secrets(str(error))}"


def without_secrets(text: str) -> str:
    """Returns a text of a driver in one short line, with whatever may be a credential left out."""
    for name in _SECRETS:
        if secret := os.environ.get(name, "").strip():
            text = text.replace(secret, "…")
    text = _SIGNED.sub(r"\1…", _BEARER.sub(r"\1 …", " ".join(text.split())))
    return visible(text if len(text) <= _MOST_LETTERS else text[:_MOST_LETTERS] + " …")
