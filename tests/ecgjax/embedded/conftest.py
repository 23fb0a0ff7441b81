"""A small exported model and a folder of recordings, one of which is damaged."""

import numpy as np
import pytest

import ecgjax
from tests.ecgjax.model.written import write_model
from tests.support.fixtures import twelve_lead_mv, write_wfdb


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "resnet18")


@pytest.fixture(scope="session")
def model(model_folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECGJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        return ecgjax.load(model_folder)


@pytest.fixture(scope="session")
def ecgs(tmp_path_factory):
    """A folder of 40 recordings in three folders, the eighth of which is flat."""
    folder = tmp_path_factory.mktemp("ecgs")
    for number in range(40):
        signal = twelve_lead_mv(seed=number, rate=250) * (0 if number == 8 else 1)
        write_wfdb(folder / f"p{number % 3}", f"r{number:02d}", signal, rate=250)
    (folder / "notes.txt").write_text("nothing")
    np.save(folder / "p0" / "broken.npy", np.zeros(3))
    return folder
