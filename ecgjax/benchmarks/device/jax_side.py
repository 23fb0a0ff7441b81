"""The training step of this library, and its single products."""

from __future__ import annotations

import collections
import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend import core

from data_pipelines.benchmarks import harness
from ecgjax import encoders, optim
from ecgjax.benchmarks.paired_steps import (
    LEARNING_RATE,
    MARGIN,
    NUM_CLASSES,
    NUM_STEPS,
    WEIGHT_DECAY,
    PairedStep,
    Product,
    Spent,
    spent,
)
from ecgjax.benchmarks.step_breakdown import all_equations
from ecgjax.encoders import ENCODERS, cost
from ecgjax.encoders.operations.portability import portable
from ecgjax.encoders.registry import NOT_LEAVES
from ecgjax.keys import row_keys, step_key
from ecgjax.objectives.losses.triplet import triplet
from ecgjax.objectives.miners.miners import batch_hard
from ecgjax.objectives.pairs.distances import DISTANCES
from ecgjax.objectives.pairs.relations import Rows, same_label
from ecgjax.objectives.pairs.tiles import Tiling
from ecgjax.optim.settings import OptimizerSettings
from ecgjax.training import devices
from ecgjax.training.steps import Batch, Metrics, TrainState, init_state, train_step


def paired_step(encoder: str, *, batch: int, num_samples: int, precision: str) -> PairedStep:
    """Returns the step of a published encoder, with all settings of its class, for both frameworks.

    Args:
        encoder: Name of the encoder, a key of `ENCODERS`.
        batch: Recordings of a step.
        num_samples: Samples of a recording.
        precision: Type that is computed in.
    """
    cls, differing = ENCODERS[encoder]
    parameters = inspect.signature(cls.__init__).parameters
    defaults = {name: each.default for name, each in parameters.items() if name not in NOT_LEAVES}
    settings = {**defaults, **differing}
    num_leads, lead_wise = settings["num_leads"], bool(settings.pop("lead_wise", False))
    return PairedStep(
        encoder=encoder,
        architecture=cls.__name__,
        settings=settings | ({"num_leads": 1} if lead_wise else {}),
        lead_wise=lead_wise,
        num_leads=num_leads,
        num_samples=num_samples,
        batch=batch,
        precision=precision,
    )


def triplet_loss(embeddings: Array, labels: Array) -> Array:
    """Returns the triplet loss of the farthest positive and the nearest negative of every anchor.

    Args:
        embeddings: Embeddings, `f32[rows, dim]`, or `f32[rows, lead, dim]`, whose mean over leads is taken.
        labels: Class of each row, `f32[rows]`.
    """
    z = embeddings.mean(1) if embeddings.ndim == 3 else embeddings
    number = jnp.arange(len(z))
    rows = Rows(number, number, number, jnp.zeros_like(number), jnp.ones(len(z), bool), label=labels)
    miner = functools.partial(batch_hard, distance=DISTANCES["squared_euclidean"])
    out = triplet(
        z,
        rows,
        relation=same_label,
        miner=miner,
        margin=MARGIN,
        tiling=Tiling(),
        key=step_key(0, 0, stream="mining"),
    )
    return out.loss


