"""The commands of docs/clusters.md, each made into what it says."""

import re
import shlex
from pathlib import Path

import pytest
from absl import flags

from launch.clusters import arrays, delivery, jobset_manifest, slurm_script, tpu_vm_script

GUIDE = Path(__file__).parents[3] / "docs" / "clusters.md"
LAUNCHERS = {"launch.slurm": slurm_script, "launch.jobset": jobset_manifest, "launch.tpu_vm": tpu_vm_script}


def commands():
    """Returns the commands of the guide's blocks as words, without those that leave something out."""
    blocks = re.findall(r"(?s)```bash\n(.*?)```", GUIDE.read_text(encoding="utf-8"))
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [
        shlex.split(line, comments=True) for line in lines if line.startswith("python -m launch.") and "…" not in line
    ]


def _made(module, words):
    values = flags.FlagValues()
    module.define_flags(values)
    delivery.define_flags(values, to="it")
    rest = values([words[2], *words[3:]])[1:]
    job = module.jobset_of(values) if module is jobset_manifest else module.job_of(values)
    make = module.manifest if module is jobset_manifest else module.script
    return make(job, rest, made_by="me"), rest


@pytest.mark.parametrize("words", commands(), ids=lambda words: words[2])
def test_every_command_of_the_guide_can_be_given(words):
    if words[2] == "launch.ablate":
        place = words.index("--")
        (kind,) = (word.partition("=")[2] for word in words if word.startswith("--array="))
        assert arrays.array(kind, words[place + 1 :], [["true"]], made_by="me", at_once=1).text
    else:
        text, rest = _made(LAUNCHERS[words[2]], words)
        assert rest[:3] == ["python", "-m", "ecgjax.pretrain"]
        assert rest[-1].partition("=")[2] in text


def test_the_guide_shows_every_launcher():
    assert {words[2] for words in commands()} == {*LAUNCHERS, "launch.ablate"}
