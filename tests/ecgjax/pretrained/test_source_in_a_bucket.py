"""An encoder that lies in a bucket is fetched, whether it is an uploaded folder or the workdir of a run."""

import shutil

import numpy as np
import pytest

from data_pipelines.buckets.finished_folders import finished_folder
from data_pipelines.errors import DataError
from ecgjax.bucket_runs import workdirs
from ecgjax.export.tensors import flat_tensors
from ecgjax.pretrained.source import open_source
from tests.support import object_stores
from tests.support.fixtures import make_simulated_dataset
from tests.support.written_runs import tiny, write_run


@pytest.mark.slow
def test_an_encoder_in_a_bucket_is_the_one_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("ECGJAX_CACHE", str(tmp_path / "cache"))
    data = make_simulated_dataset(tmp_path / "data", num_patients=40, rate=50, seconds=4).directory
    run = write_run(tmp_path / "run", tiny(data))
    expected = flat_tensors(open_source(run).encoder.split)
    with object_stores.store("gs") as bucket:
        with finished_folder(f"{bucket}/uploaded") as folder:
            shutil.copytree(run, folder, dirs_exist_ok=True)
        with workdirs.kept(f"{bucket}/workdir") as folder:
            shutil.copytree(run, folder, dirs_exist_ok=True)
        monkeypatch.setenv("ECGJAX_CACHE", str(tmp_path / "elsewhere"))
        for name in ("uploaded", "workdir"):
            found = flat_tensors(open_source(f"{bucket}/{name}").encoder.split)
            assert found.keys() == expected.keys()
            for tensor, values in expected.items():
                np.testing.assert_array_equal(found[tensor], values)
        with pytest.raises(DataError, match=r"config\.init\.source=.*/nothing: there is no run"):
            open_source(f"{bucket}/nothing")
