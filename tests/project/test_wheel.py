"""The wheel: what is in it, and that it builds data, pretrains and ablates where no checkout is."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: A ResNet of two narrow stages on recordings of four seconds at 50 Hz.
TINY = (
    "--config.batch_size=8", "--config.duration.value=2", "--config.duration.unit=steps", "--config.eval_every=0",
    "--config.encoder.widths=(4,8)", "--config.encoder.kernel=3", "--config.encoder.embedding_dim=8",
    "--config.probe.supervised.steps=2",
)  # fmt: skip

_LIST = "from ecgjax_launch.commands import main; main(['help'])"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that holds what the wheel installs, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    # From a copy of what git has: a build leaves files beside setup.py.
    source = folder / "source"
    subprocess.run(["git", "clone", "-q", "--depth=1", f"file://{ROOT}", source], check=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        folder,
        source,
    ]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("ecgjax-*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def run(installed, tmp_path):
    """Runs a module of the wheel, away from the checkout."""

    def run(module, *arguments):
        done = subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(installed)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return run


@pytest.mark.slow
def test_a_wheel_has_the_packages_the_recipes_and_no_test(installed):
    names = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert names == {"data_pipelines", "ecgjax", "ecgjax_launch", "ecgjax_recipes"}
    for package, inside in (("configs", "ecgjax_recipes"), ("launch", "ecgjax_launch"), ("ecgjax", "ecgjax")):
        here = {path.relative_to(ROOT / package) for path in (ROOT / package).rglob("*.py")}
        assert {path.relative_to(installed / inside) for path in (installed / inside).rglob("*.py")} == here
    assert {path.parent.name for path in installed.rglob("py.typed")} == {"data_pipelines", "ecgjax", "ecgjax_launch"}


@pytest.mark.slow
def test_a_wheel_builds_pretrains_and_ablates(run, installed, tmp_path):
    found = run(
        "ecgjax_launch.local", "--processes=1", "--", sys.executable, "-c", "import ecgjax; print(ecgjax.__file__)"
    )
    assert found.strip() == f"[0] {installed / 'ecgjax' / '__init__.py'}"
    run(
        "data_pipelines.build", "--builder=simulated", "--num_patients=60", "--target_rate_hz=50", "--seconds=4",
        f"--out={tmp_path / 'data'}",
    )  # fmt: skip
    (entries,) = installed.glob("ecgjax-*.dist-info/entry_points.txt")
    assert "ecgjax = ecgjax_launch.commands:main" in entries.read_text(encoding="utf-8")
    listed = run("ecgjax_launch.local", "--processes=1", "--", sys.executable, "-c", _LIST)
    assert "[0]   pretrain " in listed
    data = f"--config.data.dir={tmp_path / 'data'}"
    assert "2 steps" in run("ecgjax.pretrain", "--config=simclr:small", data, f"--workdir={tmp_path / 'run'}", *TINY)
    # One seed: that there are several makes no difference to what a wheel must have in it.
    run(
        "ecgjax_launch.ablate", "--config=simclr:small", "--seeds=1", "--sweep=objective.temperature=.1|.5",
        "--task=age_years>55", f"--out={tmp_path / 'ablation'}", data, *TINY,
    )  # fmt: skip
    report = (tmp_path / "ablation/report.md").read_text(encoding="utf-8")
    assert "simclr:small objective.temperature=.5" in report
    assert "python -m ecgjax_launch.ablate" in report
