"""Manifests of JobSets against JobSet's own schema, and what Kubernetes makes of their policies."""

import copy
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from absl import flags

from ecgjax.errors import ConfigError
from ecgjax.processes import find_place
from launch.clusters import jobset_manifest
from launch.clusters.yaml_text import yaml_text
from tests.launch.clusters.test_slurm_script import AWKWARD
from tests.support.openapi import faults

SCHEMA = json.loads((Path(__file__).parent / "jobset_schema.json").read_text(encoding="utf-8"))["schema"]

GPUS = ["--nodes=8", "--gpus_per_node=8", "--accelerator=nvidia-h100-80gb"]
TPUS = ["--tpu=v5e:16x16", "--slices=2", "--spot"]


def _job(*arguments, image="registry.example/ecgjax:1"):
    values = flags.FlagValues()
    jobset_manifest.define_flags(values)
    values(["jobset", f"--image={image}", *arguments])
    return jobset_manifest.jobset_of(values)


def _manifest(*arguments, command=("python", "-m", "ecgjax.pretrain")):
    found = yaml.safe_load(jobset_manifest.manifest(_job(*arguments), command, made_by="me"))
    assert not list(faults(found, SCHEMA))
    return found


def _array(number, *arguments, **how):
    commands = [["printf", "%s|", *AWKWARD, str(place)] for place in range(number)]
    found = yaml.safe_load(jobset_manifest.array_manifest(_job(*arguments), commands, made_by="me", **how))
    assert not list(faults(found, SCHEMA))
    return found


def _spec(manifest):
    return manifest["spec"]["replicatedJobs"][0]["template"]["spec"]


def _container(manifest):
    return _spec(manifest)["template"]["spec"]["containers"][0]


def _pod_rule(manifest, *, code=None, disrupted=False):
    """Returns place and action of the first rule for a failed pod that matches, as Kubernetes looks for it."""
    for place, rule in enumerate(_spec(manifest)["podFailurePolicy"]["rules"]):
        if "onPodConditions" in rule:
            matches = disrupted
        else:
            listed = code in rule["onExitCodes"]["values"]
            matches = code is not None and code != 0 and listed == (rule["onExitCodes"]["operator"] == "In")
        if matches:
            return place, rule["action"]
    return None, "Count"


def _after(manifest, **failure):
    """Returns what JobSet does after the failure of a pod: the first rule that matches, or a counted restart."""
    place, action = _pod_rule(manifest, **failure)
    reason = "PodFailurePolicy" if action == "FailJob" else "BackoffLimitExceeded"
    message = f"Container main for pod x/y failed with exit code 1 matching {action} rule at index {place}"
    for rule in manifest["spec"]["failurePolicy"]["rules"]:
        patterns = rule.get("onJobFailureMessagePatterns", [".*"])
        if reason in rule["onJobFailureReasons"] and any(re.search(each, message) for each in patterns):
            return rule["action"]
    return "RestartJobSet"


@pytest.mark.parametrize("arguments", [GPUS, TPUS, [], ["--tpu=v5p:4x4x4"], ["--nodes=2", "--cpu=8", "--memory=30Gi"]])
def test_manifests_fit_the_schema_and_a_wrong_one_does_not(arguments):
    manifest = _manifest(*arguments, "--volume=data:/data", "--queue=q", "--namespace=team", "--env=A=1")
    for change in (
        lambda each: each["spec"].update(replicas=1),
        lambda each: each["spec"]["failurePolicy"]["rules"][0].update(action="Restart"),
        lambda each: _spec(each).update(parallelism="8"),
        lambda each: _spec(each)["template"]["spec"].pop("containers"),
        lambda each: _container(each)["env"].append({"value": "1"}),
    ):
        wrong = copy.deepcopy(manifest)
        change(wrong)
        assert list(faults(wrong, SCHEMA))


