"""Weights of a source, matched by name: what is taken, what is refused, and what is said about it."""

import dataclasses

import jax
import numpy as np
import pytest

from data_pipelines.records import SignalFormat
from ecgjax.encoders.from_config import abstract_split, create_split
from ecgjax.encoders.settings import EncoderSettings
from ecgjax.errors import ConfigError
from ecgjax.export.tensors import flat_tensors
from ecgjax.settings.initialisation import InitSettings
from ecgjax.training.warm_start import SourceWeights, begin_with, check_source, weights_of
from tests.support.plain_networks import away_from_initialisation

HERE = EncoderSettings(
    name="resnet18", num_leads=12, embedding_dim=8, arguments={"widths": (4, 8), "kernel": 3, "dropout": 0.1}
)
WIDER = dataclasses.replace(HERE, embedding_dim=16)
FORMAT = SignalFormat(sampling_rate_hz=250, num_samples=1000)
OBJECTIVE = {"temperature": np.float32(0.5)}


def source_of(settings, *, place="runs/x", **more):
    split = away_from_initialisation(abstract_split(settings))
    arrays = {
        (kind, f"encoder/{name}"): array
        for kind, _, name, array in ((*name.partition("/"), array) for name, array in flat_tensors(split).items())
    }
    return SourceWeights(place=place, encoder=settings, signal_format=FORMAT, arrays=arrays | more)


@pytest.fixture(scope="module")
def there():
    return source_of(HERE)


@pytest.fixture(scope="module")
def here():
    split = create_split(HERE, seed=0)
    return {"encoder": split.params, "objective": OBJECTIVE}, {"encoder": split.stats}


def begun(source, trees, encoder=HERE, **settings):
    params, stats = trees
    return begin_with(source, InitSettings(source="x", **settings), encoder, params=params, stats=stats)


def renamed(source, old, new):
    arrays = {(kind, name.replace(old, new)): array for (kind, name), array in source.arrays.items()}
    return dataclasses.replace(source, arrays=arrays)


def assert_as_there(params, stats, source, *, without=()):
    found = weights_of({"params": params, "stats": stats})
    for key, array in source.arrays.items():
        if key[1] not in without:
            np.testing.assert_array_equal(found[key], array, err_msg=str(key))


def test_parameters_and_running_statistics_begin_as_there_and_the_objective_as_here(there, here):
    params, stats, match = begun(there, here)
    assert_as_there(params, stats, there)
    assert {kind for kind, _ in there.arrays} == {"params", "stats"}
    assert params["objective"] == OBJECTIVE
    assert dict(match.taken) == {name: name for _, name in there.arrays}
    assert (match.fresh, match.unused, match.differing) == ((), (), ())
    held = ["encoder/blocks/0/conv1/kernel", "objective/temperature"]
    assert match.describe(frozen=held) == [f"{len(there.arrays)} weights begin as there, 1 of them frozen"]


def test_the_digest_is_that_of_all_first_weights(there, here):
    digest = begun(there, here)[2].digest
    assert digest == begun(there, here)[2].digest
    first = next(iter(there.arrays))
    other = dataclasses.replace(there, arrays=there.arrays | {first: there.arrays[first] + np.float32(1e-3)})
    assert digest != begun(other, here)[2].digest


def test_another_size_of_embedding_is_refused_by_name_with_both_shapes_and_the_remedy(there):
    split = create_split(WIDER, seed=0)
    trees = {"encoder": split.params, "objective": {}}, {"encoder": split.stats}
    with pytest.raises(ConfigError) as refused:
        begun(there, trees, WIDER)
    for words in (
        "runs/x does not fit: 2 of its weights have another shape",
        "encoder/head/kernel is float32[8, 8] there and float32[8, 16] here",
        "encoder/head/bias is float32[8] there and float32[16] here",
        "embedding_dim 8 there, 16 here",
        "--config.init.fresh=\"('^encoder/head/',)\"",
    ):
        assert words in str(refused.value)


def test_what_is_named_fresh_stays_at_its_initialisation(there):
    split = create_split(WIDER, seed=0)
    trees = {"encoder": split.params, "objective": {}}, {"encoder": split.stats}
    params, stats, match = begun(there, trees, WIDER, fresh=("^encoder/head/",))
    head = ("encoder/head/bias", "encoder/head/kernel")
    assert match.fresh == match.unused == head
    assert_as_there(params, stats, there, without=head)
    jax.tree.map(np.testing.assert_array_equal, params["encoder"]["head"], split.params["head"])
    told = match.describe(frozen=())
    assert told[1:] == [
        "2 begin at random: encoder/head/bias, encoder/head/kernel",
        "2 of there are not taken: encoder/head/bias, encoder/head/kernel",
        "settings of the encoder that differ: embedding_dim 8 there, 16 here",
    ]


