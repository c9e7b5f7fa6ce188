"""Where a model is read from."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tidemill.errors import PlatformError


def fetch(uri: str) -> Path:
    """Returns a local directory with the model at ``uri``; what is remote is copied to a temporary one.

    Args:
        uri: a local path, or what ``tf.io.gfile`` reads, such as ``gs://bucket/model``.

    Raises:
        PlatformError: if it cannot be copied.
    """
    if "://" not in uri:
        return Path(uri)
    import tensorflow as tf

    target, root = Path(tempfile.mkdtemp(prefix="tidemill-model-")), uri.rstrip("/")
    try:
        for folder, _, files in tf.io.gfile.walk(root):
            local = target / str(folder)[len(root) :].strip("/")
            local.mkdir(parents=True, exist_ok=True)
            for name in files:
                tf.io.gfile.copy(f"{str(folder).rstrip('/')}/{name}", str(local / name))
    except tf.errors.OpError as error:
        raise PlatformError(uri, "the model cannot be copied from there", type(error).__name__) from error
    if not any(target.iterdir()):  # gfile lists what it cannot read as empty
        raise PlatformError(uri, "the model cannot be copied from there", "no files")
    return target
