"""The file of weights: what is in it, that others can read it, and that a damaged one is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecgjax import encoders
from ecgjax.errors import CheckpointError
from ecgjax.export import digest_of, flat_tensors, read_safetensors, read_weights, with_tensors, write_safetensors
from tests.ecgjax.encoders.test_all import TINY
from tests.support.plain_networks import away_from_initialisation


def abstract(name="clocs_cnn", **settings):
    return encoders.abstract(name, num_leads=12, **{"embedding_dim": 8, **TINY[name], **settings})


@pytest.fixture
def encoder():
    return away_from_initialisation(abstract())


@pytest.fixture
def path(tmp_path, encoder):
    write_safetensors(tmp_path / "model.safetensors", encoder, metadata={"recipe": "clocs", "µ": "ü"})
    return tmp_path / "model.safetensors"


def parts(path):
    """Header and numbers, by the format's description alone."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def write_parts(path, header, numbers):
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + numbers)


def test_a_dozen_lines_of_numpy_read_the_file(path, encoder):
    header, numbers = parts(path)
    header.pop("__metadata__")
    tensors = {}
    for name, of_tensor in header.items():
        assert of_tensor["dtype"] == "F32"
        start, stop = of_tensor["data_offsets"]
        tensors[name] = np.frombuffer(numbers[start:stop], "<f4").reshape(of_tensor["shape"])
    expected = flat_tensors(encoder)
    assert set(tensors) == set(expected)
    assert "params/encoder/convs/0/kernel" in tensors
    assert "stats/encoder/norms/2/var" in tensors
    for name, array in expected.items():
        np.testing.assert_array_equal(tensors[name], array)


def test_the_same_weights_give_the_same_bytes(tmp_path, encoder):
    for name in "ab":
        write_safetensors(tmp_path / name, encoder, metadata={str(number): "" for number in range(9)})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_texts_beside_the_weights_are_kept(path, encoder):
    content = read_weights(path)
    assert content.metadata == {"recipe": "clocs", "µ": "ü"}
    assert content.digest == digest_of(flat_tensors(encoder))


def test_arrays_that_do_not_lie_in_one_piece_are_written_as_what_they_are(tmp_path, encoder):
    turned = encoder._replace(params=jax.tree.map(lambda x: np.asarray(x).T.copy().T, encoder.params))
    assert any(not leaf.flags.c_contiguous for leaf in jax.tree.leaves(turned.params))
    assert write_safetensors(tmp_path / "a", turned) == write_safetensors(tmp_path / "b", encoder)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_digest_tells_names_shapes_types_and_every_bit_apart():
    array = np.arange(6, dtype=np.float32)
    other = array.copy()
    other[3] = np.nextafter(other[3], np.float32(9))
    variants = [{"a": array}, {"b": array}, {"a": array.reshape(2, 3)}, {"a": array.view(np.int32)}, {"a": other}]
    variants += [{"a": array, "b": array[:0]}, {"a": -np.zeros(6, np.float32)}, {"a": np.zeros(6, np.float32)}]
    assert len({digest_of(each) for each in variants}) == len(variants)
    assert digest_of({"a": array, "b": other}) == digest_of({"b": other, "a": array})


def flipped(header, numbers):
    return header, numbers[:100] + bytes([numbers[100] ^ 1]) + numbers[101:]


def not_finite(header, numbers):
    return header, numbers[:-4] + np.float32(np.nan).tobytes()


def overlapping(header, numbers):
    names = [name for name in header if name.endswith("bias")]
    header[names[1]]["data_offsets"] = header[names[0]]["data_offsets"]
    return header, numbers


def without_digest(header, numbers):
    del header["__metadata__"]
    return header, numbers


def of_another_format(header, numbers):
    header["__metadata__"] = {"ecgjax": '{"digest": 7, "metadata": []}'}
    return header, numbers


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flipped, "has weights of the digest .* as in its header; copy or export it again"),
        (not_finite, "has weights of the digest"),
        (overlapping, "is damaged"),
        (without_digest, "has no digest of its weights: it was not written by ecgjax"),
        (of_another_format, "has no digest of its weights"),
    ],
)
def test_a_damaged_file_is_refused(path, damage, message):
    write_parts(path, *damage(*parts(path)))
    with pytest.raises(CheckpointError, match=message) as error:
        read_safetensors(path, abstract())
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08\x00",
        (2**60).to_bytes(8, "little") + b"{}",
        (2**64 - 1).to_bytes(8, "little") + b"{}",
        (4).to_bytes(8, "little") + b"null",
        (2).to_bytes(8, "little") + b"\xff\xff",
        b"\x80\x04\x95 a pickle of something",
    ],
    ids=repr,
)
def test_what_is_no_such_file_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        read_weights(path)


def test_a_file_that_was_cut_off_is_refused(path):
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"is damaged .*copy or export it again"):
        read_weights(path)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_weights(tmp_path / "none.safetensors")


def test_types_that_numpy_has_not_are_refused(path):
    header = {"params/a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    write_parts(path, header, bytes(4))
    with pytest.raises(CheckpointError, match=r"is damaged|no digest"):
        read_weights(path)


def test_weights_that_are_not_finite_are_neither_written_nor_read(tmp_path, encoder):
    broken = jax.tree.map(lambda x: x.at[(0,) * x.ndim].set(jnp.inf), encoder.params)
    with pytest.raises(CheckpointError, match=r"the encoder: 'params/.*' holds numbers that are not finite"):
        write_safetensors(tmp_path / "a", encoder._replace(params=broken))
    assert not list(tmp_path.iterdir())


def test_weights_of_another_digest_than_was_asked_for_are_refused(path, encoder):
    known = digest_of(flat_tensors(encoder))
    read_safetensors(path, abstract(), digest=known)
    with pytest.raises(CheckpointError, match="as in what was asked for"):
        read_safetensors(path, abstract(), digest=known[::-1])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (abstract(embedding_dim=9), r"'params/encoder/head/bias' is float32\[8\], and the encoder's is float32\[9\]"),
        (abstract("resnet18"), r"\d+ names differ from the encoder's; it misses 'params/blocks/0/"),
        (abstract(lead_wise=False), r"it misses 'params/convs/0/kernel'"),
    ],
)
def test_weights_of_another_encoder_are_refused(path, other, message):
    with pytest.raises(CheckpointError, match=message):
        read_safetensors(path, other)


def test_a_weight_too_many_is_refused(encoder):
    tensors = {**flat_tensors(encoder), "a": np.zeros(3, np.float32)}
    with pytest.raises(CheckpointError, match="it has, and the encoder has not, 'a'"):
        with_tensors(encoder, tensors)
