"""The workflow that this task belongs to: who owns its TrainJob, and whether the run was cancelled.

SIGTERM doesn't say why. KFP cancels a run by setting its Workflow's `activeDeadlineSeconds` to 0, `argo stop` and `argo
terminate` set `shutdown`, and deleting a run deletes the Workflow; a pod that is evicted, preempted or out of time
leaves all that as it was. So the Workflow is asked, by the right that KFP's driver needs anyway.

KFP's launcher ends with the first SIGTERM, and Argo's emissary, which looks once a second, then ends the container:
mostly time enough for two requests, but no promise. The job of a task that came too late ends with the Workflow, which
owns it, or by its own deadline.
"""

from __future__ import annotations

from typing import Any, Final

from tidemill.errors import TidemillError
from tidemill.kserve.cluster import Cluster, Kind

WORKFLOW_VARIABLE: Final = "TIDEMILL_WORKFLOW"
WORKFLOWS: Final = Kind("argoproj.io", "v1alpha1", "workflows", "Workflow")


class Workflow:
    """Argo's Workflow of a run.

    Args:
        name: None for a task that no workflow runs.
    """

    def __init__(self, cluster: Cluster, name: str | None) -> None:
        self._cluster, self._name = cluster, name

    def owner(self) -> dict[str, Any] | None:
        """Returns the ownerReference for what the run makes; None if there is no such workflow."""
        found = self._cluster.get(WORKFLOWS, self._name) if self._name else None
        if found is None:
            return None
        metadata = found["metadata"]
        version = f"{WORKFLOWS.group}/{WORKFLOWS.version}"
        return {"apiVersion": version, "kind": WORKFLOWS.kind, "name": metadata["name"], "uid": metadata["uid"]}

    def cancelled(self) -> bool:
        """Says whether the run is being ended; False if it can't be told, for work that goes on is not lost."""
        if self._name is None:
            return True
        try:
            found = self._cluster.get(WORKFLOWS, self._name)
        except TidemillError:
            return False
        if found is None or "deletionTimestamp" in found["metadata"]:
            return True
        spec = found.get("spec", {})
        return bool(spec.get("shutdown")) or spec.get("activeDeadlineSeconds") == 0
