"""An image's name tells its environment."""

from __future__ import annotations

import pytest

from tidemill import __version__
from tidemill.images import CONTROL, SERVING, TENSORFLOW, VALIDATION, environment_of


@pytest.mark.parametrize(
    ("image", "environment"),
    [
        (CONTROL, "control"),
        (VALIDATION, "validation"),
        (TENSORFLOW, "tensorflow"),
        (SERVING, "serving"),
        ("localhost:5000/team/tidemill/serving:1.2", "serving"),
        ("europe-docker.pkg.dev/p/tidemill/validation@sha256:00ff", "validation"),
        ("registry:5000/tidemill/tensorflow:1@sha256:00ff", "tensorflow"),
        ("control", "control"),
    ],
)
def test_the_environment_is_the_last_part_of_the_name(image, environment):
    assert environment_of(image) == environment


def test_images_carry_the_version_of_the_package():
    assert {image.rpartition(":")[2] for image in (CONTROL, VALIDATION, TENSORFLOW, SERVING)} == {__version__}
