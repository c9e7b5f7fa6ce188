"""The connection to the Kubernetes API, by kubeconfig or from within the cluster."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from tidemill.errors import PlatformError, UsageError
from tidemill_pipelines.targets.kubernetes.failures import RETRIED, http_failure, network_failure

_TIMEOUT_S: Final = (10, 60)
_PAUSES_S: Final = (0.5, 1.0, 2.0, 4.0)
_ADDRESS: Final = "check KUBECONFIG and `kubernetes.context`"


class Cluster:
    """A Kubernetes API server and the namespace of the target.

    Args:
        context: of kubeconfig; its current one, or the cluster that this runs in, if None.

    Raises:
        UsageError: if there is no such configuration.
    """

    def __init__(self, namespace: str, context: str | None = None, pause: Callable[[float], None] = time.sleep) -> None:
        import kubernetes

        self.namespace, self._pause = namespace, pause
        try:
            self.client = kubernetes.config.new_client_from_config(context=context)
        except kubernetes.config.ConfigException as error:
            self.client = self._inside(error, context)
        self.client.configuration.retries = False
        self.host = str(self.client.configuration.host)
        self.core = kubernetes.client.CoreV1Api(self.client)

    def _inside(self, error: Exception, context: str | None) -> Any:
        import kubernetes

        configuration = kubernetes.client.Configuration()
        try:
            if context is not None:
                raise error
            kubernetes.config.load_incluster_config(client_configuration=configuration)
        except kubernetes.config.ConfigException as inside:
            remedy = "set KUBECONFIG to a file with the cluster, or `kubernetes.context` to one of its contexts"
            raise UsageError("kubeconfig", "must name the cluster", str(error), remedy) from inside
        return kubernetes.client.ApiClient(configuration)

    def close(self) -> None:
        self.client.close()
        self.client.rest_client.pool_manager.clear()

    def call(
        self, what: str, permission: str, method: Callable[..., Any], *arguments: Any, absent: Any = None, **named: Any
    ) -> Any:
        """Calls a method of the API; all that are used here may be repeated.

        Args:
            what: for people: "list pods".
            permission: what a Role must grant: "get pods/log".
            absent: returned where the answer is 404, unless None.
        """
        import urllib3.exceptions
        from kubernetes.client.exceptions import ApiException

        where = f"{self.host}: {what} in {self.namespace}"
        for pause in (*_PAUSES_S, None):
            try:
                return method(*arguments, _request_timeout=_TIMEOUT_S, **named)
            except ApiException as error:
                if error.status == 0:
                    raise network_failure(where, error, _ADDRESS) from error
                if error.status == 404 and absent is not None:
                    return absent
                if pause is None or error.status not in RETRIED:
                    remedy = f"grant `{permission}` in namespace {self.namespace}; see targets/KUBERNETES.md"
                    raise http_failure(where, error.status, error.reason or "", error.body, remedy) from error
            except (urllib3.exceptions.HTTPError, OSError) as error:
                if pause is None or "CERTIFICATE" in str(error):
                    raise network_failure(where, error, _ADDRESS) from error
            self._pause(pause)
        raise PlatformError(where, "unreachable")