def test_fresh_weights_need_not_be_in_the_source(there, here):
    arrays = {key: array for key, array in there.arrays.items() if "/head/" not in key[1]}
    lacking = dataclasses.replace(there, arrays=arrays)
    with pytest.raises(ConfigError, match=r"2 of this run's are missing there \(encoder/head/bias, encoder/head/kern"):
        begun(lacking, here)
    params, _, match = begun(lacking, here, fresh=("/head/",))
    assert match.unused == ()
    jax.tree.map(np.testing.assert_array_equal, params["encoder"]["head"], here[0]["encoder"]["head"])


def test_fewer_and_more_blocks_are_refused(there):
    deeper = dataclasses.replace(HERE, arguments={**HERE.arguments, "widths": (4, 8, 8)})
    split = create_split(deeper, seed=0)
    trees = {"encoder": split.params, "objective": {}}, {"encoder": split.stats}
    with pytest.raises(ConfigError, match=r"are missing there \(encoder/blocks/4.*widths \(4, 8\) there, \(4, 8, 8\)"):
        begun(there, trees, deeper)
    split = create_split(HERE, seed=0)
    trees = {"encoder": split.params, "objective": {}}, {"encoder": split.stats}
    with pytest.raises(ConfigError, match=r"of its have no place here \(encoder/blocks/4.*config.init.remap="):
        begun(source_of(deeper), trees)
    _, _, match = begun(source_of(deeper), trees, remap=("^encoder/blocks/[45]/.*=>",))
    assert match.unused
    assert all(name.startswith(("encoder/blocks/4/", "encoder/blocks/5/")) for name in match.unused)


def test_names_are_changed_one_after_the_other(there, here):
    other = renamed(there, "encoder/blocks/", "encoder/layer_of/")
    params, stats, match = begun(other, here, remap=("layer_(of)=>\\1_blocks", "of_blocks=>blocks"))
    assert_as_there(params, stats, there)
    assert match.taken["encoder/blocks/0/conv1/kernel"] == "encoder/layer_of/0/conv1/kernel"
    assert "of them under other names" in match.describe(frozen=())[0]


@pytest.mark.parametrize(
    ("remap", "message"),
    [
        ("encoder", "must be a regular expression, =>"),
        ("=>encoder", "must be a regular expression, =>"),
        ("(=>x", r"'\(' is no regular expression"),
        ("head=>\\7", "cannot replace anything"),
        ("haed=>head", r"'haed=>head' is found in no name of runs/x; there are: encoder/blocks/0"),
        ("head/bias=>head/kernel", "gives two weights of runs/x the name 'encoder/head/kernel'"),
    ],
)
def test_a_change_that_is_not_possible_is_refused_by_name(there, here, remap, message):
    with pytest.raises(ConfigError, match=rf"config\.init\.remap.*{message}"):
        begun(there, here, remap=(remap,))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fresh": ("[",)}, r"config\.init\.fresh: '\[' is no regular expression"),
        ({"fresh": ("haed",)}, r"config\.init\.fresh: 'haed' is found in no parameter; there are: encoder/"),
        ({"parts": ()}, r"config\.init\.parts=\(\) takes nothing"),
        ({"parts": ("encoder", "decoder")}, "'decoder' is unknown; there are: encoder, objective, task, second"),
        ({"parts": ("task",)}, r"this run has no part 'task' \(config\.task\.name is empty\)"),
        ({"parts": ("second",)}, r"this run has no part 'second' \(config\.second\.objective\.name is None\)"),
    ],
)
def test_a_setting_that_is_not_possible_is_refused_by_name(there, here, settings, message):
    with pytest.raises(ConfigError, match=message):
        begun(there, here, **settings)


def test_an_objective_begins_as_there_where_it_is_named(there, here):
    learnt = dataclasses.replace(
        there, arrays={**there.arrays, ("params", "objective/temperature"): np.float32(0.07) * np.ones((), np.float32)}
    )
    params, _, match = begun(learnt, here, parts=("encoder", "objective"))
    assert float(params["objective"]["temperature"]) == np.float32(0.07)
    assert "objective/temperature" in match.taken


def test_another_encoder_lead_count_or_rate_is_refused_and_another_length_is_not(there):
    check_source(there, HERE, FORMAT)
    check_source(there, dataclasses.replace(HERE, name="resnet18:small"), dataclasses.replace(FORMAT, num_samples=500))
    check_source(dataclasses.replace(there, signal_format=None), HERE, FORMAT)
    for encoder, form, message in (
        (
            dataclasses.replace(HERE, name="xresnet1d50"),
            FORMAT,
            r"is a resnet18, and .*--config\.encoder\.name=resnet18",
        ),
        (dataclasses.replace(HERE, num_leads=8), FORMAT, r"sees 12 leads, and .*--config\.encoder\.num_leads=12"),
        (HERE, SignalFormat(sampling_rate_hz=500, num_samples=1000), r"at 250 Hz.*of 500 Hz.*--target_rate_hz=250"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_source(there, encoder, form)
