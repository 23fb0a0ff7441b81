"""Every config of a published system can be traced at published size, and its small form differs in size alone.

`python -m tests.support.run_configs` trains two steps of each.
"""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import real_recordings, supervised_dml
from data_pipelines.records import SignalFormat
from ecgjax import defaults, encoders
from ecgjax.config import recipes
from ecgjax.config.variants import variant_of, variants_of
from ecgjax.data.measured_waves import chosen_measurements
from ecgjax.settings import sections
from ecgjax.training import assembly, device_mesh

#: Name → (variants, rows of embeddings that a recording becomes in each).
CONFIGS = {
    "simclr": {"": 2, "patients": 2},
    "pclr": {"": 1},
    "three_kg": {"": 2},
    "clocs": {"cmsc": 24, "cmlc": 24, "cmsmlc": 24},
    "dml_hemodynamics": {"l1": 1, "dtw": 1},
    "supervised_dml": {
        "binary": 1,
        "regression": 1,
        **{f"{task},{arm}": 1 for task in supervised_dml.TASKS for arm in supervised_dml.ARMS if arm},
    },
    "physioclr": {"": 4},
    "measured_waves": {"alone": 1, "simclr": 2},
    "dade_1m": {"single": 16, "dual": 4, "intersegment": 32},
}
CASES = [(name, variant) for name, variants in CONFIGS.items() for variant in variants]
BATCH = 4


def load(name, *parts):
    return importlib.import_module(f"configs.{name}").get_config(",".join(filter(None, parts)))


def shapes_alone(settings, *, seed):
    del seed
    config = sections.tree_of(settings)
    chosen = {key: value for key, value in config.items() if value is not None}
    return encoders.abstract(chosen.pop("name"), **chosen)


def model_and_batch(config):
    """What a config trains, and the shapes of a batch of four recordings at 500 Hz."""
    config.batch_size, config.micro_batch.parts = BATCH, 1
    settings = defaults.settings_of(config)
    measured = len(chosen_measurements(settings.columns))
    mesh = device_mesh.make_mesh(devices=jax.devices()[:1])
    columns = {
        "label": np.arange(BATCH, dtype=np.float32) % 2,
        "label_class": np.arange(BATCH, dtype=np.float32) // 2,
        "physiology": np.zeros((BATCH, 50), np.float32),
        "measured": np.arange(BATCH, dtype=np.float32)[:, None].repeat(measured, axis=1),
    }
    model = assembly.assemble(
        settings,
        signal_format=SignalFormat(sampling_rate_hz=500, num_samples=5000),
        train=np.arange(BATCH),
        columns=columns,
        mesh=mesh,
    )
    ids = jax.ShapeDtypeStruct((BATCH,), jnp.int32)
    return model, dict.fromkeys(("row", "record", "patient", "valid_start", "valid_samples"), ids) | {
        "signal": jax.ShapeDtypeStruct((BATCH, 5000, 8), jnp.int16),
        "valid": jax.ShapeDtypeStruct((BATCH, 1), jnp.bool_),
        **{name: jax.ShapeDtypeStruct(values.shape, values.dtype) for name, values in columns.items()},
        "seed": jax.ShapeDtypeStruct((), jnp.uint32),
    }


#: Variants beside which a faster one of the same config is traced.
ALIKE = (("clocs", "cmlc"), ("clocs", "cmsmlc"), ("dade_1m", "dual"), ("dade_1m", "intersegment"),
         ("dml_hemodynamics", "dtw"), ("measured_waves", "simclr"), ("supervised_dml", "regression"))  # fmt: skip


@pytest.mark.parametrize(
    ("name", "variant"), [pytest.param(*case, marks=pytest.mark.slow) if case in ALIKE else case for case in CASES]
)
def test_a_step_of_published_size_can_be_traced(monkeypatch, name, variant):
    monkeypatch.setattr(assembly, "create_split", shapes_alone)
    model, batch = model_and_batch(load(name, variant))
    step = functools.partial(model.loss, train=True)
    loss, (stats, metrics) = jax.eval_shape(step, model.params, model.stats, batch, jax.ShapeDtypeStruct((), jnp.int32))
    assert model.layout.rows == CONFIGS[name][variant]
    assert loss.shape == ()
    assert jax.tree.structure(stats) == jax.tree.structure(model.stats)
    assert ("reconstruction" in metrics) == (name == "physioclr")
    assert ("second" in metrics) == (variant == "patients")
    assert ("task" in metrics) == (name in ("supervised_dml", "measured_waves"))


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_the_small_form_differs_in_size_alone(name, variant):
    published, small = (sections.flat(load(name, variant, size).to_dict()) for size in ("", "small"))
    differing = {leaf for leaf in published if published[leaf] != small[leaf]}
    assert differing <= {"encoder.name", "encoder.embedding_dim", "batch_size", "micro_batch.parts"}
    assert small["encoder.name"] == f"{published['encoder.name']}:small"


def test_what_stands_behind_the_colon():
    assert variant_of("") == ("", False)
    assert variant_of("small") == ("", True)
    assert variant_of("", ("a", "b")) == ("a", False)
    assert variant_of("b, small", ("a", "b")) == ("b", True)
    assert variant_of("small", ("", "b")) == ("", True)
    for wrong in ("c", "a,b", "small,small", "a,a"):
        with pytest.raises(ValueError, match="may stand, with a comma between: small, a, b; not"):
            variant_of(wrong, ("a", "b"))


def test_a_file_with_two_choices_takes_one_of_each():
    choices = (("a", "b"), ("", "c", "d"))
    for arg, found in {
        "": (("a", ""), False),
        "b": (("b", ""), False),
        "c": (("a", "c"), False),
        "d, b,small": (("b", "d"), True),
    }.items():
        assert variants_of(arg, *choices) == found
    for wrong in ("e", "a,b", "c,d", "small,small", "a,a", "a,,c"):
        with pytest.raises(ValueError, match=r"small and one of each of: a, b; c, d; not"):
            variants_of(wrong, *choices)


def test_the_systems_of_the_study_on_real_recordings_are_those_published_with_one_budget():
    studied = {name: real_recordings.get_config(name) for name in real_recordings.SYSTEMS}
    shared = ("data.", "duration.", "batch_size", "eval_", "log_every", "checkpoint.", "columns.signal_downsample",
              "optimizer.learning_rate", "optimizer.schedule")  # fmt: skip
    leaves = {name: sections.flat(config.to_dict()) for name, config in studied.items()}
    # Ours has the rate that simulated recordings chose, and compares no recordings with each other.
    own = {"waves": {"optimizer.learning_rate", "columns.signal_downsample"}}
    for name, config in studied.items():
        defaults.settings_of(config)
        published = sections.flat(recipes.load_recipe(real_recordings.SYSTEMS[name]).to_dict())
        its_own = own.get(name, set())
        assert {leaf for leaf in published if leaves[name][leaf] != published[leaf]} <= its_own | {
            leaf for leaf in published if leaf.startswith(shared)
        }
        for leaf in published:
            if leaf.startswith(shared) and leaf not in its_own:
                assert leaves[name][leaf] == leaves["simclr"][leaf]
