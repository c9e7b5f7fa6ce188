"""The one way to Vertex AI: the SDK's clients of a region, with deadlines, retries and our errors.

These are the SDK's generated (gapic) clients. The high-level classes over them make each resource anew when they are
asked twice, hide ids and etags, look at the bucket's owner before every submission (43 to 90 s without network), and
take 2.3 s longer to import.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from tidemill.errors import PlatformError
from tidemill.vertex.faults import fault, is_transient
from tidemill.vertex.location import Location
from tidemill.vertex.sdk import aiplatform, api_errors, auth_errors, retry

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds.

    Attributes:
        call: for the answer to one request.
        pause: before the first retry; it doubles up to ``longest_pause``.
        unavailable: over all retries, while the service is unavailable.
        operation: for a long-running operation, such as a deployment.
        poll: between two looks at something that is under way.
    """

    call: float = 60.0
    pause: float = 1.0
    longest_pause: float = 20.0
    unavailable: float = 120.0
    operation: float = 3600.0
    poll: float = 10.0


@dataclass(frozen=True)
class Clients:
    """Clients of one location, made when they are first needed, with application-default credentials.

    Attributes:
        api_endpoint: host (and port) of the service; that of the region by default.
    """

    location: Location
    patience: Patience = field(default_factory=Patience)
    api_endpoint: str | None = None

    @cached_property
    def pipelines(self) -> Any:
        return self._client("PipelineServiceClient")

    @cached_property
    def schedules(self) -> Any:
        return self._client("ScheduleServiceClient")

    @cached_property
    def models(self) -> Any:
        return self._client("ModelServiceClient")

    @cached_property
    def endpoints(self) -> Any:
        return self._client("EndpointServiceClient")

    @cached_property
    def jobs(self) -> Any:
        return self._client("JobServiceClient")

    @cached_property
    def predictions(self) -> Any:
        return self._client("PredictionServiceClient")

    def dedicated_predictions(self, host: str) -> Any:
        """Returns a client of an endpoint that has its own host, over HTTPS as the SDK asks there."""
        return self._client("PredictionServiceClient", host, transport="rest")

    def ask(self, where: str, method: Callable[..., T], request: Any, passing: Any = ()) -> T:
        """Makes a call that may be repeated: one that reads, or that does the same when it is done twice.

        Args:
            where: what is asked for, for the error's text.
            method: of one of the clients.
            request: as a mapping, or as the SDK's message.
            passing: classes of ``google.api_core`` errors that the caller handles.

        Raises:
            UsageError: if the service refuses the call.
            PlatformError: if it can't be answered now.
        """
        again = retry(
            predicate=is_transient,
            initial=self.patience.pause,
            maximum=self.patience.longest_pause,
            multiplier=2.0,
            timeout=self.patience.unavailable,
        )
        with self._told(where, passing):
            return method(request=request, retry=again, timeout=self.patience.call)

    def ask_all(
        self, where: str, method: Callable[..., Any], request: Any, limit: int | None = None, passing: Any = ()
    ) -> list[Any]:
        """Makes a call that lists, and returns the items of all its pages, or the first ``limit`` of them."""
        pages = self.ask(where, method, request, passing)
        with self._told(where):  # the further pages are asked for while they are read
            return list(itertools.islice(pages, limit))

    def ensure(self, where: str, find: Callable[[], T | None], make: Callable[[], T]) -> T:
        """Returns what ``find`` gives, or else what ``make`` makes.

        For calls that make another thing each time: when one breaks off, nobody knows whether it was done, so this
        looks again before the next try.

        Args:
            make: makes one call by :meth:`once`.
        """
        deadline, pause = time.monotonic() + self.patience.unavailable, self.patience.pause
        while True:
            if (found := find()) is not None:
                return found
            try:
                return make()
            except (api_errors().ServiceUnavailable, api_errors().FailedPrecondition) as error:
                if not is_transient(error) or time.monotonic() + pause > deadline:
                    raise fault(where, error, self.location) from error
            time.sleep(pause)
            pause = min(2 * pause, self.patience.longest_pause)

    def once(self, where: str, method: Callable[..., T], request: Any, passing: Any = ()) -> T:
        """Makes a call without repeating it; ``ServiceUnavailable`` and ``FailedPrecondition`` are the caller's."""
        given = passing if isinstance(passing, tuple) else (passing,)
        with self._told(where, (*given, api_errors().ServiceUnavailable, api_errors().FailedPrecondition)):
            return method(request=request, retry=None, timeout=self.patience.call)

    def finish(self, where: str, operation: Any) -> Any:
        """Waits for a long-running operation and returns its result.

        Raises:
            UsageError: if the service refuses what was asked.
            PlatformError: if it fails, or isn't done in time: the operation goes on, and a later call finds it.
        """
        api = api_errors()
        with self._told(where, api.RetryError):
            try:
                return operation.result(timeout=self.patience.operation)
            except (TimeoutError, api.RetryError) as error:
                expected = f"{operation.operation.name} must end within {self.patience.operation:g} s"
                raise PlatformError(where, expected, None, "try again: what goes on meanwhile is found") from error

    @contextlib.contextmanager
    def _told(self, where: str, passing: Any = ()) -> Iterator[None]:
        api = api_errors()
        try:
            yield
        except passing:
            raise
        except api.RetryError as error:
            raise fault(where, error.cause or error, self.location) from error
        # Over HTTPS, requests' errors of the connection are plain OSErrors.
        except (api.GoogleAPIError, auth_errors().GoogleAuthError, OSError) as error:
            raise fault(where, error, self.location) from error

    def _client(self, name: str, host: str | None = None, **options: Any) -> Any:
        chosen = host or self.api_endpoint or self.location.api_endpoint
        with self._told(f"Vertex AI in {self.location.region}"):
            return getattr(aiplatform(), name)(client_options={"api_endpoint": chosen}, **options)