class JaxSide:
    """The step of this library, on one device.

    Attributes:
        state: State after the last step.
    """

    state: TrainState

    def prepare(self, step: PairedStep) -> dict[str, Any]:
        """Compiles the step, takes the first one, and returns values for JSON."""
        self._encoder = encoders.create(step.encoder, seed=0, precision=step.precision)
        params = {"encoder": self._encoder.params}
        settings = OptimizerSettings(learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        optimizer = optim.create(settings, num_steps=NUM_STEPS, batch_size=step.batch, params=params)
        number = np.arange(step.batch, dtype=np.int32)
        shape = (step.batch, step.num_samples, step.num_leads)
        self._batch = {
            "ecg": jax.random.normal(jax.random.key(0), shape, jnp.float32),
            "row": jnp.asarray(number),
            "label": jnp.asarray(number % NUM_CLASSES, jnp.float32),
        }
        self.state = init_state(params, {"encoder": self._encoder.stats}, optimizer)
        traced = jax.jit(train_step(self._loss, optimizer), donate_argnums=0).trace(self.state, self._batch)
        self._step, compile_s = harness.timed(lambda: traced.lower().compile())
        self._products = products_of(self._encoder, step)
        self._program = functools.cache(lambda name, role: product_program(self._products[name][1], role))
        first, peak = self.steps(1), devices.peak_flops()
        return {
            "framework": "jax",
            "jax": jax.__version__,
            "device": jax.devices()[0].device_kind,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
            "compile_s": compile_s,
            "first_step_s": first.wall,
            "flops_per_step": cost.step_flops(traced.jaxpr.jaxpr),
            "peak_flops_per_sec": None if peak is None else peak / jax.device_count(),
            "products": [dataclasses.asdict(product) for product, _ in self._products.values()],
        }

    def steps(self, number: int) -> Spent:
        """Takes some steps, and returns the time of all."""

        def work() -> None:
            for _ in range(number):
                self.state, metrics = self._step(self.state, self._batch)
            jax.block_until_ready((self.state, metrics))

        return spent(work)

    def product(self, product: Product, role: str, runs: int) -> Spent:
        """Computes one product alone, some times, and returns the time of all."""
        program, inputs = self._program(product.name, role)
        jax.block_until_ready(inputs)
        return spent(lambda: jax.block_until_ready([program(*inputs) for _ in range(runs)]))

    def memory(self) -> dict[str, float]:
        """Returns the peak memory so far, in bytes by kind."""
        names = {"mem/host_peak_bytes": "host_peak_bytes", "mem/peak_bytes": "device_peak_bytes"}
        return {names[name]: value for name, value in devices.memory_metrics().items()}

    def _loss(
        self, params: Any, stats: Any, batch: Batch, step: Array, *, train: bool
    ) -> tuple[Array, tuple[Any, Metrics]]:
        split = self._encoder._replace(params=params["encoder"], stats=stats["encoder"])
        keys = row_keys(0, step, batch["row"], stream="dropout")
        z, after = encoders.apply(split, batch["ecg"], train=train, keys=keys)
        loss = triplet_loss(z, batch["label"])
        return loss, ({"encoder": after}, {"loss": loss})


def products_of(
    encoder: encoders.Split[encoders.Encoder], step: PairedStep
) -> dict[str, tuple[Product, core.JaxprEqn]]:
    """Returns an encoder's products by name, each with its equation in the trace of a step's forward pass.

    They are those of the portable form: where a CPU takes narrow convolutions in another form, which multiplies zeros
    too, the convolution itself is what both frameworks are asked for.

    Args:
        encoder: Encoder, of which shapes are enough.
        step: Step, which says what is encoded.
    """

    def forward(params: Any, stats: Any, ecg: Array) -> Array:
        return encoders.apply(encoder._replace(params=params, stats=stats), ecg, train=True)[0]

    ecg = jax.ShapeDtypeStruct((step.batch, step.num_samples, step.num_leads), jnp.float32)
    counts: collections.Counter[str] = collections.Counter()
    found: dict[str, tuple[Product, core.JaxprEqn]] = {}
    with portable():
        traced = jax.make_jaxpr(forward)(encoder.params, encoder.stats, ecg)
    for times, equation in all_equations(traced.jaxpr):
        if equation.primitive.name in _DESCRIBED:
            product = _DESCRIBED[equation.primitive.name](equation)
            counts[product.name] += times
            found.setdefault(product.name, (dataclasses.replace(product, first=not found), equation))
    return {
        name: (dataclasses.replace(product, times=counts[name]), equation)
        for name, (product, equation) in found.items()
    }


def product_program(equation: core.JaxprEqn, role: str) -> tuple[Any, tuple[Array, ...]]:
    """Returns a jitted program of a product, or of one of its gradients, alone, and random inputs.

    Args:
        equation: Equation of the product in a trace.
        role: Part of the product, one of `ROLES`.
    """
    shapes = [cost.shaped(each) for each in (*equation.invars, *equation.outvars)]
    rng = np.random.default_rng(0)
    left, right, out = (jnp.asarray(rng.standard_normal(each.shape, np.float32), each.dtype) for each in shapes)

    def compute(left: Array, right: Array) -> Array:
        return equation.primitive.bind(left, right, **equation.params)

    def of_left(left: Array, right: Array, out: Array) -> Array:
        return jax.vjp(lambda left: compute(left, right), left)[1](out)[0]

    def of_right(left: Array, right: Array, out: Array) -> Array:
        return jax.vjp(lambda right: compute(left, right), right)[1](out)[0]

    if role == "forward":
        return jax.jit(compute), (left, right)
    return jax.jit(of_left if role == "input gradient" else of_right), (left, right, out)


def _convolution(equation: core.JaxprEqn) -> Product:
    params = equation.params
    left, right, _ = params["dimension_numbers"]
    signal, kernel = (cost.shaped(variable).shape for variable in equation.invars)
    if params["feature_group_count"] != 1:
        raise ValueError(f"{equation}: grouped convolutions are not compared")
    rows, width_in, length = (signal[axis] for axis in left)
    width, _, size = (kernel[axis] for axis in right)
    (stride,), (padding,) = params["window_strides"], params["padding"]
    return Product(
        name=f"{rows}×{length}×{width_in}→{width}, kernel {size}, stride {stride}",
        rows=rows,
        length=length,
        width_in=width_in,
        width=width,
        kernel=size,
        stride=stride,
        padding=padding,
    )


def _matrix_product(equation: core.JaxprEqn) -> Product:
    (contracted, of_right), (batch, batch_of_right) = equation.params["dimension_numbers"]
    left, right = (cost.shaped(variable).shape for variable in equation.invars)
    groups, inner = (math.prod(left[axis] for axis in axes) for axes in (batch, contracted))
    rows = math.prod(left) // (groups * inner)
    width = math.prod(size for axis, size in enumerate(right) if axis not in (*of_right, *batch_of_right))
    together = f"{groups} of " if batch else ""
    return Product(
        name=f"{together}{rows}×{inner}→{width}",
        rows=rows,
        length=1,
        width_in=inner,
        width=width,
        groups=groups if batch else 0,
    )


_DESCRIBED: dict[str, Callable[[core.JaxprEqn], Product]] = {
    "conv_general_dilated": _convolution,
    "dot_general": _matrix_product,
}
