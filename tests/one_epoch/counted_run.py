"""A pretraining that writes down every batch it steps on: `python -m tests.one_epoch.counted_run FILE …`.

The rest of the command line is that of `ecgjax.pretrain`. Each batch is appended to the file as int64: its step, the
number of the process, the process's own memory in bytes, the number of its rows, and their record numbers.
"""

import os
import runpy
import sys

import numpy as np

from data_pipelines.system.process_usage import own_memory_bytes


def count(path):
    from ecgjax.training.run import Run

    def counted(self, sampler, *, start_step=0):
        with open(path, "ab", buffering=0) as file:
            for step, batch in enumerate(original(self, sampler, start_step=start_step), start_step):
                records = np.asarray(batch["record"]).astype(np.int64)
                file.write(np.concatenate([[step, os.getpid(), own_memory_bytes(), len(records)], records]).tobytes())
                yield batch

    original, Run.batches = Run.batches, counted


if __name__ == "__main__":
    count(sys.argv.pop(1))
    runpy.run_module("ecgjax.pretrain", run_name="__main__", alter_sys=True)
