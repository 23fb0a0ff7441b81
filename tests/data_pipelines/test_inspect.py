"""What `data_pipelines.inspect` says of a data set, against counting by hand, and the pages it draws."""

import csv
import dataclasses
import functools
import json
import math
import statistics
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from absl import flags
from PIL import Image

from data_pipelines import inspect as inspect_command
from data_pipelines.builders.base import Quarantined, SourceCard
from data_pipelines.builders.ptbxl import PtbxlSource
from data_pipelines.card.figures import amplitudes_of, dataset_card
from data_pipelines.card.rows import recipe_text
from data_pipelines.card.text import card_text
from data_pipelines.errors import DataError
from data_pipelines.inspect import record_lines
from data_pipelines.prepared.chosen_records import chosen_records, random_records
from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.records import STORED_LEADS, EcgRecord, LabelSchema
from data_pipelines.shards.dataset_build import build_dataset
from data_pipelines.signals.recipe import RECIPES, SignalRecipe
from data_pipelines.simulation.cohort import SCALARS, UNITS
from data_pipelines.storage.store import open_store
from tests.support.fixtures import as_given, make_simulated_dataset
from tests.support.user_errors import told

RECIPE = SignalRecipe(name="test", version=3, sampling_rate_hz=100, seconds=2.0, min_seconds=1.0, lowpass_hz=40.0)
SCHEMA = LabelSchema(
    scalars=("lvef", "died", "never"), units={"lvef": "%"}, tasks={"rhythm": ("AF", "SR", "SB"), "form": ("Q",)}
)


class MadeUpSource:
    """Records and quarantined recordings given by the test."""

    recipe = RECIPE
    signal_format = RECIPE.signal_format
    label_schema = SCHEMA

    def __init__(self, results, *, simulated):
        self.items = results
        self.card = SourceCard(
            name="made_up",
            description="Made up.",
            simulated=simulated,
            citation="Nobody, Nowhere (2020)",
            license="CC0",
            notes=("Nothing in it is real.",),
        )

    def reader(self):
        return as_given


def made_up(number, **changes):
    generator = np.random.default_rng(number)
    fields = {
        "record_id": f"r{number}",
        "patient_id": f"p{number // 2}",
        "signal": generator.integers(-300, 300, RECIPE.signal_format.shape).astype(np.int16),
        "valid_start": 0,
        "valid_samples": 200,
        "age_years": 30.0 + 7 * number,
        "sex": number % 2,
        "fold": number % 3 + 1,
        "scalars": {"lvef": 40.0 + number, "died": float(number % 2), "never": math.nan},
        "tasks": {"rhythm": np.array([0, 1, number % 2], np.int8), "form": np.array([-1], np.int8)},
    }
    return EcgRecord(**(fields | changes))


def results():
    padded = made_up(4, valid_start=20, valid_samples=150)
    padded.signal[:20] = padded.signal[170:] = 0
    clipped = made_up(5)
    clipped.signal[7, 2] = 32767
    return [
        made_up(0),
        Quarantined(record_id="bad1", reason="nan", message="bad1: lead V1 has NaN, and more"),
        made_up(1, age_years=math.nan, sex=-1, fold=-1),
        made_up(2, tasks={"rhythm": np.full(3, -1, np.int8), "form": np.array([-1], np.int8)}),
        Quarantined(record_id="bad2", reason="too_short", message="bad2: lasts 0.5 s"),
        made_up(3, signal=made_up(0).signal, scalars={"lvef": math.nan, "died": 1.0, "never": math.nan}),
        padded,
        clipped,
        made_up(6, record_id="a/b $1$", patient_id="p0"),
        Quarantined(record_id="bad3", reason="nan", message="bad3: lead II has NaN"),
    ]


def build(out, *, simulated=False):
    build_dataset(lambda: MadeUpSource(results(), simulated=simulated), out, request={"builder": "made_up"})
    return open_dataset(out)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return build(tmp_path_factory.mktemp("made") / "set")


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    return make_simulated_dataset(tmp_path_factory.mktemp("simulated"), num_patients=12, rate=100, seconds=5.0)


