"""The place of a process, from faked environments of every cluster: nothing of these is installed here."""

import pytest

from ecgjax.errors import ConfigError
from ecgjax.processes import clusters
from ecgjax.processes.detection import Given, find_place

SLURM = {
    "SLURM_JOB_ID": "812345", "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "node[07-09,12],login", "SLURM_NTASKS": "8",
    "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
    "SLURM_JOB_NUM_NODES": "4",
}  # fmt: skip
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
}  # fmt: skip
MPICH = {"PMI_SIZE": "2", "PMI_RANK": "1", "MPI_LOCALNRANKS": "2", "MPI_LOCALRANKID": "1"}
JOBSET = {
    "JOBSET_NAME": "ecg", "REPLICATED_JOB_NAME": "workers", "JOB_INDEX": "1", "JOB_COMPLETION_INDEX": "2",
    "PROCESSES_IN_JOB": "4", "REPLICATED_JOB_REPLICAS": "2", "KUBERNETES_SERVICE_HOST": "10.0.0.1",
}  # fmt: skip
TPU = {"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "t-0,t-1,t-2,t-3"}
SLICES = {
    **TPU, "MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1", "MEGASCALE_COORDINATOR_ADDRESS": "t-0.ecg:8080"
}  # fmt: skip
OWN = {"ECGJAX_COORDINATOR": "node1:1234", "ECGJAX_NUM_PROCESSES": "2", "ECGJAX_PROCESS_ID": "1"}


def without(environment, *names):
    return {name: value for name, value in environment.items() if name not in names}


def place(environment, given=None):
    found = find_place(environment, given)
    return (found.coordinator, found.num_processes, found.process_id) if found else None


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (OWN, ("node1:1234", 2, 1)),
        (TPU, ("t-0:8482", 4, 1)),
        (SLICES, ("t-0.ecg:8482", 8, 5)),
        (JOBSET, ("ecg-workers-0-0.ecg:8482", 8, 6)),
        (JOBSET | {"JAX_COORDINATOR_PORT": "7777"}, ("ecg-workers-0-0.ecg:7777", 8, 6)),
        (without(JOBSET, "JOB_INDEX", "REPLICATED_JOB_REPLICAS"), ("ecg-workers-0-0.ecg:8482", 4, 2)),
        (SLURM | {"JAX_COORDINATOR_PORT": "7777"}, ("node07:7777", 8, 3)),
        (OPEN_MPI | {"JAX_COORDINATOR_PORT": "7777"}, ("10.96.0.1:7777", 4, 2)),
        (OPEN_MPI | {"ECGJAX_COORDINATOR": "node1:99"}, ("node1:99", 4, 2)),
        (SLURM | {"JAX_COORDINATOR_ADDRESS": "node1:99"}, ("node1:99", 8, 3)),
        (MPICH | {"JAX_COORDINATOR_PORT": "7777"}, ("127.0.0.1:7777", 2, 1)),
        (SLURM | {"PMI_SIZE": "8", "PMI_RANK": "3", "JAX_COORDINATOR_PORT": "7777"}, ("node07:7777", 8, 3)),
        (SLURM | OWN | {"ECGJAX_CLUSTER": "0"}, ("node1:1234", 2, 1)),
        (SLURM | MPICH | {"ECGJAX_CLUSTER": "mpich", "JAX_COORDINATOR_PORT": "7777"}, ("127.0.0.1:7777", 2, 1)),
        # What is said in full needs no JobSet whose variables are complete.
        (OWN | {"JOBSET_NAME": "ecg"}, ("node1:1234", 2, 1)),
    ],
    ids=lambda each: None,
)
def test_every_environment_says_where_a_process_belongs(environment, expected):
    assert place(environment) == expected


