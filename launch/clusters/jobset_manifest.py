"""Manifests of JobSets for Kubernetes: processes on hosts with GPUs, slices of TPUs, and arrays of independent jobs.

The fields are those of jobset.x-k8s.io/v1alpha2 from JobSet 0.10 on (`onJobFailureMessagePatterns`).
"""

from __future__ import annotations

import dataclasses
import functools
import posixpath
import re
import shlex
from collections.abc import Mapping, Sequence

from absl import flags

from data_pipelines.buckets.addresses import is_remote
from ecgjax.errors import ConfigError

from . import shared_flags
from .checks import LONGEST_NAME, check_image, check_name, flag_of, shared_words, variables_of
from .restart_policy import COUNTED, GRACE_S, MOST_RESTARTS, UNCOUNTED
from .tpu_slices import Slice, slice_of
from .yaml_text import Node, yaml_text

#: GPUs by the names of Google Kubernetes Engine, with the most that a machine has.
GPUS = {
    "nvidia-tesla-t4": 4,
    "nvidia-l4": 8,
    "nvidia-tesla-a100": 16,
    "nvidia-a100-80gb": 8,
    "nvidia-h100-80gb": 8,
    "nvidia-h100-mega-80gb": 8,
    "nvidia-h200-141gb": 8,
    "nvidia-b200": 8,
    "nvidia-gb200": 4,
}

_ANNOTATION = "jobset.sigs.k8s.io"
_EXCLUSIVE = "alpha.jobset.sigs.k8s.io/exclusive-topology"
_NODE_POOL = "cloud.google.com/gke-nodepool"
_GROUP = "workers"
_OF_KUBERNETES = 6  # Kubernetes ends the name of a pod with a hyphen and five characters.
_MOST_TASKS = 100_000
_LONGEST_WORD = 2**17 - 1

