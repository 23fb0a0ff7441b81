"""Dry runs for TPUs, by the command; they need XLA's TPU compiler and no TPU."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ecgjax.ahead.topologies import libtpu_version

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        libtpu_version() is None, reason="XLA's TPU compiler is not installed (pip install 'ecgjax[tpu-aot]')"
    ),
]

ROOT = Path(__file__).parents[3]


def command(*arguments):
    line = [sys.executable, "-m", "ecgjax.pretrain", "--config=clocs:small", "--dry_run", "--topology=v5e:2x2"]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return subprocess.run([*line, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


def test_a_toy_encoder_is_compiled_for_four_chips():
    done = command("--markdown")
    assert done.returncode == 0, done.stderr
    assert "dry run on v5e:2x2: 4 × TPU v5 lite, data 4 × model 1; nothing was run" in done.stdout
    assert "45,252 parameters; batch 32, 8 recordings a chip" in done.stdout
    assert f"by libtpu {libtpu_version()} with JAX" in done.stdout
    flops = re.search(r"FLOP a chip and step: ([\d.]+) G .* the compiler counts ([\d.]+) G", done.stdout)
    asked, counted = map(float, flops.groups())
    assert asked < counted < 3 * asked, "the compiler counts additions too, and here is no loop of layers"
    found = re.findall(r"^  (all-reduce|all-gather|reduce-scatter) +data +f32 +(\d+)", done.stdout, re.MULTILINE)
    assert {kind for kind, _ in found} == {"all-reduce", "all-gather", "reduce-scatter"}
    assert done.stdout.splitlines()[-1].startswith("| clocs_cnn:small | v5e:2x2 | replicated | 8 | ")


def test_a_step_that_does_not_fit_is_one_sentence_and_status_2():
    done = command("--config.batch_size=262144")
    assert done.returncode == 2
    assert re.search(
        r"a step needs [\d.]+[TG]iB of memory on a chip, and v5e:2x2 has 15\.75GiB: lower config\.batch_size",
        done.stderr,
    )
    assert "Traceback" not in done.stderr