@pytest.mark.parametrize(
    "environment",
    [
        {},
        SLURM | {"ECGJAX_CLUSTER": "0"},
        SLURM | {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_NODEID": "0"},
        # A shell of salloc, and a batch script of one node, in which tasks stand for cores.
        {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8", "SLURM_JOB_NUM_NODES": "2"},
        {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8", "SLURM_JOB_NUM_NODES": "1", "SLURM_PROCID": "0"},
        {"TPU_WORKER_ID": "0", "TPU_WORKER_HOSTNAMES": "localhost"},
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "5"},  # One of independent pods.
        {"JAX_COORDINATOR_ADDRESS": "node1:99"},
        OWN | {"ECGJAX_NUM_PROCESSES": "1", "ECGJAX_PROCESS_ID": "0"},
    ],
)
def test_a_process_is_alone_where_nothing_says_otherwise(environment):
    assert place(environment) is None


def test_flags_say_it_as_variables_do():
    assert place({}, Given("node1:5", 3, 2)) == ("node1:5", 3, 2)
    assert place(without(OWN, "ECGJAX_PROCESS_ID"), Given(process_id=0)) == ("node1:1234", 2, 0)
    assert place(OWN, Given("node1:1234", 2, 1)) == ("node1:1234", 2, 1)


def test_the_origin_is_told():
    assert find_place(SLURM).origin == "Slurm"
    assert find_place(OPEN_MPI | {"ECGJAX_COORDINATOR": "node1:99"}).origin == "ECGJAX_COORDINATOR and Open MPI"


def test_jobs_have_ports_of_their_own_on_which_their_processes_agree():
    ports = {
        job: {
            place(SLURM | {"SLURM_JOB_ID": str(job), "SLURM_PROCID": str(number)})[0] for number in range(1, 8)
        }
        for job in range(100, 120)
    }  # fmt: skip
    assert all(len(addresses) == 1 for addresses in ports.values())
    found = [int(next(iter(addresses)).rpartition(":")[2]) for addresses in ports.values()]
    assert len(set(found)) > 15
    assert min(found) >= 61440
    assert max(found) <= 65535


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node001", "node001"),
        ("node001,host2", "node001"),
        ("node[001-0015],host2", "node001"),
        ("node[001,007-015],host2", "node001"),
        ("rack[2-3]n[07-9]", "rack2n07"),
        ("a[1-2]-ib.cluster,b", "a1-ib.cluster"),
    ],
)
def test_the_first_host_of_slurms_list(nodes, first):
    assert clusters.first_host(nodes) == first