_QUANTITY = re.compile(r"\d+(\.\d+)?(m|[kMGTPE]|[KMGTPE]i)?")
_VARIABLES = (
    "JOBSET_NAME", "REPLICATED_JOB_NAME", "REPLICATED_JOB_REPLICAS", "PROCESSES_IN_JOB", "ECGJAX_CLUSTER",
    "MEGASCALE_NUM_SLICES", "MEGASCALE_COORDINATOR_ADDRESS",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobSet:
    """What a manifest asks Kubernetes for.

    Attributes:
        name: Name of the JobSet.
        image: Image of the containers.
        namespace: Namespace; empty for that of the user's context.
        nodes: Number of machines, where there is no TPU.
        gpus_per_node: Number of GPUs of a machine.
        accelerator: Kind of GPU by its name in `GPUS`; empty for any.
        tpu: Slice of TPUs; None for none.
        slices: Number of slices.
        cpu: CPUs that a container asks for; empty for none in particular.
        memory: Memory that a container asks for; empty for none in particular.
        grace_s: Seconds between SIGTERM and SIGKILL.
        max_restarts: Number of restarts after a hang or a lost process.
        exclusive: Label of nodes, of whose values each Job gets one for itself; empty for none.
        queue: Queue of Kueue; empty for none.
        service_account: Account that the pods act as; empty for the namespace's own.
        spot: Whether machines are asked for that may be taken away at any time.
        host_network: Whether pods use the network of their machine.
        volumes: Claims of volumes and the folders that they are mounted at.
        selectors: Further labels that the nodes must have.
        variables: Variables of the environment as (name, value).
    """

    name: str
    image: str
    namespace: str = ""
    nodes: int = 1
    gpus_per_node: int = 0
    accelerator: str = ""
    tpu: Slice | None = None
    slices: int = 1
    cpu: str = ""
    memory: str = ""
    grace_s: int = GRACE_S
    max_restarts: int = MOST_RESTARTS
    exclusive: str = ""
    queue: str = ""
    service_account: str = ""
    spot: bool = False
    host_network: bool = False
    volumes: tuple[tuple[str, str], ...] = ()
    selectors: tuple[tuple[str, str], ...] = ()
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def hosts(self) -> int:
        """Number of pods of a Job."""
        return self.tpu.hosts if self.tpu else self.nodes


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of a JobSet."""
    text = functools.partial(flags.DEFINE_string, flag_values=values)
    number = functools.partial(flags.DEFINE_integer, flag_values=values)
    many = functools.partial(flags.DEFINE_multi_string, flag_values=values)
    text("name", "ecgjax", "Name of the JobSet.")
    text("image", "", "Image of the containers, e.g. REGISTRY/ecgjax-cuda:TAG; it must be given.")
    text("namespace", "", "Namespace; empty for that of your context.")
    number("nodes", 1, "Machines, where there is no TPU.", lower_bound=1, upper_bound=10_000)
    number("gpus_per_node", 0, "GPUs of a machine.", lower_bound=0, upper_bound=64)
    text("accelerator", "", f"Kind of GPU: {', '.join(GPUS)}; empty for any.")
    text("tpu", "", "Slice of TPUs, e.g. v5e:16x16; empty for none.")
    number("slices", 1, "Slices of TPUs.", lower_bound=1, upper_bound=1024)
    number("chips_per_host", None, "TPU chips of a host; by default the usual number.", lower_bound=1, upper_bound=8)
    text("cpu", "", "CPUs that a container asks for, e.g. 96.")
    text("memory", "", "Memory that a container asks for, e.g. 400Gi.")
    words = "Restarts after a hang or a lost process; those after a preemption are not counted."
    shared_flags.define_flags(values, restarts=words)
    words = (
        f"Label of nodes: each Job has one value of it for itself; empty for none. By default {_NODE_POOL} for TPUs."
    )
    text("exclusive_topology", None, words)
    text("queue", "", "Queue of Kueue; empty for none.")
    text("service_account", "", "Account that the pods act as; empty for the namespace's own.")
    flags.DEFINE_bool("spot", False, "Takes machines that may be taken away at any time.", flag_values=values)
    flags.DEFINE_bool("host_network", False, "Lets pods use the network of their machine.", flag_values=values)
    many("volume", [], "CLAIM:/FOLDER: mounts a PersistentVolumeClaim. Repeat for several.")
    many("node_selector", [], "LABEL=VALUE that nodes must have. Repeat for several.")


def jobset_of(values: flags.FlagValues) -> JobSet:
    """Returns the JobSet that parsed flags ask for.

    Raises:
        ConfigError: A value is not possible.
    """
    tpu = slice_of(values.tpu, chips_per_host=values.chips_per_host) if values.tpu else None
    _check_machines(values, tpu)
    check_image(values.image)
    for flag in ("cpu", "memory"):
        if getattr(values, flag) and not _QUANTITY.fullmatch(getattr(values, flag)):
            raise ConfigError(f"--{flag}={getattr(values, flag)!r} is no quantity of Kubernetes, such as 96 or 400Gi")
    for flag in ("namespace", "queue", "service_account"):
        if getattr(values, flag):
            check_name(flag, getattr(values, flag))
    exclusive = values.exclusive_topology
    if exclusive and not re.fullmatch(r"[A-Za-z0-9./_-]{1,253}", exclusive):
        raise ConfigError(f"--exclusive_topology={exclusive!r} is no label of nodes, such as {_NODE_POOL}")
    found = JobSet(
        name=values.name,
        tpu=tpu,
        exclusive=exclusive if exclusive is not None else (_NODE_POOL if tpu else ""),
        volumes=_volumes(values.volume),
        selectors=_selectors(values.node_selector),
        variables=variables_of(values.env, reserved=_VARIABLES),
        **{
            name: getattr(values, name)
            for name in (
                "image", "namespace", "nodes", "gpus_per_node", "accelerator", "slices", "cpu", "memory", "grace_s",
                "max_restarts", "queue", "service_account", "spot", "host_network",
            )
        },
    )  # fmt: skip
    _check_pod_names(found, pods=found.hosts)
    return found


def _check_machines(values: flags.FlagValues, tpu: Slice | None) -> None:
    accelerator, gpus = values.accelerator, values.gpus_per_node
    if accelerator and accelerator not in GPUS:
        raise ConfigError(f"--accelerator={accelerator} is unknown; there are: {', '.join(GPUS)}; --tpu names TPUs")
    if accelerator and not gpus:
        raise ConfigError(f"--accelerator={accelerator}, but --gpus_per_node is 0; say how many")
    if accelerator and gpus > GPUS[accelerator]:
        raise ConfigError(
            f"--gpus_per_node={gpus}: a machine has at most {GPUS[accelerator]} × {accelerator}; ask for more --nodes"
        )
    if tpu is None:
        for flag, unset in (("slices", 1), ("chips_per_host", None)):
            if getattr(values, flag) != unset:
                raise ConfigError(f"--{flag}={getattr(values, flag)} is for TPUs; give --tpu, or leave it out")
    elif gpus or values.nodes != 1:
        flag = "gpus_per_node" if gpus else "nodes"
        raise ConfigError(f"--{flag}={getattr(values, flag)} contradicts --tpu={values.tpu}; leave one of them out")


def _volumes(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for text in texts:
        claim, _, folder = text.partition(":")
        if not re.fullmatch(r"/[^:\0\n]+", folder):
            raise ConfigError(f"--volume={text!r} is no volume; write CLAIM:/FOLDER")
        check_name("volume", claim)
        if claim in found or folder in (*found.values(), "/dev/shm"):
            raise ConfigError(f"--volume={text}: the claim or the folder is taken already; give another")
        found[claim] = folder
    return tuple(found.items())


def check_folders(job: JobSet, command: Sequence[str], *, written: str = "workdir") -> list[str]:
    """Refuses a folder of results that ends with its pod, and returns a caution for data that no volume holds.

    Data may be a part of the image; what a run writes may not, for every restart is a new pod.

    Args:
        job: What is asked of Kubernetes.
        command: Program and its arguments, which every pod runs.
        written: Flag of the command that names the folder of its results.

    Raises:
        ConfigError: That folder lies on no volume and in no bucket.
    """
    folders = [folder for _, folder in job.volumes]

    def lost(flag: str) -> str | None:
        path = flag_of(command, flag)
        if not path or is_remote(path):
            return None
        whole = posixpath.normpath(posixpath.join("/", path)) if path.startswith("/") else None
        below = whole and any(whole == each or whole.startswith(f"{each.rstrip('/')}/") for each in folders)
        return None if below else path

    if results := lost(written):
        raise ConfigError(
            f"--{written}={results} lies on no volume, and what a pod writes there is gone with it; give "
            f"--volume=CLAIM:/FOLDER and a --{written} below /FOLDER, or a bucket"
        )
    if data := lost("config.data.dir"):
        return [f"--config.data.dir={data} lies on no --volume; the image itself must have these data"]
    return []


def _selectors(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    found = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z0-9./_-]{1,253}", name) or not re.fullmatch(r"[\w.-]{0,63}", value):
            raise ConfigError(f"--node_selector={text!r} is no label; write LABEL=VALUE")
        found.append((name, value))
    return tuple(found)


def _check_pod_names(job: JobSet, *, pods: int) -> None:
    added = len(f"-{_GROUP}-{job.slices - 1}-{pods - 1}") + _OF_KUBERNETES
    check_name(
        "name", job.name, longest=LONGEST_NAME - added, why=f"{added} more make the names of pods ({LONGEST_NAME})"
    )


def manifest(job: JobSet, command: Sequence[str], *, made_by: str) -> str:
    """Returns the manifest of a run, as YAML.

    Any failure of a pod ends all of them, since they wait for each other. A preemption, and status 75, start the set
    again without counting; a hang or a lost process counts; and whatever another start would not mend ends the set.

    Args:
        job: What is asked of Kubernetes.
        command: Program and its arguments, which every pod runs.
        made_by: Command that makes this manifest, for its head.
    """
    spec: dict[str, Node] = {
        "parallelism": job.hosts,
        "completions": job.hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [
                {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {"action": "FailJob", "onExitCodes": {"operator": "In", "values": sorted(UNCOUNTED)}},
                {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": sorted((*UNCOUNTED, *COUNTED))}},
            ]
        },
        "template": _pod(job, command, variables=_place(job)),
    }
    failures: dict[str, Node] = {
        "maxRestarts": job.max_restarts,
        "rules": [
            {
                "name": "anotherStartWouldNotMend",
                "action": "FailJobSet",
                "onJobFailureReasons": ["PodFailurePolicy"],
                # Kubernetes ends its message with the place of the rule among those of a Job.
                "onJobFailureMessagePatterns": ["rule at index 2$"],
            },
            {
                "name": "preemptedOrStopped",
                "action": "RestartJobSetAndIgnoreMaxRestarts",
                "onJobFailureReasons": ["PodFailurePolicy"],
            },
        ],
    }
    return _whole(job, spec, replicas=job.slices, failures=failures, made_by=made_by)


def array_manifest(job: JobSet, commands: Sequence[Sequence[str]], *, made_by: str, at_once: int = 0) -> str:
    """Returns the manifest of an array of independent jobs, a pod and a command each, as YAML.

    A pod that is preempted or leaves with status 75 is replaced without counting; after a hang or a lost process it is
    replaced as often as `job` allows; and after any other status it has failed, and the others go on.

    Args:
        job: What is asked of Kubernetes for each of them.
        commands: Programs with their arguments.
        made_by: Command that makes this manifest, for its head.
        at_once: Greatest number of pods that run at once; 0 for no limit.

    Raises:
        ConfigError: A job would need several machines, or there are too many.
    """
    if job.hosts * job.slices > 1:
        raise ConfigError("a job of an array has one machine; leave out --nodes and --slices, or take a smaller --tpu")
    if len(commands) > _MOST_TASKS:
        raise ConfigError(f"{len(commands)} jobs are more than a Job of Kubernetes has ({_MOST_TASKS})")
    _check_pod_names(job, pods=len(commands))
    common, own = shared_words(commands)
    cases = "".join(f"{number}) set -- {shlex.join(words)} ;;\n" for number, words in enumerate(own))
    choose = f'case "$JOB_COMPLETION_INDEX" in\n{cases}*) exit 2 ;;\nesac\nexec {shlex.join(common)} "$@"\n'
    if len(choose.encode()) > _LONGEST_WORD:
        raise ConfigError(
            f"the names of {len(commands)} jobs make a word of {len(choose.encode())} bytes, and Linux allows "
            f"{_LONGEST_WORD}; make several arrays, of fewer seeds or arms each"
        )
    spec: dict[str, Node] = {
        "parallelism": min(at_once or len(commands), len(commands)),
        "completions": len(commands),
        "completionMode": "Indexed",
        "backoffLimitPerIndex": job.max_restarts,
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {"action": "Ignore", "onExitCodes": {"operator": "In", "values": sorted(UNCOUNTED)}},
                {
                    "action": "FailIndex",
                    "onExitCodes": {"operator": "NotIn", "values": sorted((*UNCOUNTED, *COUNTED))},
                },
            ]
        },
        "template": _pod(job, ["bash", "-c", choose], variables=[{"name": "ECGJAX_CLUSTER", "value": "0"}]),
    }
    return _whole(job, spec, replicas=1, failures={"maxRestarts": 0}, made_by=made_by)


def _whole(job: JobSet, spec: Mapping[str, Node], *, replicas: int, failures: Mapping[str, Node], made_by: str) -> str:
    metadata: dict[str, Node] = {"name": job.name}
    if job.namespace:
        metadata["namespace"] = job.namespace
    if job.queue:
        metadata["labels"] = {"kueue.x-k8s.io/queue-name": job.queue}
    if job.exclusive:
        metadata["annotations"] = {_EXCLUSIVE: job.exclusive}
    body: Node = {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            # Pods find each other by name before they are ready: they are ready when all have come.
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "failurePolicy": failures,
            "replicatedJobs": [{"name": _GROUP, "replicas": replicas, "template": {"spec": spec}}],
        },
    }
    return "".join(f"# {line}\n" for line in made_by.splitlines()) + yaml_text(body)


def _place(job: JobSet) -> list[Node]:
    """Returns the variables that say the place of a process, from annotations that JobSet gives every pod."""

    def annotated(name: str, annotation: str) -> Node:
        path = f"metadata.annotations['{_ANNOTATION}/{annotation}']"
        return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}

    first = f"{job.name}-{_GROUP}-0-0.{job.name}"
    between: list[Node] = [
        {"name": "MEGASCALE_NUM_SLICES", "value": str(job.slices)},
        annotated("MEGASCALE_SLICE_ID", "job-index"),
        {"name": "MEGASCALE_COORDINATOR_ADDRESS", "value": first},
    ]
    return [
        annotated("JOBSET_NAME", "jobset-name"),
        annotated("REPLICATED_JOB_NAME", "replicatedjob-name"),
        annotated("REPLICATED_JOB_REPLICAS", "replicatedjob-replicas"),
        annotated("JOB_INDEX", "job-index"),
        {"name": "PROCESSES_IN_JOB", "value": str(job.hosts)},
        {"name": "ECGJAX_CLUSTER", "value": "jobset"},
        *(between if job.slices > 1 else []),
    ]


def _pod(job: JobSet, command: Sequence[str], *, variables: Sequence[Node]) -> Node:
    kind = "google.com/tpu" if job.tpu else "nvidia.com/gpu"
    devices = job.tpu.chips_per_host if job.tpu else job.gpus_per_node
    asked: dict[str, Node] = {"cpu": job.cpu} if job.cpu else {}
    if job.memory:
        asked["memory"] = job.memory
    resources: dict[str, Node] = {}
    if asked or devices:
        count: dict[str, Node] = {kind: devices} if devices else {}
        resources = {"resources": {"requests": {**asked, **count}, **({"limits": count} if devices else {})}}
    given: list[Node] = [{"name": name, "value": _literal(value)} for name, value in job.variables]
    container: Node = {
        "name": "main",
        "image": job.image,
        "command": [_literal(word) for word in command],
        "env": [*variables, {"name": "PYTHONUNBUFFERED", "value": "1"}, *given],
        **resources,
        **({"securityContext": {"privileged": True, "runAsUser": 0}} if job.tpu else {}),
        "volumeMounts": [
            {"name": "shared-memory", "mountPath": "/dev/shm"},
            *({"name": f"volume{number}", "mountPath": folder} for number, (_, folder) in enumerate(job.volumes)),
        ],
    }
    return {
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": job.grace_s,
            **({"serviceAccountName": job.service_account} if job.service_account else {}),
            **({"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"} if job.host_network else {}),
            **_nodes(job, kind=kind if devices else ""),
            "containers": [container],
            "volumes": [
                {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},
                *(
                    {"name": f"volume{number}", "persistentVolumeClaim": {"claimName": claim}}
                    for number, (claim, _) in enumerate(job.volumes)
                ),
            ],
        }
    }


def _nodes(job: JobSet, *, kind: str) -> dict[str, Node]:
    """Returns which nodes pods go to."""
    labels = dict(job.selectors)
    tolerated: list[Node] = [{"key": kind, "operator": "Exists", "effect": "NoSchedule"}] if kind else []
    if job.tpu:
        labels["cloud.google.com/gke-tpu-accelerator"] = job.tpu.generation.label
        labels["cloud.google.com/gke-tpu-topology"] = job.tpu.topology
    if job.accelerator:
        labels["cloud.google.com/gke-accelerator"] = job.accelerator
    if job.spot:
        labels["cloud.google.com/gke-spot"] = "true"
        tolerated.append(
            {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}
        )
    return {
        **({"nodeSelector": labels} if labels else {}),
        **({"tolerations": tolerated} if tolerated else {}),
    }


def _literal(text: str) -> str:
    """Returns a text in which Kubernetes replaces nothing: `$(NAME)` would become the value of a variable."""
    return text.replace("$", "$$")
