"""Links within and across data sets of different rate and length: what is found, grouped, split, refused."""

import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.builders.base import SourceCard
from data_pipelines.duplicates.search import link
from data_pipelines.errors import DataError
from data_pipelines.prepared.copies_of import open_links, save_links
from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.prepared.splitting import Linked, split_linked
from data_pipelines.records import EcgRecord, LabelSchema
from data_pipelines.shards.dataset_build import build_dataset
from data_pipelines.signals.recipe import RECIPES
from data_pipelines.simulation.cohort import Cohort, CohortConfig
from ecgjax.data.labels import draw_patients
from tests.support.fixtures import as_given
from tests.support.planted import DISTORTIONS, resampled, stored

REPOSITORY = Path(__file__).parents[2]

#: Distorted copies of records of the first data set, in the second, which is stored at 100 Hz and 8 s.
PLANTED = {0: "100 Hz", 3: "noise", 5: "later", 8: "all", 10: "4.88-fold", 13: "high-pass"}


class ListSource:
    """A source of ready-made records."""

    label_schema = LabelSchema()

    def __init__(self, records, *, name, rate, seconds):
        self.card = SourceCard(name=name, description="Made up for a test.", simulated=True)
        self.recipe = RECIPES["plain"].changed(sampling_rate_hz=rate, seconds=seconds)
        self.signal_format = self.recipe.signal_format
        self.items = records

    def reader(self):
        """Gives them as they are."""
        return as_given


def record(signal, record_id, *, patient, fold):
    return EcgRecord(
        record_id=record_id, patient_id=patient, signal=signal, valid_start=0, valid_samples=len(signal), fold=fold
    )


def joint_split(datasets, links, sides):
    """Splits data sets by the folds of each, with what links say of their records."""
    return split_linked(
        [np.asarray(dataset.index.fold) for dataset in datasets],
        record_ids=[dataset.index.record_id for dataset in datasets],
        linked=[links.of(dataset) for dataset in datasets],
        sides=[{"train": (), "val": (), "test": (), **own} for own in sides],
    )


def build(folder, name, records, *, rate=250, seconds=10.0):
    build_dataset(lambda: ListSource(records, name=name, rate=rate, seconds=seconds), folder / name, request={})
    return open_dataset(folder / name)


def first_records():
    """Twenty records of twenty people, ids '0' … '19', folds 1 to 4 in turn; the last is an exact copy of the first."""
    signals = Cohort(CohortConfig(seed=21, num_patients=19, visits_per_patient=(1, 1))).simulate(0, 19).signal
    records = [record(s, f"a{i}", patient=str(i), fold=1 + i % 4) for i, s in enumerate(signals)]
    return [*records, record(signals[0], "a19", patient="19", fold=4)]


