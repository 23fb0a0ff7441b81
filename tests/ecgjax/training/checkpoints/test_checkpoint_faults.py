"""Checkpoints on bad storage: which is taken, what is said, and that nothing is deleted."""

import errno
import gc
import json
import os
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax.errors import CheckpointError, ConfigError
from ecgjax.processes import joint_answers
from ecgjax.training.checkpoints import checkpoint, checkpoint_reading
from ecgjax.training.checkpoints.best_checkpoint import Best
from ecgjax.training.checkpoints.checkpoint import EVALUATION, Checkpoints, latest_saved
from ecgjax.training.checkpoints.checkpoint_faults import METADATA_FILE, fault_of
from tests.support.storage_faults import damage, largest_file, no_file_beyond, small_disk

PARTS = ("params", "opt")


@pytest.fixture(autouse=True, scope="module")
def little_to_collect():
    """A failed read collects garbage: what earlier tests of this process have left need not be looked through."""
    gc.freeze()
    yield
    gc.unfreeze()


def make_parts(step, width=64):
    rng = np.random.default_rng(step)
    arrays = {"w": jnp.asarray(rng.normal(size=(width, width)), jnp.float32), "b": jnp.full(3, float(step))}
    return {"params": arrays, "opt": {"m": arrays["w"] * 2}}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    with Checkpoints(folder, keep_last=9) as checkpoints:
        for step in (10, 20, 30):
            checkpoints.save(step, make_parts(step), metadata={"step": step})
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def empty(path):
    shutil.rmtree(path)
    path.mkdir()


def replace(path, *, by):
    shutil.rmtree(path)
    path.mkdir()
    (path / by).write_text("")


def cut(path, share=0.5):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def to_folder(path):
    path.unlink()
    path.mkdir()


