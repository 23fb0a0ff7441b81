"""Settings of a run: every leaf bounded, described, and refused by name where its value makes no sense."""

import pytest

from configs import simclr
from ecgjax import defaults
from ecgjax.errors import ConfigError
from ecgjax.settings.sections import flat, tree_of


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("log_every", 0),
        ("batch_size", 0),
        ("eval_batches", 0),
        ("checkpoint.every", 0),
        ("checkpoint.keep", 0),
        ("duration.value", float("nan")),
        ("duration.value", float("inf")),
        ("seed", 2**63),
        ("encoder.dropout", 1.0),
        ("encoder.widths", (0,)),
        ("encoder.widths", (16, -1)),
        ("encoder.widths", ()),
        ("encoder.num_leads", 0),
        ("augment.random_crop.ratio", 1.5),
        ("augment.time_mask.ratio", 1.0),
        ("augment.vcg.max_scale", 0.5),
        ("augment.geodesic.regularisation", 0.0),
        ("objective.temperature", 0.0),
        ("objective.degrees", 90.0),
        ("miner.triplets", 0),
        ("columns.signal_farthest", 0),
        ("task.dropout", 1.0),
        ("task.hidden", 0),
        ("encoder.embedding_dim", 0),
        ("encoder.num_heads", 0),
        ("encoder.position_groups", 0),
        ("optimizer.b2", 1.0),
        ("tiling.chunk", 0),
        ("optimizer.warmup_fraction", 1.1),
        ("optimizer.layer_decay", 0.0),
        ("optimizer.ema_decay", 1.0),
        ("probe.label_fraction", 0.0),
        ("probe.treat_at", (0.1, 10.0)),
        ("probe.supervised.eval_every", 0),
        ("probe.finetune.metric.margin", 0.0),
    ],
)
def test_values_that_make_no_sense_are_refused_by_name(name, value):
    config = simclr.get_config()
    defaults.settings_of(config)
    config.update_from_flattened_dict({name: value})
    with pytest.raises(ConfigError) as error:
        defaults.settings_of(config)
    assert f"config.{name}={value!r} is not possible; " in str(error.value)
    assert "must" in str(error.value)


def test_every_leaf_is_described():
    leaves = defaults.leaves()
    assert len(leaves) > 200
    assert not [name for name, leaf in leaves.items() if not leaf.meaning]


def test_settings_hold_the_values_of_their_config():
    config = simclr.get_config("small")
    assert flat(tree_of(defaults.settings_of(config))) == flat(config.to_dict())
