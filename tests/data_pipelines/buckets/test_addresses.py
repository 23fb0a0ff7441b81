"""Addresses that are none are refused by name, without asking any store, and no message shows a credential."""

import importlib.util

import pytest

from data_pipelines.buckets import addresses, faults
from data_pipelines.errors import DataError


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("gs://", "--out=gs://: names no bucket; give gs://bucket/folder"),
        ("s3:///folder", "names no bucket"),
        ("s3://bucket", r"names no folder in the bucket; give s3://bucket/folder"),
        ("s3://bucket/a/../b", "names no folder in the bucket"),
        ("s3://bucket/a//b", "names no folder in the bucket"),
        ("hdfs://bucket/x", r"--out=hdfs://bucket/x: buckets are reached at gs:// and s3://"),
    ],
)
def test_what_is_no_folder_in_a_bucket_is_refused(given, message):
    with pytest.raises(DataError, match=message):
        addresses.checked(given, flag="out")


@pytest.mark.parametrize("given", ["s3://KEYID:hunter2@bucket/x", "gs://bucket/x?X-Goog-Signature=hunter2"])
def test_credentials_in_an_address_are_refused_and_not_shown(given):
    with pytest.raises(DataError, match="holds no credentials") as caught:
        addresses.checked(given, flag="out")
    assert "hunter2" not in str(caught.value)
    assert "KEYID" not in str(caught.value)


def test_a_driver_that_is_not_installed_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"--out=gs://b/x: gs:// needs the package gcsfs: pip install 'ecgjax\[b"):
        addresses.checked("gs://b/x", flag="out")


def test_every_address_has_a_local_place_of_its_own_in_which_no_other_lies(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    given = ("s3://b/x", "s3://b/x/y", "s3://b/x_y", "gs://b/x", "s3://b/x/y/")
    places = [addresses.below(tmp_path, addresses.checked(each, flag="out")) for each in given]
    assert places[1] == places[4]
    assert places[1].parent == tmp_path / "s3/b"
    assert places[1].name.startswith("x_y-")
    assert len(set(places)) == 4
    assert not [one for one in places for other in places if one in other.parents]


class NoCredentialsError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NoCredentialsError("Unable to locate credentials"), "no credentials were found"),
        (PermissionError("Access Denied"), "the store refuses access"),
        (FileNotFoundError("The specified bucket does not exist"), "there is no bucket ecgs"),
        (OSError("b/ecgs/o"), "there is no bucket ecgs"),
        (ConnectionError("no route"), "the store cannot be reached"),
        (RuntimeError("it broke"), "RuntimeError: it broke"),
    ],
)
def test_faults_of_drivers_are_told_in_words(error, words):
    assert faults.in_words(error, bucket="ecgs").startswith(words)


def test_no_credential_comes_out_of_a_drivers_words(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    text = "GET /x?X-Amz-Signature=aa11&y Authorization: Bearer ya29.bb22 and hunter2\nX-Amz-Credential=cc33/x"
    shown = faults.without_secrets(text)
    assert not [secret for secret in ("aa11", "bb22", "hunter2", "cc33", "\n") if secret in shown]
