"""Kills builds at random points and checks what is left: run by `test_killed.py`, or alone for longer.

  python -m tests.support.kill_builds --folder=DIR [--kills=1000] [--seed=0] [--kills_of_command=5]

A build is a child that was forked after everything had been imported, and that kills itself just before or after one of
its file-system operations, drawn over the whole build: reading, writing shards, the index, the card, renaming. Every
build is killed up to three times before it may finish. After each kill the data set that was there before must still be
whole, or the new one be there; at the end the new one must be, equal to one that was never interrupted. With
--kills_of_command, the real command with two workers is killed as well, at random times.
"""

import argparse
import builtins
import collections
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from data_pipelines.builders.base import Quarantined, SourceCard
from data_pipelines.duplicates.signature import signature
from data_pipelines.prepared.dataset import CARD_FILE, open_dataset, staging_directory
from data_pipelines.records import EcgRecord, LabelSchema
from data_pipelines.shards import making, plan
from data_pipelines.shards.build_state import BuildState
from data_pipelines.shards.dataset_build import build_dataset
from data_pipelines.signals.quality import quality_flags
from data_pipelines.signals.recipe import SignalRecipe
from data_pipelines.storage.example_format import features
from data_pipelines.storage.store import open_store
from data_pipelines.system import atomic_directory
from tests.support.fixtures import as_given, stored_examples

RECIPE = SignalRecipe(name="test", version=1, sampling_rate_hz=100, seconds=2.0, min_seconds=1.0)
NUM_ITEMS, NUM_SHARDS = 24, 6
MOST_KILLS_OF_A_BUILD = 3


class MadeUpSource:
    """Some records, one of four quarantined; another seed, other records."""

    card = SourceCard(name="made_up", description="Made up for a test.", simulated=True)
    recipe = RECIPE
    signal_format = RECIPE.signal_format
    label_schema = LabelSchema(scalars=("lvef",), tasks={"rhythm": ("AF", "SR")})

    def __init__(self, seed):
        self.items = [_result(seed, number) for number in range(NUM_ITEMS)]

    def reader(self):
        """Gives the items as they are."""
        return as_given


def _result(seed, number):
    generator = np.random.default_rng((seed, number))
    if generator.random() < 0.25:
        return Quarantined(record_id=f"bad{number}", reason="nan", message=f"bad{number} of {seed}")
    return EcgRecord(
        record_id=f"r{number}",
        patient_id=f"p{number // 2}",
        signal=generator.integers(-900, 900, RECIPE.signal_format.shape).astype(np.int16),
        valid_start=0,
        valid_samples=200,
        report=f"report of seed {seed}",
        scalars={"lvef": float(number)},
        tasks={"rhythm": np.array([1, 0], np.int8)},
    )


def build(out, seed):
    """Builds the data set of a seed at `out`, whatever is there."""
    build_dataset(lambda: MadeUpSource(seed), out, request={"seed": seed}, overwrite=True)


def content(directory):
    """Digest of everything in a data set: its records as TFDS decodes them, by id, its store, index and quarantine."""
    dataset = open_dataset(directory)
    store = open_store(directory)
    signals = store.read(np.arange(store.num_records))
    rows = []
    for number, stored in enumerate(stored_examples(directory)):
        np.testing.assert_array_equal(stored["signal"], signals[number])
        flat = {"/".join(key): value for key, value in _flat(stored)}
        fields = [f"{name} {np.asarray(flat[name]).tobytes()!r}" for name in sorted(flat)]
        rows.append((str(dataset.index.record_id[number]), hashlib.sha256("\n".join(fields).encode()).hexdigest()))
    columns = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((directory / "index").iterdir())
    }
    names = sorted(path.name for path in directory.iterdir())
    facts = [sorted(rows), columns, names, (directory / "quarantine.csv").read_text(), dataset.fingerprint]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _flat(stored, prefix=()):
    for name, value in stored.items():
        if isinstance(value, dict):
            yield from _flat(value, (*prefix, name))
        else:
            yield (*prefix, name), value


RENAMES = ("rename", "exchange")


class Trap:
    """Lists file-system operations of this process, and kills it at one of them, or one of its renames."""

    def __init__(self, *, at=None, of_renames=False, after=False):
        self.names = []
        self._at, self._after = at, after
        self._kinds = RENAMES if of_renames else None

    def set(self):
        """Puts itself around what changes or opens files; this process is never the same again."""
        for owner, names in (
            (os, ("rename", "replace", "fsync", "open", "unlink", "remove", "rmdir", "mkdir")),
            (builtins, ("open",)),
            (io, ("open",)),
            (np, ("save", "savez")),
        ):
            for name in names:
                setattr(owner, name, self._around(getattr(owner, name), name))
        renameat2, atomic_directory._exchange = atomic_directory._exchange, None
        atomic_directory._exchange = self._around(renameat2, "exchange")
        trap, writer = self, making.ArrayRecordWriter

        class Writer:
            def __init__(self, *arguments):
                self._writer = writer(*arguments)
                self.write = trap._around(self._writer.write, "write a record")
                self.close = trap._around(self._writer.close, "close a shard")

        making.ArrayRecordWriter = Writer

    def _around(self, function, name):
        def trapped(*arguments, **options):
            before = [done for done in self.names if self._kinds is None or done in self._kinds]
            here = len(before) == self._at and (self._kinds is None or name in self._kinds)
            self.names.append(name)
            if here and not self._after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*arguments, **options)
            if here:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return trapped