def second_records(first):
    """Copies under other ids, at 100 Hz and 8 s, then people of its own whose patient ids the first set has too."""
    copies = []
    for position, name in PLANTED.items():
        distort, rate = DISTORTIONS[name]
        at_100 = resampled(distort(first[position].signal.astype(float)), source_rate=rate, rate=100)
        copies.append(record(stored(at_100[:800]), f"b-{position}", patient=f"other-{position}", fold=2))
    own = Cohort(CohortConfig(seed=22, num_patients=8, visits_per_patient=(1, 1), sampling_rate_hz=100, seconds=8.0))
    own = [record(s, f"b{i}", patient=str(i), fold=1 + i % 3) for i, s in enumerate(own.simulate(0, 8).signal)]
    return copies + own


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Two data sets of different rate and length with planted copies."""
    folder = tmp_path_factory.mktemp("linked")
    first = first_records()
    return [
        build(folder, "first", first),
        build(folder, "second", second_records(first), rate=100, seconds=8.0),
    ]


@pytest.fixture(scope="module")
def links(datasets):
    """Links of both."""
    return link(datasets)


def named_pairs(links, datasets):
    return {
        frozenset(
            str(datasets[pair[f"{side}_dataset"]].index.record_id[pair[f"{side}_record"]])
            for side in ("first", "second")
        )
        for pair in links.pairs
    }


def named_partition(labels, datasets):
    """Returns the sets of record ids that share a label."""
    members = {}
    for own, dataset in zip(labels, datasets, strict=True):
        for label, name in zip(own.tolist(), dataset.index.record_id.tolist(), strict=True):
            members.setdefault(label, set()).add(name)
    return {frozenset(names) for names in members.values()}


def test_exactly_the_planted_copies_are_found(datasets, links):
    planted = {frozenset((f"a{i}", f"b-{i}")) for i in PLANTED} | {frozenset(("a0", "a19"))}
    assert named_pairs(links, datasets) == planted
    assert links.pairs["exact"].sum() == 1
    near = links.pairs[~links.pairs["exact"]]
    names = datasets[0].index.record_id[near["first_record"]].tolist()
    gain, lag = (dict(zip(names, near[field].tolist(), strict=True)) for field in ("gain", "lag_s"))
    assert gain["a10"] == pytest.approx(4.88, rel=0.02)
    assert gain["a8"] == pytest.approx(0.3, rel=0.1)
    assert lag["a5"] == pytest.approx(1.0, abs=0.005)
    assert (near["overlap_s"] > 6).all()


def brute_force_partition(num_nodes, joined):
    """Merges sets until no two have members that are joined."""
    sets = [{i} for i in range(num_nodes)]
    merged = True
    while merged:
        merged = False
        for a, b in itertools.combinations(range(len(sets)), 2):
            if any(joined(i, j) for i in sets[a] for j in sets[b]):
                sets[a] |= sets.pop(b)
                merged = True
                break
    return sets


@pytest.mark.parametrize("namespaces", [None, ("clinic", "clinic")])
def test_groups_are_the_connected_components_of_patients_and_copies(datasets, namespaces):
    links = link(datasets, patient_namespaces=namespaces)
    pairs = named_pairs(links, datasets)
    records = [
        (namespaces[which] if namespaces else which, patient, name)
        for which, dataset in enumerate(datasets)
        for patient, name in zip(dataset.index.patient_id.tolist(), dataset.index.record_id.tolist(), strict=True)
    ]
    expected = brute_force_partition(
        len(records),
        lambda i, j: records[i][:2] == records[j][:2] or frozenset((records[i][2], records[j][2])) in pairs,
    )
    found = named_partition([linked.group for linked in links.datasets], datasets)
    assert found == {frozenset(records[i][2] for i in members) for members in expected}
    # Patient '1' of one set is patient '1' of the other only where both number the same patients.
    assert (frozenset(("a1", "b1")) in found) == (namespaces is not None)


def test_links_do_not_depend_on_stored_order(tmp_path, datasets, links):
    generator = np.random.default_rng(0)
    first, second = first_records(), second_records(first_records())
    again = [
        build(tmp_path, "first", [first[i] for i in generator.permutation(len(first))]),
        build(tmp_path, "second", [second[i] for i in generator.permutation(len(second))], rate=100, seconds=8.0),
    ]
    relinked = link(again)
    assert named_pairs(relinked, again) == named_pairs(links, datasets)
    for field in ("group", "copy"):
        found, expected = (
            named_partition([getattr(linked, field) for linked in each.datasets], sets)
            for each, sets in ((relinked, again), (links, datasets))
        )
        assert found == expected
    folds = [{"train": (1, 2), "val": (3,), "test": (4,)}, {"train": (1, 2), "val": (3,)}]
    for one, two, before, after in zip(
        joint_split(datasets, links, folds), joint_split(again, relinked, folds), datasets, again, strict=True
    ):
        assert one.excluded == two.excluded
        for side in ("train", "val", "test"):
            kept, kept_again = before.index.record_id[getattr(one, side)], after.index.record_id[getattr(two, side)]
            assert set(kept.tolist()) == set(kept_again.tolist())


def test_joint_split_by_hand(datasets, links):
    first, second = joint_split(
        datasets, links, [{"train": (1, 2), "val": (3,), "test": (4,)}, {"train": (2,), "test": (1,)}]
    )
    names = [dataset.index.record_id for dataset in datasets]
    # a0 (fold 1) is a19 (fold 4): tested there. a3 is in fold 4, so its copy b-3 cannot be trained on.
    assert "a0" not in names[0][first.train]
    assert {"a3", "a19"} <= set(names[0][first.test].tolist())
    # Copies of a0, a5, a8 and a13 on the same side of the other set are duplicates, those of a3 and a10 judged later.
    assert names[1][second.train].tolist() == ["b1", "b4", "b7"]
    assert second.excluded == {"duplicate": 4, "group_in_val_or_test": 2, "group_in_test": 0, "other_fold": 2}
    assert first.excluded == {"duplicate": 0, "group_in_val_or_test": 1, "group_in_test": 0, "other_fold": 0}


@pytest.mark.parametrize("seed", range(20))
def test_joint_split_shares_no_group_and_accounts_for_every_record(seed):
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 60, 3)
    copy = [generator.integers(0, 80, size).astype(np.int32) for size in sizes]
    # Groups are unions of copies.
    group_of_copy = generator.integers(0, 60, 80).astype(np.int32)
    linked = [Linked(group=group_of_copy[own], copy=own) for own in copy]
    folds = [generator.integers(1, 6, size).astype(np.int16) for size in sizes]
    ids = [np.array([f"r{i}" for i in generator.permutation(size)]) for size in sizes]
    sides = [{"train": (1, 2), "val": (3,), "test": (4,)}, {"train": (4, 5), "val": (), "test": (1,)}]
    sides = [sides[i] for i in (0, 1, 0)]
    splits = split_linked(folds, record_ids=ids, linked=linked, sides=sides)
    seen = {"train": set(), "val": set(), "test": set()}
    copies = {side: [] for side in seen}
    for split, own, fold, each in zip(splits, linked, folds, sides, strict=True):
        kept = 0
        for side in seen:
            records = getattr(split, side)
            assert (np.diff(records) > 0).all()
            assert set(fold[records].tolist()) <= set(each[side])
            seen[side] |= set(own.group[records].tolist())
            copies[side] += own.copy[records].tolist()
            kept += len(records)
        assert kept + sum(split.excluded.values()) == len(fold)
    for one, two in itertools.combinations(seen.values(), 2):
        assert not one & two
    for side, kept in copies.items():
        assert len(kept) == len(set(kept)), side
    # Of what is tested, every recording stays.
    tested = {
        int(own.copy[i])
        for own, fold, each in zip(linked, folds, sides, strict=True)
        for i in np.flatnonzero(np.isin(fold, each["test"]))
    }
    assert tested == set(copies["test"])


def test_split_of_one_data_set_takes_links(datasets, links):
    index = datasets[0].index
    folds = {"train_folds": (1, 2), "val_folds": (3,), "test_folds": (4,)}
    found = index.split(**folds, links=links.of(datasets[0]))
    (expected,) = joint_split(datasets[:1], links, [{"train": (1, 2), "val": (3,), "test": (4,)}])
    for side in ("train", "val", "test"):
        np.testing.assert_array_equal(getattr(found, side), getattr(expected, side))
    assert found.excluded == expected.excluded
    with pytest.raises(DataError, match="no record is in fold 9"):
        index.split(train_folds=(9,), links=links.of(datasets[0]))


FRACTIONS = (0.01, 0.05, 0.1, 0.5, 1.0)


def draw(patients, ids, fraction, order=None):
    """Returns the ids of the drawn patients, from records in some order."""
    order = np.arange(len(ids)) if order is None else order
    drawn = draw_patients(patients[order], patient_ids=ids[order], fraction=fraction, seed=3)
    return set(ids[order][drawn].tolist())


def test_label_fractions_keep_copies_together(datasets):
    # Both sets as one archive: patients 'i' and 'other-i' have copies of one recording.
    links = link(datasets, patient_namespaces=("clinic", "clinic"))
    group = np.concatenate([linked.group for linked in links.datasets])
    ids = np.concatenate([dataset.index.patient_id for dataset in datasets])
    for fraction in FRACTIONS:
        drawn = draw(group, ids, fraction)
        for position in PLANTED:
            assert (str(position) in drawn) == (f"other-{position}" in drawn)
        assert ("0" in drawn) == ("19" in drawn)


@pytest.mark.parametrize("seed", range(5))
def test_label_fractions_are_nested_and_stable(seed):
    generator = np.random.default_rng(seed)
    patients = generator.integers(0, 200, 600)
    ids = np.array([f"p{patient}" for patient in patients])
    drawn = [draw(patients, ids, fraction) for fraction in FRACTIONS]
    for smaller, larger in itertools.pairwise(drawn):
        assert smaller < larger
    # Another order of records, other codes of groups: a rebuild.
    order, codes = generator.permutation(600), generator.permutation(200)
    assert [draw(codes[patients], ids, fraction, order) for fraction in FRACTIONS] == drawn
    # More records of known patients change nothing; more patients do not change who comes before whom.
    again = np.concatenate([np.arange(600), generator.integers(0, 600, 300)])
    assert [draw(patients, ids, fraction, again) for fraction in FRACTIONS] == drawn
    more, more_ids = np.concatenate([patients, np.arange(200, 300)]), [f"p{patient}" for patient in range(200, 300)]
    steps = [draw(patients, ids, count / len(set(ids))) for count in range(1, len(set(ids)) + 1)]
    for fraction in FRACTIONS:
        known = draw(more, np.concatenate([ids, more_ids]), fraction) & set(ids.tolist())
        assert not known or known in steps


def test_saved_links_come_back_and_replace_older_ones(tmp_path, links):
    path = tmp_path / "folder" / "links.npz"
    save_links(links, path)
    save_links(links, path)
    assert [file.name for file in path.parent.iterdir()] == ["links.npz"]
    opened = open_links(path)
    np.testing.assert_array_equal(opened.pairs, links.pairs)
    assert (opened.num_candidates, opened.num_crowded) == (links.num_candidates, links.num_crowded)
    for one, two in zip(opened.datasets, links.datasets, strict=True):
        for field in dataclasses.fields(one):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(two, field.name))


def test_damaged_and_foreign_links_are_refused(tmp_path, links):
    path = tmp_path / "links.npz"
    with pytest.raises(DataError, match=r"links.npz: no such file; make it again"):
        open_links(path)
    save_links(links, path)
    whole = path.read_bytes()
    for position in range(0, len(whole), len(whole) // 40):
        changed = bytearray(whole)
        changed[position] ^= 0xFF
        path.write_bytes(changed)
        try:
            opened = open_links(path)
        except DataError:
            continue
        # A byte that means nothing, such as a date in the archive's directory.
        np.testing.assert_array_equal(opened.pairs, links.pairs)
    path.write_bytes(whole[:-100])
    with pytest.raises(DataError, match="no links, or damaged"):
        open_links(path)
    path.write_bytes(b"pairs")
    with pytest.raises(DataError, match="no links, or damaged"):
        open_links(path)


def test_stale_links_are_refused(tmp_path, datasets, links):
    changed = build(tmp_path, "first", first_records()[:-1])
    with pytest.raises(DataError, match=r"not for this data set as it is now .*link again"):
        links.of(changed)
    with pytest.raises(DataError, match="the same data set as"):
        link([datasets[0], datasets[0]])
    with pytest.raises(DataError, match="1 patient namespaces for 2 data sets"):
        link(datasets, patient_namespaces=["one"])


def run_link(*arguments):
    command = [sys.executable, "-m", "data_pipelines.link", *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


def test_command(tmp_path, datasets, links):
    out = tmp_path / "links.npz"
    done = run_link(*(f"--dataset={dataset.directory}" for dataset in datasets), f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert "near-duplicates     6" in done.stdout
    assert "exact copies        1" in done.stdout
    assert "first a0 (patient 0) = first a19 (patient 19)" in done.stdout
    assert "first a10 (patient 10) ~ second b-10 (patient other-10): correlation" in done.stdout
    np.testing.assert_array_equal(open_links(out).pairs, links.pairs)
    missing = run_link(f"--dataset={tmp_path / 'nothing'}", f"--out={out}")
    assert missing.returncode == 2
    assert missing.stderr.strip().endswith("build it with python -m data_pipelines.build --out=…")
    assert "Traceback" not in missing.stderr
