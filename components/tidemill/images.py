"""The container image of each environment.

These are names, not addresses: a target replaces them by digests of its own registry when it compiles.
Locally each name selects the interpreter of the environment.
"""

from __future__ import annotations

from typing import Final

from tidemill import __version__

CONTROL: Final = f"tidemill/control:{__version__}"
VALIDATION: Final = f"tidemill/validation:{__version__}"
TENSORFLOW: Final = f"tidemill/tensorflow:{__version__}"
SERVING: Final = f"tidemill/serving:{__version__}"


def variant(image: str, suffix: str) -> str:
    """Returns the image of another make of an environment: with ``-gpu`` ``tidemill/tensorflow-gpu:0.1.0``."""
    name, _, version = image.rpartition(":")
    return f"{name}{suffix}:{version}"


def environment_of(image: str) -> str:
    """Returns the environment that ``image`` carries: ``tidemill/serving:0.1.0`` → ``serving``."""
    return image.rsplit("/", 1)[-1].split("@", 1)[0].split(":", 1)[0]
