"""What a compiled package is called in KFP."""

from __future__ import annotations

from typing import Final

from tidemill_pipelines.targets.compilation import Package

_DIGITS: Final = 16


def version_name(package: Package) -> str:
    """Returns the name of a package's version: the beginning of its digest, which is a DNS name too."""
    return package.digest[:_DIGITS]
