"""Files behind links to folders are found, each once, and links in circles end."""

from data_pipelines.files.tree import files_under
from data_pipelines.readers.formats import find_recordings
from data_pipelines.readers.wfdb_files import find_wfdb_records


def make(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    return path


def test_linked_folders_and_files_are_found(tmp_path):
    folder = tmp_path / "in"
    make(folder / "a" / "x.hea")
    make(tmp_path / "elsewhere" / "deep" / "y.hea")
    make(tmp_path / "z.hea")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "z.hea").symlink_to(tmp_path / "z.hea")
    (folder / "gone.hea").symlink_to(tmp_path / "nowhere.hea")
    found = [path.relative_to(folder).as_posix() for path in find_wfdb_records(folder)]
    assert found == ["a/x", "linked/deep/y", "z"]
    assert [recording.record_id for recording in find_recordings(folder).recordings] == found


def test_circles_of_links_end(tmp_path):
    make(tmp_path / "a" / "b" / "x.csv")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "b" / "self").symlink_to(tmp_path / "a" / "b")
    assert [path.name for path in files_under(tmp_path)] == ["x.csv"]


def test_a_folder_linked_twice_is_read_once(tmp_path):
    make(tmp_path / "data" / "x.csv")
    for name in ("z", "y"):
        (tmp_path / name).symlink_to(tmp_path / "data")
    assert [path.relative_to(tmp_path).as_posix() for path in files_under(tmp_path)] == ["data/x.csv"]
