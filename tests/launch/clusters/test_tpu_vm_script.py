"""Scripts for TPU virtual machines, run with a stand-in for gcloud whose machines come, go and end as a test says."""

import os
import stat
import subprocess

import pytest
from absl import flags

from ecgjax.errors import ConfigError
from launch.clusters import tpu_vm_script
from tests.launch.clusters.test_slurm_script import AWKWARD

#: Takes the next line of a file as its answer; the last line stays.
_GCLOUD = r"""#!/bin/bash
cd "$FAKE_GCLOUD"
printf '%s\n' "$*" | tr '\n' ' ' >> calls; echo >> calls
next() {
  [[ -s $1 ]] || return
  head -n 1 "$1"
  [[ $(wc -l < "$1") -eq 1 ]] || sed -i 1d "$1"
}
case "$*" in
  *queued-resources\ describe*) next states ;;
  *docker\ wait*)
    while [[ -e running ]]; do sleep .02; done
    ran=$(next statuses)
    for ((worker = 0; worker < workers_of_a_slice; worker++)); do echo "status $ran"; done
    ;;
  *docker\ stop*) rm -f running ;;
  *docker\ logs*) echo "printed by a worker" ;;
esac
"""


def _job(*arguments):
    values = flags.FlagValues()
    tpu_vm_script.define_flags(values)
    values(["tpu_vm", *arguments])
    return tpu_vm_script.job_of(values)


GIVEN = ["--tpu=v5e:4x4", "--zone=us-west4-a", "--project=mine", "--image=registry.example/ecgjax:1", "--poll_s=1"]


