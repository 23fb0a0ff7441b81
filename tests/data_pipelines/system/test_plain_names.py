"""Names that come from a file of a stranger's lead to no other folder."""

import json
import shutil

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.packing.local_copy import stage_dataset
from data_pipelines.prepared.dataset import CARD_FILE, open_dataset
from data_pipelines.prepared.index import INDEX_DIR, INDEX_FILE
from data_pipelines.storage.packed_format import PACKED_DIR, PACKED_FILE
from data_pipelines.storage.store import open_store
from data_pipelines.system.digests import DIGESTS_FILE
from data_pipelines.system.plain_names import file_below, files_below, is_plain_name

STRANGE = (
    *("../x", "/etc/passwd", "a/b", "..", ".", "", "a\\b", "C:x", "a\0b", "a\nb", "\x1b[2J", "con", "NUL.npy", "x."),
    *(" x", "x ", "a" * 256, "\ud800", "file:", "a\u2028b", None, 3, ["x"], {"x": 1}, True),
)


@pytest.mark.parametrize("name", STRANGE, ids=ascii)
def test_strange_names_are_no_plain_names(name, tmp_path):
    assert not is_plain_name(name)
    with pytest.raises(DataError, match=r"card\.json: names the file .*which is no plain file name"):
        file_below(tmp_path, name, source="card.json")


@pytest.mark.parametrize("name", ["set-ecgs.array_record-00000-of-00003", "00000.npy", "größe.npy", "a b", "consul"])
def test_plain_names_are_joined(name, tmp_path):
    assert file_below(tmp_path, name, source="card.json") == tmp_path / name


@pytest.mark.parametrize("names", ["abc", {"a": 1}, 5, None, ["a", "a"], ["A.npy", "a.npy"]])
def test_lists_of_names_are_lists_without_repeats(names, tmp_path):
    with pytest.raises(DataError, match="card: "):
        files_below(tmp_path, names, source="card")


def rewrite(path, change):
    contents = json.loads(path.read_text())
    change(contents)
    path.write_text(json.dumps(contents))


@pytest.fixture
def unsigned(stored_copy):
    """A data set that a stranger may have changed: there are no digests that would tell."""
    (stored_copy / DIGESTS_FILE).unlink()
    (stored_copy / PACKED_DIR / DIGESTS_FILE).unlink()
    return stored_copy


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "index/fold.npy"])
def test_a_card_that_names_files_elsewhere_is_refused(unsigned, tmp_path, name):
    rewrite(unsigned / CARD_FILE, lambda card: card["shards"].__setitem__(0, name))
    for attempt in (lambda: open_dataset(unsigned), lambda: stage_dataset(str(unsigned), tmp_path / "out")):
        with pytest.raises(DataError, match=rf"{CARD_FILE}: names the file '{name}', which is no plain file name"):
            attempt()
    assert sorted(path.name for path in tmp_path.iterdir()) in (["copy"], ["copy", "out.building"])


@pytest.mark.parametrize("column", ["../../outside", "/tmp/outside", "a/b"])
def test_staging_writes_no_column_beside_its_folder(unsigned, tmp_path, column):
    shutil.copy(unsigned / INDEX_DIR / "fold.npy", tmp_path / "outside.npy")
    rewrite(unsigned / INDEX_DIR / INDEX_FILE, lambda index: index["columns"].append(column))
    before = sorted(tmp_path.rglob("*.npy"))
    with pytest.raises(DataError, match=rf"{INDEX_FILE}: names the file '{column}\.npy', which is no plain file name"):
        stage_dataset(str(unsigned), tmp_path / "out")
    written = set(tmp_path.rglob("*.npy")) - set(before)
    assert all(tmp_path / "out.building" in path.parents for path in written)


def test_a_packed_copy_that_names_files_elsewhere_is_refused(unsigned):
    rewrite(unsigned / PACKED_DIR / PACKED_FILE, lambda packed: packed["shards"][1].__setitem__("name", "../00001.npy"))
    with pytest.raises(DataError, match=rf"{PACKED_FILE}: names the file '\.\./00001\.npy'"):
        open_store(unsigned, kind="packed")


@pytest.mark.parametrize(
    "change",
    [
        {"shards": "abc"},
        {"shards": []},
        {"shard_lengths": [1, -1, 2]},
        {"shard_lengths": [1.5, 2, 3]},
        {"signal_format": {"sampling_rate_hz": 0, "num_samples": 10}},
        {"signal_format": None},
        {"fingerprint": ["x"]},
        {"name": 3},
    ],
    ids=str,
)
def test_a_card_of_odd_types_is_told_to_be_damaged(unsigned, change):
    rewrite(unsigned / CARD_FILE, lambda card: card.update(change))
    with pytest.raises(DataError, match=rf"{CARD_FILE}: "):
        open_dataset(unsigned)


@pytest.mark.parametrize("change", [{"num_records": "9"}, {"num_records": -1}, {"scalars": [["x"]]}, {"tasks": ["x"]}])
def test_an_index_of_odd_types_is_told_to_be_damaged(unsigned, change):
    rewrite(unsigned / INDEX_DIR / INDEX_FILE, lambda index: index.update(change))
    with pytest.raises(DataError, match=rf"{INDEX_FILE}: missing or damaged"):
        open_dataset(unsigned)


def test_links_out_of_the_data_set_are_not_followed(unsigned, tmp_path):
    dataset = open_dataset(unsigned)
    column, shard, packed = unsigned / INDEX_DIR / "sex.npy", dataset.shards[0], unsigned / PACKED_DIR / "00000.npy"
    for number, path in enumerate((shard, packed, column)):
        path.rename(tmp_path / f"outside{number}")
        path.symlink_to(tmp_path / f"outside{number}")
    with pytest.raises(DataError, match=r"sex\.npy: this column of the index is a link to a file in another folder"):
        open_dataset(unsigned)
    column.unlink()
    shutil.copy(tmp_path / "outside2", column)
    for kind in ("packed", "array_record"):
        with pytest.raises(DataError, match=r"is a link to a file in another folder; copy the file itself here"):
            open_store(unsigned, kind=kind)


def test_a_folder_that_is_a_link_is_its_owners_arrangement(unsigned, tmp_path, stored_dataset):
    (unsigned / PACKED_DIR).rename(tmp_path / "fast disk")
    (unsigned / PACKED_DIR).symlink_to(tmp_path / "fast disk")
    numbers = np.arange(3)
    assert np.array_equal(open_store(unsigned, kind="packed").read(numbers), stored_dataset[1][:3])
