"""A run whose parameters were divided goes on with any layout, on any number of devices and processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.fixtures import make_simulated_dataset

ROOT = Path(__file__).parents[2]

#: Number of processes, devices of each, and leaves of the config.
PARTS = [
    (1, 8, {"mesh.sharding": "fsdp"}),
    (1, 8, {"mesh.sharding": "tensor", "mesh.model": 2}),
    (2, 2, {"mesh.sharding": "fsdp"}),
    (2, 2, {"mesh.sharding": "tensor", "mesh.model": 2}),
    (1, 1, {}),
]
STEPS = 2


def take_steps(dataset, folder, *, processes, devices, leaves, steps, tmp_path):
    out = tmp_path / "out.json"
    out.unlink(missing_ok=True)
    program = [sys.executable, "-m", "tests.support.sharded_steps", str(dataset), str(folder), str(out), str(steps)]
    program += [f"{name}={value!r}" for name, value in leaves.items()]
    if processes > 1:
        program = [sys.executable, "-m", "launch.local", f"--processes={processes}", "--", *program]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    done = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(out.read_text())


@pytest.mark.slow
def test_a_run_goes_on_from_fsdp_on_a_tensor_mesh_on_two_processes_and_on_one_device(tmp_path):
    dataset = make_simulated_dataset(tmp_path / "data", num_patients=40, rate=50, seconds=4).directory
    total = STEPS * len(PARTS)
    whole = take_steps(dataset, tmp_path / "whole", processes=1, devices=1, leaves={}, steps=total, tmp_path=tmp_path)
    losses = []
    for number, (processes, devices, leaves) in enumerate(PARTS, 1):
        found = take_steps(
            dataset, tmp_path / "parts", processes=processes, devices=devices, leaves=leaves, steps=STEPS,
            tmp_path=tmp_path,
        )  # fmt: skip
        assert (found["processes"], found["devices"]) == (processes, processes * devices)
        assert found["step"] == STEPS * number
        if leaves.get("mesh.sharding") == "fsdp":
            assert found["share"] < 1.1 / (processes * devices) + 0.05
        losses += found["losses"]
    # Devices sum in another order: some roundings of 6e-8, which a few steps make larger.
    np.testing.assert_allclose(losses, whole["losses"], rtol=2e-6)
