"""Partners of another modality: found by recording, grouped where they are equal, refused where they make no sense."""

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.physiology.paired_embeddings import open_paired

IDS = np.array(["a", "b", "c", "d", "e"])
VALUES = np.array([[1, 2], [3, 4], [1, 2], [5, 6]], np.float32)
OF = np.array(["e", "a", "c", "elsewhere"])


def write(folder, values=VALUES, of=OF):
    folder.mkdir(exist_ok=True)
    np.save(folder / "embedding.npy", values)
    np.save(folder / "record_id.npy", of)
    return folder


def test_partners_come_by_recording_and_equal_ones_share_a_group(tmp_path):
    paired, group = open_paired([write(tmp_path / "reports")], [IDS])
    assert paired.shape == (5, 2)
    assert len(paired) == 5
    np.testing.assert_array_equal(paired[np.array([4, 1, 0, 2])], [[1, 2], [0, 0], [3, 4], [1, 2]])
    assert paired[np.array([0])].dtype == np.float32
    assert group.dtype == np.int32
    assert group[2] == group[4]
    assert group[0] not in (group[2], -1)
    assert group[1] == group[3] == -1


def test_data_sets_run_on_and_share_groups(tmp_path):
    other = write(tmp_path / "second", np.array([[3, 4], [9, 9]], np.float16), np.array(["a", "b"]))
    paired, group = open_paired([write(tmp_path / "first"), other], [IDS, np.array(["b", "a"])])
    np.testing.assert_array_equal(paired[np.arange(7)], [[3, 4], [0, 0], [1, 2], [0, 0], [1, 2], [9, 9], [3, 4]])
    assert group[0] == group[6]
    assert len({*group[[0, 2, 5]]}) == 3


def test_the_digest_follows_values_and_whose_they_are(tmp_path):
    def digest(**changes):
        return open_paired([write(tmp_path / "reports", **changes)], [IDS])[0].digest

    assert digest() == digest()
    changed = VALUES.copy()
    changed[0, 0] += 1
    assert len({digest(), digest(values=changed), digest(of=OF[[1, 0, 2, 3]])}) == 3


@pytest.mark.parametrize(
    ("values", "of", "message"),
    [
        (VALUES[:, 0], OF, r"embedding\.npy must be f16 or f32\[m, dim\], it is float32\[4\]"),
        (VALUES.astype(np.float64), OF, r"it is float64\[4, 2\]"),
        (VALUES, OF[:3], r"record_id\.npy must be str\[4\]"),
        (VALUES, np.arange(4), r"record_id\.npy must be str\[4\]"),
        (VALUES, np.array(["a", "b", "a", "c"]), "names recording 'a' more than once"),
        (VALUES, np.array(["p", "q", "r", "s"]), "names none of the data set's recordings, which are called such as"),
        (VALUES[:0], OF[:0], "names none of the data set's recordings"),
        (np.where(VALUES == 4, np.nan, VALUES), OF, "row 1 is not finite"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, values, of, message):
    with pytest.raises(DataError, match=message):
        open_paired([write(tmp_path / "reports", values, of)], [IDS])


def test_missing_files_and_different_dimensions_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"nowhere/embedding\.npy cannot be read as an array"):
        open_paired([tmp_path / "nowhere"], [IDS])
    folders = [write(tmp_path / "first"), write(tmp_path / "second", np.ones((4, 3), np.float32))]
    with pytest.raises(DataError, match="must have one dimension in all data sets"):
        open_paired(folders, [IDS, IDS])
