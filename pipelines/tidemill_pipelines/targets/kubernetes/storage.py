"""Files to the pipeline root, from where the tasks read them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from tidemill.errors import PlatformError, UsageError

_ENDPOINT_VARIABLE: Final = "AWS_ENDPOINT_URL_S3"
_SCHEMES: Final = ("s3", "minio", "gs", "file")


def stage(files: Mapping[str, bytes]) -> None:
    """Uploads files by their address; one that is there with the same size stays, its name being its content's.

    Credentials are those of the environment: AWS's chain (variables, profile, web identity) and its
    ``AWS_ENDPOINT_URL_S3`` for ``s3://`` and ``minio://``, application-default ones for ``gs://``.

    Raises:
        UsageError: for an address that no store has.
        PlatformError: if the store refuses or cannot be reached.
    """
    for address, content in files.items():
        file_system, path = _opened(address)
        try:
            if file_system.exists(path) and file_system.size(path) == len(content):
                continue
            if isinstance(file_system.protocol, tuple) and "file" in file_system.protocol:
                file_system.makedirs(file_system._parent(path), exist_ok=True)
            file_system.pipe_file(path, content)
        except Exception as error:  # each store has exceptions of its own, most of them OSErrors
            remedy = "check the bucket's name and region, and that these credentials may read and write objects in it"
            raise PlatformError(address, "cannot be written", f"{type(error).__name__}: {error}", remedy) from error


def _opened(address: str) -> tuple[Any, str]:
    import fsspec

    scheme, _, path = address.partition("://")
    if not path or scheme not in _SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
        raise UsageError(address, f"expected an address of {known}", remedy="set `pipeline_root` in the target's file")
    options: dict[str, Any] = {"use_listings_cache": False}
    if scheme == "file":
        return fsspec.filesystem("file"), path
    if scheme in ("s3", "minio"):
        endpoint = os.environ.get(_ENDPOINT_VARIABLE) or os.environ.get("AWS_ENDPOINT_URL")
        if scheme == "minio" and endpoint is None:
            where = f"environment variable {_ENDPOINT_VARIABLE}"
            raise UsageError(where, "must be the address of MinIO as this machine reaches it", "nothing")
        options |= {"endpoint_url": endpoint, "skip_instance_cache": True}
        scheme = "s3"
    return fsspec.filesystem(scheme, **options), path
