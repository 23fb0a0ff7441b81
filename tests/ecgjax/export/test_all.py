"""Every architecture's files, read back and compared with the embeddings that JAX computes."""

import subprocess
import sys
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest

from ecgjax import encoders
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.export import (
    digest_of,
    flat_tensors,
    inference_of,
    read_safetensors,
    read_stablehlo,
    write_onnx,
    write_safetensors,
    write_stablehlo,
)
from tests.ecgjax.encoders.test_all import TINY
from tests.ecgjax.export.onnx.running import session
from tests.support.plain_networks import away_from_initialisation

#: Several roundings of float32, at the scale of the embedding; about thirty times what was measured.
ONNX_ERROR, STABLEHLO_ERROR = 1e-5, 1e-6

#: A length that neither patches nor strides divide.
SAMPLES, BATCHES = 197, (1, 3, 7)


def signals(batch, samples=SAMPLES):
    return np.random.default_rng(0).integers(-2000, 2000, (7, samples, 8)).astype(np.int16)[:batch]


@cache
def tiny(name, precision="float32"):
    """The tiny form with statistics as if trained: at their initial values errors would hide."""
    return away_from_initialisation(
        encoders.abstract(name, precision=precision, num_leads=12, embedding_dim=8, **TINY[name])
    )


@cache
def expected(name, layer="embedding"):
    exported = inference_of(tiny(name), num_samples=SAMPLES, num_leads=12, layer=layer)
    return exported, np.asarray(exported(signals(7)))


