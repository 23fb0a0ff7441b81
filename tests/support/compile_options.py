"""How the tests' programs are compiled; imports no JAX, whose flags must be set before."""

from importlib.metadata import version

# jaxlib 0.11 has the newer loop emitters alone: it ends the process that names the flag which chooses.
_CHOOSES = tuple(int(part) for part in version("jaxlib").split(".")[:2]) < (0, 11)

#: Without LLVM's optimisation, each program in one piece, as other tests keep the other cores busy, and, where there is
#: a choice, with XLA's older way of making loops, not through MLIR.
XLA_FLAGS = (
    "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    + " --xla_cpu_use_fusion_emitters=false" * _CHOOSES
)

#: Compiler options of a program whose loops are made as runs make them.
EMITTERS_OF_RUNS = {"xla_cpu_use_fusion_emitters": True} if _CHOOSES else {}
