"""Files that appear complete or not at all, also where several jobs write the same one."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from ecgjax.system.files import replacing, write_atomically


def test_many_writers_of_one_file_leave_one_of_their_texts(tmp_path):
    path, texts = tmp_path / "study.json", [f"{number}" * 20_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            list(pool.map(lambda text: write_atomically(path, text), texts))
            assert path.read_text() in texts
    assert [each.name for each in tmp_path.iterdir()] == ["study.json"]


def test_an_error_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path):
    path = tmp_path / "kept"
    path.write_text("before")

    def write():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write()
    assert path.read_text() == "before"
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]