def test_an_ipv6_launcher_of_open_mpi_stands_in_brackets():
    uri = "1314521088.0;tcp6://[fe80::b9b:ac5d:9cf0:b858,2620:10d:c083:150e::3000:2]:43370"
    found = place(OPEN_MPI | {"OMPI_MCA_orte_hnp_uri": uri, "JAX_COORDINATOR_PORT": "7"})
    assert found == ("[fe80::b9b:ac5d:9cf0:b858]:7", 4, 2)


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        (without(OWN, "ECGJAX_NUM_PROCESSES"), "ECGJAX_NUM_PROCESSES is not"),
        ({"ECGJAX_COORDINATOR": "node1:1"}, "ECGJAX_NUM_PROCESSES and ECGJAX_PROCESS_ID are not"),
        (without(OWN, "ECGJAX_COORDINATOR"), "does not say where process 0"),
        (OWN | {"ECGJAX_COORDINATOR": "node1"}, "ECGJAX_COORDINATOR.*'node1' must be HOST:PORT"),
        (OWN | {"ECGJAX_COORDINATOR": "node1:0"}, "HOST:PORT"),
        (OWN | {"ECGJAX_COORDINATOR": "node1:99999"}, "HOST:PORT"),
        (OWN | {"ECGJAX_COORDINATOR": "fe80::1:99"}, "brackets"),
        (OWN | {"ECGJAX_NUM_PROCESSES": "two"}, "ECGJAX_NUM_PROCESSES='two'"),
        (OWN | {"ECGJAX_NUM_PROCESSES": "0"}, "ECGJAX_NUM_PROCESSES='0' must be a whole number of at least 1"),
        (OWN | {"ECGJAX_PROCESS_ID": "-1"}, "ECGJAX_PROCESS_ID='-1'"),
        (OWN | {"ECGJAX_PROCESS_ID": "2"}, "process 2 of 2 is not possible"),
        (OWN | {"ECGJAX_NUM_PROCESSES": "99999999999999999999"}, "ECGJAX_NUM_PROCESSES"),
        (SLURM | OWN, "ECGJAX_COORDINATOR.*and Slurm contradict each other: processes 2 and 8.*ECGJAX_CLUSTER"),
        (SLURM | OPEN_MPI, "Slurm and Open MPI contradict each other: processes 8 and 4"),
        (SLURM | {"PMI_SIZE": "8", "PMI_RANK": "2"}, "Slurm and MPICH contradict each other: process number 3 and 2"),
        ({"ECGJAX_CLUSTER": "1"}, "ECGJAX_CLUSTER=1, but the environment is not"),
        (OPEN_MPI | {"ECGJAX_CLUSTER": "slurm"}, "ECGJAX_CLUSTER=slurm, but the environment is not"),
        ({"ECGJAX_CLUSTER": "yes"}, "ECGJAX_CLUSTER='yes' is unknown; there are: 0, 1, tpu, jobset, slurm"),
        (without(SLURM, "SLURM_PROCID"), "SLURM_PROCID is not"),
        (SLURM | {"SLURM_PROCID": "0"}, "task 0 on node 1 .* look for it on node07"),
        (without(SLURM, "SLURM_STEP_NODELIST"), "4 nodes, but the command was not started by srun"),
        (without(OPEN_MPI, "OMPI_COMM_WORLD_RANK"), "not OMPI_COMM_WORLD_RANK"),
        (without(OPEN_MPI, "OMPI_MCA_orte_hnp_uri"), "Open MPI does not say where process 0.*mpirun -x"),
        (without(MPICH, "MPI_LOCALNRANKS"), "MPICH does not say where process 0.*-genv"),
        (without(MPICH, "PMI_SIZE"), "not PMI_SIZE"),
        (
            without(JOBSET, "PROCESSES_IN_JOB", "JOB_COMPLETION_INDEX"),
            "JOB_COMPLETION_INDEX and PROCESSES_IN_JOB is not",
        ),
        (JOBSET | {"JOB_COMPLETION_INDEX": "4"}, "pod 4 of Job 1 is beyond PROCESSES_IN_JOB=4"),
        (without(TPU, "TPU_WORKER_ID"), "4 hosts, but TPU_WORKER_ID is not set"),
        (without(SLICES, "MEGASCALE_SLICE_ID"), "8 hosts, but MEGASCALE_SLICE_ID"),
        (TPU | {"TPU_WORKER_ID": "7"}, "process 7 of 4"),
    ],
    ids=lambda each: None,
)
def test_what_is_missing_or_contradicts_is_named(environment, told):
    with pytest.raises(ConfigError, match=told):
        find_place(environment)


def test_a_flag_that_contradicts_its_variable_is_named():
    with pytest.raises(ConfigError, match="--process_id=0 contradicts ECGJAX_PROCESS_ID=1"):
        find_place(OWN, Given(process_id=0))


@pytest.mark.parametrize("endpoints", ["10.0.0.1,10.0.0.2", "a:1:10.0.0.1,b:2:10.0.0.2"], ids=["hosts", "triples"])
def test_the_metadata_of_a_machine_with_tpus_say_it_too(endpoints):
    told = {
        "agent-worker-number": "1",
        "worker-network-endpoints": endpoints,
        "tpu-env": "NODE_ID: 'x'\nMEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'\n"
        "MEGASCALE_COORDINATOR_ADDRESS: '10.0.0.1:8080'\n",
    }
    assert place(clusters.tpu_variables(told.get)) == ("10.0.0.1:8482", 4, 3)
    assert clusters.tpu_variables({}.get) == {}
