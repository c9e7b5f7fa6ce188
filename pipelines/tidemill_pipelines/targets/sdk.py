"""KFP's SDK, imported quickly."""

from __future__ import annotations

import sys
from typing import Final

_VALIDATOR: Final = "kubernetes_validate"


def import_sdk() -> None:
    """Imports kfp before anything else does.

    kfp imports its client, and that the Kubernetes client, which looks for a validator of manifests and does without
    it where it isn't installed. Where it is, as for our tests, it parses a grammar for more than a second.
    """
    hidden = _VALIDATOR not in sys.modules
    if hidden:
        sys.modules[_VALIDATOR] = None  # type: ignore[assignment]
    try:
        import kfp  # noqa: F401
    finally:
        if hidden:
            del sys.modules[_VALIDATOR]
