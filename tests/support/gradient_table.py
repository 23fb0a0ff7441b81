"""How far every leaf's gradient is from that of a plain network, as a table.

    python -m tests.support.gradient_table --encoders=resnet18:small,vit_s:small --devices=2

A leaf passes if it differs by at most four times what the plain network's own gradient moves when its input changes by
a millionth, and by at most 1 % of the leaf's greatest element, or no more than the plain one moves.
"""

import argparse
import dataclasses
import functools
import os
import sys

import numpy as np

# A ReLU or a maximum may lie so near to turning over on some recordings that a millionth, or the rounding of another
# program, turns it: then all leaves before it differ on this cohort, by a thousandth or a hundredth. A fault of the
# program does so on every cohort. So the first cohort counts on which no leaf differs by more than this; without any
# among so many, the one on which the plain gradient moves least.
_STEADY = 0.0025
_MOST_INPUTS = 16
# Rounding of float32, which gradients have that do not depend on the input at all.
_ROUNDING = 1e-6


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One leaf's gradient beside the plain network's; all but the name relative to its greatest element there.

    Attributes:
        encoder: Name of the encoder.
        name: Path of the leaf.
        error: Greatest difference.
        noise: What the plain gradient moves by when the input changes by a millionth, the greatest of three tries.
    """

    encoder: str
    name: str
    error: float
    noise: float

    @property
    def passes(self) -> bool:
        """Whether the difference is one of rounding."""
        return self.error <= max(_ROUNDING, min(4 * self.noise, max(0.01, self.noise)))


def compare(name, *, batch=8, rate_hz=100, devices=1, model=1, **settings):
    """Returns a `Leaf` for every parameter of the encoder called `name`.

    Args:
        name: A key of `ENCODERS`.
        batch: Recordings, 10 s each.
        rate_hz: Samples a second.
        devices: Devices that the recordings are divided over, for the gradient that is judged; the plain one has one.
        model: Size of the mesh's axis `model`, over which kernels are divided by their last axis.
        **settings: Settings of the encoder.
    """
    import jax

    from ecgjax.training import device_mesh
    from tests.support import plain_networks

    num_leads = settings.pop("num_leads", 8 if name.startswith("temporal_net") else 12)
    settings["num_leads"] = num_leads
    encoder, gradient = plain_networks.training_gradient(name, **settings)
    mesh = device_mesh.make_mesh(devices=jax.devices()[:devices], model=model)
    with plain_networks.plain():
        _, reference = plain_networks.training_gradient(name, **settings)

    def divided(leaf):
        along = (*(None,) * (leaf.ndim - 1), "model") if leaf.ndim > 1 and leaf.shape[-1] % model == 0 else ()
        return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*along))

    params = jax.device_put(encoder.params, jax.tree.map(divided, encoder.params))

    def judged(ecg, expected, noise):
        found = jax.device_get(gradient(params, jax.device_put(ecg, device_mesh.batch_sharding(mesh))))
        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(expected)]
        return [
            Leaf(name, jax.tree_util.keystr(path, simple=True, separator="/"), error, moved)
            for path, error, moved in zip(paths, _differences(found, expected), noise, strict=True)
        ]

    steadiest = None
    for seed in range(_MOST_INPUTS):
        ecg = plain_networks.simulated_ecg(batch, num_leads, rate_hz=rate_hz, seed=seed)
        with plain_networks.plain():
            expected = jax.device_get(reference(encoder.params, ecg))
            noise = _noise(functools.partial(reference, encoder.params), ecg, expected)
        leaves = judged(ecg, expected, noise)
        if all(leaf.passes and leaf.error <= _STEADY for leaf in leaves):
            return leaves
        if steadiest is None or max(noise) < steadiest[0]:
            steadiest = max(noise), leaves
    return steadiest[1]


def _noise(reference, ecg, expected):
    """What each leaf moves by when the input changes by a millionth, the greatest of three tries."""
    import jax

    rng = np.random.default_rng(3)
    tries = [
        _differences(jax.device_get(reference(ecg * np.float32(1 + 1e-6 * rng.choice([-1, 1], ecg.shape)))), expected)
        for _ in range(3)
    ]
    return [max(moved) for moved in zip(*tries, strict=True)]


def _differences(ours, theirs):
    """The greatest difference of each leaf, relative to the leaf's greatest element."""
    import jax

    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return [float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) for a, b in pairs]


def failures(leaves):
    """Returns a line for every leaf that does not pass."""
    return [
        f"{leaf.encoder} {leaf.name}: {leaf.error:.2e}, noise {leaf.noise:.2e}" for leaf in leaves if not leaf.passes
    ]


def main():
    """Prints the table; the status is 1 where a leaf does not pass."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", required=True, help="names, with commas between")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--model", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate_hz", type=int, default=100)
    arguments = parser.parse_args()
    import jax

    jax.config.update("jax_num_cpu_devices", arguments.devices)
    print(f"XLA_FLAGS={os.environ.get('XLA_FLAGS', '')!r}, {arguments.devices} devices")
    print("| encoder | leaves | do not pass | greatest error | there | noise there | median error |")
    print("|---|---|---|---|---|---|---|")
    passed = True
    for name in arguments.encoders.split(","):
        leaves = compare(
            name, batch=arguments.batch, rate_hz=arguments.rate_hz, devices=arguments.devices, model=arguments.model
        )
        worst = max(leaves, key=lambda leaf: leaf.error)
        failed = failures(leaves)
        passed &= not failed
        print(
            f"| `{name}` | {len(leaves)} | {len(failed)} | {worst.error:.1e} | {worst.name} | {worst.noise:.1e} "
            f"| {np.median([leaf.error for leaf in leaves]):.1e} |",
            flush=True,
        )
        for line in failed:
            print(f"    {line}", file=sys.stderr)
    sys.exit(not passed)


if __name__ == "__main__":
    main()
