"""Google's libraries, imported when they are first needed: the SDK alone takes 1.3 s.

They warn of the Python that the environments are bound to (see ``requires-python``), on which nobody can act here.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any


def aiplatform() -> Any:
    """Returns the SDK's module of generated clients and messages."""
    with _quiet():
        from google.cloud import aiplatform_v1
    return aiplatform_v1


def api_errors() -> Any:
    """Returns the module of the errors that calls raise."""
    with _quiet():
        from google.api_core import exceptions
    return exceptions


def auth_errors() -> Any:
    """Returns the module of the errors that finding and renewing credentials raises."""
    with _quiet():
        from google.auth import exceptions
    return exceptions


def retry(**options: Any) -> Any:
    """Returns ``google.api_core.retry.Retry(**options)``."""
    with _quiet():
        from google.api_core.retry import Retry
    return Retry(**options)


def json_format() -> Any:
    """Returns protobuf's module that turns messages into JSON and back."""
    with _quiet():
        from google.protobuf import json_format
    return json_format


def storage_client(project: str) -> Any:
    """Returns a client of Cloud Storage."""
    with _quiet():
        from google.cloud.storage import Client
    return Client(project=project)


def authorized_session(host: str) -> Any:
    """Returns a session of requests with the application-default credentials, for one of Google's hosts."""
    with _quiet():
        import google.auth
        from google.auth.transport.requests import AuthorizedSession
    # Without scopes a service account's key signs its tokens for the host itself.
    credentials, _ = google.auth.default(default_scopes=["https://www.googleapis.com/auth/cloud-platform"])
    return AuthorizedSession(credentials, default_host=host)  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"(?s).*You are using a Python version", FutureWarning)
        yield
