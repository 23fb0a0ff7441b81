"""The processes of a run: where each belongs, whether all agree before they compute, and how they wait for others."""

from ecgjax.processes.barriers import gather, telling_failures, wait_for_all
from ecgjax.processes.command_flags import define_flags, given_place, started
from ecgjax.processes.detection import Given, find_place
from ecgjax.processes.start import LIMIT_S, begin

__all__ = [
    "LIMIT_S",
    "Given",
    "begin",
    "define_flags",
    "find_place",
    "gather",
    "given_place",
    "started",
    "telling_failures",
    "wait_for_all",
]
