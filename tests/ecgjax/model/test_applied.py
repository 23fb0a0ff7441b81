"""A model on recordings: refusals, invariances, equality with the folder builder, tokens."""

import jax.numpy as jnp
import numpy as np
import pytest

import ecgjax
from data_pipelines.builders.folder import FolderSource
from data_pipelines.errors import DataError
from data_pipelines.prepared.dataset import open_dataset
from data_pipelines.readers.formats import find_recording, read_recording
from data_pipelines.records import STANDARD_LEADS, STORED_LEADS
from data_pipelines.shards.dataset_build import build_dataset
from data_pipelines.signals.recipe import RECIPES
from data_pipelines.statements.declared import Declared
from data_pipelines.storage.store import open_store
from ecgjax import encoders
from ecgjax.errors import ConfigError
from tests.ecgjax.model.written import write_model
from tests.support.fixtures import twelve_lead_mv

#: Difference in parts of an embedding's size that one step of the stored samples (1 µV) can make here.
ONE_STEP = 1e-3


@pytest.fixture(scope="module")
def model(exported):
    return ecgjax.load(exported)


def recordings(count=3, **how):
    return np.stack([twelve_lead_mv(seed=seed, **how) for seed in range(count)])


def embed(model, x, **changes):
    return model.embed(x, **({"rate_hz": 500, "unit": "mV", "leads": STANDARD_LEADS} | changes))


def apart(one, other):
    return np.abs(one - other).max() / np.abs(other).max()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"unit": None}, "unit=None"),
        ({"unit": "furlong"}, "furlong"),
        ({"unit": 3}, "unit=3"),
        ({"rate_hz": None}, "rate_hz=None"),
        ({"rate_hz": "500"}, "rate_hz='500'"),
        ({"rate_hz": True}, "rate_hz=True"),
        ({"rate_hz": float("nan")}, "rate_hz=nan"),
        ({"rate_hz": float("inf")}, "rate_hz=inf"),
        ({"rate_hz": 0}, "rate_hz=0"),
        ({"rate_hz": -500}, "rate_hz=-500"),
        ({"rate_hz": 5}, "rate_hz=5"),
        ({"rate_hz": 1e9}, "rate_hz=1e+09"),
        ({"rate_hz": 499.98765}, "499.98765"),
        ({"rate_hz": 5000}, "1 s long"),
        ({"leads": None}, "leads=None"),
        ({"leads": 12}, "leads=12"),
        ({"leads": "I,II"}, "leads='I,II'"),
        ({"leads": STORED_LEADS}, "names 8"),
        ({"leads": [f"C{number}" for number in range(12)]}, "not found"),
        ({"leads": [*STANDARD_LEADS[:-1], "V5"]}, "twice"),
        ({"leads": [*STANDARD_LEADS[:-1], 6]}, "leads="),
    ],
    ids=str,
)
def test_what_is_said_of_samples_must_be_possible(model, changes, told):
    with pytest.raises(ConfigError, match=r"^[^\n]*$") as caught:
        embed(model, recordings(), **changes)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda x: x[0], "x[None]"),
        (lambda x: x[None], "4 axes"),
        (lambda x: x.swapaxes(1, 2), "swapaxes"),
        (lambda x: x[:0], "empty"),
        (lambda x: x[:, :0], "empty"),
        (lambda x: x.astype(complex), "complex128"),
        (lambda x: x.astype(object), "object"),
        (lambda x: x > 0, "bool"),
        (lambda x: x.astype(str), "<U"),
        (lambda x: [[1, 2], [3]], "no array"),
        (lambda x: None, "object"),
    ],
    ids=[
        "no batch",
        "four axes",
        "swapped",
        "no rows",
        "no time",
        "complex",
        "object",
        "bool",
        "text",
        "ragged",
        "None",
    ],
)
def test_arrays_that_are_no_recordings(model, spoil, told):
    with pytest.raises(ConfigError, match=r"^[^\n]*$") as caught:
        embed(model, spoil(recordings()))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda x: x * 1000, "as unit='uV' it would be an ECG"),
        (lambda x: x / 1000, "as unit='V' it would be an ECG"),
        (lambda x: np.where(np.arange(x.shape[1])[:, None] == 77, np.nan, x), "NaN"),
        (lambda x: np.where(np.arange(x.shape[1])[:, None] == 77, np.inf, x), "infinite"),
        (lambda x: x * (np.arange(12) != 7), "V2 is flat"),
        (lambda x: x[:, :, [1, 0, *range(2, 12)]], "limb leads are swapped"),
    ],
    ids=["thousand times", "thousandth", "nan", "inf", "flat", "swapped"],
)
def test_rows_that_are_no_ecg_are_named(model, spoil, told):
    x = recordings()
    x[1] = spoil(x)[1]
    with pytest.raises(DataError, match=r"^row 1 of x: [^\n]*$") as caught:
        embed(model, x)
    assert told in str(caught.value)
    assert "--" not in str(caught.value)


