"""Weights laid out for PyTorch, in modules written out in NumPy as PyTorch documents them, against ours.

Sources: the formulas under https://docs.pytorch.org/docs/stable/nn.html. PyTorch itself is not installed here.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax import encoders
from ecgjax.export import flat_tensors, from_torch, to_torch, torch_layouts
from tests.ecgjax.encoders.test_all import TINY
from tests.support.plain_networks import away_from_initialisation

RNG = np.random.default_rng(0)

#: Weights that belong to no module of `torch.nn`.
FREE = ("token_register", "query_bias", "value_bias", "biases/0", "biases/1", "biases/2", "biases/3", "biases/4")


def tiny(name, **settings):
    return away_from_initialisation(
        encoders.abstract(name, num_leads=12, embedding_dim=8, **{**TINY[name], **settings})
    )


def every():
    return [tiny(name, **({"decoder": True} if name == "physio_transformer" else {})) for name in TINY]


def module_and_weights(name, path, **settings):
    """A module of ours, and its weights as PyTorch has them, by PyTorch's names."""
    encoder = tiny(name, **settings)
    module = encoders.merge(encoder)
    for part in path.split("/"):
        module = module[int(part)] if part.isdigit() else getattr(module, part)
    layouts, weights = torch_layouts(encoder), {}
    for flat, array in flat_tensors(encoder).items():
        if flat.partition("/")[2].rpartition("/")[0] == path:
            weights[layouts[flat].parameter] = to_torch(array, layouts[flat]).astype(np.float64)
    return module, weights


def conv1d(x, weight, *, stride, padding):
    """`torch.nn.functional.conv1d`: `[batch, in, time]`, weight `[out, in, time]`."""
    x = np.pad(x, ((0, 0), (0, 0), padding))
    width = weight.shape[2]
    places = range(0, x.shape[2] - width + 1, stride)
    return np.stack([np.einsum("bik,oik->bo", x[:, :, at : at + width], weight) for at in places], axis=2)


def conv_transpose1d(x, weight, *, stride, padding):
    """`torch.nn.functional.conv_transpose1d`: weight `[in, out, time]`; every sample spreads over the kernel."""
    out = np.zeros((len(x), weight.shape[1], (x.shape[2] - 1) * stride + weight.shape[2]))
    for at in range(x.shape[2]):
        out[:, :, at * stride : at * stride + weight.shape[2]] += np.einsum("bi,iok->bok", x[:, :, at], weight)
    return out[:, :, padding : out.shape[2] - padding]


def ours(function, x):
    """Calls a module of ours with `[batch, channel, time]`."""
    return np.asarray(function(jnp.asarray(x.transpose(0, 2, 1), jnp.float32))).transpose(0, 2, 1)


def assert_close(one, other):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())


def test_a_convolution():
    module, weights = module_and_weights("resnet18", "stem_conv")
    x = RNG.normal(size=(2, 12, 20))
    padding = (weights["weight"].shape[2] // 2,) * 2
    assert_close(ours(module, x), conv1d(x, weights["weight"], stride=module.strides[0], padding=padding))


def test_a_linear_layer():
    module, weights = module_and_weights("resnet18", "head")
    x = RNG.normal(size=(3, weights["weight"].shape[1]))
    assert_close(np.asarray(module(jnp.asarray(x, jnp.float32))), x @ weights["weight"].T + weights["bias"])


def test_a_batch_norm():
    module, weights = module_and_weights("resnet18", "stem_norm")
    x = RNG.normal(size=(2, len(weights["weight"]), 20))
    mean, var, weight, bias = (
        weights[name][None, :, None] for name in ("running_mean", "running_var", "weight", "bias")
    )
    assert module.epsilon == 1e-5
    assert_close(ours(lambda x: module(x, train=False), x), (x - mean) / np.sqrt(var + 1e-5) * weight + bias)


def test_a_layer_norm():
    module, weights = module_and_weights("vit_s", "norm")
    x = RNG.normal(size=(2, 5, len(weights["weight"])))
    centred = x - x.mean(2, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(2, keepdims=True) + module.epsilon) * weights["weight"]
    assert_close(np.asarray(module(jnp.asarray(x, jnp.float32))), expected)


def test_a_group_norm_of_one_channel_a_group():
    module, weights = module_and_weights("physio_transformer", "stem/norm")
    x = RNG.normal(size=(2, len(weights["weight"]), 9))
    centred = x - x.mean(2, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(2, keepdims=True) + module.epsilon)
    assert_close(ours(module, x), normal * weights["weight"][None, :, None] + weights["bias"][None, :, None])


def test_a_transposed_convolution():
    module, weights = module_and_weights("physio_transformer", "decoder/convs/0", decoder=True)
    x = RNG.normal(size=(2, weights["weight"].shape[0], 7))
    assert_close(ours(module, x), conv_transpose1d(x, weights["weight"], stride=2, padding=1))


def test_a_convolution_with_weight_norm_and_groups():
    module, weights = module_and_weights("physio_transformer", "positions")
    direction, length = weights["weight_v"], weights["weight_g"]
    assert length.shape == (1, 1, module.kernel)
    # `weight_norm(…, dim=2)` divides by the length over all axes but the last.
    weight = length * direction / np.sqrt((direction**2).sum((0, 1), keepdims=True))
    width, group = weight.shape[0] // module.groups, weight.shape[1]
    x = RNG.normal(size=(2, group * module.groups, 11))
    parts = [
        conv1d(
            x[:, each * group : (each + 1) * group],
            weight[each * width : (each + 1) * width],
            stride=1,
            padding=(module.kernel // 2, (module.kernel - 1) // 2),
        )
        for each in range(module.groups)
    ]
    expected = np.concatenate(parts, axis=1) + weights["bias"][None, :, None]
    assert_close(ours(module, x), np.asarray(jax.nn.gelu(jnp.asarray(expected, jnp.float32), approximate=False)))


def test_a_stack_of_layers_keeps_its_first_axis():
    encoder = tiny("vit_s")
    layouts, tensors = torch_layouts(encoder), flat_tensors(encoder)
    name = "params/blocks/layers/attention/qkv/kernel"
    layers, width, three = tensors[name].shape
    assert (layouts[name].layers, layouts[name].module, layouts[name].shape) == (
        layers,
        "Linear",
        (layers, three, width),
    )
    for layer, weight in enumerate(to_torch(tensors[name], layouts[name])):
        np.testing.assert_array_equal(weight, tensors[name][layer].T)


@pytest.mark.parametrize("encoder", every(), ids=TINY)
def test_every_weight_has_a_place_and_comes_back(encoder):
    layouts, tensors = torch_layouts(encoder), flat_tensors(encoder)
    assert set(layouts) == set(tensors)
    for name, array in tensors.items():
        layout = layouts[name]
        assert (layout.module == "Parameter") == name.endswith(FREE), name
        laid_out = to_torch(array, layout)
        assert laid_out.shape == layout.shape
        np.testing.assert_array_equal(from_torch(laid_out, layout), array)


def test_shapes_are_enough_for_a_table():
    assert torch_layouts(encoders.abstract("vit_b"))["params/head/kernel"].shape == (128, 768)
