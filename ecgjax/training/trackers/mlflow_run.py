"""A run at MLflow. Its own environment variables, such as MLFLOW_TRACKING_URI, hold."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from ecgjax.training.trackers.tracker import Beginning

_EXPERIMENT = "ecgjax"

# Longest value of a parameter that all stores take, and parameters that they take at once.
_LONGEST, _AT_ONCE = 500, 100


class MlflowRun:
    """Tracker that writes to MLflow, by a client of its own: what else the process tracks there is not touched."""

    def __init__(self) -> None:
        self._client: Any = None
        self._id = ""

    def begin(self, beginning: Beginning) -> None:
        """Begins or resumes the run; the config of its first start are its parameters, which cannot be changed."""
        import mlflow
        from mlflow.entities import Param

        self._client = client = mlflow.MlflowClient()
        if beginning.run_id is not None:
            self._id = beginning.run_id
            client.update_run(self._id, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
        known = client.get_experiment_by_name(name)
        experiment = client.create_experiment(name) if known is None else known.experiment_id
        self._id = client.create_run(experiment, run_name=beginning.workdir.name).info.run_id
        beginning.keep(self._id)
        params = [Param(leaf, str(value)[:_LONGEST]) for leaf, value in beginning.leaves.items()]
        for begin in range(0, len(params), _AT_ONCE):
            client.log_batch(self._id, params=params[begin : begin + _AT_ONCE])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Hands over the metrics of a step."""
        from mlflow.entities import Metric

        now_ms = int(1e3 * time.time())
        self._client.log_batch(self._id, metrics=[Metric(name, value, now_ms, step) for name, value in values.items()])

    def end(self, *, finished: bool, failed: bool) -> None:
        """Ends the run."""
        self._client.set_terminated(self._id, "FINISHED" if finished else "FAILED" if failed else "KILLED")
