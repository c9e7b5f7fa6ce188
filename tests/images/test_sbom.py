"""The bills of materials hold what is in the images, in CycloneDX's own terms."""

from __future__ import annotations

import json
from typing import Any

import podman_cli
import pytest
import sbom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from podman_cli import Images
from project import IMAGES, Source

SOURCE = Source("b" * 40, 1_700_000_000, "a" * 64)
REFERENCE = f"localhost/tidemill/serving@sha256:{'0' * 64}"
INSIDE = {
    "dpkg": (
        "Package: libc6\nStatus: install ok installed\nVersion: 2.36-9+deb12u14\nArchitecture: amd64\n"
        "Description: GNU C Library\n Continued: here\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\n"
    ),
    "system": {"ID": "debian", "VERSION_ID": "12"},
    "python": "3.11.16",
    "interpreter": "/usr/bin/python3.11",
}


def described(**inside: Any) -> dict[str, Any]:
    return sbom.describe("serving", ("serving",), SOURCE, REFERENCE, {**INSIDE, **inside})


def faults(bom: dict[str, Any]) -> Any:
    return JsonStrictValidator(SchemaVersion.V1_5).validate_str(json.dumps(bom))


def purls(bom: dict[str, Any]) -> list[str]:
    return [component.get("purl", "") for component in bom["components"]]


def test_it_is_valid_and_names_the_image_the_lock_and_the_commit() -> None:
    bom = described()
    assert faults(bom) is None
    root = bom["metadata"]["component"]
    assert (root["type"], root["name"], root["version"]) == ("container", "tidemill/serving", "0.1.0")
    assert {p["name"]: p["value"] for p in root["properties"]} == {
        "tidemill:environment": "serving",
        "tidemill:git-commit": SOURCE.commit,
        "tidemill:lock-sha256": SOURCE.lock,
    }


def test_the_validation_can_fail() -> None:
    assert faults({**described(), "flavour": "sweet"}) is not None


def test_it_is_the_same_whenever_it_is_made() -> None:
    assert described() == described()
    assert (
        described()["serialNumber"]
        != described(python="3.11.17", interpreter="/usr/local/bin/python3.11")["serialNumber"]
    )


def test_packages_of_lock_and_debian_are_in_it_and_removed_ones_are_not() -> None:
    found = purls(described())
    assert "pkg:deb/debian/libc6@2.36-9%2Bdeb12u14?arch=amd64&distro=debian-12" in found
    assert not any("gone" in purl for purl in found)
    assert any(purl.startswith("pkg:pypi/tensorflow-cpu@") for purl in found)
    assert "pkg:pypi/tidemill@0.1.0" in found


def test_a_python_that_dpkg_does_not_know_is_told() -> None:
    """The official Python images compile their own."""
    assert not [c for c in described()["components"] if c["name"] == "python"]
    own = [c for c in described(interpreter="/usr/local/bin/python3.11")["components"] if c["name"] == "python"]
    assert [c["version"] for c in own] == ["3.11.16"]


def test_every_reference_is_to_a_component() -> None:
    bom = described()
    known = {"image", *(component["bom-ref"] for component in bom["components"])}
    assert len(known) == len(bom["components"]) + 1, "a bom-ref occurs twice"
    for dependency in bom["dependencies"]:
        assert {dependency["ref"], *dependency.get("dependsOn", [])} <= known


@pytest.mark.parametrize("environment", podman_cli.ENVIRONMENTS)
def test_that_of_a_real_image_is_valid_and_complete(images: Images, environment: str) -> None:
    bom = json.loads((images.directory / f"{environment}.cdx.json").read_text())
    assert faults(bom) is None
    debian = podman_cli.run(images[environment], "dpkg-query", "--show", "--showformat=${Package}\n").stdout.split()
    listed = {c["name"] for c in bom["components"] if c.get("purl", "").startswith("pkg:deb/")}
    assert listed == set(debian)


def test_accelerators_have_theirs_in_the_lock() -> None:
    """Their images are too large to build here; that they resolve is known."""
    held = {name: set(purls(sbom.describe(name, IMAGES[name].extras, SOURCE, REFERENCE, INSIDE))) for name in IMAGES}
    assert any(purl.startswith("pkg:pypi/nvidia-cudnn-cu12@") for purl in held["tensorflow-gpu"])
    assert held["tensorflow"] - {"pkg:pypi/tensorflow@2.21.0"} <= held["tensorflow-gpu"]
    assert "pkg:pypi/tensorflow-tpu@2.20.0" in held["tensorflow-tpu"]
    assert not any(purl.startswith("pkg:pypi/tensorflow-transform@") for purl in held["tensorflow-tpu"])
