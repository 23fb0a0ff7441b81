"""What is refused of a folder, in one sentence each, and what is checked only once."""

import json
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import ecgjax
from ecgjax.errors import ConfigError
from ecgjax.export.file_names import CONFIG_FILE, PREPROCESSOR_FILE, SAMPLE_FILE, WEIGHTS_FILE
from ecgjax.model import reproduced
from ecgjax.model.json_file import MOST_BYTES
from tests.ecgjax.model.written import change, read, rewrite, write_model


def refusal(folder):
    with pytest.raises(ConfigError) as caught:
        ecgjax.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    return message


def test_a_model_tells_what_it_is_and_what_it_takes(exported):
    model = ecgjax.load(exported)
    told = repr(model)
    for words in (
        "resnet18",
        "made_up",
        "0 exposures",
        "SIMULATED",
        "mV",
        "250 Hz",
        "10 s",
        "recipe plain, version 1",
        "I, II, V1",
    ):
        assert words in told
    assert (model.sampling_rate_hz, model.seconds, model.num_samples) == (250, 10.0, 2500)
    assert (model.dimension, model.layer, len(model.leads), len(model.encoder_leads)) == (8, "features", 8, 12)
    assert model.weights_digest == read(exported / CONFIG_FILE)["weights_digest"]


def test_other_paths_say_what_to_give_instead(exported, tmp_path):
    assert "weights alone" in refusal(exported / WEIGHTS_FILE)
    assert "no such folder" in refusal(tmp_path / "nowhere")
    assert "copy the folder" in refusal("gs://bucket/model")
    (tmp_path / "lone").mkdir()
    (tmp_path / "lone" / WEIGHTS_FILE).write_bytes((exported / WEIGHTS_FILE).read_bytes())
    assert f"no {CONFIG_FILE}" in refusal(tmp_path / "lone")
    run = tmp_path / "run"
    run.mkdir()
    (run / CONFIG_FILE).write_text(json.dumps({"encoder": {}, "optimizer": {}}))
    assert f"python -m ecgjax.export --workdir={run}" in refusal(run)
    (run / CONFIG_FILE).unlink()
    (run / "checkpoints").mkdir()
    assert "ecgjax.export" in refusal(run)