@pytest.fixture
def cloud(tmp_path):
    """Runs a script with states of the machines and statuses of the workers, each the next one when asked."""
    path = tmp_path / "gcloud"
    path.write_text(_GCLOUD, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def run(text, *, states, statuses=(), part="run", stop=""):
        for name, lines in (("states", states), ("statuses", statuses)):
            (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        (tmp_path / "calls").write_text("", encoding="utf-8")
        (tmp_path / "script").write_text(text.replace("sleep ", "true "), encoding="utf-8")
        environment = {
            **os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "FAKE_GCLOUD": str(tmp_path),
            "workers_of_a_slice": "4",
        }  # fmt: skip
        if stop:
            (tmp_path / "running").touch()
        process = subprocess.Popen(
            ["bash", "script", part], env=environment, cwd=tmp_path, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        while stop and stop not in (tmp_path / "calls").read_text(encoding="utf-8"):
            assert process.poll() is None
        if stop:
            process.terminate()
        output, errors = process.communicate(timeout=60)
        done = subprocess.CompletedProcess([], process.returncode, output, errors)
        return done, (tmp_path / "calls").read_text(encoding="utf-8").splitlines()

    return run


def _script(*arguments, command=("python", "-m", "ecgjax.pretrain")):
    text = tpu_vm_script.script(_job(*GIVEN, *arguments), command, made_by="me")
    done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return text


def _count(calls, words):
    return sum(words in call for call in calls)


def test_machines_are_asked_for_used_and_deleted(cloud, tmp_path):
    done, calls = cloud(_script("--spot"), states=["", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"], statuses=[0])
    assert done.returncode == 0, done.stderr
    (created,) = [call for call in calls if "queued-resources create" in call]
    for option in ("--node-id=ecgjax", "--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite",
                   "--spot", "--zone=us-west4-a", "--project=mine"):  # fmt: skip
        assert option in created
    (started,) = [call for call in calls if "docker run" in call]
    assert "tpu-vm ssh ecgjax" in started
    assert "--worker=all" in started
    assert "--stop-timeout=300" in started
    assert calls[-1].split()[:5] == ["compute", "tpus", "queued-resources", "delete", "ecgjax"]
    assert "printed by a worker" in (tmp_path / "logs" / "ecgjax.start1.txt").read_text()


def test_machines_that_were_taken_away_are_asked_for_again_uncounted(cloud):
    gone = ["ACTIVE", "SUSPENDED", "SUSPENDED", "PROVISIONING", "ACTIVE"]
    done, calls = cloud(_script("--max_restarts=0"), states=gone, statuses=["", 0])
    assert done.returncode == 0, done.stderr
    assert "taken away, which is no failure" in done.stdout
    assert (_count(calls, "resources delete"), _count(calls, "resources create"), _count(calls, "docker run")) == (
        2,
        1,
        2,
    )


@pytest.mark.parametrize(("statuses", "left", "starts"), [
    ([75, 75, 75, 0], 0, 4), ([77, 76, 0], 0, 3), ([77, 76, 137], 137, 3), ([77, 77, 75, 77, 0], 0, 5), ([2], 2, 1),
    ([1], 1, 1), ([3], 3, 1),
])  # fmt: skip
def test_a_run_starts_again_after_what_another_start_mends(cloud, statuses, left, starts):
    done, calls = cloud(_script("--max_restarts=2"), states=["ACTIVE"], statuses=statuses)
    assert done.returncode == left
    assert _count(calls, "docker run") == starts
    assert _count(calls, "resources delete") == 1
    kept, calls = cloud(_script("--max_restarts=2", "--keep"), states=["ACTIVE"], statuses=statuses)
    assert kept.returncode == left
    assert not _count(calls, "resources delete")


def test_sigterm_stops_the_containers_and_keeps_the_machines(cloud):
    done, calls = cloud(_script(), states=["ACTIVE"], statuses=[75], stop="docker wait")
    assert done.returncode == 75, done.stderr
    assert _count(calls, "docker stop --time=300") == 1
    assert _count(calls, "docker run") == 1
    assert not _count(calls, "resources delete")
    assert "the same script goes on" in done.stdout


def test_sigterm_while_machines_are_waited_for_starts_nothing(cloud):
    states = ["", "WAITING_FOR_RESOURCES"]
    done, calls = cloud(_script(), states=states, stop="queued-resources create")
    assert done.returncode == 75, done.stderr
    assert not _count(calls, "docker run")
    assert not _count(calls, "resources delete")


def test_every_slice_is_started_and_waited_for(cloud):
    done, calls = cloud(_script("--slices=2"), states=["", "ACTIVE"], statuses=[0])
    assert done.returncode == 0, done.stderr
    assert _count(calls, "--node-count=2 --node-prefix=ecgjax") == 1
    for node in ("ecgjax-0", "ecgjax-1"):
        assert sum(f"ssh {node} " in call and "docker run" in call for call in calls) == 1
        assert sum(f"ssh {node} " in call and "docker wait" in call for call in calls) == 1


def test_machines_that_are_not_given_end_the_script(cloud):
    done, calls = cloud(_script(), states=["", "FAILED"])
    assert done.returncode == 1
    assert "the machines were not given" in done.stderr
    assert not _count(calls, "docker run")


@pytest.mark.parametrize("part", ["create", "start", "status", "stop", "logs", "delete"])
def test_parts_can_be_run_alone(cloud, part):
    done, calls = cloud(_script(), states=["ACTIVE"], part=part)
    assert done.returncode == 0, done.stderr
    assert len(calls) == 1
    assert cloud(_script(), states=["ACTIVE"], part="nonsense")[0].returncode == 2


def test_words_reach_the_container_as_they_were_given(tmp_path):
    text = _script("--env=TOLD=it's $HOME", "--mount=/mnt/two words", command=AWKWARD)
    told = tmp_path / "told"
    for name in ("sudo", "docker"):
        (tmp_path / name).write_text(f'#!/bin/bash\nprintf "%s|" "$@" > {told}\n', encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    worker = f'{text.partition("state() {")[0]}\nbash -c "$start_worker"'
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", worker], env=environment, check=True)
    words = told.read_text().split("|")[:-1]
    assert words[-len(AWKWARD) :] == AWKWARD
    assert "--env=TOLD=it's $HOME" in words
    assert "--volume=/mnt/two words:/mnt/two words" in words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tpu=v9:4x4"], "--tpu='v9:4x4' is no slice"),
        (["--tpu="], "--tpu=… must be given"),
        (["--zone="], "--zone=… must be given"),
        (["--zone=west"], "--zone=west is no zone"),
        (["--zone=us west4-a"], "--zone='us west4-a'"),
        (["--image="], "--image=… must be given: the image"),
        (["--image=a;rm -rf x"], "--image="),
        (["--name=Run"], "--name='Run'"),
        (["--name=" + "x" * 60], "60 characters"),
        (["--mount=relative"], "--mount='relative' is no whole path"),
        (["--env=TPU_WORKER_ID=0"], "--env=TPU_WORKER_ID"),
    ],
)  # fmt: skip
def test_what_is_not_possible_is_refused_by_name(arguments, words):
    with pytest.raises(ConfigError, match=words):
        _job(*GIVEN, *arguments)


def test_a_state_that_is_unknown_is_not_asked_for_without_end(cloud):
    done, calls = cloud(_script(), states=["", "STRANGE"])
    assert done.returncode == 1
    assert "machines: STRANGE" in done.stdout
    assert "the machines were not given" in done.stderr
    assert sum("describe" in call for call in calls) < 20


def test_the_state_that_gcloud_does_not_tell_is_answered_in_its_own_words(cloud, tmp_path):
    fails = '#!/bin/bash\necho "ERROR: (gcloud) You do not have permission" >&2; exit 1\n'
    (tmp_path / "gcloud").write_text(fails, encoding="utf-8")
    done, _ = cloud(_script(), states=[], part="status")
    assert done.returncode == 1
    assert "You do not have permission" in done.stderr
