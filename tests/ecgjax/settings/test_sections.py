"""Sections of a config: what is read into settings, what is refused, and the way back; and the settings of a run."""

import dataclasses
import re
from collections.abc import Mapping

import pytest
from ml_collections import ConfigDict

from ecgjax import defaults
from ecgjax.errors import ConfigError
from ecgjax.settings.bounds import ONE_OR_MORE, POSITIVE, PROBABILITY
from ecgjax.settings.leaf import Arguments, Leaf, leaf, section
from ecgjax.settings.sections import (
    arguments,
    arguments_by_name,
    config_of,
    conform,
    flat,
    leaves_of,
    read,
    tree_of,
)

WIDTHS = Leaf(tuple, int, None, True, "Widths.", ONE_OR_MORE._replace(fewest=1))
ACT = {"enabled": Leaf(bool, None, False, False, "Whether."), "p": Leaf(float, None, 1.0, False, "P.", PROBABILITY)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = leaf(1e-3, "Rate.", bound=POSITIVE)
    steps: int = leaf(300, "Steps.", bound=ONE_OR_MORE)
    on: bool = leaf(False, "Whether it is on.")
    bottom: float | None = leaf(None, "Bottom.", bound=POSITIVE)


def faster():
    return Inner(rate=0.5, steps=10)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    name: str | None = leaf(None, "Name.")
    arguments: Arguments = arguments(lambda: {"widths": WIDTHS, "depth": Leaf(int, None, None, True, "Depth.")})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole:
    title: str = leaf("", "Title.")
    folds: tuple[int, ...] = leaf((1, 2), "Folds.", bound=ONE_OR_MORE)
    rates: tuple[tuple[str, float], ...] = leaf((), "Rates by pattern.")
    slow: Inner = section(Inner)
    fast: Inner = section(faster)
    network: Network = section(Network)
    act: Mapping[str, Arguments] = arguments_by_name(lambda: {"noise": ACT, "mask": {"enabled": ACT["enabled"]}})


PATHS = [
    "title", "folds", "rates", "slow.rate", "slow.steps", "slow.on", "slow.bottom", "fast.rate", "fast.steps",
    "fast.on", "fast.bottom", "network.name", "network.widths", "network.depth", "act.noise.enabled", "act.noise.p",
    "act.mask.enabled",
]  # fmt: skip


def test_leaves_stand_at_their_paths_with_the_defaults_of_their_section():
    leaves = leaves_of(Whole)
    assert list(leaves) == PATHS
    assert leaves["slow.rate"] == Leaf(float, None, 1e-3, False, "Rate.", POSITIVE)
    assert leaves["fast.rate"] == Leaf(float, None, 0.5, False, "Rate.", POSITIVE)
    assert leaves["slow.bottom"] == Leaf(float, None, None, True, "Bottom.", POSITIVE)
    assert leaves["network.widths"] is WIDTHS
    assert next(iter(leaves_of(Inner, "a.b."))) == "a.b.rate"


def test_a_section_at_the_defaults_of_a_factory_is_read_from_there():
    assert read(Whole, {}).fast == faster()
    assert read(Whole, {"fast": {"on": True}}).fast == Inner(rate=0.5, steps=10, on=True)
    assert read(faster, {"bottom": 1}) == Inner(rate=0.5, steps=10, bottom=1.0)


def test_a_config_has_every_leaf_at_its_default_and_keeps_the_types():
    config = config_of(Whole)
    assert flat(config.to_dict()) == {path: own.default for path, own in leaves_of(Whole).items()} | {
        "act.noise.enabled": False, "act.noise.p": 1.0, "act.mask.enabled": False
    }  # fmt: skip
    config.slow.bottom = 2.0
    assert read(Whole, config).slow.bottom == 2.0
    with pytest.raises(TypeError):
        config.slow.bottom = "low"
    with pytest.raises(TypeError):
        config.slow.steps = "many"


def test_from_settings_to_a_config_and_back():
    settings = Whole(
        title="a",
        folds=(3,),
        rates=(("objective/beta", 5e-4),),
        slow=Inner(bottom=0.5),
        network=Network(name="resnet", arguments={"widths": (4, 8)}),
        act={"noise": {"enabled": True, "p": 0.5}, "mask": {"enabled": False}},
    )
    tree = tree_of(settings)
    assert list(flat(tree)) == PATHS
    assert flat(tree)["network.depth"] is None
    assert read(Whole, tree) == settings
    config = config_of(Whole)
    config.update_from_flattened_dict(flat(tree))
    assert read(Whole, config) == settings
    assert tree_of(read(Whole, config_of(Whole))) == config_of(Whole).to_dict()


def test_values_take_the_type_of_their_leaf():
    found = read(Whole, {"slow": {"rate": 1}, "folds": [1, 2, 3], "network": {"widths": [4, 8]}})
    assert isinstance(found.slow.rate, float)
    assert found.folds == (1, 2, 3)
    assert read(Whole, {"folds": ()}).folds == ()
    assert found.network.arguments == {"widths": (4, 8)}
    assert read(Whole, {"rates": [["a", 1.0], ["b", 2.0]]}).rates == (("a", 1.0), ("b", 2.0))


def test_of_arguments_by_name_what_is_not_given_is_at_its_default():
    found = read(Whole, {"act": {"noise": {"p": 0}}})
    assert found.act == {"noise": {"enabled": False, "p": 0.0}, "mask": {"enabled": False}}
    assert read(Whole, {}).act == Whole().act


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"slow": {"rate": "1e-3"}}, "c.slow.rate='1e-3' is not possible; it must be a number"),
        ({"slow": {"rate": True}}, "c.slow.rate=True is not possible; it must be a number"),
        ({"slow": {"steps": 1.0}}, "c.slow.steps=1.0 is not possible; it must be a whole number"),
        ({"slow": {"steps": True}}, "c.slow.steps=True is not possible; it must be a whole number"),
        ({"slow": {"on": 1}}, "c.slow.on=1 is not possible; it must be True or False"),
        ({"title": 3}, "c.title=3 is not possible; it must be text"),
        ({"title": None}, "c.title=None is not possible; it must be text"),
        ({"slow": {"steps": 0}}, "c.slow.steps=0 is not possible; it must be at least 1"),
        ({"slow": {"rate": 0}}, "c.slow.rate=0 is not possible; it must be above 0"),
        ({"slow": {"rate": float("nan")}}, "c.slow.rate=nan is not possible; it must be above 0"),
        ({"slow": {"rate": 10**400}}, "is not possible; it must be a number"),
        ({"slow": {"bottom": -1.0}}, "c.slow.bottom=-1.0 is not possible; it must be above 0"),
        ({"folds": 3}, "c.folds=3 is not possible; it must be whole numbers, in brackets with commas between"),
        ({"folds": "12"}, "c.folds='12' is not possible; it must be whole numbers, in brackets with commas"),
        ({"folds": (1, "2")}, "c.folds=(1, '2') is not possible; it must be whole numbers, in brackets"),
        ({"folds": (1, None)}, "c.folds=(1, None) is not possible; it must be whole numbers, in brackets"),
        ({"folds": (1, 0)}, "c.folds=(1, 0) is not possible; every one of them must be at least 1"),
        ({"folds": None}, "c.folds=None is not possible; it must be whole numbers, in brackets"),
        ({"rates": 3}, "c.rates=3 is not possible; it must be values, in brackets with commas between"),
        ({"rates": ((("a",), 1.0),)}, "c.rates=((('a',), 1.0),) is not possible; it must be values, in brackets"),
        ({"rates": ({"a": 1.0},)}, "c.rates=({'a': 1.0},) is not possible; it must be values, in brackets"),
        ({"slow": {"bottom": "low"}}, "c.slow.bottom='low' is not possible; it must be a number, or None"),
        ({"network": {"widths": 4}}, "in brackets with commas between, or None"),
        ({"network": {"widths": ()}}, "c.network.widths=() is not possible; it must have at least 1 elements"),
        ({"network": {"widths": (4, 0)}}, "c.network.widths=(4, 0) is not possible; every one of them must be at"),
        ({"act": {"noise": {"p": 1.5}}}, "c.act.noise.p=1.5 is not possible; it must be 0 to 1"),
        ({"slow": 3}, "c.slow=3 is not possible; it is a section with settings of its own"),
        ({"act": 3}, "c.act=3 is not possible; it is a section with settings of its own"),
        ({"act": {"noise": 3}}, "c.act.noise=3 is not possible; it is a section with settings of its own"),
        ({"slow": {"stpes": 1}}, "there is no setting c.slow.stpes; did you mean c.slow.steps?"),
        ({"titel": ""}, "there is no setting c.titel; did you mean c.title?"),
        ({"network": {"width": (4,)}}, "there is no setting c.network.width; did you mean c.network.widths?"),
        ({"act": {"nosie": {}}}, "there is no setting c.act.nosie; did you mean c.act.noise?"),
        (
            {"act": {"noise": {"enable": 1}}},
            "there is no setting c.act.noise.enable; did you mean c.act.noise.enabled?",
        ),
        ({"xyzzy": 1}, "there is no setting c.xyzzy"),
    ],
)
def test_what_is_no_setting_or_no_value_is_refused_by_its_path(tree, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        read(Whole, tree, path="c")


def test_what_no_setting_is_spelt_like_is_refused_without_a_guess():
    with pytest.raises(ConfigError, match=r"there is no setting config\.xyzzy$"):
        read(Whole, {"xyzzy": 1})


def test_none_is_for_what_may_be_none():
    assert read(Whole, {"slow": {"bottom": None}, "network": {"name": None, "widths": None}}) == Whole()
    assert conform(None, Leaf(int, None, 0, True), path="c") is None
    with pytest.raises(ConfigError, match="c=None is not possible; it must be a whole number"):
        conform(None, Leaf(int, None, 0, False), path="c")


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Whole().title = "b"


# ---------------------------------------------------------------------------------------------------------------------
# The settings of a run.


def test_every_leaf_of_a_run_has_a_meaning_and_a_kind():
    for path, own in defaults.leaves().items():
        assert own.kind in (bool, int, float, str, tuple), path
        assert own.element in (None, bool, int, float, str), path
        assert (own.kind is tuple) or own.element is None, path
        assert own.meaning.strip(), path


def test_every_default_of_a_run_is_possible():
    for path, own in defaults.leaves().items():
        if own.default is None:
            assert own.optional, path
        assert conform(own.default, own, path=path) == own.default, path


def test_the_config_of_a_run_is_its_settings_at_their_defaults():
    config = defaults.get_config()
    settings = defaults.settings_of(config)
    assert settings == defaults.RunSettings() == defaults.settings_of(ConfigDict())
    assert tree_of(settings) == config.to_dict()
    assert list(flat(tree_of(settings))) == list(defaults.leaves())


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("batch_size", 0, "config.batch_size=0 is not possible; it must be 1 to 1,048,576"),
        ("duration.value", float("inf"), "config.duration.value=inf is not possible; it must be above 0"),
        ("probe.label_fraction", 1.5, "config.probe.label_fraction=1.5 is not possible; it must be above 0 and at"),
        ("probe.prevalence", 30.0, "config.probe.prevalence=30.0 is not possible; it must be above 0 and below 1: a"),
        ("probe.finetune.metric.margin", 0.0, "config.probe.finetune.metric.margin=0.0 is not possible; it must be"),
        ("encoder.dropout", 1.0, "config.encoder.dropout=1.0 is not possible; it must be 0 or more and below 1"),
        (
            "augment.geodesic.max_step",
            0.6,
            "config.augment.geodesic.max_step=0.6 is not possible; it must be 0 to .5:",
        ),
        ("augment.vcg.views", (-1,), "config.augment.vcg.views=(-1,) is not possible; every one of them must be 0 or"),
        (
            "seed",
            2**63,
            f"config.seed={2**63} is not possible; it must be a whole number of at most 63 bits",
        ),
    ],
)
def test_values_of_a_run_out_of_their_bounds_are_refused_by_name(path, value, message):
    config = defaults.get_config()
    with config.ignore_type():
        config.update_from_flattened_dict({path: value})
    with pytest.raises(ConfigError, match=re.escape(message)):
        defaults.settings_of(config)