def test_what_a_stranger_says_is_shown_without_what_a_terminal_obeys(damaged):
    change(damaged / CONFIG_FILE, training={"steps": "\x1b[2J"}, data=[{"name": "\x1b[31m" * 99}, 3])
    told = repr(ecgjax.load(damaged))
    assert "\x1b" not in told
    assert len(told) < 2000


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"format": "other"}, "'format'"),
        ({"format_version": 2}, "'format_version' is 2"),
        ({"format_version": True}, "'format_version'"),
        ({"encoder": None}, "'encoder'"),
        ({"encoder": {"name": "resnet18", "nonsense": 1}}, "nonsense"),
        ({"encoder": {"name": "resnet18", "num_leads": 12, "widths": [2**40]}}, "widths"),
        ({"encoder": {"name": "resnet18", "num_leads": 12, "widths": [4] * 1000}}, "widths"),
        ({"encoder": {"name": "resnet18", "num_leads": 12, "widths": [4, 4, 8, 16], "embedding_dim": 8}}, "params/"),
        ({"encoder": {"name": "xresnet1d50", "num_leads": 12, "num_blocks": [60000]}}, "num_blocks"),
        ({"architecture": "nonsense"}, "nonsense"),
        ({"architecture": 3}, "'architecture'"),
        ({"num_leads": 8}, "num_leads"),
        ({"num_leads": 2**60}, "'num_leads'"),
        ({"layer": "last"}, "'layer'"),
        ({"dimension": "8"}, "'dimension'"),
        ({"weights_digest": "0" * 32}, "0" * 32),
        ({"head": 3}, "'head'"),
    ],
    ids=str,
)
def test_configurations_that_are_not_possible(damaged, changes, told):
    change(damaged / CONFIG_FILE, **changes)
    assert told in refusal(damaged)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"no json", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"", "no JSON"),
        (b"[1, 2]", "list"),
        (b'{"format": NaN}', "NaN"),
        (b'{"a":' * 100_000, "nested"),
        (b'"' + b" " * MOST_BYTES + b'"', "larger"),
    ],
    ids=["text", "bytes", "empty", "list", "nan", "nested", "huge"],
)
@pytest.mark.parametrize("name", [CONFIG_FILE, PREPROCESSOR_FILE])
def test_json_that_is_none(damaged, name, content, told):
    (damaged / name).write_bytes(content)
    if name == PREPROCESSOR_FILE:
        rewrite(damaged)
    assert told in refusal(damaged)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"unit": "mV"}, "'unit'"),
        ({"dtype": "float32"}, "'dtype'"),
        ({"leads": ["I"]}, "'leads'"),
        ({"encoder_leads": ["I"]}, "'encoder_leads'"),
        ({"num_samples": 2499}, "2499"),
        ({"num_samples": 2**60}, "'num_samples'"),
        ({"sampling_rate_hz": 500}, "2500"),
        ({"recipe_version": 2}, "version 2"),
        ({"recipe_version": "1"}, "'recipe_version'"),
        ({"recipe": "mine"}, "'mine'"),
        ({"recipe": None}, "'recipe'"),
        ({"seconds": 1e9}, "--seconds=1e+09"),
        ({"seconds": "ten"}, "'seconds'"),
        ({"highpass_hz": "low"}, "recipe that is not possible"),
        ({"baseline": "none"}, "--baseline=none"),
    ],
    ids=str,
)
def test_preparations_that_are_not_possible(damaged, changes, told):
    change(damaged / PREPROCESSOR_FILE, **changes)
    rewrite(damaged)
    assert told in refusal(damaged)


def _header(tensors):
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


_F32 = {"dtype": "F32", "shape": [1]}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (struct.pack("<Q", 2**60) + b"{}", "damaged"),
        (struct.pack("<Q", 4) + b"\x80\x04\x95.", "damaged"),
        (b"", "damaged"),
        (
            _header({"a": {**_F32, "data_offsets": [0, 4]}, "b": {**_F32, "data_offsets": [2, 6]}}) + bytes(6),
            "damaged",
        ),
        (_header({"a": {**_F32, "data_offsets": [0, 2**50]}}) + bytes(4), "damaged"),
        (_header({"../../a": {**_F32, "data_offsets": [0, 4]}}) + bytes(4), "digest"),
    ],
    ids=["length of 2^60", "pickle", "empty", "overlapping", "beyond the end", "no digest"],
)
def test_weights_that_are_none(damaged, content, told):
    (damaged / WEIGHTS_FILE).write_bytes(content)
    rewrite(damaged)
    assert told in refusal(damaged)


def _tampered(folder, tamper):
    """Writes the weights anew with a digest that fits, after they were tampered with."""
    import safetensors.numpy

    from ecgjax.export import digest_of, read_weights

    tensors = dict(read_weights(folder / WEIGHTS_FILE).tensors)
    tamper(tensors)
    digest = digest_of(tensors)
    entry = json.dumps({"digest": digest, "metadata": {}})
    (folder / WEIGHTS_FILE).write_bytes(safetensors.numpy.save(tensors, metadata={"ecgjax": entry}))
    rewrite(folder, weights_digest=digest)


def test_weights_under_other_names_are_refused(damaged):
    def as_path(tensors):
        tensors["../../../etc/passwd"] = tensors.pop(sorted(tensors)[0])

    _tampered(damaged, as_path)
    assert "2 names differ" in refusal(damaged)


def test_weights_that_are_not_finite_are_refused(damaged):
    def nan(tensors):
        next(iter(tensors.values()))[...] = np.nan

    _tampered(damaged, nan)
    assert "not finite" in refusal(damaged)


