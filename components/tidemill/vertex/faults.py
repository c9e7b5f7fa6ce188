"""What Vertex AI's and Storage's refusals mean here, and what to do about each."""

from __future__ import annotations

import re
from typing import Any, Final

from tidemill.errors import PlatformError, TidemillError, UsageError
from tidemill.vertex.location import Location
from tidemill.vertex.sdk import api_errors, auth_errors

_LOGIN: Final = (
    "log in with `gcloud auth application-default login`; in CI and in a cluster, run as a service account "
    "(workload identity)"
)
_ROLES: Final = (
    # What a missing permission begins with, the role that has it, and who or what that is granted on.
    ("iam.serviceAccounts.actAs", "roles/iam.serviceAccountUser", "on the service account that the tasks run as"),
    ("storage.buckets.", "roles/storage.legacyBucketReader", "on the bucket"),
    ("storage.", "roles/storage.objectUser", "on the bucket"),
    ("cloudkms.", "roles/cloudkms.cryptoKeyEncrypterDecrypter", "on the key, to the Vertex AI service agent"),
    ("compute.networks", "roles/compute.networkUser", "on the network's project"),
    ("artifactregistry.", "roles/artifactregistry.reader", "on the images' repository"),
    ("logging.", "roles/logging.viewer", "in project {project}"),
    ("aiplatform.", "roles/aiplatform.user", "in project {project}"),
)
_PERMISSION: Final = re.compile(r"\b[a-z]+\.[a-zA-Z]+\.[a-zA-Z]+\b")
_QUOTA: Final = re.compile(r"quotas? (?:are exceeded|exceeded|metric)s?[:\s]+['\"]?([\w./-]+)", re.IGNORECASE)
_DISABLED: Final = re.compile(r"has not been used in project|SERVICE_DISABLED|is disabled")
_BUSY: Final = re.compile(r"other operations? (is|are)? ?running|operation .{0,80}in progress", re.IGNORECASE)
_UNRESOLVED: Final = re.compile(
    r"DNS resolution failed|errors? resolving|Domain name not found|Name or service not known|name resolution",
    re.IGNORECASE,
)


def fault(where: str, error: Exception, location: Location) -> TidemillError:
    """Returns an error of the client libraries as one of ours: told in three parts, with a remedy.

    Args:
        where: what was asked for: ``schedule nightly``.
        error: of ``google.api_core`` or ``google.auth``, or of the connection.
    """
    api, auth = api_errors(), auth_errors()
    said = _words(error)
    if isinstance(error, (auth.GoogleAuthError, api.Unauthenticated)):
        return PlatformError(where, "needs credentials that Google accepts", said, _LOGIN)
    if isinstance(error, api.Forbidden):
        return PlatformError(where, "must be permitted", said, _permission(said, location))
    if isinstance(error, api.TooManyRequests):
        return PlatformError(where, "must be within the project's quotas", said, _quota(said, location))
    if isinstance(error, api.NotFound):
        return UsageError(where, "does not exist", said)
    if isinstance(error, api.Conflict):  # ALREADY_EXISTS and ABORTED
        return UsageError(where, "conflicts with what there is", said)
    if isinstance(error, api.FailedPrecondition) and is_transient(error):
        return PlatformError(where, "is being changed by another call", said, "try again when that has ended")
    if isinstance(error, api.ClientError):
        return UsageError(where, "was refused", said)
    if _UNRESOLVED.search(said):
        remedy = f"is there a region {location.region}? Does this machine reach {location.api_endpoint}?"
        return PlatformError(where, "its host cannot be found", said, remedy)
    return PlatformError(where, "was not answered", f"{type(error).__name__}: {said}", "try again later")


def _words(error: Exception) -> str:
    """Returns what the service said; Cloud Storage's client puts the whole exchange around it."""
    response = getattr(error, "response", None)  # of requests, of gRPC, or none
    if response is not None and "json" in getattr(response, "headers", {}).get("Content-Type", ""):
        told = response.json()
        if isinstance(told, dict) and isinstance(told.get("error"), dict):
            return str(told["error"].get("message", error))
    return str(getattr(error, "message", None) or error)


def _permission(said: str, location: Location) -> str:
    if _DISABLED.search(said):
        service = "storage" if "storage" in said else "aiplatform"
        return f"`gcloud services enable {service}.googleapis.com --project {location.project}`"
    for permission in _PERMISSION.findall(said.replace("aiplatform.googleapis.com", "")):
        for prefix, role, on in _ROLES:
            if permission.startswith(prefix):
                return f"it takes {permission}: grant {role} {on.format(project=location.project)}"
    return f"see the permissions in pipelines/targets/VERTEX.md; project {location.project}"


def _quota(said: str, location: Location) -> str:
    which = match.group(1) if (match := _QUOTA.search(said)) else "the quota"
    page = f"https://console.cloud.google.com/iam-admin/quotas?project={location.project}"
    return f"ask for more of {which} in {location.region} at {page}, or use another region or a smaller machine"


def is_transient(error: Any) -> bool:
    """Tells whether the same call may succeed in a moment.

    The service is unavailable, and not merely unfindable; or it is at work on the same thing for somebody else.
    """
    if isinstance(error, api_errors().FailedPrecondition):
        return bool(_BUSY.search(str(error)))
    return isinstance(error, api_errors().ServiceUnavailable) and not _UNRESOLVED.search(str(error))
