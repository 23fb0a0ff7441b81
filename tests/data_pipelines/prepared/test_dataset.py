"""What is not there, of another version or damaged is told when a data set is opened or read back."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.prepared.dataset import CARD_FILE, open_dataset
from data_pipelines.records import LabelSchema
from data_pipelines.shards.readback import columns_of_shard
from data_pipelines.simulation.cohort import SCALARS
from data_pipelines.storage.store import open_store
from tests.support.fixtures import make_simulated_dataset


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_simulated_dataset(tmp_path_factory.mktemp("whole"), num_patients=8, seconds=2.0).directory


@pytest.fixture
def copy(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def change_card(directory, **changes):
    path = directory / CARD_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_opening_what_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"nothing: no such directory; build it with python -m data_pipelines.build"):
        open_dataset(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"not a prepared data set, it has no ecgjax_dataset.json"):
        open_dataset(tmp_path)


def test_opening_another_layout_version(copy):
    change_card(copy, layout_version=99)
    with pytest.raises(DataError, match="has layout version 99, this ecgjax reads version 2; build it again"):
        open_dataset(copy)


def test_opening_a_damaged_card(copy):
    (copy / CARD_FILE).write_text('{"layout_version": 1')
    with pytest.raises(DataError, match=r"ecgjax_dataset.json: damaged .*build it again"):
        open_dataset(copy)


def test_reading_back_a_corrupted_shard(copy):
    dataset = open_dataset(copy)
    shard = dataset.shards[0]
    expected = {
        "num_records": dataset.index.num_records,
        "signal_format": dataset.format,
        "schema": LabelSchema(scalars=SCALARS),
    }
    columns = columns_of_shard(shard, **expected)
    np.testing.assert_array_equal(columns["signature"], dataset.index.signature)
    with pytest.raises(DataError, match=rf"{re.escape(shard.name)}: \d+ records read back where \d+ were written"):
        columns_of_shard(shard, **(expected | {"num_records": dataset.index.num_records + 1}))
    damaged = bytearray(shard.read_bytes())
    # Shards hold padding too, where a flipped bit does no harm: flip one of a signal.
    at = damaged.find(open_store(copy).read(np.arange(1))[0].tobytes()[:64])
    assert at > 0
    damaged[at + 20] ^= 0x10
    shard.write_bytes(damaged)
    with pytest.raises(DataError, match=rf"{re.escape(shard.name)}: damaged .*check the disk"):
        columns_of_shard(shard, **expected)