FAULTS = {
    "empty folder": (empty, "its folder is empty"),
    "foreign folder": (lambda path: replace(path, by="model.pt"), f"{METADATA_FILE} is missing, beside model.pt"),
    "metadata missing": (lambda path: (path / METADATA_FILE).unlink(), f"{METADATA_FILE} is missing, beside commit"),
    "metadata empty": (lambda path: (path / METADATA_FILE).write_text(""), "overwritten: it is empty"),
    "metadata cut": (lambda path: cut(path / METADATA_FILE), "is cut short or overwritten: "),
    "metadata binary": (lambda path: (path / METADATA_FILE).write_bytes(bytes(range(256))), "is cut short or over"),
    "metadata a list": (lambda path: (path / METADATA_FILE).write_text("[1]"), "it is no table of names"),
    "metadata a folder": (lambda path: to_folder(path / METADATA_FILE), "_METADATA cannot be read: Is a directory"),
    "another program's": (
        lambda path: (path / METADATA_FILE).write_text('{"custom_metadata": {"epoch": 3}}'),
        "another program wrote it: it has no digests of ecgjax",
    ),
    "part missing": (lambda path: shutil.rmtree(path / "opt"), "opt of it is missing"),
    "parts missing": (lambda path: [shutil.rmtree(path / part) for part in PARTS], "params, opt of it are missing"),
    "arrays missing": (lambda path: empty(path / "params" / "d"), "its arrays cannot be read: "),
    "manifest missing": (lambda path: (path / "params" / "manifest.ocdbt").unlink(), "its arrays cannot be read: "),
    "arrays cut": (lambda path: cut(largest_file(path / "params")), "its arrays cannot be read: "),
    "arrays empty": (lambda path: cut(largest_file(path / "params"), 0), "its arrays cannot be read: "),
    "bit flipped": (lambda path: damage(largest_file(path / "params" / "d")), "params/w"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_the_one_before_a_damaged_checkpoint_is_taken(folder, capsys, fault):
    harm, words = FAULTS[fault]
    harm(folder / "30")
    before = content(folder)
    with Checkpoints(folder, keep_last=9) as checkpoints:
        restored = checkpoints.restore_latest(make_parts(0))
        assert (restored.step, restored.metadata) == (20, {"step": 20})
        np.testing.assert_array_equal(restored.parts["params"]["w"], make_parts(20)["params"]["w"])
        (told,) = capsys.readouterr().err.splitlines()
        assert words in told or (fault == "bit flipped" and "its arrays cannot be read" in told)
        assert f"{folder}/30 is damaged: " in told
        assert told.endswith("it is kept as 30.damaged, and the run begins from step 20")
        # Nothing is deleted, and the step can be saved again.
        assert content(folder) == {name.replace("30/", "30.damaged/"): data for name, data in before.items()}
        checkpoints.save(30, make_parts(31), metadata={})
        checkpoints.wait()
        assert checkpoints.steps() == [10, 20, 30]
        assert checkpoints.restore(make_parts(0))[0] == 30


@pytest.mark.parametrize("fault", FAULTS)
def test_a_reader_says_which_it_takes_and_renames_nothing(folder, capsys, fault):
    FAULTS[fault][0](folder / "30")
    before = content(folder)
    with Checkpoints(folder, read_only=True) as checkpoints:
        assert checkpoints.restore(make_parts(0))[0] == 20
        (told,) = capsys.readouterr().err.splitlines()
        assert told.endswith("; step 20 is taken")
        with pytest.raises(CheckpointError, match=r"/30 is damaged: .*there are also those of step 10, 20"):
            checkpoints.restore(make_parts(0), step=30)
    assert content(folder) == before
    assert latest_saved(folder).step in (20, 30), "whose metadata are sound"


def test_several_damaged_ones_are_passed_over_together(folder, capsys):
    FAULTS["bit flipped"][0](folder / "30")
    FAULTS["metadata cut"][0](folder / "20")
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.restore_latest(make_parts(0)).step == 10
    assert sorted(os.listdir(folder)) == ["10", "20.damaged", "30.damaged"]
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_where_none_is_good_nothing_is_renamed(folder, capsys):
    for step in (10, 20, 30):
        FAULTS["metadata empty"][0](folder / str(step))
    before = content(folder)
    for read_only in (False, True):
        with (
            Checkpoints(folder, read_only=read_only) as checkpoints,
            pytest.raises(CheckpointError, match=r"no checkpoint in .* can be used \(step 30: .*; step 10: .*copy"),
        ):
            checkpoints.restore_latest(make_parts(0))
    assert content(folder) == before
    assert capsys.readouterr().err == ""


def test_names_of_what_was_set_aside_are_not_taken_again(folder):
    (folder / "30.damaged").mkdir()
    FAULTS["part missing"][0](folder / "30")
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.restore_latest(make_parts(0)).step == 20
    assert sorted(os.listdir(folder)) == ["10", "20", "30.damaged", "30.damaged-2"]


@pytest.mark.parametrize("stray", ["a file", "a link to nothing"])
def test_what_only_bears_the_name_of_a_step_makes_room_for_it(folder, capsys, stray):
    if stray == "a file":
        (folder / "40").write_text("notes")
    else:
        (folder / "40").symlink_to(folder / "nowhere")
    for other in ("notes.txt", "0040", "latest"):
        (folder / other).mkdir()
    with Checkpoints(folder, keep_last=9) as checkpoints:
        assert checkpoints.restore_latest(make_parts(0)).step == 30
        checkpoints.save(40, make_parts(40), metadata={})
        checkpoints.wait()
        assert checkpoints.steps() == [10, 20, 30, 40]
    assert "40 is no checkpoint: it is no folder; it is kept as 40.damaged" in capsys.readouterr().err


def test_a_damaged_checkpoint_that_cannot_be_renamed_is_an_error(folder, monkeypatch):
    FAULTS["metadata cut"][0](folder / "30")

    def refuses(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(checkpoint.Path, "rename", refuses)
    with (
        Checkpoints(folder) as checkpoints,
        pytest.raises(CheckpointError, match="cannot be renamed: Read-only file system; mount it for writing"),
    ):
        checkpoints.restore_latest(make_parts(0))


def test_a_file_without_permission_is_named(folder, capsys, monkeypatch):
    hidden = folder / "30" / "params" / "_METADATA"
    if os.geteuid():
        hidden.chmod(0)
    else:  # The administrator may read everything.
        real = open

        def refuses(path, *args, **kwargs):
            if str(path) == str(hidden):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return real(path, *args, **kwargs)

        monkeypatch.setattr("builtins.open", refuses)
    with Checkpoints(folder, read_only=True) as checkpoints:
        assert checkpoints.restore(make_parts(0))[0] == 20
    assert f"{hidden} cannot be read: Permission denied; step 20 is taken" in capsys.readouterr().err


def test_memory_that_is_short_condemns_no_checkpoint(folder, monkeypatch):
    with Checkpoints(folder) as checkpoints:

        def short(*_):
            raise MemoryError

        monkeypatch.setattr(checkpoints._folder.orbax, "load_checkpointables", short)
        with pytest.raises(MemoryError):
            checkpoints.restore_latest(make_parts(0))
    assert sorted(os.listdir(folder)) == ["10", "20", "30"]


def test_another_models_checkpoint_is_no_damaged_one(folder):
    with Checkpoints(folder) as checkpoints, pytest.raises(CheckpointError, match="/30 belongs to another model"):
        checkpoints.restore_latest(make_parts(0, width=32))
    assert sorted(os.listdir(folder)) == ["10", "20", "30"]


def test_a_reader_looks_again_where_a_run_removes_what_it_reads(folder, monkeypatch, capsys):
    with Checkpoints(folder, read_only=True) as checkpoints:
        custom = checkpoints._folder.custom

        def removed_meanwhile(step):
            if step == 30 and (folder / "30").exists():
                os.rename(folder / "30", folder / "40")
                for old in (10, 20):
                    shutil.rmtree(folder / str(old))
            return custom(step)

        monkeypatch.setattr(checkpoints._folder, "custom", removed_meanwhile)
        assert checkpoints.restore(make_parts(0))[0] == 40
    assert capsys.readouterr().err == ""


def test_what_one_process_cannot_read_no_process_takes(folder, capsys, monkeypatch):
    """The other process finds step 30 damaged, this one does not; the first process alone renames."""
    asked = []

    def any_process(flag):
        asked.append(flag)
        return flag or len(asked) == 1

    monkeypatch.setattr(Checkpoints, "_renew", lambda _: None)
    monkeypatch.setattr(checkpoint_reading, "any_process", any_process)
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.restore_latest(make_parts(0)).step == 20
    assert "/30 is damaged: another process cannot read it" in capsys.readouterr().err


def test_the_first_process_says_which_steps_there_are(folder, monkeypatch):
    told = iter([1, 20])
    monkeypatch.setattr(checkpoint, "of_first_process", lambda _: next(told))
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.restore_latest(make_parts(0)).step == 20


def test_one_process_agrees_with_itself():
    assert [joint_answers.any_process(flag) for flag in (False, True)] == [False, True]
    assert joint_answers.of_first_process(7) == 7


# Saves that fail.


def test_a_failed_save_is_told_and_the_next_one_tries_again(tmp_path, capsys):
    with Checkpoints(tmp_path, keep_last=2) as checkpoints:
        checkpoints.save(1, make_parts(1), metadata={})
        checkpoints.wait()
        with no_file_beyond(2000):
            for step in (2, 3):
                checkpoints.save(step, make_parts(step), metadata={})
            with pytest.raises(CheckpointError, match=r"/3 failed: File too.*again: the run goes on from step 1$"):
                checkpoints.wait()
        checkpoints.save(4, make_parts(4), metadata={})
        checkpoints.wait()
        assert checkpoints.steps() == [1, 4]
        assert checkpoints.restore(make_parts(0))[0] == 4
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert line.startswith(f"warning: saving {tmp_path}/2 failed: File too large; raise the limit on the size of")
    assert line.endswith(
        "Training goes on and saves again when that is due; the last good checkpoint is that of step 1"
    )
    assert sorted(os.listdir(tmp_path)) == ["1", "4"], "nothing of the saves that failed takes space"


def test_a_full_disk_costs_the_saves_of_its_time(tmp_path, capfd):
    folder = tmp_path / "disk" / "checkpoints"
    with small_disk(tmp_path / "disk", size="400k") as (fill, free), Checkpoints(folder, keep_last=1) as checkpoints:
        checkpoints.save(1, make_parts(1), metadata={})
        checkpoints.wait()
        fill()
        checkpoints.save(2, make_parts(2), metadata={})
        checkpoints.save(3, make_parts(3), metadata={})
        with pytest.raises(CheckpointError, match="No space left on device; free space there"):
            checkpoints.wait()
        free()
        assert checkpoints.restore(make_parts(0))[0] == 1
        checkpoints.save(4, make_parts(4), metadata={})
        checkpoints.wait()
        assert checkpoints.steps() == [4]
    told = capfd.readouterr().err
    assert len(told.splitlines()) == 1, told


@pytest.mark.parametrize("gone", ["removed", "replaced by a file"])
def test_a_folder_that_is_gone_is_made_anew(tmp_path, capfd, gone):
    called, folder = [], tmp_path / "run" / "checkpoints"
    with Checkpoints(folder, made_anew=lambda: called.append(1)) as checkpoints:
        checkpoints.save(1, make_parts(1), metadata={})
        checkpoints.wait()
        shutil.rmtree(tmp_path / "run")
        if gone == "replaced by a file":
            (tmp_path / "run").write_text("")
            checkpoints.save(2, make_parts(2), metadata={})
            with pytest.raises(CheckpointError, match=r"/2 failed: (File exists|Not a directory); put a folder"):
                checkpoints.wait()
            (tmp_path / "run").unlink()
        checkpoints.save(3, make_parts(3), metadata={})
        checkpoints.wait()
        assert checkpoints.restore(make_parts(0))[0] == 3
    assert called == [1]
    told = capfd.readouterr().err.splitlines()
    assert all("was removed while the run was going on, with all checkpoints in it" in line for line in told)


def test_a_save_whose_old_ones_cannot_be_removed_is_a_save(tmp_path, monkeypatch, capsys):
    with Checkpoints(tmp_path, keep_last=1) as checkpoints:
        checkpoints.save(1, make_parts(1), metadata={})
        checkpoints.wait()
        delete = checkpoints._folder.orbax._manager._checkpoint_deleter

        class Refuses:
            def __getattr__(self, name):
                return getattr(delete, name)

            def delete(self, _):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))

            def delete_steps(self, _):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(checkpoints._folder.orbax._manager, "_checkpoint_deleter", Refuses())
        checkpoints.save(2, make_parts(2), metadata={})
        checkpoints.wait()
        assert checkpoints.restore(make_parts(0))[0] == 2
        checkpoints.save(3, make_parts(3), metadata={})
        checkpoints.wait()
        assert checkpoints.steps() == [3]
    assert "cannot be removed: Permission denied" in capsys.readouterr().err


def test_a_folder_that_cannot_hold_checkpoints_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file/below cannot hold checkpoints: Not a directory; put a folder"):
        Checkpoints(tmp_path / "file" / "below")
    with pytest.raises(CheckpointError, match="file cannot hold checkpoints: File exists; put a folder"):
        Checkpoints(tmp_path / "file")


# The best.


@pytest.mark.parametrize(("mode", "kept"), [("min", 3), ("max", 2)])
def test_the_best_is_kept_with_its_value_also_after_a_kill(tmp_path, mode, kept):
    values = {1: 3.0, 2: 9.0, 3: 1.0, 4: None, 5: 1.0, 6: 9.0}
    best = Best(metric="eval/loss", mode=mode)
    with Checkpoints(tmp_path, keep_last=1, best=best) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, make_parts(step), metadata={EVALUATION: {"eval/loss": values[step]}})
    with Checkpoints(tmp_path, keep_last=1, best=best) as checkpoints:
        assert checkpoints.best() == (kept, values[kept])
        for step in (4, 5, 6):
            evaluation = {"eval/loss": values[step]}
            assert not checkpoints.improves({"eval/loss": np.nan if values[step] is None else values[step]})
            checkpoints.save(step, make_parts(step), metadata={EVALUATION: evaluation})
        checkpoints.save(7, make_parts(7), metadata={EVALUATION: {}})
        checkpoints.wait()
        assert checkpoints.steps() == [kept, 7]
        assert checkpoints.best() == (kept, values[kept])
        assert checkpoints.improves({"eval/loss": 0.5 if mode == "min" else 9.5})


