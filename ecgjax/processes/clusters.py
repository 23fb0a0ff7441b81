"""What Slurm, MPI, a JobSet of Kubernetes and a TPU pod say in the environment about the place of a process.

Every function here is a pure function of the variables of the environment, and returns None where they are not those of
its cluster. JAX can detect clusters by itself too, but it gives a process one GPU where Slurm or Open MPI has started
it, however many there are, and asks the server of Kubernetes, which needs rights that few pods have.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping

from ecgjax.errors import ConfigError
from ecgjax.processes.place import PORT_VARIABLE, Claim, missing, whole_number

#: Ports that are free on most machines: those above Linux's own range for outgoing connections.
_FIRST_PORT, _PORTS = 61440, 4096

#: Port of the coordinator in pods, which have addresses of their own; JAX takes the same one for TPUs.
_POD_PORT = 8482

_LOOPBACK = "127.0.0.1"


def slurm(environment: Mapping[str, str]) -> Claim | None:
    """Reads what `srun` sets for every task of a step.

    Args:
        environment: Variables of the environment.

    Raises:
        ConfigError: Variables are missing or are no numbers, process 0 is not on the first node, or a batch script of
            several nodes has started the command without `srun`.
    """
    if "SLURM_STEP_NODELIST" not in environment:
        _check_srun(environment)
        return None
    tasks = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"
    if absent := missing(environment, ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", tasks, "SLURM_PROCID")):
        raise ConfigError(f"SLURM_STEP_NODELIST is set but {absent} is not; start the processes by srun")
    process_id = whole_number(environment, "SLURM_PROCID")
    host = first_host(environment["SLURM_STEP_NODELIST"])
    if process_id == 0 and environment.get("SLURM_NODEID", "0") != "0":
        raise ConfigError(
            f"Slurm has put task 0 on node {environment['SLURM_NODEID']} of {environment['SLURM_STEP_NODELIST']}, and "
            f"the others look for it on {host}; leave out --distribution, or set ECGJAX_COORDINATOR=HOST:PORT"
        )
    # Two steps of one job may run at once.
    job = f"{environment['SLURM_JOB_ID']}.{environment.get('SLURM_STEP_ID', '')}"
    return Claim("Slurm", f"{host}:{_port(environment, job)}", whole_number(environment, tasks, least=1), process_id)


def _check_srun(environment: Mapping[str, str]) -> None:
    nodes = environment.get("SLURM_JOB_NUM_NODES", environment.get("SLURM_NNODES", "1"))
    # A batch script has the number of a task, and a shell of salloc has none.
    if "SLURM_JOB_ID" in environment and "SLURM_PROCID" in environment and nodes not in ("", "1"):
        raise ConfigError(
            f"this Slurm job has {nodes} nodes, but the command was not started by srun, so that it would use one of "
            "them; put srun before it, or set ECGJAX_CLUSTER=0 for a run of one process"
        )


def first_host(nodes: str) -> str:
    """Returns the first host of Slurm's list of nodes: `rack[2-3]n[007-9,12],login` → `rack2n007`."""
    first = re.match(r"(?:\[[^\]]*\]|[^,\[])*", nodes.strip())
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0] if first else nodes)


def open_mpi(environment: Mapping[str, str]) -> Claim | None:
    """Reads what Open MPI's `mpirun` sets for every process.

    Args:
        environment: Variables of the environment.

    Raises:
        ConfigError: Variables are missing or are no numbers.
    """
    size, rank, local = "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"
    if size not in environment and rank not in environment:
        return None
    if absent := missing(environment, (size, rank)):
        raise ConfigError(f"Open MPI has set one of {size} and {rank}, but not {absent}; start the processes by mpirun")
    number = whole_number(environment, size, least=1)
    launcher = environment.get("OMPI_MCA_orte_hnp_uri", "")
    job = launcher.partition(".")[0] or environment.get("PMIX_NAMESPACE", "")
    found = re.search(r"tcp://([^,:;]+)|tcp6://\[([^,\]]+)", launcher)
    host = next((f"[{each}]" if ":" in each else each for each in (found.groups() if found else ()) if each), None)
    if environment.get(local) == environment[size]:
        host = _LOOPBACK
    return Claim(
        "Open MPI",
        f"{host}:{_port(environment, job)}" if host else None,
        number,
        whole_number(environment, rank),
        remedy="mpirun -x ECGJAX_COORDINATOR=HOST:PORT, with the host of rank 0",
    )


def mpich(environment: Mapping[str, str]) -> Claim | None:
    """Reads what `mpiexec` of MPICH, Intel MPI and MVAPICH (the PMI interface) sets for every process.

    Args:
        environment: Variables of the environment.

    Raises:
        ConfigError: Variables are missing or are no numbers.
    """
    if "PMI_SIZE" not in environment and "PMI_RANK" not in environment:
        return None
    if absent := missing(environment, ("PMI_SIZE", "PMI_RANK")):
        raise ConfigError(f"one of PMI_SIZE and PMI_RANK is set, but not {absent}; start the processes by mpiexec")
    one_host = environment.get("MPI_LOCALNRANKS") == environment["PMI_SIZE"]
    job = environment.get("PMI_JOBID", environment.get("PMI_KVS", ""))
    return Claim(
        "MPICH",
        f"{_LOOPBACK}:{_port(environment, job)}" if one_host else None,
        whole_number(environment, "PMI_SIZE", least=1),
        whole_number(environment, "PMI_RANK"),
        remedy="mpiexec -genv ECGJAX_COORDINATOR HOST:PORT, with the host of rank 0",
    )