def error(answer, wanted):
    """Greatest difference in parts of the embeddings' scale."""
    assert (answer.shape, answer.dtype) == (wanted.shape, wanted.dtype)
    return np.abs(np.asarray(answer) - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize("name", TINY)
def test_onnx_computes_what_jax_does(name, tmp_path):
    exported, wanted = expected(name)
    write_onnx(tmp_path / "model.onnx", exported)
    run = session((tmp_path / "model.onnx").read_bytes()).run
    for batch in BATCHES:
        (answer,) = run(["embedding"], {"signals": signals(batch)})
        assert error(answer, wanted[:batch]) <= ONNX_ERROR


@pytest.mark.parametrize("name", TINY)
def test_stablehlo_computes_what_jax_does(name, tmp_path):
    exported, wanted = expected(name)
    write_stablehlo(tmp_path / "model.stablehlo", exported)
    embed = read_stablehlo(tmp_path / "model.stablehlo")
    # Each batch is compiled; the slow test below takes all of `BATCHES`.
    assert error(np.asarray(embed(signals(3))), wanted[:3]) <= STABLEHLO_ERROR


@pytest.mark.parametrize("name", TINY)
def test_weights_are_read_back_to_the_last_bit(name, tmp_path):
    encoder = tiny(name)
    of_weights = write_safetensors(tmp_path / "model.safetensors", encoder)
    empty = encoders.abstract(name, num_leads=12, embedding_dim=8, **TINY[name])
    back = read_safetensors(tmp_path / "model.safetensors", empty, digest=of_weights)
    assert jax.tree.structure(back) == jax.tree.structure(encoder)
    for one, other in zip(jax.tree.leaves(encoder), jax.tree.leaves(back), strict=True):
        assert (np.asarray(one).tobytes(), one.dtype) == (np.asarray(other).tobytes(), other.dtype)
    assert digest_of(flat_tensors(back)) == of_weights
    exported, wanted = expected(name)
    again = inference_of(back, num_samples=SAMPLES, num_leads=12)
    assert again.split.graph == exported.split.graph
    np.testing.assert_array_equal(again(signals(7)), wanted)


@pytest.mark.parametrize("name", ["resnet18", "temporal_net", "xresnet1d50"])
def test_features_and_millivolts_are_exported_as_well(name, tmp_path):
    _, wanted = expected(name, "features")
    exported = inference_of(tiny(name), num_samples=SAMPLES, num_leads=12, layer="features", signals="millivolts")
    write_onnx(tmp_path / "model.onnx", exported)
    write_stablehlo(tmp_path / "model.stablehlo", exported)
    ecg = np.asarray(frozen_encoder.prepare(jnp.asarray(signals(3)), num_leads=12))
    (answer,) = session((tmp_path / "model.onnx").read_bytes()).run(["features"], {"signals": ecg})
    assert error(answer, wanted[:3]) <= ONNX_ERROR
    assert error(np.asarray(read_stablehlo(tmp_path / "model.stablehlo")(ecg)), wanted[:3]) <= STABLEHLO_ERROR


# Attention's scale and the √2 of GELU are numbers of bfloat16 in the trace, and stay what they are.
@pytest.mark.parametrize(("name", "most"), [("resnet18", ONNX_ERROR), ("clocs_cnn", ONNX_ERROR), ("vit_s", 1e-4)])
def test_onnx_of_a_bfloat16_encoder_computes_in_float32(name, most, tmp_path):
    write_onnx(tmp_path / "model.onnx", inference_of(tiny(name, "bfloat16"), num_samples=SAMPLES, num_leads=12))
    (answer,) = session((tmp_path / "model.onnx").read_bytes()).run(None, {"signals": signals(3)})
    # The leads' medians are subtracted as the encoder was trained to have it.
    ecg = np.asarray(frozen_encoder.prepare(jnp.asarray(signals(3)), num_leads=12))
    centred = ecg - np.median(ecg, axis=1, keepdims=True)
    wanted = inference_of(tiny(name), num_samples=SAMPLES, num_leads=12, signals="millivolts")(centred)
    assert error(answer, np.asarray(wanted)) <= most


def test_a_frozen_encoder_tells_its_leads_and_its_layer(tmp_path):
    frozen = frozen_encoder.Encoder(tiny("resnet18"), num_leads=12, layer="features", batch_size=7)
    exported = inference_of(frozen, num_samples=SAMPLES)
    assert (exported.num_leads, exported.layer) == (12, "features")
    write_onnx(tmp_path / "model.onnx", exported)
    (answer,) = session((tmp_path / "model.onnx").read_bytes()).run(["features"], {"signals": signals(7)})
    assert error(answer, frozen.embed(signals(7))) <= ONNX_ERROR


def test_a_module_is_exported_like_its_parts(tmp_path):
    exported, wanted = expected("resnet18")
    module = inference_of(encoders.merge(tiny("resnet18")), num_samples=SAMPLES, num_leads=12)
    np.testing.assert_array_equal(module(signals(7)), wanted)
    assert exported.layer == module.layer == "embedding"


def test_a_model_says_what_it_takes(tmp_path):
    exported, _ = expected("temporal_net")
    write_onnx(tmp_path / "model.onnx", exported, metadata={"recipe": "simclr"})
    made = onnx.load(tmp_path / "model.onnx")
    assert {each.key: each.value for each in made.metadata_props} == {
        "recipe": "simclr",
        "signals": "int16[batch, time, 8], I II V1 V2 V3 V4 V5 V6 in µV",
        "weights": digest_of(flat_tensors(exported.split)),
    }
    shapes = [
        [each.dim_param or each.dim_value for each in end.type.tensor_type.shape.dim]
        for end in (*made.graph.input, *made.graph.output)
    ]
    assert shapes == [["batch", SAMPLES, 8], ["batch", 12, 8]]


def test_a_program_needs_nothing_but_jax(tmp_path):
    exported, wanted = expected("resnet18")
    about = write_stablehlo(tmp_path / "model.stablehlo", exported)
    assert (about.jax_version, about.platforms) == (jax.__version__, ("cpu", "cuda", "tpu"))
    assert "6 months" in about.shelf_life
    np.save(tmp_path / "signals.npy", signals(3))
    program = f"""
import sys
for name in ("ecgjax", "flax", "data_pipelines", "onnx"):
    sys.modules[name] = None
import jax, numpy
from jax import export
folder = {str(tmp_path)!r}
content = bytearray(open(folder + "/model.stablehlo", "rb").read())
numpy.save(folder + "/out.npy", export.deserialize(content).call(numpy.load(folder + "/signals.npy")))
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
    assert error(np.load(tmp_path / "out.npy"), wanted[:3]) <= STABLEHLO_ERROR


#: Encoders whose files of the published size are left to the soak, some of which take minutes. Those of the small
#: forms, of the same programs in fewer channels and layers, are tested here, and those of the tiny ones above.
LARGEST = tuple(name for name in encoders.ENCODERS if ":" not in name and name != "resnet18")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.soak) if name in LARGEST else name for name in encoders.ENCODERS],
)
def test_files_of_every_registered_size_compute_what_jax_does(name, tmp_path):
    num_leads = encoders.ENCODERS[name][1].get("num_leads", 12)
    exported = inference_of(away_from_initialisation(encoders.abstract(name)), num_samples=2500, num_leads=num_leads)
    write_onnx(tmp_path / "model.onnx", exported)
    write_stablehlo(tmp_path / "model.stablehlo", exported)
    run, embed = session((tmp_path / "model.onnx").read_bytes()).run, read_stablehlo(tmp_path / "model.stablehlo")
    for batch in BATCHES:
        wanted = np.asarray(exported(signals(batch, 2500)))
        assert error(run(None, {"signals": signals(batch, 2500)})[0], wanted) <= ONNX_ERROR
        assert error(np.asarray(embed(signals(batch, 2500))), wanted) <= STABLEHLO_ERROR