def in_child(work):
    """Returns what `work()` returns in a forked child (JSON), or None if the child killed itself."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            os.write(writing, json.dumps(work()).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return None
    assert status == 0, "a build failed that should have been finished or killed"
    return json.loads(answer)


def trapped_build(out, seed, **trap):
    """Builds under a trap; returns the names of the operations that took."""
    armed = Trap(**trap)
    armed.set()
    build(out, seed)
    return armed.names


def warm_up(directory):
    """Imports here what every child would import anew, as TFDS does when it is used; ArrayRecord's threads stay out."""
    signal = np.arange(1600, dtype=np.int16).reshape(200, 8)
    recorded = {"sampling_rate_hz": 100, "valid_start": 0, "valid_samples": 200}
    signature(signal, **recorded)
    quality_flags(signal, **recorded)
    split = tfds.builder_from_directory(directory).info.splits[plan.SPLIT]
    tfds.folder_dataset.write_metadata(
        data_dir=directory,
        features=features(RECIPE.signal_format, MadeUpSource.label_schema),
        split_infos=[tfds.core.SplitInfo(name=split.name, shard_lengths=list(split.shard_lengths), num_bytes=0)],
        check_data=False,
    )


def last_good(out):
    """Where the last good data set is: at `out`, or moved away by a system that cannot exchange directories."""
    return out if (out / CARD_FILE).exists() else BuildState(staging_directory(out))._retired


def kill_builds(folder, *, kills, seed, can_exchange=True):
    """Runs builds, each killed up to three times, until `kills` have happened; returns counts by what was left.

    Raises:
        AssertionError: a data set was lost, or is not what it should be.
    """
    if not can_exchange:
        atomic_directory._exchange = lambda first, second: False
    plan.MAX_SHARD_BYTES = 4224 * NUM_ITEMS // NUM_SHARDS
    generator = np.random.default_rng(seed)
    # What each of two data sets looks like when nothing interrupts its build.
    expected = {}
    for number in (0, 1):
        in_child(lambda number=number: build(folder / f"whole{number}", number))
        expected[number] = in_child(lambda number=number: content(folder / f"whole{number}"))
    operations = in_child(lambda: trapped_build(folder / "whole0", 1))
    num_renames = sum(name in RENAMES for name in operations)
    warm_up(folder / "whole0")
    # Few operations put the data set in place: they are all tried, before those that are drawn.
    at_renames = [
        {"at": num_renames - last, "of_renames": True, "after": after} for last in (1, 2) for after in (False, True)
    ]
    left = collections.Counter()
    out, there = folder / "out", None
    while left.total() < kills:
        if there is not None and generator.random() < 0.3:
            shutil.rmtree(out)
            there = None
        wanted = 0 if there is None else 1 - there
        for _ in range(MOST_KILLS_OF_A_BUILD):
            trap = {"at": int(generator.integers(len(operations))), "after": bool(generator.random() < 0.5)}
            if there is not None and at_renames:
                trap = at_renames.pop()
            if in_child(lambda: trapped_build(out, wanted, **trap)) is not None:  # noqa: B023
                break
            left[_what_is_left(out, there=there, wanted=wanted, expected=expected)] += 1
        in_child(lambda: build(out, wanted))  # noqa: B023
        assert in_child(lambda: content(out)) == expected[wanted], "the finished data set is not what it should be"
        assert not staging_directory(out).exists(), "something was left behind"
        there = wanted
    return dict(left)


def _what_is_left(out, *, there, wanted, expected):
    place = last_good(out)
    if not (place / CARD_FILE).exists():
        assert there is None, f"killed, and the data set that was there is lost: {os.listdir(out.parent)}"
        return "nothing yet"
    found = in_child(lambda: content(place))
    if found == expected[wanted]:
        return "the new one"
    assert there is not None, "something is there that nobody built"
    assert found == expected[there], "killed, and the data set that was there is damaged"
    return "the old one" if place == out else "the old one, moved away"


def kill_command(folder, *, kills, seed):
    """Kills the real command at random times of its run, so often; then lets it finish, and checks what it built.

    Raises:
        AssertionError: the data set is not what it should be.
    """
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "data_pipelines.build", "--builder=simulated", "--num_patients=500"]
    command += ["--num_workers=2"]
    subprocess.run([*command, f"--out={folder / 'whole'}"], check=True, capture_output=True)
    left = 0
    for _ in range(kills):
        running = subprocess.Popen(
            [*command, f"--out={folder / 'out'}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            running.communicate(timeout=generator.uniform(1, 10))
        except subprocess.TimeoutExpired:
            running.kill()
            running.communicate()
        staged = BuildState(staging_directory(folder / "out"))
        now = len(list(staged.parts.iterdir())) if staged.parts.is_dir() else 0
        assert (folder / "out").exists() or now >= left, "finished shards were lost"
        left = now
    subprocess.run([*command, f"--out={folder / 'out'}"], check=True, capture_output=True)
    assert content(folder / "out") == content(folder / "whole")
    assert sorted(os.listdir(folder)) == ["out", "whole"]


def main():
    """Runs both ways of publishing and prints what was left after the kills."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills_of_command", type=int, default=0)
    arguments = parser.parse_args()
    counts = {}
    for can_exchange in (True, False):
        folder = arguments.folder / ("exchange" if can_exchange else "two_renames")
        folder.mkdir(parents=True)
        run = lambda: kill_builds(folder, kills=arguments.kills, seed=arguments.seed, can_exchange=can_exchange)  # noqa: B023, E731
        counts[folder.name] = in_child(run)
    if arguments.kills_of_command:
        kill_command(arguments.folder / "command", kills=arguments.kills_of_command, seed=arguments.seed)
    json.dump(counts, sys.stdout)


if __name__ == "__main__":
    main()
