"""What tells the KFP API server who asks. Read anew for every request: projected tokens are replaced under way."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tidemill.errors import PlatformError, UsageError
from tidemill_pipelines.targets.config import KubernetesAuth

WORKLOAD_TOKEN: Final = Path("/var/run/secrets/kubeflow/pipelines/token")
"""Where KFP's own clients expect the projected token with the audience pipelines.kubeflow.org."""


def bearer(auth: KubernetesAuth) -> Callable[[], str] | None:
    """Returns what reads the token of a request, or None where none is sent."""
    if auth.method == "token":
        return lambda: _secret(auth)
    if auth.method == "workload_identity":
        return lambda: _file(auth.file or WORKLOAD_TOKEN, "mount a service account token there, or name its file")
    if auth.method == "iap":
        return _identity(str(auth.client_id))
    return None


def cookies(auth: KubernetesAuth) -> str | None:
    """Returns the cookies that go with every request, or None."""
    return _secret(auth) if auth.method == "cookies" else None


def _secret(auth: KubernetesAuth) -> str:
    if auth.file is not None:
        return _file(auth.file, f"write the {auth.method} there")
    value = os.environ.get(str(auth.variable), "").strip()
    if not value:
        where = "kubernetes.auth.variable"
        raise UsageError(where, f"the environment must have {auth.variable}", "nothing", f"export {auth.variable}=…")
    return value


def _file(path: Path, remedy: str) -> str:
    try:
        value = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise UsageError(str(path), "must be a file that holds the token", reason, remedy) from error
    if not value:
        raise UsageError(str(path), "must be a file that holds the token", "an empty file", remedy)
    return value


def _identity(client_id: str) -> Callable[[], str]:
    """Returns what reads an ID token for the Identity-Aware Proxy, from application-default credentials.

    Those of a person (``gcloud auth application-default login``) can't make one for another client; those of a
    service account, a workload identity and an impersonation can.
    """
    from google.auth import exceptions
    from google.auth.transport.requests import Request
    from google.oauth2 import id_token

    find: Any = id_token.fetch_id_token_credentials
    held: dict[str, Any] = {}

    def read() -> str:
        where = "kubernetes.auth: iap"
        try:
            credentials = held.get("credentials") or find(client_id, Request())
            held["credentials"] = credentials
            if not credentials.valid:
                credentials.refresh(Request())
        except exceptions.DefaultCredentialsError as error:
            remedy = "set GOOGLE_APPLICATION_CREDENTIALS to a service account's key, or run where it has an identity"
            raise UsageError(where, "needs credentials that can make an ID token", str(error), remedy) from error
        except exceptions.GoogleAuthError as error:
            raise PlatformError(where, "no ID token was given", str(error), "try again; check the network") from error
        return str(credentials.token)

    return read
