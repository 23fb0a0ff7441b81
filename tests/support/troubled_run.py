"""A pretraining that meets trouble at a given step: `python -m tests.support.troubled_run TROUBLE@STEP[@PROCESS] …`.

The rest of the command line is that of `ecgjax.pretrain`, which then runs as it does by itself. Where the trouble is
reached, the line `trouble` is printed. Troubles:

  read-hangs       the reading of a step's batch waits without end
  read-fails       the reading of a step's batch meets a damaged shard
  read-crashes     the reading of a step's batch raises an error that nobody foresaw
  reads-are-slow   the reading of every batch from a step on takes .2 s longer
  evaluation-hangs the evaluation at a step waits without end
  save-hangs       the save of a step waits without end, before anything is written
  save-is-slow     the save of a step takes 4 s
  killed           the process is killed by the system before the step
  killed-in-save   the process is killed by the system while the save of a step is being written
"""

import os
import random
import runpy
import signal
import sys
import threading
import time

from data_pipelines.errors import DataError
from ecgjax.processes import watchdog


def reach():
    os.write(1, b"trouble\n")


def hang():
    reach()
    time.sleep(3600)


def read_trouble(kind, step):
    from ecgjax.training.run import Run

    # Batches wait for the loop some steps ahead; the trouble comes where the loop asks for one.
    def troubled(self, sampler, *, start_step=0):
        for number, batch in enumerate(original(self, sampler, start_step=start_step), start_step):
            if kind == "reads-are-slow":
                time.sleep(0.2 if number >= step else 0)
            elif number == step:
                if kind == "killed":
                    kill()
                if kind == "read-hangs":
                    hang()
                reach()
                raise DataError("shard 3 is damaged") if kind == "read-fails" else ZeroDivisionError("unforeseen")
            yield batch

    original, Run.batches = Run.batches, troubled


def evaluation_trouble(step):
    from ecgjax.training import run_evaluation

    def troubled(prepared):
        evaluate = original(prepared)

        def hanging(state):
            if int(state.step) == step:
                hang()
            return evaluate(state)

        return hanging

    original, run_evaluation.make_evaluation = run_evaluation.make_evaluation, troubled


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_in_save(step):
    """Kills this process at some moment after the folder of a save is made, and before it gets its name at the latest.

    Calls of the system are heard of before they are made, so that the folder is waited for.
    """

    def kill_some_time_after_made(folder):
        while not os.path.isdir(folder):
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.05))
        kill()

    def hear(call, arguments):
        if call == "os.mkdir" and os.path.basename(arguments[0]).startswith(f"{step}.orbax-checkpoint-tmp"):
            threading.Thread(target=kill_some_time_after_made, args=(os.fspath(arguments[0]),), daemon=True).start()
        elif call == "os.rename" and os.path.basename(arguments[1]) == str(step):
            kill()

    sys.addaudithook(hear)


def save_trouble(kind, step):
    from ecgjax.training.checkpoints.checkpoint import Checkpoints

    def troubled(self, now, *arguments, **options):
        if now == step:
            if kind == "save-hangs":
                hang()
            reach()
            time.sleep(4)
        return original(self, now, *arguments, **options)

    original, Checkpoints.save = Checkpoints.save, troubled


if __name__ == "__main__":
    watchdog.PATIENCE_S = 1.0  # so that tests need not wait for what a read on a slow disk is given
    trouble = sys.argv.pop(1)
    name, at, *process = trouble.split("@")
    if not process or os.environ.get("ECGJAX_PROCESS_ID", "0") == process[0]:
        if name == "evaluation-hangs":
            evaluation_trouble(int(at))
        elif name == "killed-in-save":
            kill_in_save(int(at))
        elif name.startswith("save"):
            save_trouble(name, int(at))
        else:
            read_trouble(name, int(at))
    runpy.run_module("ecgjax.pretrain", run_name="__main__", alter_sys=True)