@pytest.mark.parametrize("arguments", [GPUS, TPUS])
def test_preemptions_restart_for_ever_hangs_a_few_times_and_users_errors_never(arguments):
    manifest = _manifest(*arguments, "--max_restarts=3")
    assert manifest["spec"]["failurePolicy"]["maxRestarts"] == 3
    assert _after(manifest, disrupted=True, code=137) == "RestartJobSetAndIgnoreMaxRestarts"
    assert _after(manifest, disrupted=True, code=1) == "RestartJobSetAndIgnoreMaxRestarts"
    for code in (75, 143):
        assert _after(manifest, code=code) == "RestartJobSetAndIgnoreMaxRestarts"
    for code in (76, 77, 134, 137, 139):
        assert _after(manifest, code=code) == "RestartJobSet"
    for code in (1, 2, 3, 126, 127, 130, 255):
        assert _after(manifest, code=code) == "FailJobSet"
    assert _spec(manifest)["backoffLimit"] == 0
    assert _spec(manifest)["template"]["spec"]["restartPolicy"] == "Never"
    assert _spec(manifest)["template"]["spec"]["terminationGracePeriodSeconds"] >= 120


def test_pods_of_an_array_are_replaced_without_counting_after_a_preemption_and_fail_alone():
    manifest = _array(5, "--max_restarts=2", "--gpus_per_node=1", at_once=3)
    assert (_spec(manifest)["completions"], _spec(manifest)["parallelism"]) == (5, 3)
    assert _spec(manifest)["backoffLimitPerIndex"] == 2
    assert "backoffLimit" not in _spec(manifest)
    assert _pod_rule(manifest, code=75)[1] == _pod_rule(manifest, disrupted=True)[1] == "Ignore"
    assert _pod_rule(manifest, code=2)[1] == _pod_rule(manifest, code=1)[1] == "FailIndex"
    assert _pod_rule(manifest, code=77)[1] == "Count"
    assert {"name": "ECGJAX_CLUSTER", "value": "0"} in _container(manifest)["env"]


def _expanded(word, variables):
    """Returns a word as Kubernetes expands it: `$$` is a dollar, `$(NAME)` the value of a variable."""
    return re.sub(
        r"\$(\$|\((\w+)\))", lambda found: "$" if found[1] == "$" else variables.get(found[2], found[0]), word
    )


def test_words_and_variables_reach_the_command_as_they_were_given():
    told = '$(HOME) $$ it\'s\n "x"'
    container = _container(_manifest(f"--env=TOLD={told}", command=[*AWKWARD, told]))
    assert [_expanded(word, {"HOME": "wrong"}) for word in container["command"]] == [*AWKWARD, told]
    (value,) = [each["value"] for each in container["env"] if each["name"] == "TOLD"]
    assert _expanded(value, {"HOME": "wrong"}) == told


def test_every_pod_of_an_array_runs_the_command_of_its_number():
    command = [_expanded(word, {}) for word in _container(_array(3))["command"]]
    for number in range(3):
        done = subprocess.run(
            command, env={**os.environ, "JOB_COMPLETION_INDEX": str(number)}, capture_output=True, text=True, check=True
        )
        assert done.stdout.split("|")[:-1] == [*AWKWARD, str(number)]
    beyond = subprocess.run(command, env={**os.environ, "JOB_COMPLETION_INDEX": "3"}, check=False)
    assert beyond.returncode == 2


