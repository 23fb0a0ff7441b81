"""Whether the compiled training step of a config goes by the right gradient: a line of JSON for each.

    python -m tests.support.step_gradients --only=simclr,dade_1m:single --batch_size=64

The step is the run's own program, with the optimiser, as XLA compiles it on this machine: which gradients it computes
again, and so what a faulty rule would do, is up to XLA. Its gradient is read off Adam's running mean, and compared
with that of the same step of a plain network (`plain_networks`) from the same state, on the same batch.
"""

import argparse
import functools
import importlib
import json
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from data_pipelines.physiology.store import measure_dataset
from ecgjax import defaults, encoders
from ecgjax.data.recordings import open_recordings
from ecgjax.data.settings import DataSettings
from ecgjax.finetuning import trainer
from ecgjax.optim.settings import OptimizerSettings
from ecgjax.settings.probe import FineTuneSettings
from ecgjax.training.run import prepare_run
from ecgjax.training.steps import init_state
from tests.support.fixtures import make_simulated_dataset
from tests.support.plain_networks import plain

NUM_PATIENTS = 80

#: Configs whose `:small` steps stand behind tables of docs/results.md, as `name:variant`.
PROGRAMS = (
    "quickstart",
    "simclr:small",
    "three_kg:small",
    "pclr:small",
    "dml_hemodynamics:l1,small",
    "dml_hemodynamics:dtw,small",
    "supervised_dml:binary,unnormalised,small",
    "supervised_dml:regression,unnormalised,small",
    "physioclr:small",
    "dade_1m:single,small",
    "dade_1m:dual,small",
    "dade_1m:intersegment,small",
    "clocs:cmsc,small",
    "clocs:cmlc,small",
    "clocs:cmsmlc,small",
    "labels:resnet18:small",
    "labels:temporal_net:small",
    "labels:physio_transformer:small",
)

#: Begins the names of programs that train an encoder with labels alone.
LABELS = "labels:"


def compare(make_config, *, steps=3):
    """Returns what `_follow` finds of the first steps of a pretraining run.

    Args:
        make_config: Makes the config; called twice.
        steps: Steps to take.
    """
    run = prepare_run(defaults.settings_of(make_config()))
    with plain():
        reference = prepare_run(defaults.settings_of(make_config()))
    stream = run.batches(run.sampler)
    found = _follow(run.step, reference.step, run.state, (next(stream) for _ in range(steps)))
    stream.close()
    return found


def compare_with_labels(encoder_name, dataset, *, batch_size, steps=3):
    """Returns what `compare` does, of training with labels: a yes or no, as the quickstart asks it, from random.

    Args:
        encoder_name: A key of `ENCODERS`.
        dataset: Folder of the data set.
        batch_size: Recordings of a batch.
        steps: Steps to take.
    """
    settings = FineTuneSettings(batch_size=batch_size)
    num_leads = 8 if encoder_name.startswith("temporal_net") else 12
    encoder = encoders.create(encoder_name, seed=0, num_leads=num_leads)

    def training():
        return trainer.FineTuning(
            settings, optimizer=OptimizerSettings(), encoder=encoder, num_leads=num_leads, kind="binary"
        )

    ours, theirs = training(), training()
    head = ours._head(seed=0)
    state = init_state(
        jax.tree.map(jnp.array, {"encoder": encoder.params, "head": head.params}),
        jax.tree.map(jnp.array, {"encoder": encoder.stats, "head": head.stats}),
        ours._optimizer,
    )
    store = open_recordings(DataSettings(dir=str(dataset))).store
    rng = np.random.default_rng(0)

    def batches():
        for _ in range(steps):
            yield {
                "signal": store.read(rng.integers(0, NUM_PATIENTS, batch_size)),
                "label": rng.integers(0, 2, (batch_size, 1)).astype(np.float32),
                "row": np.arange(batch_size, dtype=np.int32),
                "seed": np.uint32(0),
                "positive_weight": np.ones(1, np.float32),
            }

    def plain_step(state, batch):
        with plain():  # It is traced at its first call.
            return theirs._step(state, batch)

    return _follow(ours._step, plain_step, state, batches())


