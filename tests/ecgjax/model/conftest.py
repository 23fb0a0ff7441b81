"""A small exported model for the tests of this folder, and a cache that is not the user's."""

import shutil

import pytest

from tests.ecgjax.model.written import write_model


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Folder of a model, which no test may change."""
    return write_model(tmp_path_factory.mktemp("models") / "resnet18")


@pytest.fixture
def damaged(exported, tmp_path):
    """Copy of the model, to be damaged."""
    return shutil.copytree(exported, tmp_path / "model")


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECGJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
