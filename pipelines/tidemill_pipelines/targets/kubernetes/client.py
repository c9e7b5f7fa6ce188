"""The connection to the KFP API server.

It uses kfp_server_api, the generated client that ``kfp.Client`` is built on, since the latter reads and writes
``~/.config/kfp``, takes its address from the environment too, prints, wants packages as files, and cannot give a
run the description that makes submissions idempotent.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from tidemill.errors import UsageError
from tidemill.kserve.failures import RETRIED, http_failure, network_failure
from tidemill_pipelines.targets.config import KubernetesSettings
from tidemill_pipelines.targets.kubernetes.credentials import bearer, cookies

_TIMEOUT_S: Final = (10, 60)
_PAUSES_S: Final = (0.5, 1.0, 2.0, 4.0)
_ACCESS: Final = "see `kubernetes.auth` in the target's file, and targets/KUBERNETES.md for the permissions"
_ADDRESS: Final = "check `kubernetes.host` in the target's file; a port-forward may have ended"


class Kfp:
    """KFP's services. Every call goes through :meth:`call`, which retries what may be retried.

    Args:
        pause: waits for seconds.
    """

    def __init__(self, settings: KubernetesSettings, pause: Callable[[float], None] = time.sleep) -> None:
        if settings.host is None:
            remedy = "set it to the address of ml-pipeline or its gateway: https://kfp.example.com"
            raise UsageError("kubernetes.host", "must be the address of the KFP API server", "nothing", remedy)
        import kfp_server_api

        self.host = settings.host.rstrip("/")
        self._pause = pause
        configuration = kfp_server_api.Configuration(host=self.host)
        configuration.retries = False  # urllib3's own would also follow redirections to login pages
        if settings.ca_file is not None:
            if not settings.ca_file.is_file():
                raise UsageError("kubernetes.ca_file", "must be a file of certificates", str(settings.ca_file))
            configuration.ssl_ca_cert = str(settings.ca_file)
        if (token := bearer(settings.auth)) is not None:
            configuration.api_key_prefix["authorization"] = "Bearer"
            configuration.api_key["authorization"] = token()
            configuration.refresh_api_key_hook = lambda c: c.api_key.update(authorization=token())
        self._client = kfp_server_api.ApiClient(configuration, cookie=cookies(settings.auth))
        self.pipelines = kfp_server_api.PipelineServiceApi(self._client)
        self.uploads = kfp_server_api.PipelineUploadServiceApi(self._client)
        self.experiments = kfp_server_api.ExperimentServiceApi(self._client)
        self.runs = kfp_server_api.RunServiceApi(self._client)
        self.recurring = kfp_server_api.RecurringRunServiceApi(self._client)
        self.health = kfp_server_api.HealthzServiceApi(self._client)

    def call(
        self,
        what: str,
        method: Callable[..., Any],
        *arguments: Any,
        absent: Any = None,
        lost: Callable[[], Any] | None = None,
        conflict: Callable[[], Any] | None = None,
        **named: Any,
    ) -> Any:
        """Calls a method of a service.

        Args:
            what: for people: "find pipeline training".
            absent: returned where the answer is 404, unless None.
            lost: looks for what the call was to make, before it is sent again after a failure that may have come
                too late; what it finds is returned.
            conflict: likewise looks for what another has just made, where the answer is 409.

        Raises:
            UsageError: for what does not exist, conflicts or is refused as it stands.
            PlatformError: for what may succeed later: unavailable, not permitted, not reached.
        """
        import urllib3.exceptions
        from kfp_server_api.exceptions import ApiException

        where = f"{self.host}: {what}"
        for pause in (*_PAUSES_S, None):
            try:
                return method(*arguments, _request_timeout=_TIMEOUT_S, **named)
            except ApiException as error:
                if error.status == 404 and absent is not None:
                    return absent
                if error.status == 409 and conflict is not None and (value := conflict()) is not None:
                    return value
                failure = http_failure(where, error.status, error.reason or "", error.body, _ACCESS)
                if pause is None or error.status not in RETRIED:
                    raise failure from error
            except AttributeError as error:  # kfp_server_api trips over its own error about TLS, which has no body
                if not isinstance(error.__context__, ApiException):
                    raise
                raise network_failure(where, error.__context__, _ADDRESS) from error
            except (urllib3.exceptions.HTTPError, OSError) as error:
                if pause is None or "CERTIFICATE" in str(error):
                    raise network_failure(where, error, _ADDRESS) from error
            self._pause(pause * random.uniform(0.8, 1.2))
            if lost is not None and (value := lost()) is not None:
                return value
        raise AssertionError("unreachable")

    def pages(self, what: str, method: Callable[..., Any], items: str, **named: Any) -> Iterator[Any]:
        """Yields the items of a list, page by page.

        Args:
            items: the answer's attribute that holds them.
        """
        token = ""
        while True:
            page = self.call(what, method, page_token=token, **named)
            yield from getattr(page, items) or ()
            token = page.next_page_token or ""
            if not token:
                return