def test_a_best_one_that_could_not_be_saved_is_none(tmp_path):
    with Checkpoints(tmp_path, keep_last=1, best=Best(metric="eval/loss", mode="min")) as checkpoints:
        checkpoints.save(1, make_parts(1), metadata={EVALUATION: {"eval/loss": 2.0}})
        checkpoints.wait()
        with no_file_beyond(2000):
            checkpoints.save(2, make_parts(2), metadata={EVALUATION: {"eval/loss": 1.0}})
            with pytest.raises(CheckpointError, match="/2 failed"):
                checkpoints.wait()
        checkpoints.save(3, make_parts(3), metadata={EVALUATION: {"eval/loss": 5.0}})
        checkpoints.wait()
        assert checkpoints.best() == (1, 2.0)
        assert checkpoints.steps() == [1, 3]


def test_an_unknown_metric_is_named_with_those_there_are():
    best = Best(metric="eval/auc", mode="max")
    with pytest.raises(ConfigError, match=r"checkpoint.best='eval/auc' is no metric .*: eval/loss, eval/other"):
        best.value({"eval/other": 1.0, "eval/loss": 2.0})


def test_multiples_are_kept_for_good(tmp_path):
    best = Best(metric="eval/loss", mode="min")
    with Checkpoints(tmp_path, keep_last=2, keep_every=4, best=best) as checkpoints:
        for step in range(1, 11):
            checkpoints.save(step, {"step": jnp.int32(step)}, metadata={EVALUATION: {"eval/loss": abs(step - 3.0)}})
        checkpoints.wait()
        assert checkpoints.steps() == [3, 4, 8, 9, 10]


def test_faults_of_a_folder_are_found_without_reading_arrays(saved):
    begin = time.monotonic()
    assert fault_of(saved / "30", parts=PARTS) == ""
    assert time.monotonic() - begin < 1
    assert fault_of(saved / "30", parts=["never saved"]) == ""
    assert fault_of(saved / "31") == "it is no folder"
    assert set(json.loads((saved / "30" / METADATA_FILE).read_bytes())["custom_metadata"]) == {"metadata", "leaves"}
    assert jax.tree.leaves(make_parts(1))