@pytest.mark.parametrize("arguments", [GPUS, TPUS])
def test_every_pod_finds_its_place_from_the_variables_of_the_manifest(arguments):
    manifest = _manifest(*arguments, "--name=run")
    group = manifest["spec"]["replicatedJobs"][0]
    pods, jobs, places = _spec(manifest)["parallelism"], group["replicas"], []
    for job in range(jobs):
        annotations = {
            "jobset-name": "run",
            "replicatedjob-name": group["name"],
            "replicatedjob-replicas": str(jobs),
            "job-index": str(job),
        }
        for pod in range(pods):
            environment = {"JOB_COMPLETION_INDEX": str(pod)}
            for each in _container(manifest)["env"]:
                path = each.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath", "")
                found = re.fullmatch(r"metadata\.annotations\['jobset\.sigs\.k8s\.io/(.*)'\]", path)
                environment[each["name"]] = annotations[found[1]] if found else each["value"]
            if jobs > 1:
                assert environment["MEGASCALE_SLICE_ID"] == str(job)
                # What Google Kubernetes Engine adds to pods of a slice says the same.
                environment |= {"TPU_WORKER_ID": str(pod), "TPU_WORKER_HOSTNAMES": ",".join(map(str, range(pods)))}
                del environment["ECGJAX_CLUSTER"]
            places.append(find_place(environment))
    assert [place.process_id for place in places] == list(range(pods * jobs))
    assert {place.num_processes for place in places} == {pods * jobs}
    assert {place.coordinator.partition(":")[0] for place in places} == {"run-workers-0-0.run"}


def test_slices_have_node_pools_for_themselves_and_all_chips_of_their_hosts():
    manifest = _manifest(*TPUS)
    annotations = manifest["metadata"]["annotations"]
    assert annotations == {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}
    assert (manifest["spec"]["replicatedJobs"][0]["replicas"], _spec(manifest)["parallelism"]) == (2, 64)
    assert _container(manifest)["resources"]["limits"] == {"google.com/tpu": 4}
    labels = _spec(manifest)["template"]["spec"]["nodeSelector"]
    assert labels["cloud.google.com/gke-tpu-accelerator"] == "tpu-v5-lite-podslice"
    assert labels["cloud.google.com/gke-tpu-topology"] == "16x16"
    assert labels["cloud.google.com/gke-spot"] == "true"
    assert "annotations" not in _manifest(*TPUS, "--exclusive_topology=")["metadata"]
    gpus = _manifest(*GPUS)
    assert "annotations" not in gpus["metadata"]
    assert _container(gpus)["resources"]["limits"] == {"nvidia.com/gpu": 8}


def test_names_of_pods_are_no_longer_than_a_host_may_be_called():
    # The longest name of a pod of these is NAME-workers-1-63-xxxxx.
    longest = 63 - len("-workers-1-63-xxxxx")
    _job(*TPUS, f"--name={'n' * longest}")
    with pytest.raises(ConfigError, match=f"{longest} are possible"):
        _job(*TPUS, f"--name={'n' * (longest + 1)}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--name=Run"], "--name='Run'"),
        (["--name=-x"], "--name='-x'"),
        (["--tpu=v9:4x4"], "--tpu='v9:4x4' is no slice"),
        (["--tpu=v5e"], "write GENERATION:TOPOLOGY"),
        (["--tpu=v5e:3x3"], "v5e has no slice 3x3"),
        (["--tpu=v5e:4x4x4"], "v5e has no slice 4x4x4"),
        (["--tpu=v5p:4x4"], "v5p has no slice 4x4"),
        (["--tpu=v5p:8x4x4"], "v5p has no slice 8x4x4"),
        (["--tpu=v4:16x16x32"], "8192 chips; the largest slice of v4 has 4096"),
        (["--tpu=v5e:0x4"], "'0x4' is no topology"),
        (["--tpu=v5e:4x4", "--chips_per_host=8"], "--chips_per_host=8: a host of v5e:4x4 has 4 chips"),
        (["--chips_per_host=4"], "--chips_per_host=4 is for TPUs"),
        (["--slices=2"], "--slices=2 is for TPUs"),
        (["--tpu=v5e:4x4", "--nodes=4"], "--nodes=4 contradicts --tpu"),
        (["--tpu=v5e:4x4", "--gpus_per_node=4"], "--gpus_per_node=4 contradicts --tpu"),
        (["--accelerator=h100", "--gpus_per_node=8"], "--accelerator=h100 is unknown; there are: nvidia-"),
        (["--accelerator=nvidia-h100-80gb"], "--gpus_per_node is 0"),
        (["--accelerator=nvidia-h100-80gb", "--gpus_per_node=16"], "at most 8 × nvidia-h100-80gb"),
        (["--memory=lots"], "--memory='lots' is no quantity"),
        (["--cpu=-1"], "--cpu='-1' is no quantity"),
        (["--volume=data"], "--volume='data' is no volume"),
        (["--volume=data:relative"], "is no volume"),
        (["--volume=a:/x", "--volume=b:/x"], "--volume=b:/x: the claim or the folder is taken"),
        (["--node_selector=x"], "--node_selector='x' is no label"),
        (["--exclusive_topology=my rack"], "--exclusive_topology='my rack' is no label"),
        (["--env=JOBSET_NAME=x"], "--env=JOBSET_NAME: the launcher or the cluster sets"),
        (["--namespace=My Team"], "--namespace='My Team'"),
    ],
)  # fmt: skip
def test_what_kubernetes_would_refuse_or_misread_is_refused_by_name(arguments, words):
    with pytest.raises(ConfigError, match=words):
        _job(*arguments)


