"""What is in the images, and what isn't."""

from __future__ import annotations

import json
from pathlib import Path

import podman_cli
import pytest
from podman_cli import Images

from tidemill.files import sha256_file

LOOK = Path(__file__).parent / "smoke" / "look.py"
SIZE_LIMITS_GB = {"control": 0.7, "validation": 2.9, "tensorflow": 3.3, "serving": 1.9}
environments = pytest.mark.parametrize("environment", podman_cli.ENVIRONMENTS)


@pytest.fixture(scope="module")
def seen(images: Images) -> dict[str, dict]:
    """What `smoke/look.py` saw inside each image."""
    command = ("python3", "/look.py")
    return {
        environment: json.loads(podman_cli.run(images[environment], *command, mounts={LOOK: "/look.py:ro"}).stdout)
        for environment in podman_cli.ENVIRONMENTS
    }


@environments
def test_it_runs_as_a_user_without_rights(seen: dict[str, dict], environment: str) -> None:
    assert (seen[environment]["uid"], seen[environment]["gid"]) == (65532, 65532)
    assert seen[environment]["name"] == "tidemill"


@environments
def test_only_tmp_is_writable_and_home_and_caches_are_there(seen: dict[str, dict], environment: str) -> None:
    assert seen[environment]["writable"] == ["/tmp"]
    assert {path.split("/")[1] for path in seen[environment]["homes"]} == {"tmp"}


@environments
def test_its_user_owns_nothing_and_could_write_nothing(images: Images, environment: str) -> None:
    """Also where somebody forgets to make the root read-only."""
    found = "find / -xdev -writable -not -type l -not -path '/proc/*' -not -path '/dev/*' 2>/dev/null"
    done = podman_cli.podman("run", "--rm", "--network=none", images[environment], "sh", "-c", found, check=False)
    assert set(done.stdout.split()) <= {"/tmp", "/var/tmp", "/run/lock"}


@environments
def test_no_tool_that_builds_or_installs_is_inside(seen: dict[str, dict], environment: str) -> None:
    assert seen[environment]["tools"] == []


@environments
def test_nothing_that_the_build_needed_is_left(images: Images, environment: str) -> None:
    """Seen as root, who sees all."""
    places = "/build /wheels /package /giants /machine /run/secrets /root/.cache /var/cache/uv /var/lib/apt/lists"
    found = f"find {places} /tmp -type f 2>/dev/null; find /opt/tidemill -name '*.h' -o -name '*.a' | head"
    done = podman_cli.podman("run", "--rm", "--user=0", images[environment], "sh", "-c", found, check=False)
    assert done.stdout == ""


@environments
def test_every_module_has_bytecode_that_no_clock_can_invalidate(seen: dict[str, dict], environment: str) -> None:
    """Levelled file times would make ordinary bytecode stale, and a read-only root would never let it be renewed."""
    assert seen[environment]["without_bytecode"] == []
    assert seen[environment]["checked_by_time"] == []
    assert seen[environment]["compiled"] > 500


@environments
def test_labels_and_environment_tell_what_it_was_made_from(images: Images, environment: str) -> None:
    file, config = images.file, podman_cli.inspect(images[environment])["Config"]
    labels = config["Labels"]
    assert labels["tidemill.lock.sha256"] == file["lock"]
    assert labels["tidemill.environment"] == environment
    assert labels["org.opencontainers.image.title"] == f"tidemill/{environment}"
    assert labels["org.opencontainers.image.revision"] == file["commit"]
    assert labels["org.opencontainers.image.version"] == file["version"]
    assert labels["org.opencontainers.image.created"].endswith("Z")
    assert labels["org.opencontainers.image.base.name"]
    assert labels["org.opencontainers.image.base.digest"].startswith("sha256:")
    variables = dict(entry.split("=", 1) for entry in config["Env"])
    assert variables["TIDEMILL_LOCK_SHA256"] == file["lock"]
    assert variables["TIDEMILL_GIT_COMMIT"] == file["commit"]
    assert variables["TF_CPP_MIN_LOG_LEVEL"]


@environments
def test_nothing_of_the_machine_that_built_it_is_inside(images: Images, environment: str) -> None:
    """Indexes, proxies and authorities of the builder are its own."""
    reference = images[environment]
    assert "machines-own" not in json.dumps(podman_cli.inspect(reference))
    assert "machines-own" not in podman_cli.podman("history", "--no-trunc", reference).stdout
    found = podman_cli.run(reference, "grep", "-rlIs", "machines-own", "/etc", "/opt", "/usr", "/var", check=False)
    assert found.stdout == ""


@environments
def test_its_size_stays_within_bounds(images: Images, environment: str) -> None:
    size = podman_cli.inspect(images[environment])["Size"] / 1e9
    assert size < SIZE_LIMITS_GB[environment], f"{environment} has {size:.2f} GB"


def test_what_changes_most_is_the_last_layer_and_one_for_all_images(images: Images) -> None:
    layers = {name: podman_cli.inspect(images[name])["RootFS"]["Layers"] for name in podman_cli.ENVIRONMENTS}
    assert len({own[-1] for own in layers.values()}) == 1, "each image has a package layer of its own"
    assert len({tuple(own[:2]) for own in layers.values()}) == 1, "the images don't share their base"


@environments
def test_layers_are_in_the_order_of_change(images: Images, environment: str) -> None:
    data = podman_cli.inspect(images[environment])["GraphDriver"]["Data"]
    newest_first = [Path(data["UpperDir"]), *(Path(path) for path in data["LowerDir"].split(":"))]
    packages = Path("opt/tidemill/lib/python3.11/site-packages")
    package, dependencies, giants = [
        {path.name for path in (layer / packages).iterdir()} if (layer / packages).is_dir() else set()
        for layer in newest_first[:3]
    ]
    assert {name.partition("-")[0] for name in package} == {"tidemill", "tidemill_pipelines"}
    assert "pydantic" in dependencies
    assert not dependencies & {"tidemill", "tensorflow"}
    assert giants == (set() if environment == "control" else {"tensorflow"})


def test_the_serving_image_starts_the_server_and_the_others_an_interpreter(images: Images) -> None:
    server = podman_cli.inspect(images["serving"])["Config"]
    assert server["Cmd"] == ["python3", "-m", "tidemill.serving"]
    assert not server.get("Entrypoint"), "KFP gives its command as arguments: an entry point would swallow it"
    assert server["ExposedPorts"] == {"8080/tcp": {}}
    for environment in set(podman_cli.ENVIRONMENTS) - {"serving"}:
        assert podman_cli.inspect(images[environment])["Config"]["Cmd"] == ["python3"]


def test_the_command_answers_in_the_control_image(images: Images) -> None:
    assert "Usage" in podman_cli.run(images["control"], "tidemill", "--help").stdout


def test_the_package_inside_is_this_checkout(images: Images) -> None:
    """Not what a cache took for it."""
    if images.earlier:
        pytest.skip("these images may be of another commit")
    listed = (
        "cd /opt/tidemill/lib/python3.11/site-packages && sha256sum $(find tidemill tidemill_pipelines -name '*.py')"
    )
    lines = podman_cli.run(images["control"], "sh", "-c", listed).stdout.splitlines()
    roots = [podman_cli.ROOT / "components", podman_cli.ROOT / "pipelines"]
    expected = {
        str(path.relative_to(root)): sha256_file(path) for root in roots for path in root.glob("tidemill*/**/*.py")
    }
    assert {name: digest for digest, name in (line.split() for line in lines)} == expected
