"""Starts the fake Vertex AI, in a network of its own where that is possible, and looks inside it."""

from __future__ import annotations

import contextlib
import datetime
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any, Final

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

PROJECT: Final = "example-project"
NUMBER: Final = "123456789012"
REGION: Final = "europe-west1"
PARENT: Final = f"projects/{PROJECT}/locations/{REGION}"
CALLER: Final = f"caller@{PROJECT}.iam.gserviceaccount.com"
_SERVER: Final = Path(__file__).with_name("vertex_server.py")


@dataclass(frozen=True)
class FakeVertex:
    """A running fake.

    Attributes:
        port: of the gRPC service, on the loopback.
        environment: what a client's process needs: credentials, the CA, and where Storage is.
        logging: address of Cloud Logging.
        enter: command prefix that runs another command where the fake is.
    """

    directory: Path
    port: int
    environment: Mapping[str, str]
    logging: str = ""
    enter: tuple[str, ...] = ()

    def requests(self, method: str | None = None) -> list[dict[str, Any]]:
        """Returns what arrived, or the bodies of one method's requests, such as ``CreatePipelineJob``."""
        found: list[dict[str, Any]] = self.ask("requests")
        if method is None:
            return found
        return [entry["request"] for entry in found if entry["method"].rsplit("/", 1)[-1] == method]

    def refuse(self, method: str, code: str, message: str = "refused", times: int = 1, done: bool = False) -> None:
        """Has the next calls of a method answered with an error.

        Args:
            done: whether the call takes effect nevertheless.
        """
        self.ask("refuse", method, code, message, times, done)

    def set(self, **values: Any) -> None:
        """Changes the fake's state; see ``vertex_world.World``."""
        for name, value in values.items():
            self.ask("set", name, value)

    def put(self, uri: str, content: bytes) -> None:
        self.ask("put", uri, content)

    def objects(self) -> dict[str, bytes]:
        """Returns Storage's content by address."""
        found: dict[str, bytes] = self.ask("objects")
        return found

    def ask(self, name: str, *arguments: Any) -> Any:
        with Client(str(self.directory / "control"), "AF_UNIX") as connection:
            connection.send((name, arguments))
            return connection.recv()


@contextlib.contextmanager
def fake_vertex(directory: Path, isolated: bool = False) -> Iterator[FakeVertex]:
    """Runs a fake as its own process.

    Args:
        isolated: in a network namespace without any way out, where the region's own host names lead to it, on port
            443. Takes root.
    """
    directory.mkdir(parents=True, exist_ok=True)
    hosts = [f"{REGION}-aiplatform.googleapis.com", "localhost", "127.0.0.1"]
    logging = ["logging.googleapis.com", "127.0.0.3"]
    environment = _credentials(directory, [*hosts, *logging, f"*.{REGION}-{NUMBER}.prediction.vertexai.goog"])
    command = [sys.executable, "-W", "ignore", str(_SERVER), str(directory)]
    command += ["--project", PROJECT, "--number", NUMBER, "--region", REGION]
    prefix: tuple[str, ...] = ()
    if isolated:
        command += ["--port", "443", "--hosts", str(directory / "hosts")]
        (directory / "hosts").write_text(f"127.0.0.1 {' '.join(hosts[:2])}\n{logging[1]} {logging[0]}\n")
        inside = f'ip link set lo up && mount --bind {directory / "hosts"} /etc/hosts && exec "$@"'
        command = ["unshare", "--net", "--mount", "sh", "-c", inside, "sh", *command]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        ready = _wait(process, directory)
        if isolated:
            prefix = ("nsenter", f"--target={process.pid}", "--net", "--mount")
        environment |= {"STORAGE_EMULATOR_HOST": ready["storage"]}
        yield FakeVertex(directory, ready["port"], environment, ready["logging"], prefix)
    finally:
        process.kill()
        process.wait()


def isolation() -> str | None:
    """Returns why this machine can't give a process a network of its own, or None if it can."""
    if missing := [tool for tool in ("unshare", "nsenter", "ip", "mount") if shutil.which(tool) is None]:
        return f"needs {', '.join(missing)}"
    tried = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, text=True, check=False)
    return None if tried.returncode == 0 else f"needs root: {tried.stderr.strip()}"


def _wait(process: subprocess.Popen[bytes], directory: Path) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while not (directory / "ready.json").is_file():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the fake did not start: {(directory / 'log').read_text()}")
        time.sleep(0.05)
    ready: dict[str, Any] = json.loads((directory / "ready.json").read_text())
    return ready


def _credentials(directory: Path, hosts: list[str]) -> dict[str, str]:
    """Writes the server's certificate, the CA, and the key of the one service account that may call."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    authority.issue_cert(*hosts).private_key_and_cert_chain_pem.write_to_path(str(directory / "server.pem"))
    key = write_caller(directory / "caller.json", directory / "caller.pem")
    return {
        "GOOGLE_APPLICATION_CREDENTIALS": str(key),
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(directory / "ca.pem"),
        "REQUESTS_CA_BUNDLE": str(directory / "ca.pem"),
    }


def write_caller(path: Path, certificate: Path | None = None) -> Path:
    """Writes the key file of a service account, as Google's console gives it out, and its certificate."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    about = {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": "1",
        "private_key": private.decode(),
        "client_email": CALLER,
        "client_id": "1",
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    path.write_text(json.dumps(about))
    path.chmod(0o600)
    if certificate is not None:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, CALLER)])
        begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        made = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + datetime.timedelta(days=30))
            .sign(key, hashes.SHA256())
        )
        certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return path