def jobset(environment: Mapping[str, str]) -> Claim | None:
    """Reads what a manifest of a JobSet gives its pods, by the names that XPK uses.

    Kubernetes itself sets `JOB_COMPLETION_INDEX` alone. The manifest adds `JOBSET_NAME`, `REPLICATED_JOB_NAME`,
    `JOB_INDEX` and `REPLICATED_JOB_REPLICAS` from the annotations of the pod, and `PROCESSES_IN_JOB`, the parallelism
    of a Job. A pod without `JOBSET_NAME` and `PROCESSES_IN_JOB` is one of independent ones.

    Args:
        environment: Variables of the environment.

    Raises:
        ConfigError: Variables are missing or are no numbers.
    """
    if "JOBSET_NAME" not in environment and "PROCESSES_IN_JOB" not in environment:
        return None
    if absent := missing(
        environment, ("JOBSET_NAME", "REPLICATED_JOB_NAME", "JOB_COMPLETION_INDEX", "PROCESSES_IN_JOB")
    ):
        raise ConfigError(
            f"this pod belongs to a JobSet, but {absent} is not set; the manifest must set it for every container "
            "(docs/clusters.md shows how)"
        )
    pods, jobs = whole_number(environment, "PROCESSES_IN_JOB", least=1), 1
    if "REPLICATED_JOB_REPLICAS" in environment:
        jobs = whole_number(environment, "REPLICATED_JOB_REPLICAS", least=1)
    job = whole_number(environment, "JOB_INDEX") if "JOB_INDEX" in environment else 0
    pod = whole_number(environment, "JOB_COMPLETION_INDEX")
    if pod >= pods or job >= jobs:
        raise ConfigError(
            f"pod {pod} of Job {job} is beyond PROCESSES_IN_JOB={pods} and REPLICATED_JOB_REPLICAS={jobs}; the "
            "manifest must set them to the parallelism of a Job and the replicas of its replicatedJob"
        )
    name = environment["JOBSET_NAME"]
    # All Jobs of a set share one coordinator: pod 0 of Job 0.
    host = f"{name}-{environment['REPLICATED_JOB_NAME']}-0-0.{name}"
    return Claim("the JobSet", f"{host}:{environment.get(PORT_VARIABLE) or _POD_PORT}", pods * jobs, job * pods + pod)


def tpu_pod(environment: Mapping[str, str]) -> Claim | None:
    """Reads what a TPU pod says of its workers: `TPU_WORKER_HOSTNAMES`, `TPU_WORKER_ID`, and of slices `MEGASCALE_…`.

    Args:
        environment: Variables of the environment.

    Raises:
        ConfigError: Variables are missing or are no numbers.
    """
    names = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
    if not names:
        return None
    workers = [name.strip() for name in names.split(",") if name.strip()]
    slices = whole_number(environment, "MEGASCALE_NUM_SLICES", least=1) if _given(environment, "NUM_SLICES") else 1
    if len(workers) * slices == 1:
        return Claim("the TPU pod", f"{workers[0].partition(':')[0]}:{_POD_PORT}", 1, 0)
    needed = ("TPU_WORKER_ID", *(("MEGASCALE_SLICE_ID", "MEGASCALE_COORDINATOR_ADDRESS") if slices > 1 else ()))
    if absent := missing(environment, needed):
        raise ConfigError(f"this TPU pod has {len(workers) * slices} hosts, but {absent} is not set")
    worker = whole_number(environment, "TPU_WORKER_ID")
    part = whole_number(environment, "MEGASCALE_SLICE_ID") if slices > 1 else 0
    host = environment["MEGASCALE_COORDINATOR_ADDRESS"] if slices > 1 else workers[0]
    address = f"{host.partition(':')[0]}:{environment.get(PORT_VARIABLE) or _POD_PORT}"
    return Claim("the TPU pod", address, len(workers) * slices, part * len(workers) + worker)


def _given(environment: Mapping[str, str], name: str) -> bool:
    return bool(environment.get(f"MEGASCALE_{name}"))


def tpu_variables(metadata: Callable[[str], str | None]) -> dict[str, str]:
    """Returns the variables of a TPU pod from the metadata of its virtual machine, for machines that set none.

    Args:
        metadata: Function from the name of an attribute of the machine to its value; None where there is none.
    """
    worker, endpoints = metadata("agent-worker-number"), metadata("worker-network-endpoints")
    if worker is None or endpoints is None:
        return {}
    # An endpoint is a host name, or in earlier releases name:id:address.
    hosts = [endpoint.split(":")[-1] for endpoint in endpoints.split(",")]
    pairs = (line.partition(":") for line in (metadata("tpu-env") or "").splitlines())
    own = {
        name.strip(): value.strip().strip("'\"") for name, _, value in pairs if name.strip().startswith("MEGASCALE_")
    }
    return {"TPU_WORKER_ID": worker.strip(), "TPU_WORKER_HOSTNAMES": ",".join(hosts), **own}


def _port(environment: Mapping[str, str], job: str) -> int:
    """Returns a port that follows from the name of the job, so that processes agree and jobs differ."""
    if environment.get(PORT_VARIABLE):
        return whole_number(environment, PORT_VARIABLE, least=1)
    return _FIRST_PORT + zlib.crc32(job.encode()) % _PORTS