def test_faults_behind_what_is_taken_do_no_harm_and_those_within_name_no_flag(model):
    x = recordings(seconds=30)
    x[:, 9000] = np.nan
    embed(model, x)
    x[:, 70] = np.nan
    with pytest.raises(DataError, match="first 10 s") as caught:
        embed(model, x)
    assert "--" not in str(caught.value)


def test_units_leads_and_types_make_no_difference(model):
    x = recordings()
    expected = embed(model, x)
    assert expected.shape == (3, 8)
    assert expected.dtype == np.float32
    np.testing.assert_array_equal(embed(model, np.rint(x * 1000).astype(np.int16), unit="µV"), expected)
    np.testing.assert_array_equal(embed(model, x / 1000, unit="V"), expected)
    order = np.random.default_rng(0).permutation(12)
    np.testing.assert_array_equal(embed(model, x[:, :, order], leads=[STANDARD_LEADS[at] for at in order]), expected)
    eight = [STANDARD_LEADS.index(lead) for lead in STORED_LEADS]
    np.testing.assert_array_equal(embed(model, x[:, :, eight], leads=STORED_LEADS), expected)
    more = np.concatenate([x, np.zeros((*x.shape[:2], 2))], axis=2)
    np.testing.assert_array_equal(embed(model, more, leads=[*STANDARD_LEADS, "PLETH", "RESP"]), expected)
    shouting = [f"Lead {lead.upper()}" for lead in STANDARD_LEADS]
    np.testing.assert_array_equal(embed(model, jnp.asarray(x, jnp.float32), leads=shouting), expected)


def test_rates_and_lengths_follow_the_stated_rule(model):
    x = recordings()
    expected = embed(model, x)
    # The made-up waves end at 12 Hz, so every second sample says the same up to what resampling does at the ends.
    assert apart(embed(model, x[:, ::2], rate_hz=250), expected) < 30 * ONE_STEP
    np.testing.assert_array_equal(embed(model, recordings(seconds=10)), expected)
    longer = recordings(seconds=27)
    np.testing.assert_allclose(embed(model, longer), embed(model, longer[:, :5000]), rtol=0.05, atol=0.05)
    prepared = model.prepare(x[:, :3000], rate_hz=500, unit="mV", leads=STANDARD_LEADS)
    assert not prepared.signals[:, 1500:].any()
    np.testing.assert_array_equal(prepared.valid_samples, [1500] * 3)


def test_rows_do_not_depend_on_each_other_or_on_their_number(model):
    x = recordings(40)
    together = embed(model, x)
    np.testing.assert_array_equal(embed(model, x[5:9]), together[5:9])
    assert apart(embed(model, x[7:8]), together[7:8]) < 1e-5


@pytest.mark.parametrize("recipe", ["plain", "monitor"])
def test_the_folder_builder_stores_and_embeds_the_same(recipe, tmp_path):
    recipe = RECIPES[recipe]
    model = ecgjax.load(write_model(tmp_path / "model", recipe=recipe))
    x = recordings(4, seconds=12, rate=360)
    (tmp_path / "ecgs").mkdir()
    for row, samples in enumerate(x):
        np.save(tmp_path / "ecgs" / f"r{row}.npy", samples)
    declared = Declared(sampling_rate_hz=360, unit="mV", leads=STANDARD_LEADS)

    def source():
        return FolderSource(
            tmp_path / "ecgs", labels=None, patient_field=None, name="mine", recipe=recipe, declared=declared
        )

    build_dataset(source, tmp_path / "data", request={})
    dataset, store = open_dataset(tmp_path / "data"), open_store(tmp_path / "data")
    assert list(dataset.index.record_id) == ["r0", "r1", "r2", "r3"]
    stored = store.read(np.arange(4))
    prepared = model.prepare(x, rate_hz=360, unit="mV", leads=STANDARD_LEADS)
    np.testing.assert_array_equal(prepared.signals, stored)
    np.testing.assert_array_equal(model.embed_prepared(stored), embed(model, x, rate_hz=360))