def _follow(step, plain_step, state, batches, *, decay=0.9):
    """Takes our step again and again, and from the same state the plain one.

    Returns:
        Of every step two dictionaries, see `differences`: of the two gradients, and of the plain one and itself with
        all parameters changed by a millionth, the greater of two tries. ReLUs that turn over make the second, too, more
        than rounding.
    """
    found, rng = [], np.random.default_rng(0)
    for batch in batches:
        before = _mean_of(state)

        def gradient(after, before=before):
            return jax.tree.map(lambda new, old: (new - decay * old) / (1 - decay), _mean_of(after), before)

        plainly = gradient(plain_step(_copy(state), batch)[0])
        nearby = [
            differences(
                gradient(plain_step(_copy(state)._replace(params=_moved(state.params, rng)), batch)[0]), plainly
            )
            for _ in range(2)
        ]
        state, _ = step(state, batch)
        noise = {name: max(tried[name] for tried in nearby) for name in nearby[0]}
        found.append((differences(gradient(state), plainly), noise))
    return found


def _copy(state):
    """The state once more, because a step destroys what it is given."""
    return jax.tree.map(jnp.copy, state)


def _moved(params, rng):
    return jax.tree.map(lambda x: x * (1 + 1e-6 * rng.choice([-1, 1], x.shape)).astype(np.float32), params)


def differences(ours, theirs):
    """Leaf → greatest difference, relative to the greatest element of the leaf; "" → that of all leaves by norms."""
    leaves = jax.tree_util.tree_leaves_with_path(ours)
    others = jax.tree.leaves(theirs)
    by_leaf = {
        jax.tree_util.keystr(path, simple=True, separator="/"): float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30))
        for (path, a), b in zip(leaves, others, strict=True)
    }
    norm = np.sqrt(sum(float((b**2).sum()) for b in others))
    return by_leaf | {
        "": np.sqrt(sum(float(((a - b) ** 2).sum()) for (_, a), b in zip(leaves, others, strict=True))) / norm
    }


def _mean_of(state):
    """Adam's running mean of gradients, on the host."""
    adam = [
        part
        for part in jax.tree.leaves(state.opt_state, is_leaf=lambda x: isinstance(x, optax.ScaleByAdamState))
        if isinstance(part, optax.ScaleByAdamState)
    ]
    (adam,) = adam
    return jax.device_get(adam.mu)


def load(program, dataset, *, batch_size, rate_hz, parts=1):
    """Returns the config of a program, as the ablations of docs/results.md change it."""
    name, _, variant = program.partition(":")
    config = importlib.import_module(f"configs.{name}").get_config(*([variant] if variant else []))
    config.data.dir, config.batch_size = str(dataset), batch_size
    config.duration.value, config.duration.unit = 200.0, "steps"
    config.optimizer.learning_rate, config.optimizer.schedule = 1e-3, "warmup_cosine"
    config.columns.signal_downsample = 4
    config.micro_batch.parts = parts
    config.micro_batch.batch_norm = "per_part"
    if name == "clocs":
        config.encoder.input_samples = 5 * rate_hz
    return config


def _beyond(step, noise):
    """Leaf → difference, where it is above 1 % and above four times what a millionth of the parameters makes."""
    return {name: _short(value) for name, value in step.items() if name and value > max(0.01, 4 * noise[name])}


def _short(value):
    return float(f"{value:.2g}")


def main():
    """Prints a line for every program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="programs, with ; between; all of docs/results.md by default")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--rate_hz", type=int, default=100)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--parts", type=int, default=1, help="micro-batches that a batch is encoded in")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dataset = make_simulated_dataset(Path(folder), num_patients=NUM_PATIENTS, rate=arguments.rate_hz)
        measure_dataset(dataset.directory, num_workers=1)
        for program in arguments.only.split(";") if arguments.only else PROGRAMS:
            common = {"batch_size": arguments.batch_size, "steps": arguments.steps}
            if program.startswith(LABELS):
                found = compare_with_labels(program.removeprefix(LABELS), dataset.directory, **common)
            else:
                make = functools.partial(
                    load,
                    program,
                    dataset.directory,
                    batch_size=arguments.batch_size,
                    rate_hz=arguments.rate_hz,
                    parts=arguments.parts,
                )
                found = compare(make, steps=arguments.steps)
            line = {
                "program": program,
                "leaves": len(found[0][0]) - 1,
                "whole": [_short(step[""]) for step, _ in found],
                "whole_by_a_millionth": [_short(noise[""]) for _, noise in found],
                "beyond_rounding": [_beyond(*each) for each in found],
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
