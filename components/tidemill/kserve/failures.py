"""The backend's refusals, as errors of tidemill: whose fault, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from tidemill.errors import PlatformError, TidemillError, UsageError

RETRIED: Final = frozenset({429, 502, 503, 504})
"""Answers that say: later. A 500 of KFP is as often a mistake in the request, which no repetition mends."""


class Forbidden(PlatformError):
    """Whoever asks is not known, or may not do that."""


def http_failure(where: str, status: int, reason: str, body: str | bytes | None, remedy: str | None) -> TidemillError:
    """Returns the error that an HTTP answer amounts to.

    Args:
        where: what was asked of which server.
        remedy: what to do if access was refused; it differs between servers.
    """
    got = f"{status} {reason}: {told}" if (told := message(body)) else f"{status} {reason}"
    if status in (301, 302, 303, 307, 308):
        login = "the answer is a redirection, to a login perhaps: set `kubernetes.auth`, or the address itself"
        return UsageError(where, "must be answered by the API server", got, login)
    if status == 401:
        return Forbidden(where, "who asks is not known", got, remedy)
    if status == 403 and "denied the request" in told:  # an admission webhook: no grant would help
        return UsageError(where, "is refused as it stands", got)
    if status == 403:
        return Forbidden(where, "is not permitted", got, remedy)
    if status == 404:
        return UsageError(where, "there is no such thing", got)
    if status == 409:
        return UsageError(where, "conflicts with what is there", got)
    if status == 429:
        return PlatformError(where, "asks too much of the server", got, "wait, or raise the quota")
    if status < 500:
        return UsageError(where, "is refused as it stands", got)
    return PlatformError(where, "the server failed", got, "try again; the server's log says more")


def message(body: str | bytes | None) -> str:
    """Returns the words for people in an error's body.

    KFP answers in gRPC's JSON, whose details hold what is meant for the caller, or in one of its own for uploads;
    Kubernetes in a `Status`.
    """
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body or ""
    try:
        value = json.loads(text)
    except ValueError:
        return " ".join(text.split())[:300]
    if not isinstance(value, Mapping):
        return text[:300]
    details = value.get("details")
    told: Any = details[0].get("message") if isinstance(details, list) and details else None
    whole = value.get("message") or value.get("error_message") or value.get("error") or text
    return str(whole if told is None or str(told) in str(whole) else f"{told} ({whole})")[:1000]


def network_failure(where: str, error: Exception, remedy: str) -> PlatformError:
    """Returns the error that a failed connection amounts to."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text or "SSLError" in text or "SSLError" in type(error).__name__:
        trust = "set `kubernetes.ca_file` to the certificate of its authority, and the address to the name in it"
        return PlatformError(where, "its certificate must be trusted", text, trust)
    if "refused" in text:
        return PlatformError(where, "nothing listens there", text, remedy)
    if "NameResolution" in type(error).__name__ or "resolve" in text or "Name or service" in text:
        return PlatformError(where, "its name must resolve", text, remedy)
    return PlatformError(where, "must answer in time", f"{type(error).__name__}: {text}", remedy)
