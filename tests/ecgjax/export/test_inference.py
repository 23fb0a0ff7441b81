"""What can be exported, and what is told where it cannot."""

import re

import numpy as np
import pytest
from jax import export

from ecgjax import encoders
from ecgjax.encoders.operations import attention, convolutions
from ecgjax.encoders.operations.portability import is_portable, portable
from ecgjax.errors import CheckpointError, ConfigError
from ecgjax.export import inference_of, read_stablehlo, stablehlo, write_stablehlo
from tests.ecgjax.encoders.test_all import TINY
from tests.support.plain_networks import away_from_initialisation


@pytest.fixture(scope="module")
def encoder():
    return away_from_initialisation(encoders.abstract("clocs_cnn", num_leads=12, embedding_dim=8, **TINY["clocs_cnn"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_leads": None}, "num_leads=None: the encoder does not tell how many leads it takes"),
        ({"signals": "volts"}, "signals='volts' is unknown; there are: stored, millivolts"),
        ({"layer": "head"}, "layer='head' is unknown; there are: embedding, features"),
        ({"num_samples": 0}, "num_samples=0 must be at least 1"),
        ({"num_leads": 9}, "config.encoder.num_leads=9 is not possible: the stored leads give 8 or 12"),
        ({"num_leads": 8}, "the encoder takes no recordings of 400 samples and 8 leads: "),
    ],
)
def test_what_cannot_be_exported_is_told(encoder, arguments, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        inference_of(encoder, **{"num_samples": 400, "num_leads": 12, **arguments})


def test_shapes_are_known_up_to_the_batch(encoder):
    exported = inference_of(encoder, num_samples=400, num_leads=12)
    (batch, *rest), out = exported.input_spec().shape, exported.output_spec()
    assert (str(batch), rest, exported.input_spec().dtype) == ("batch", [400, 8], np.int16)
    assert (str(out.shape[0]), out.shape[1:], out.dtype) == ("batch", (12, 8), np.float32)


def test_a_portable_program_asks_nothing_of_this_machine(monkeypatch):
    encoder = encoders.abstract("physio_transformer", num_leads=12, embedding_dim=8, **TINY["physio_transformer"])
    exported = inference_of(encoder, num_samples=400, num_leads=12)

    def asked(*_):
        raise AssertionError("the machine's devices")

    here = str(exported.output_spec())
    monkeypatch.setattr(attention, "target_device", asked)
    monkeypatch.setattr(convolutions, "for_cpu", asked)
    assert str(exported.output_spec()) == here
    assert not is_portable()
    with portable():
        assert is_portable()


def test_a_program_for_unknown_devices_is_refused(encoder, tmp_path):
    exported = inference_of(encoder, num_samples=400, num_leads=12)
    with pytest.raises(ConfigError, match=r"\['abacus'\] are unknown; there are: cpu, cuda, tpu"):
        write_stablehlo(tmp_path / "model.stablehlo", exported, platforms=("cpu", "abacus"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content", [b"", b"nothing", bytes(1000), b"\xff" * 1000], ids=["empty", "text", "zeros", "ones"]
)
def test_a_damaged_program_is_refused(tmp_path, content):
    path = tmp_path / "model.stablehlo"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is damaged, or JAX .* does not read it any more .*6 months"):
        read_stablehlo(path)


def test_a_program_that_is_not_there_is_said(tmp_path):
    with pytest.raises(CheckpointError, match="none cannot be read: No such file"):
        read_stablehlo(tmp_path / "none")


def test_without_flatbuffers_the_remedy_is_told(encoder, tmp_path, monkeypatch):
    def serialize(self, *_):
        raise ImportError("Please install 'flatbuffers'")

    monkeypatch.setattr(export.Exported, "serialize", serialize)
    exported = inference_of(encoder, num_samples=400, num_leads=12)
    with pytest.raises(ConfigError, match=r"flatbuffers, which is not installed; run: pip install 'ecgjax\[export\]'"):
        write_stablehlo(tmp_path / "model.stablehlo", exported)
    monkeypatch.setattr(stablehlo.export, "deserialize", serialize)
    (tmp_path / "model.stablehlo").write_bytes(b"anything")
    with pytest.raises(ConfigError, match=r"read with the package flatbuffers, which is not installed"):
        read_stablehlo(tmp_path / "model.stablehlo")
