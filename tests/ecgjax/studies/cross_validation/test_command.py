"""The command: runs, exported models, encoders at random, or none of them."""

import json
import shutil
import types

import jax
import pytest

from ecgjax import cross_validate as entry
from ecgjax.errors import ConfigError
from ecgjax.evaluation.features import frozen_encoder
from ecgjax.evaluation.results import read_results
from ecgjax.export.model_folder import export_run
from ecgjax.leakage import guard
from ecgjax.settings.sections import tree_of
from ecgjax.studies.cross_validation import Study
from tests.ecgjax.studies.cross_validation.small_study import method
from tests.support.written_runs import tiny, write_run


class Given:
    """Flags as `absl` holds them."""

    def __init__(self, **given):
        defaults = {
            "workdir": [], "encoder": "", "baselines": ["demographics"], "links": "", "task": ["female"],
            "fractions": ["1"], "seeds": 1, "overlaps": "refuse",
            "model": [], "statistics": None, "pretraining_data": [], "anonymous": False,
        }  # fmt: skip
        vars(self).update(defaults | given)

    def __getitem__(self, name):
        return types.SimpleNamespace(value=getattr(self, name))


@pytest.fixture
def give(tested_set, tmp_path, monkeypatch):
    """Gives the command some flags; one encoder is the smallest."""
    monkeypatch.setattr(frozen_encoder, "RECALIBRATION_BATCHES", 1)

    def give(**given):
        flags = Given(
            dataset=str(tested_set.directory), out=str(tmp_path / "out"), config=tree_of(method()), **given
        )  # fmt: skip
        monkeypatch.setattr(entry, "flags", types.SimpleNamespace(FLAGS=flags))
        with jax.numpy_dtype_promotion("standard"):
            entry.main([])
        return json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))

    return give


def test_without_a_run_the_models_beside_encoders_are_tested_alone(give, monkeypatch, tmp_path, capsys):
    tiny = tmp_path / "tiny.py"
    tiny.write_text(
        "from tests.support import tiny_config\n"
        "def get_config():\n"
        "    config = tiny_config.get_config()\n"
        "    config.encoder.name, config.encoder.widths = 'resnet18', (4,)\n"
        "    return config\n",
        encoding="utf-8",
    )
    given = []

    def remember(*args, alone, **kwargs):
        given.append(alone)
        return Study(*args, alone=alone, **kwargs)

    monkeypatch.setattr(entry, "Study", remember)
    stored = give(encoder=str(tiny))
    assert stored["models"] == {"age and sex": "demographics", "random resnet18": "random"}
    assert tree_of(given[0].encoder)["widths"] == (4,)
    rows = read_results(tmp_path / "out")
    assert {(key.model, key.minus) for key in rows} == {
        ("age and sex", ""), ("random resnet18", ""), ("random resnet18", "age and sex"),
    }  # fmt: skip
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "random resnet18 minus age and sex" in report
    assert "Pretraining runs" not in report
    assert "is set by the recordings of this data set" in report
    assert "age and sex" in capsys.readouterr().out


# An export is evaluated without its run in `test_evaluate_anywhere.py`, and without a run it is cross-validated above.
@pytest.mark.slow
def test_an_exported_model_is_tested_without_its_run_and_its_recordings(give, trained_on_set, tmp_path, capsys):
    run = write_run(tmp_path / "run", tiny(trained_on_set.directory), steps=(6,))
    model = export_run(run, tmp_path / "model", formats=())
    shutil.rmtree(run)
    stored = give(model=[str(model)])
    assert stored["models"] == {"age and sex": "demographics", "random resnet18": "random", "model": "pretrained"}
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith(stored["cautions"][0])
    assert said.startswith(guard.UNCHECKED)
    (words,) = stored["batch_norm"]
    assert words.startswith("model: Batch norm of the pretrained encoder has its stored statistics")
    assert "those of the tested fold among them" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match=r"holds another study: batch_norm_records differ"):
        give(model=[str(model)], statistics="evaluation")


def test_without_a_run_and_without_a_config_the_encoder_is_the_default_one(give, monkeypatch):
    given = []
    monkeypatch.setattr(entry, "Study", lambda *args, alone, **kwargs: given.append(alone) or _stop())
    with pytest.raises(KeyboardInterrupt):
        give()
    assert tree_of(given[0]) == tree_of(entry.RunSettings())


def _stop():
    raise KeyboardInterrupt


def test_an_encoder_beside_runs_and_unknown_baselines_are_refused(give, monkeypatch):
    monkeypatch.setattr(entry, "open_whole", None)
    with pytest.raises(ConfigError, match=r"--encoder is the encoder of a cross-validation without --workdir"):
        give(encoder="simclr", workdir=["a"])
    with pytest.raises(ConfigError, match=r"--baselines=boosted,trees: 'trees' is unknown; there are: supervised, int"):
        give(baselines=["boosted", "trees"])
    with pytest.raises(ConfigError, match=r"--encoder=simcrl: there is no config file simcrl.* recipes are: .*simclr"):
        give(encoder="simcrl")
    with pytest.raises(
        ConfigError, match=r"--encoder=simclr:tiny: after the colon of --encoder .*small, patients; not 'tiny'"
    ):
        give(encoder="simclr:tiny")
    with pytest.raises(ConfigError, match=r"--task=… is needed"):
        give(task=[])
