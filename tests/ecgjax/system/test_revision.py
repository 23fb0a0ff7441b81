"""The revision of code: that of its own repository, and unknown elsewhere."""

import subprocess

import pytest

from ecgjax.system import revision
from ecgjax.system.revision import Revision, code_revision


def git(folder, *arguments):
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "checkout" / "package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    git(tmp_path / "checkout", "init", "-q")
    git(tmp_path / "checkout", "add", ".")
    git(tmp_path / "checkout", "commit", "-q", "-m", "begin")
    return folder


def test_a_commit_is_clean_until_a_followed_file_changes(package):
    commit = git(package, "rev-parse", "HEAD")
    (package / "notes.txt").write_text("no file that git follows")
    assert code_revision(package) == Revision(commit, False)
    (package / "__init__.py").write_text("changed")
    assert code_revision(package) == Revision(commit, True)


def test_hooks_of_another_repository_are_passed_over(package, monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    assert code_revision(package).dirty is False


def test_a_package_installed_below_a_checkout_is_not_of_it(package):
    installed = package.parent / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert code_revision(installed) == Revision("unknown", None)


def test_outside_of_git_or_without_it_the_revision_is_unknown(package, tmp_path, monkeypatch):
    assert code_revision(tmp_path) == Revision("unknown", None)
    monkeypatch.setattr(revision.os, "environ", {"PATH": str(tmp_path)})
    assert code_revision(package) == Revision("unknown", None)