def test_prepared_signals_have_one_form(model):
    for wrong in (np.zeros((1, 2500, 8)), np.zeros((1, 2500, 12), np.int16), np.zeros((2500, 8), np.int16)):
        with pytest.raises(ConfigError, match="int16"):
            model.embed_prepared(wrong)


def test_data_prepared_twice_cannot_be_prepared_from_arrays(tmp_path):
    import dataclasses

    recipe = dataclasses.replace(RECIPES["plain"], name="plain after level")
    model = ecgjax.load(write_model(tmp_path / "model", recipe=recipe))
    with pytest.raises(ConfigError, match="level"):
        embed(model, recordings())
    assert model.embed_prepared(np.zeros((1, 2500, 8), np.int16)).shape == (1, 8)


def test_a_model_without_a_head_answers_no_question(model):
    with pytest.raises(ConfigError, match="no head"):
        model.predict(recordings(), rate_hz=500, unit="mV", leads=STANDARD_LEADS)


def test_tokens_are_what_the_pool_takes(tmp_path):
    recipe = RECIPES["plain"].changed(sampling_rate_hz=500)
    arguments = {"dim": 16, "depth": 2, "num_heads": 2, "patch": 50}
    model = ecgjax.load(write_model(tmp_path / "vit", "vit_s", arguments=arguments, recipe=recipe))
    x = recordings(2)
    tokens = model.tokens(x, rate_hz=500, unit="mV", leads=STANDARD_LEADS)
    assert tokens.values.shape == (2, 100, 16)
    assert tokens.leads is None
    # The contract of what language models take: 100 ms a token, at its middle (GEM).
    np.testing.assert_allclose(tokens.times, np.arange(100) * 0.1 + 0.05, rtol=1e-6)
    pooled = encoders.merge(model.split).pool(jnp.asarray(tokens.values.astype(np.float16), jnp.float32))
    np.testing.assert_allclose(pooled, embed(model, x), atol=2e-3 * np.abs(embed(model, x)).max())
    short = model.tokens(x[:, :4600], rate_hz=500, unit="mV", leads=STANDARD_LEADS)
    own = encoders.merge(model.split).token_mask(5000, recorded=jnp.array([4600, 4600]))
    np.testing.assert_array_equal(short.mask, own)


def test_tokens_of_single_leads_name_them(tmp_path):
    recipe = RECIPES["plain"].changed(pad="both")
    model = ecgjax.load(write_model(tmp_path / "net", "temporal_net", num_leads=8, recipe=recipe))
    tokens = model.tokens(recordings(1)[:, :3000], rate_hz=500, unit="mV", leads=STANDARD_LEADS)
    assert tokens.leads is not None
    assert [*dict.fromkeys(tokens.leads)] == list(STORED_LEADS)
    recorded = (tokens.times >= 2) & (tokens.times < 8)
    assert (tokens.mask[0] != recorded).mean() < 0.01


@pytest.mark.parametrize(("unit", "factor", "right"), [("uV", 1, "mV"), ("mV", 1000, "uV"), ("V", 1, "mV")])
def test_a_wrong_unit_of_a_real_recording_is_refused_with_the_right_one(model, real_data, unit, factor, right):
    path = real_data / "ptbxl" / "records500" / "00000" / "00001_hr.hea"
    recording = read_recording(find_recording(path).recordings[0], Declared())
    x = np.asarray(recording.signal[:5000])[None]
    with pytest.raises(DataError, match=f"as unit='{right}' it would be an ECG$"):
        model.embed(x * factor, rate_hz=500, unit=unit, leads=recording.channels)
    assert model.embed(x, rate_hz=500, unit="mV", leads=recording.channels).shape == (1, 8)