@pytest.fixture
def inspect(capsys, monkeypatch):
    """Runs the command and returns what it printed."""

    def run(dataset, **values):
        own = flags.FlagValues()
        with monkeypatch.context() as patch:
            # Flags of its own: those of other commands that tests import have the same names.
            for define in ("string", "list", "integer", "boolean", "enum"):
                name = f"DEFINE_{define}"
                patch.setattr(flags, name, functools.partial(getattr(flags, name), flag_values=own))
            patch.setattr(flags, "FLAGS", own)
            inspect_command.define_flags()
            own.mark_as_parsed()
            for name, value in ({"dataset": str(getattr(dataset, "directory", dataset))} | values).items():
                own[name].value = value
                own[name].present += 1
            inspect_command.main(["inspect"])
        return capsys.readouterr().out

    return run


def test_the_card_of_a_simulated_set_equals_counting_by_hand(simulated, inspect):
    card = json.loads(inspect(simulated, json=True))
    index = simulated.index
    assert card["simulated"] is True
    assert card["num_records"] == index.num_records
    of_patient = Counter(index.patient_id.tolist())
    assert card["num_patients"] == len(of_patient) == 12
    by_records = Counter(of_patient.values())
    assert card["records_per_patient"]["patients_by_records"] == {str(k): v for k, v in sorted(by_records.items())}
    assert card["records_per_patient"]["mean"] == pytest.approx(index.num_records / 12)
    assert card["sex"] == {
        "male": index.sex.tolist().count(0),
        "female": index.sex.tolist().count(1),
        "unknown": 0,
    }
    ages = index.age_years.tolist()
    assert card["age_years"]["median"] == pytest.approx(statistics.median(ages))
    assert card["age_years"]["mean"] == pytest.approx(statistics.fmean(ages))
    assert (card["age_years"]["min"], card["age_years"]["max"]) == (min(ages), max(ages))
    decades = defaultdict(Counter)
    for age, sex in zip(ages, index.sex.tolist(), strict=True):
        decades[int(age // 10) * 10][sex] += 1
    assert {row["from_years"]: (row["male"], row["female"]) for row in card["age_years"]["by_decade"]} == {
        decade: (decades[decade][0], decades[decade][1]) for decade in range(min(decades), max(decades) + 10, 10)
    }
    for row in card["folds"]:
        inside = [number for number, fold in enumerate(index.fold.tolist()) if fold == row["fold"]]
        assert row["records"] == len(inside)
        assert row["patients"] == len({index.patient_id[number] for number in inside})
        assert row["median_age_years"] == pytest.approx(statistics.median([ages[number] for number in inside]))
        assert row["female_share"] == pytest.approx(statistics.fmean([int(index.sex[number]) for number in inside]))
    assert sum(row["records"] for row in card["folds"]) == index.num_records
    assert list(card["scalars"]) == list(SCALARS)
    for name, spread in card["scalars"].items():
        known = [value for value in index.scalars[name].tolist() if not math.isnan(value)]
        assert spread["unit"] == UNITS[name]
        assert spread["known"] == len(known)
        assert spread["missing_share"] == pytest.approx(1 - len(known) / index.num_records)
        assert (spread["min"], spread["max"]) == (min(known), max(known))
        assert spread["median"] == pytest.approx(statistics.median(known))
        assert spread["binary"] == (set(known) <= {0.0, 1.0})


def test_amplitudes_equal_those_of_every_signal(simulated):
    store = open_store(simulated.directory)
    told = []
    found = amplitudes_of(store, simulated.index, max_records=10_000, seed=0, progress=told.append)
    signals = store.read(np.arange(simulated.index.num_records)).astype(np.float64) / 1000
    for lead, spans in found["peak_to_peak_mv"].items():
        by_hand = [np.ptp(signal[:, STORED_LEADS.index(lead)]) for signal in signals]
        assert spans["median"] == pytest.approx(statistics.median(by_hand))
        assert spans["max"] == pytest.approx(max(by_hand))
        assert spans["p1"] == pytest.approx(np.quantile(by_hand, 0.01))
        assert spans["p99"] == pytest.approx(np.quantile(by_hand, 0.99))
    assert list(found["peak_to_peak_mv"]) == list(STORED_LEADS)
    assert sum(told) == found["records_read"] == simulated.index.num_records
    assert found["seed"] is None


def test_amplitudes_leave_padding_out_and_do_not_overflow(tmp_path):
    lone = made_up(0, valid_start=20, valid_samples=150)
    lone.signal[:20] = 20_000
    lone.signal[30, 0], lone.signal[31, 0] = 32767, -32767
    build_dataset(lambda: MadeUpSource([lone], simulated=False), tmp_path / "set", request={})
    dataset = open_dataset(tmp_path / "set")
    spans = amplitudes_of(open_store(dataset.directory), dataset.index, max_records=5, seed=0)["peak_to_peak_mv"]
    assert spans["I"]["max"] == pytest.approx(65.534)
    assert spans["V1"]["max"] < 2


def test_amplitudes_of_a_large_set_come_from_a_stated_sample(simulated, inspect):
    store, index = open_store(simulated.directory), simulated.index
    one, again, other = (amplitudes_of(store, index, max_records=5, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one["peak_to_peak_mv"] != other["peak_to_peak_mv"]
    assert (one["records_read"], one["seed"]) == (5, 1)
    assert f"5 of {index.num_records} records, drawn with seed 1" in inspect(simulated, max_records=5, seed=1)


def test_the_card_counts_labels_quarantine_duplicates_padding_and_quality(made, inspect):
    card = json.loads(inspect(made, json=True))
    assert (card["records_in"], card["num_records"], card["num_patients"]) == (10, 7, 3)
    assert card["quarantined"] == {"nan": 2, "too_short": 1}
    assert card["records_per_patient"]["patients_by_records"] == {"2": 2, "3": 1}
    assert card["duplicates"] == {
        "records": 1,
        "under_another_patient": 1,
        "groups": 2,
        "pairs": [["r3", "r0"]],
    }
    assert card["sex"] == {"male": 4, "female": 2, "unknown": 1}
    assert card["age_years"]["missing_share"] == pytest.approx(1 / 7)
    assert [row["fold"] for row in card["folds"]] == [-1, 1, 2, 3]
    assert card["folds"][0] == {
        "fold": -1, "records": 1, "patients": 1, "median_age_years": None, "female_share": None
    }  # fmt: skip
    rhythm = card["tasks"]["rhythm"]
    assert (rhythm["labelled"], rhythm["missing"]) == (6, 1)
    assert rhythm["classes"] == {
        "AF": {"records": 0, "patients": 0, "prevalence": 0},
        "SR": {"records": 6, "patients": 3, "prevalence": 1},
        "SB": {"records": 3, "patients": 3, "prevalence": 0.5},
    }
    assert card["tasks"]["form"] == {
        "labelled": 0,
        "missing": 7,
        "classes": {"Q": {"records": 0, "patients": 0, "prevalence": None}},
    }
    assert card["scalars"]["lvef"]["known"] == 6
    assert card["scalars"]["lvef"]["median"] == statistics.median([40, 41, 42, 44, 45, 46])
    assert card["scalars"]["died"]["binary"] is True
    assert card["scalars"]["died"]["mean"] == pytest.approx(3 / 7)
    assert card["scalars"]["never"] == {
        "unit": "", "known": 0, "missing_share": 1, "mean": None, "binary": False,
        "min": None, "p1": None, "median": None, "p99": None, "max": None,
    }  # fmt: skip
    assert card["padding"] == {"padded": 1, "padded_before": 1, "shortest_seconds": 1.5, "median_seconds": 1.5}
    assert card["quality"]["flags"]["padded"] == 1
    assert card["quality"]["flags"]["clipped"] == card["quality"]["clipped_records"] == 1
    assert card["quality"]["clipped_samples"] == 1
    assert card["recipe"] == RECIPE.to_json()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_text_fits_the_terminal_and_says_everything(made, simulated, width):
    for dataset in (made, simulated):
        amplitudes = amplitudes_of(open_store(dataset.directory), dataset.index, max_records=100, seed=0)
        card = dataset_card(dataset, amplitudes=amplitudes) | {"directory": "some/set"}
        text = card_text(card, width=width)
        assert max(map(len, text.splitlines())) <= width
        assert ("SIMULATED: NO PATIENT WAS RECORDED" in text) == dataset.simulated
    text = card_text(dataset_card(made, amplitudes=amplitudes), width=width)
    for part in (
        "CC0",
        "Nobody, Nowhere (2020)",
        "Nothing in it is real.",
        "100 Hz, 2 s",
        "low-pass 40 Hz (recipe test, version 3)",
        "7 stored of 10 read",
        "3 (30.0%)",
        "r3 = r0",
        "Task rhythm, 3 classes, 6 of 7 records labelled",
        "never: AF",
        "1 sample clipped in 1 record",
        "1 record padded, 1 of them before their start; of the padded 1.50 s at least are recorded",
    ):
        assert part in " ".join(text.split())
    rows = [line.split() for line in text.splitlines()]
    assert ["nan", "2"] in rows
    assert ["SB", "3", "50.0%"] in [row[:3] for row in rows] or ["SB", "3", "50.0%"] in [row[-3:] for row in rows]
    assert ["none", "1", "1", "–", "–"] in rows
    assert ["lvef", "%", "14.3%", "40", "40.05", "43", "45.95", "46", "43"] in rows
    assert ["clipped", "1", "14.3%"] in rows


def test_filters_of_a_recipe_are_named():
    assert recipe_text(RECIPES["plain"].to_json()) == "no filter (recipe plain, version 1)"
    recipe = dataclasses.replace(RECIPES["monitor"], notch_hz=50.0, baseline="median").to_json()
    assert recipe_text(recipe).startswith(
        "notch 50 Hz, high-pass 0.5 Hz, low-pass 40 Hz, baseline by median removed (recipe monitor"
    )


@pytest.mark.parametrize(("layout", "height_mm"), [("3x4", 210), ("6x2", 230), ("12x1", 290)])
def test_named_records_are_drawn_in_order(made, inspect, tmp_path, layout, height_mm):
    out = tmp_path / "new" / "pages"
    drawn = json.loads(inspect(made, records=["r2", "a/b $1$"], out=str(out), layout=layout, json=True))
    assert [entry["record_id"] for entry in drawn] == ["r2", "a/b $1$"]
    assert sorted(path.name for path in out.iterdir()) == ["r2.png", "record6_a_b__1_.png"]
    for entry in drawn:
        with Image.open(entry["file"]) as image:
            image.load()
            assert image.format == "PNG"
            assert image.size == (162 * 8, height_mm * 8)
            assert len(set(image.convert("L").tobytes())) > 10


def test_lines_above_a_record_say_what_the_index_knows(made):
    numbers = {record_id: number for number, record_id in enumerate(made.index.record_id.tolist())}
    lines = record_lines(made, numbers["r5"])
    assert lines[:3] == ["made_up, record r5", "Patient p2 · 65 years · female · fold 3", "rhythm: SR, SB"]
    assert lines[3].replace("\N{NO-BREAK SPACE}", " ") == "lvef 45 % · died 1"
    assert "clipped" in lines[4]
    assert "1 sample clipped" in lines[4]
    assert record_lines(made, numbers["r1"])[1] == "Patient p0 · age unknown · sex unknown"
    assert record_lines(made, numbers["r3"])[-1] == "Equal to record r0, sample by sample"
    assert not any(line.startswith("rhythm") for line in record_lines(made, numbers["r2"]))


def test_random_records_are_those_of_the_seed(made, inspect, tmp_path):
    first, again, other = (random_records(made, 3, seed=seed).tolist() for seed in (0, 0, 4))
    assert first == again != other
    assert len(set(first)) == 3
    [number] = random_records(made, 1, seed=5)
    file, title, *further = inspect(made, random=1, seed=5, out=str(tmp_path)).splitlines()
    assert Path(file).parent == tmp_path
    assert title.startswith(f"  made_up, record {made.index.record_id[number]} ")
    assert max(map(len, [title, *further])) <= 80


def test_quarantined_recordings_are_listed_by_reason(made, inspect):
    text = inspect(made, quarantined=True)
    assert text.splitlines() == [
        "3 of 10 recordings were not stored",
        "nan: 2",
        "  bad1: bad1: lead V1 has NaN, and more",
        "  bad3: bad3: lead II has NaN",
        "too_short: 1",
        "  bad2: bad2: lasts 0.5 s",
    ]
    listed = json.loads(inspect(made, quarantined=True, json=True))
    with (made.directory / "quarantine.csv").open(newline="") as file:
        assert sorted(listed, key=str) == sorted(csv.DictReader(file), key=str)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"records": ["r1", "nobody", "r99"], "out": "x"}, "no record 'nobody', 'r99'; its ids look like 'r0', 'r1'"),
        ({"records": [], "out": "x"}, "--records is empty"),
        ({"random": 8, "out": "x"}, "--random=8: .* has 7 records"),
        ({"random": 2}, "--random needs --out=DIR"),
        ({"records": ["r1"]}, "--records needs --out=DIR"),
        ({"out": "x"}, "--out is for drawing; say which records"),
        ({"layout": "6x2"}, "--layout is for drawing"),
        ({"random": 2, "records": ["r1"], "out": "x"}, "--records and --random ask for different things"),
        ({"random": 2, "quarantined": True, "out": "x"}, "--random and --quarantined ask for different things"),
    ],
)
def test_wrong_requests_are_told_in_a_line_and_draw_nothing(
    made, inspect, values, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with told(capsys, f"^error: .*{message}"):
        inspect(made, **values)
    assert not list(tmp_path.iterdir())


def test_a_data_set_that_is_not_there_is_told(inspect, tmp_path, capsys):
    with told(capsys, r"^error: .*nowhere: no such directory"):
        inspect(tmp_path / "nowhere")


def test_an_out_that_is_a_file_is_told(made, inspect, tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    with told(capsys, r"^error: .*taken.* not a directory"):
        inspect(made, random=1, out=str(tmp_path / "taken"))


def test_records_that_are_not_there_raise_a_data_error(made):
    with pytest.raises(DataError, match="'x'"):
        chosen_records(made, ["x"])
    assert chosen_records(made, ["r2", "r0"]).tolist() == [2, 0]


def test_every_lead_pages_of_simulated_sets_are_marked(simulated, inspect, tmp_path):
    inspect(simulated, random=1, out=str(tmp_path))
    [path] = tmp_path.iterdir()
    with Image.open(path) as image:
        colours = image.convert("RGB").getcolors(maxcolors=1 << 20)
    assert sum(count for count, colour in colours if colour == (0xB3, 0x20, 0x2C)) > 40 * 8 * 5 * 8


def test_real_records_are_inspected(real_data, inspect, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "records100").symlink_to(real_data / "ptbxl" / "records100")
    (source / "scp_statements.csv").symlink_to(real_data / "ptbxl" / "scp_statements.csv")
    database = pd.read_csv(real_data / "ptbxl" / "ptbxl_database.csv", dtype=str)[:30]
    database.to_csv(source / "ptbxl_database.csv", index=False)

    def make_source():
        return PtbxlSource(source, source_rate_hz=100, recipe=RECIPES["plain"])

    build_dataset(make_source, tmp_path / "ptbxl", request={})
    dataset = open_dataset(tmp_path / "ptbxl")
    card = json.loads(inspect(dataset, json=True))
    assert card["num_records"] == 30
    assert card["num_patients"] == database["patient_id"].nunique()
    assert card["tasks"]["all"]["classes"]["NORM"]["records"] == database["scp_codes"].str.contains("'NORM'").sum()
    inspect(dataset, records=["17"], out=str(tmp_path / "pages"))
    with Image.open(tmp_path / "pages" / "17.png") as image:
        assert image.size == (297 * 8, 210 * 8)
