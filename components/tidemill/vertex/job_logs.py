"""What the machines of a job print, read from Cloud Logging while it runs."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final

from tidemill.errors import TidemillError
from tidemill.jobs.job import Denied
from tidemill.vertex.faults import fault
from tidemill.vertex.location import Location
from tidemill.vertex.sdk import api_errors, auth_errors, authorized_session

_HOST: Final = "logging.googleapis.com"
_PAGE: Final = 1000
_TIMEOUT_S: Final = 60
# Entries arrive late and out of order: each reading goes back so far, and leaves out what was read before.
_LATE: Final = timedelta(seconds=60)
_REMEMBERED: Final = 20_000
_POOL: Final = re.compile(r"workerpool(\d+)-(\d+)")


class JobLogs:
    """The logs of jobs, by what is new since the last look.

    The service's client isn't in our environments; its one method that is needed here is asked over HTTPS.
    """

    def __init__(self, location: Location, endpoint: str = f"https://{_HOST}") -> None:
        """Makes no call.

        Args:
            endpoint: where Cloud Logging answers.
        """
        self._location = location
        self._endpoint = endpoint
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._newest: dict[str, str] = {}
        self._refused: set[str] = set()

    def read(self, job: str) -> Iterator[str]:
        """Yields the lines that are new, each with its worker's name in front.

        Where Cloud Logging refuses whoever asks, it yields once how to see them, and nothing later.

        Args:
            job: the last part of its resource name.

        Raises:
            PlatformError: if they can't be read now.
        """
        if job in self._refused:
            return
        try:
            for entry in self._entries(job):
                identity, at = str(entry.get("insertId")), str(entry.get("timestamp", ""))
                self._newest[job] = max(self._newest.get(job, ""), at)
                if (key := f"{identity} {at}") not in self._seen:
                    self._seen[key] = None
                    yield from _lines(entry)
            while len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
        except TidemillError as failure:
            if failure.retryable and not isinstance(failure, Denied):
                raise
            self._refused.add(job)
            yield f"the logs of this job can't be read here: {failure}"
            yield f"  see them with: {self.command(job)}"

    def command(self, job: str) -> str:
        """Returns the command that shows a job's logs."""
        options = f"--project={self._location.project} --order=asc --format='value(textPayload,jsonPayload.message)'"
        return f"gcloud logging read '{_condition(job)}' {options}"

    def _entries(self, job: str) -> Iterator[dict[str, Any]]:
        condition, token = _condition(job), ""
        if newest := self._newest.get(job):
            since = datetime.fromisoformat(newest[:19] + "+00:00") - _LATE
            condition += f' AND timestamp>="{since.isoformat()}"'
        while True:
            body = {
                "resourceNames": [f"projects/{self._location.project}"],
                "filter": condition,
                "orderBy": "timestamp asc",
                "pageSize": _PAGE,
                **({"pageToken": token} if token else {}),
            }
            answer = self._ask(body)
            yield from answer.get("entries", ())
            if not (token := answer.get("nextPageToken", "")):
                return

    def _ask(self, body: dict[str, Any]) -> dict[str, Any]:
        api = api_errors()
        try:
            response = self._session.post(f"{self._endpoint}/v2/entries:list", json=body, timeout=_TIMEOUT_S)
            if response.status_code != 200:
                raise api.from_http_response(response)
            answer: dict[str, Any] = response.json()
            return answer
        # requests' errors of the connection are OSErrors
        except (api.GoogleAPIError, auth_errors().GoogleAuthError, OSError) as error:
            told = fault("Cloud Logging", error, self._location)
            if isinstance(error, api.Forbidden):
                raise Denied(told.where, told.expected, told.got, told.remedy) from error
            raise told from error

    @cached_property
    def _session(self) -> Any:
        return authorized_session(_HOST)


def _condition(job: str) -> str:
    return f'resource.type="ml_job" AND resource.labels.job_id="{job}"'


def _lines(entry: dict[str, Any]) -> Iterator[str]:
    payload = entry.get("jsonPayload", {})
    text = entry.get("textPayload") or payload.get("message") or ""
    name = str(entry.get("resource", {}).get("labels", {}).get("task_name", "service"))
    for line in str(text).rstrip("\n").splitlines():
        yield f"{worker_name(name)}: {line}"


def worker_name(task: str) -> str:
    """Returns the name that our records give to a replica: ``workerpool1-0`` → ``worker-1``."""
    if (match := _POOL.fullmatch(task)) is None:
        return task
    pool, index = int(match[1]), int(match[2])
    return f"reducer-{index}" if pool == 2 else f"worker-{index + (pool == 1)}"
