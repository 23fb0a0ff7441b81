"""What becomes of a script: printed, written to a file, or given to the cluster's command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ecgjax.errors import ConfigError
from launch.clusters import delivery

ROOT = Path(__file__).parents[3]


@pytest.fixture
def run(tmp_path):
    """Runs the launcher for Slurm with an `sbatch` that keeps what it is given, and leaves with a status."""

    def run(*arguments, status=None):
        path = f"{Path(sys.executable).parent}{os.pathsep}{tmp_path}"
        if status is not None:
            (tmp_path / "sbatch").write_text(f"#!/bin/bash\n/bin/cat > {tmp_path / 'given'}\nexit {status}\n")
            (tmp_path / "sbatch").chmod(0o755)
        return subprocess.run(
            [sys.executable, "-m", "launch.slurm", *arguments, "--", "python", "-m", "ecgjax.pretrain"],
            cwd=tmp_path, env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    return run


def test_without_submit_a_script_is_printed_and_nothing_else_happens(run, tmp_path):
    done = run(status=0)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("#!/bin/bash\n# python -m launch.slurm -- python -m ecgjax.pretrain\n")
    assert {path.name for path in tmp_path.iterdir()} == {"sbatch"}


def test_a_file_gets_what_would_be_printed(run, tmp_path):
    printed = run().stdout
    done = run("--out=new/script.sh")
    assert done.stdout == ""
    written = (tmp_path / "new" / "script.sh").read_text()
    assert written.replace(" --out=new/script.sh", "") == printed


def test_submitted_scripts_reach_sbatch_whole_and_its_status_is_the_launcher_s(run, tmp_path):
    assert run("--submit", status=0).returncode == 0
    assert (tmp_path / "given").read_text().replace(" --submit", "") == run().stdout
    assert (tmp_path / "logs").is_dir(), "Slurm would fail without a word where there is no folder for the logs"
    assert run("--submit", status=3).returncode == 3


def test_a_machine_without_sbatch_is_named(run):
    done = run("--submit")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --submit: there is no sbatch on this machine; ")
    assert len(done.stderr.splitlines()) == 1


def test_a_cluster_that_kubectl_does_not_reach_is_told_in_one_sentence(tmp_path, monkeypatch):
    path = tmp_path / "kubectl"
    words = "E1201 memcache.go: dial tcp: refused\\nThe connection to the server localhost:8080 was refused"
    path.write_text(f"#!/bin/bash\nprintf '{words}\\n' >&2; exit 1\n", encoding="utf-8")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ConfigError, match=r"^--submit: kubectl reaches no cluster \(The connection to the server"):
        delivery.deliver(
            delivery.Delivery(submit=True, out=None), "kind: JobSet\n", to=["kubectl", "create", "-f", "-"]
        )