def test_images_are_named_with_registry_port_tag_and_digest():
    for image in (
        "a",
        "a:1",
        "localhost:5000/a/b_c:V1.2",
        "eu-docker.pkg.dev/p/r/ecgjax-tpu:x",
        f"a@sha256:{'0' * 64}",
    ):
        assert _job(image=image).image == image


@pytest.mark.parametrize(
    "image", ["", "with blank", "Upper", "-x", "a:", "a/Upper:1", "a//b", "a:1:2", "a@sha256:1", "a\n"]
)
def test_an_image_must_be_one(image):
    with pytest.raises(ConfigError, match="--image="):
        _job(image=image)


def test_arrays_are_of_one_machine_and_of_as_many_jobs_as_fit():
    with pytest.raises(ConfigError, match="has one machine"):
        _array(2, "--nodes=2")
    commands = [["echo", f"{number}{'x' * 200}"] for number in range(1000)]
    with pytest.raises(ConfigError, match="Linux allows"):
        jobset_manifest.array_manifest(_job(), commands, made_by="me")


@pytest.mark.parametrize(
    "value",
    [*AWKWARD, "yes", "No", "null", "1", "1e3", "0x1", "=", "a: b", "- a", "|", "2001-01-01", "\x85\u2028\x00\ufeff",
     "a\nb\n", " a\nb\n", "a\n\n", "é\nb\n", "a\tb\nc\n", True, False, 0, -3, [], {}, [[]],
     [{}], [[1], ["a\nb\n"]], {"a": {"b": [1, {"c": []}]}}],
    ids=repr,
)  # fmt: skip
def test_yaml_says_what_was_meant_in_every_place(value):
    for node in ({"x": value}, [value], {"x": [value, {"y": value}]}):
        assert yaml.safe_load(yaml_text(node)) == node


@pytest.mark.parametrize("words", [["--workdir=/runs/a"], ["--workdir", "runs/a"], ["--workdir=/shared/../runs"]])
def test_a_workdir_that_ends_with_its_pod_is_refused(words):
    with pytest.raises(ConfigError, match="lies on no volume"):
        jobset_manifest.check_folders(_job("--volume=ecg:/shared"), ["python", "-m", "ecgjax.pretrain", *words])


def test_a_workdir_on_a_volume_or_in_a_bucket_is_taken_and_data_in_the_image_are_told_of():
    job = _job("--volume=ecg:/shared")
    for workdir in ("/shared/runs", "gs://bucket/runs"):
        command = ["python", f"--workdir={workdir}", "--config.data.dir=/shared/ecg"]
        assert jobset_manifest.check_folders(job, command) == []
    assert "the image itself must have" in jobset_manifest.check_folders(job, ["python", "--config.data.dir=/data"])[0]
