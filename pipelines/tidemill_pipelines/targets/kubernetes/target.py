"""Runs and schedules on Kubeflow Pipelines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from tidemill.errors import UsageError
from tidemill.kserve.cluster import Cluster
from tidemill_pipelines.targets.compilation import Package
from tidemill_pipelines.targets.config import TargetConfig
from tidemill_pipelines.targets.kubernetes.client import Kfp
from tidemill_pipelines.targets.kubernetes.filters import contains, equals
from tidemill_pipelines.targets.kubernetes.logs import logs
from tidemill_pipelines.targets.kubernetes.marks import RunMark, run_mark, written
from tidemill_pipelines.targets.kubernetes.naming import version_name
from tidemill_pipelines.targets.kubernetes.schedules import Schedules
from tidemill_pipelines.targets.kubernetes.storage import stage
from tidemill_pipelines.targets.kubernetes.told import run_of, task_names
from tidemill_pipelines.targets.kubernetes.uploads import Uploaded, spec_of, uncached, upload, version_of
from tidemill_pipelines.targets.remote import ENDED, RemoteRun, RemoteSchedule, ScheduleRequest, Submission

_PAGE: Final = 100


class KubernetesTarget:
    """A cluster with Kubeflow Pipelines. See `RemoteTarget` for what the methods owe.

    KFP knows no request ids: a run's description carries it. Two submissions of one id that run at the same moment
    may both find nothing and make a run each; the later then finds both, ends its own and returns the other. What
    remains is a duplicate that is cancelled within a second or two of its creation.
    """

    def __init__(self, config: TargetConfig) -> None:
        self._config = config
        self._settings = config.on_kubernetes
        self._opened: Kfp | None = None

    @property
    def _kfp(self) -> Kfp:
        if self._opened is None:
            self._opened = Kfp(self._settings)
        return self._opened

    @property
    def _namespace(self) -> str | None:
        """The namespace that KFP is told: it wants none where it has one user."""
        return self._settings.namespace if self._settings.multi_user else None

    @property
    def _schedules(self) -> Schedules:
        return Schedules(self._kfp, self._config)

    def stage(self, files: Mapping[str, bytes]) -> None:
        """Uploads files by their address; what is there already with that content-addressed name stays."""
        stage(files)

    def submit(self, submission: Submission) -> RemoteRun:
        """Makes a run, or finds the one that an earlier call with the same request id made.

        Raises:
            UsageError: if that one is of another content.
        """
        from kfp_server_api import V2beta1PipelineVersionReference, V2beta1Run

        mark = RunMark.of(submission.request_id, {**self._config.labels, **submission.labels}, submission.digest)
        experiment = self._experiment(create=True)
        if (existing := self._requested(mark, experiment)) is not None:
            self._must_equal(existing, submission)
            return run_of(existing, self._kfp.host, existed=True)
        uploaded = self._upload(submission)
        run = self._kfp.call(
            f"submit {submission.name}",
            self._kfp.runs.run_service_create_run,
            V2beta1Run(
                experiment_id=experiment,
                display_name=submission.name,
                description=written(mark),
                pipeline_version_reference=V2beta1PipelineVersionReference(
                    pipeline_id=uploaded.pipeline, pipeline_version_id=uploaded.version
                ),
                runtime_config=self._runtime(submission.parameters),
                service_account=self._config.service_account,
            ),
            lost=lambda: self._requested(mark, experiment),
        )
        first = self._requested(mark, experiment) or run
        if first.run_id != run.run_id:
            self.cancel(run.run_id)
            self._must_equal(first, submission)
        return run_of(first, self._kfp.host, existed=first.run_id != run.run_id)

    def runs(self, limit: int) -> Sequence[RemoteRun]:
        """Returns the newest runs first, without their tasks."""
        if (experiment := self._experiment(create=False)) is None:
            return []
        runs = self._kfp.pages(
            "list runs",
            self._kfp.runs.run_service_list_runs,
            "runs",
            experiment_id=experiment,
            sort_by="created_at desc",
            page_size=min(limit, _PAGE),
        )
        return [run_of(run, self._kfp.host) for run in islice(runs, limit)]

    def run(self, run: str) -> RemoteRun:
        """Returns a run by id, with its tasks."""
        found = self._kfp.call(f"show run {run}", self._kfp.runs.run_service_get_run, run)
        spec = spec_of(self._kfp, found)
        return run_of(found, self._kfp.host, task_names(spec) if spec is not None else ())

    def logs(self, run: str, task: str | None) -> Iterator[str]:
        """Yields what the tasks' pods printed."""
        self._kfp.call(f"show run {run}", self._kfp.runs.run_service_get_run, run)
        with Cluster(self._settings.namespace, self._settings.context) as cluster:
            yield from logs(cluster, run, task)

    def cancel(self, run: str) -> RemoteRun:
        """Asks a run to end; one that has ended stays as it is."""
        found = self.run(run)
        if found.state in ENDED or found.state == "cancelling":
            return found
        try:
            self._kfp.call(f"cancel run {run}", self._kfp.runs.run_service_terminate_run, run)
        except UsageError:
            if (found := self.run(run)).state not in ENDED:  # else it ended between the look and the call
                raise
            return found
        return self.run(run)

    def create_schedule(self, request: ScheduleRequest) -> RemoteSchedule:
        """Makes a schedule, or finds the equal one of that name."""
        return self._schedules.create(request, self._made_experiment(), lambda: self._upload(request.submission))

    def update_schedule(self, request: ScheduleRequest) -> RemoteSchedule:
        """Replaces the schedule of that name without a moment in which there is none or two."""
        return self._schedules.update(request, self._made_experiment(), lambda: self._upload(request.submission))

    def schedules(self) -> Sequence[RemoteSchedule]:
        """Returns the schedules that tidemill made, by name."""
        experiment = self._experiment(create=False)
        return self._schedules.all(experiment) if experiment is not None else []

    def pause_schedule(self, name: str) -> RemoteSchedule:
        return self._schedules.switch(name, self._made_experiment(), active=False)

    def resume_schedule(self, name: str) -> RemoteSchedule:
        return self._schedules.switch(name, self._made_experiment(), active=True)

    def delete_schedule(self, name: str) -> None:
        self._schedules.delete(name, self._made_experiment())

    def _upload(self, submission: Submission) -> Uploaded:
        return upload(self._kfp, _package(submission), self._namespace)

    def _made_experiment(self) -> str:
        return self._experiment(create=True) or ""

    def _experiment(self, create: bool) -> str | None:
        """Returns the id of the experiment, made if there is none and ``create`` is set."""
        from kfp_server_api import V2beta1Experiment

        name = self._settings.experiment

        def find() -> Any:
            experiments = self._kfp.pages(
                f"find experiment {name}",
                self._kfp.experiments.experiment_service_list_experiments,
                "experiments",
                filter=equals("display_name", name),
                **({"namespace": self._namespace} if self._namespace else {}),
            )
            return next(experiments, None)

        found = find()
        if found is None and create:
            found = self._kfp.call(
                f"create experiment {name}",
                self._kfp.experiments.experiment_service_create_experiment,
                V2beta1Experiment(display_name=name, namespace=self._namespace),
                lost=find,
                conflict=find,
            )
        return str(found.experiment_id) if found is not None else None

    def _requested(self, mark: RunMark, experiment: str | None) -> Any:
        """Returns the first run that was made for a request, or None."""
        runs = self._kfp.pages(
            f"find the run of request {mark.request}",
            self._kfp.runs.run_service_list_runs,
            "runs",
            experiment_id=experiment,
            sort_by="created_at asc",
            filter=contains("description", mark.key),
        )
        made = [run for run in runs if (own := run_mark(run.description)) is not None and own.key == mark.key]
        return min(made, key=lambda run: (run.created_at, run.run_id), default=None)

    def _must_equal(self, run: Any, submission: Submission) -> None:
        """Refuses a run that has the submission's request id and is of another content.

        A run from before marks had digests is told by its version and its parameters; where the version is gone too,
        it counts as equal.
        """
        mark, wanted = run_mark(run.description), submission.digest
        known = mark.digest if mark is not None else None
        if known is None:
            if (version := version_of(self._kfp, run)) is None:
                return
            given = dict((run.runtime_config.parameters if run.runtime_config is not None else None) or {})
            known = f"version {version.name} with {given}"
            wanted = f"version {version_name(_package(submission))} with {dict(submission.parameters)}"
        if known != wanted:
            raise UsageError(
                f"request id {submission.request_id}",
                f"run {run.run_id} has it, and is of another content",
                f"{wanted}; that run: {known}",
                "give what differs another --request-id",
            )

    def _runtime(self, parameters: Mapping[str, Any]) -> Any:
        from kfp_server_api import V2beta1RuntimeConfig

        return V2beta1RuntimeConfig(parameters=dict(parameters), pipeline_root=self._config.pipeline_root)


def _package(submission: Submission) -> Package:
    """Returns the package as it is uploaded."""
    return uncached(submission.package) if submission.cache is False else submission.package