def test_one_changed_weight_is_found_by_the_sample(damaged):
    def scaled(tensors):
        name = next(name for name in sorted(tensors) if name.endswith("kernel"))
        tensors[name] = tensors[name] * np.float32(1.05)

    _tampered(damaged, scaled)
    assert "not reproduced" in refusal(damaged)


def test_files_that_are_damaged_missing_or_elsewhere(damaged, tmp_path):
    path = damaged / WEIGHTS_FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert "bytes" in refusal(damaged)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "SHA-256" in refusal(damaged)
    path.unlink()
    assert "missing" in refusal(damaged)
    (tmp_path / "elsewhere").write_bytes(whole)
    path.symlink_to(tmp_path / "elsewhere")
    assert "link" in refusal(damaged)
    path.unlink()
    (damaged / "beside").write_bytes(whole)
    path.symlink_to("beside")
    ecgjax.load(damaged)


def test_lists_of_files_that_lead_elsewhere_or_say_nothing(damaged):
    files = read(damaged / CONFIG_FILE)["files"]
    change(damaged / CONFIG_FILE, files={**files, "../../x": {}})
    assert "no plain file name" in refusal(damaged)
    change(damaged / CONFIG_FILE, files={**files, WEIGHTS_FILE: 3})
    assert "does not list" in refusal(damaged)
    change(damaged / CONFIG_FILE, files=[])
    assert "'files'" in refusal(damaged)


def test_samples_that_are_damaged(damaged):
    path = damaged / SAMPLE_FILE
    for content in (b"", b"PK\x03\x04", path.read_bytes()[:-30]):
        path.write_bytes(content)
        rewrite(damaged)
        assert "no sample" in refusal(damaged)
    signals, embeddings = np.zeros((3, 2500, 8), np.int16), np.zeros((3, 8), np.float32)
    np.savez(path, signals=signals, embeddings=np.array([{}], object))
    rewrite(damaged)
    assert "no sample" in refusal(damaged)
    np.savez(path, signals=signals, embeddings=embeddings[:2])
    rewrite(damaged)
    assert "embeddings" in refusal(damaged)
    np.savez(path, signals=signals, embeddings=np.full_like(embeddings, np.nan))
    rewrite(damaged)
    assert "not finite" in refusal(damaged)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("signals.npy", "w") as file:
        for _ in range(64):
            file.write(bytes(2**20))
    rewrite(damaged)
    assert "no sample" in refusal(damaged)


def test_the_sample_is_tried_once_for_each_folder(exported, monkeypatch, tmp_path):
    tried = []
    monkeypatch.setattr(reproduced, "_read_sample", lambda *given: tried.append(given) or _zeros())
    monkeypatch.setattr("ecgjax.model.applied.Model.embed_prepared", lambda self, signals: _zeros()["embeddings"])
    monkeypatch.setenv(reproduced.CACHE_VARIABLE, str(tmp_path / "cache"))
    ecgjax.load(exported)
    ecgjax.load(exported)
    assert len(tried) == 1
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(reproduced.CACHE_VARIABLE, str(tmp_path / "file"))
    ecgjax.load(exported)
    ecgjax.load(exported)
    assert len(tried) == 3


def test_a_cache_that_may_not_be_read_is_none(monkeypatch):
    def not_permitted(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(reproduced.Path, "is_file", not_permitted)
    assert not reproduced._is_there(reproduced.Path("mark"))


def _zeros():
    return {"signals": np.zeros((3, 2500, 8), np.int16), "embeddings": np.ones((3, 8), np.float32)}


def test_a_package_alone_is_enough_to_load(exported):
    code = f"import ecgjax, sys; ecgjax.load({str(exported)!r}); print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("name", ["vit_s", "temporal_net"])
def test_other_encoders_are_loaded(name, tmp_path):
    num_leads = 8 if name == "temporal_net" else 12
    model = ecgjax.load(write_model(tmp_path / name, name, num_leads=num_leads, layer="embedding"))
    assert model.description.architecture == name
    assert model.layer == "embedding"
