"""What the graph of a converted trace looks like, and what is refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from jax import lax

from ecgjax import defaults, encoders
from ecgjax.errors import ConfigError
from ecgjax.export import flat_tensors, inference_of, write_onnx
from ecgjax.export.onnx import checked_model, windows
from ecgjax.export.onnx.conversion import supported
from ecgjax.export.onnx.graph import UnsupportedError
from tests.ecgjax.encoders.test_all import TINY
from tests.ecgjax.export.onnx.running import converted, primitives_of, run, session
from tests.project.test_configs import CASES, load, shapes_alone
from tests.support.plain_networks import away_from_initialisation

#: Encoders of configs that were found to be converted: most variants of a config have the same one.
CONVERTED = []

TYPICAL = ("resnet18", "physio_transformer", "vit_s", "xresnet1d50")


def tiny(name, **settings):
    return away_from_initialisation(encoders.abstract(name, num_leads=12, embedding_dim=8, **TINY[name], **settings))


def model_of(name):
    encoder = tiny(name)
    return encoder, checked_model.model_of(inference_of(encoder, num_samples=192, num_leads=12))


def operators(made):
    return [node.op_type for node in made.graph.node]


def values_of(made):
    return {each.name: onnx.numpy_helper.to_array(each) for each in made.graph.initializer}


def assert_converted(encoder, *, num_leads, samples):
    exported = inference_of(encoder, num_samples=samples, num_leads=num_leads)
    trace = jax.make_jaxpr(exported.apply)(*encoder[1:], exported.input_spec())
    assert primitives_of(trace.jaxpr) <= {*supported()}


@pytest.mark.parametrize("precision", encoders.PRECISIONS)
@pytest.mark.parametrize("name", TINY)
def test_every_primitive_of_every_architecture_is_converted(name, precision):
    assert_converted(tiny(name, precision=precision), num_leads=12, samples=197)


@pytest.mark.slow
@pytest.mark.parametrize("precision", encoders.PRECISIONS)
@pytest.mark.parametrize("name", encoders.ENCODERS)
def test_every_primitive_of_every_registered_size_is_converted(name, precision):
    num_leads = encoders.ENCODERS[name][1].get("num_leads", 12)
    for samples in (1007, 2500):
        assert_converted(encoders.abstract(name, precision=precision), num_leads=num_leads, samples=samples)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), CASES)
def test_every_primitive_of_every_published_config_is_converted(name, variant):
    for size in ("", "small"):
        settings = defaults.settings_of(load(name, variant, size)).encoder
        if settings not in CONVERTED:
            assert_converted(shapes_alone(settings, seed=0), num_leads=settings.num_leads, samples=5000)
            CONVERTED.append(settings)


def test_a_weight_is_a_constant_of_its_flat_name_whatever_the_order_of_its_axes():
    encoder, made = model_of("resnet18")
    tensors, constants = flat_tensors(encoder), values_of(made)
    kernels = [name for name in tensors if name.endswith("kernel")]
    assert len(kernels) > 4
    for name in kernels:
        order = (2, 1, 0) if tensors[name].ndim == 3 else (0, 1)
        np.testing.assert_array_equal(constants[name], tensors[name].transpose(order))
    # The rest is computed from weights, and named after the first of them.
    bases = {name.partition(":")[0].partition("[")[0] for name in constants if "/" in name}
    assert bases <= set(tensors)
    scale = constants["params/stem_norm/scale:mul"].ravel()
    expected = tensors["params/stem_norm/scale"] / np.sqrt(tensors["stats/stem_norm/var"] + np.float32(1e-5))
    np.testing.assert_allclose(scale, expected, rtol=1e-6)


def test_a_layer_of_a_stack_is_named_by_its_number():
    encoder, made = model_of("vit_s")
    kernels = flat_tensors(encoder)["params/blocks/layers/attention/qkv/kernel"]
    for layer, kernel in enumerate(kernels):
        np.testing.assert_array_equal(values_of(made)[f"params/blocks/layers/attention/qkv/kernel[{layer}]"], kernel)


@pytest.mark.parametrize("name", TYPICAL)
def test_no_weight_is_stored_twice_and_none_is_computed_by_the_graph(name):
    encoder, made = model_of(name)
    size = sum(array.nbytes for array in flat_tensors(encoder).values())
    large = {name: array for name, array in values_of(made).items() if "/" in name and array.size > 100}
    assert sum(array.nbytes for array in large.values()) <= size
    depends = {"signals"}
    for node in made.graph.node:
        assert depends & {*node.input}, f"{node.op_type} computes a constant"
        depends |= {*node.output}


def test_nothing_is_transposed_between_convolutions():
    _, made = model_of("resnet18")
    found = operators(made)
    assert found.count("Conv") > 8
    # To the order of convolutions once, and back once, for the sum over time.
    assert found.count("Transpose") <= 2


def test_the_same_encoder_gives_the_same_bytes():
    first, second = (checked_model.bytes_of(model_of("clocs_cnn")[1]) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("primitive", ["layout", "thin", "folded"])
def test_constants_are_folded_and_moved_as_inputs_are(primitive):
    function = {
        "layout": lambda x, w: x.transpose(0, 2, 1) * w.transpose(1, 0)[None] + w.T[None],
        "thin": lambda x, w: x + jnp.broadcast_to(w[:1][None], x.shape) * jnp.broadcast_to(w[None, :, :1], x.shape),
        "folded": lambda x, w: x * jnp.broadcast_to((jnp.exp(w) / lax.rsqrt(w.sum(0)[None] ** 2 + 1))[None], x.shape),
    }[primitive]
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(3, 4, 5)).astype(np.float32), rng.normal(size=(4, 5)).astype(np.float32)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        (as_constant,), _ = run(function, (x, w), constants=(1,))
        (as_input,), _ = run(function, (x, w))
        expected = function(x, w)
    np.testing.assert_allclose(as_constant, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(as_input, expected, rtol=1e-5, atol=1e-5)


def test_dropped_padding_of_a_max_pool_would_be_noticed(monkeypatch):
    """A negative control: the fault that jax2onnx 0.17.1 has, padding that goes elsewhere without a word."""
    encoder = tiny("resnet18")
    exported = inference_of(encoder, num_samples=192, num_leads=12)
    signals = np.random.default_rng(0).integers(-900, 900, (3, 192, 8)).astype(np.int16)
    expected = np.asarray(exported(signals))

    def error():
        answer = session(checked_model.bytes_of(checked_model.model_of(exported))).run(None, {"signals": signals})[0]
        return np.abs(answer - expected).max() / np.abs(expected).max()

    assert error() < 1e-5
    steps = windows._steps

    def shifted(strides, dilations, pads):
        # As many windows as with the padding of one sample on both sides.
        return steps(strides, dilations, [(0, 2) if pads == [(1, 1)] and strides == [2] else each for each in pads])

    monkeypatch.setattr(windows, "_steps", shifted)
    assert error() > 1e-3


def spectrum(x):
    return jnp.abs(jnp.fft.rfft(x, axis=1))


def transposed(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (1,), [(1, 1)], lhs_dilation=(2,), dimension_numbers=("NWC", "WIO", "NWC")
    )


def padded_by_windows(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 1), (1, 2, 1), ((0, 0), (2, 0), (0, 0)))


@pytest.mark.parametrize(
    ("function", "shapes", "message"),
    [
        (spectrum, [(3, 8)], r"'fft'.* has no form in ONNX here; those that have one: abs, add, "),
        (transposed, [(3, 8, 2), (3, 2, 4)], "'conv_general_dilated'.* for a transposed convolution"),
        (padded_by_windows, [(3, 8, 2)], "'reduce_window_max'.* for a max-pool whose padding is as long as its window"),
        (lambda x: x[1:], [(3, 8)], "'(gather|slice)'.* for a (gather from|slice of) the batch"),
        (lambda x: lax.pad(x, np.float32(0), ((0, 0, 0), (0, 0, 1))), [(3, 8)], "'pad'.* for a padding between"),
        (lambda x: lax.sort((x, x), num_keys=1), [(3, 8)], "'sort'.* for a sort of several arrays"),
        (lambda x: lax.while_loop(lambda x: x.sum() > 0, lambda x: x - 1, x), [(3, 8)], "'while'"),
    ],
)
def test_what_has_no_form_is_refused_by_name(function, shapes, message):
    with pytest.raises(UnsupportedError, match=message):
        converted(function, [jnp.zeros(shape) for shape in shapes])


def test_an_encoder_that_has_no_form_is_refused_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(encoders.ResNet18, "project", lambda self, features: spectrum(features))
    exported = inference_of(tiny("resnet18"), num_samples=192, num_leads=12)
    with pytest.raises(ConfigError, match=r"cannot be written as ONNX: 'fft'.*Write model.stablehlo in its place"):
        write_onnx(tmp_path / "model.onnx", exported)
    assert not list(tmp_path.iterdir())


def test_without_the_package_the_remedy_is_told(tmp_path, monkeypatch):
    import sys

    for name in [
        each for each in sys.modules if each.partition(".")[0] == "onnx" or each == "ecgjax.export.onnx.checked_model"
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("ecgjax.export.onnx.checked_model")
    monkeypatch.setitem(sys.modules, "onnx", None)
    exported = inference_of(tiny("clocs_cnn"), num_samples=192, num_leads=12)
    with pytest.raises(ConfigError, match=r"onnx, which is not installed; run: pip install 'ecgjax\[export\]'"):
        write_onnx(tmp_path / "model.onnx", exported)
