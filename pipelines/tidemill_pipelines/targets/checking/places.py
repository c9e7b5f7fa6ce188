"""Where a run puts its artefacts, as whom it runs, and what else the target's file must say to submit one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from tidemill.errors import UsageError
from tidemill.ingest.templates import resolve
from tidemill_pipelines.targets.checking.findings import Told, check
from tidemill_pipelines.targets.checking.subject import Subject

_SCHEMES: Final = {"vertex": ("gs://",), "kubernetes": ("gs://", "s3://", "minio://")}
_NETWORK: Final = re.compile(r"projects/\d+/global/networks/[a-z]([-a-z0-9]*[a-z0-9])?")
_KEY: Final = re.compile(r"projects/[^/]+/locations/([^/]+)/keyRings/[^/]+/cryptoKeys/[^/]+")
_ACCOUNT: Final = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_MOUNTED: Final = {"vertex": ("/gcs/",), "kubernetes": ("/tidemill/", "/gcs/", "/s3/", "/minio/")}


@check("root-missing", "error", "Without a pipeline root there is no place for bundles and artefacts.")
def root_missing(subject: Subject) -> Iterator[Told]:
    if not subject.target.pipeline_root:
        schemes = " or ".join(_SCHEMES[subject.target.kind])
        yield Told(None, "the target has no `pipeline_root`", f"set it to {schemes}…, and compile again")


@check("root-scheme", "error", "The backend can't write there: Vertex AI takes gs://, KFP gs://, s3:// and minio://.")
def root_scheme(subject: Subject) -> Iterator[Told]:
    root, schemes = subject.target.pipeline_root, _SCHEMES[subject.target.kind]
    if root and not (root.startswith(schemes) and len(root) > len(root.split("://", 1)[0]) + 3):
        yield Told(None, f"`pipeline_root` is {root}", f"use {' or '.join(schemes)}BUCKET/…")


@check("compiled-elsewhere", "warning", "The bundles that the package names don't lie below this target's root.")
def compiled_elsewhere(subject: Subject) -> Iterator[Told]:
    root = (subject.target.pipeline_root or "").rstrip("/")
    for name, value in subject.values.items():
        if root and name.endswith("_bundle") and not str(value).startswith(f"{root}/"):
            yield Told(None, f"{name} is {value}, not below {root}", "compile again for this target")


@check("source-local", "error", "The source is a path of this machine, which no task sees.")
def source_local(subject: Subject) -> Iterator[Told]:
    source = str(subject.values.get("source", ""))
    if source and "://" not in source and not source.startswith(_MOUNTED[subject.target.kind]):
        cure = "upload it, and give its address with `--source gs://…`"
        yield Told(None, f"the source {source} lies on this machine", cure)


@check("source-template", "error", "The source has a template that can't be filled in: every run would fail.")
def source_template(subject: Subject) -> Iterator[Told]:
    try:
        resolve(str(subject.values.get("source", "")), datetime.now(UTC))
    except UsageError as error:
        yield Told(None, f"the source: {error.got}", error.remedy or "see pipelines/README.md")


@check("project-missing", "error", "Vertex AI must be told the project and the region.", ["vertex"])
def project_missing(subject: Subject) -> Iterator[Told]:
    missing = [name for name in ("project", "region") if getattr(subject.target.on_vertex, name) is None]
    if missing:
        told = " and ".join(f"`vertex.{name}`" for name in missing)
        yield Told(None, f"the target has no {told}", "set it in the target's file")


@check("host-missing", "error", "The address of the API server is not known.", ["kubernetes"])
def host_missing(subject: Subject) -> Iterator[Told]:
    if subject.target.on_kubernetes.host is None:
        yield Told(None, "the target has no `kubernetes.host`", "set it in the target's file: https://kfp.example.com")


@check(
    "service-account-missing",
    "warning",
    "The tasks run as a default account that may usually do far more than they need.",
)
def service_account_missing(subject: Subject) -> Iterator[Told]:
    if subject.target.service_account is None:
        default = "Compute Engine's default account" if subject.target.kind == "vertex" else "KFP's pipeline-runner"
        yield Told(None, f"the target has no `service_account`: the tasks run as {default}", "make one for them")


@check("service-account-name", "error", "The account's name is none that this backend has.")
def service_account_name(subject: Subject) -> Iterator[Told]:
    account = subject.target.service_account
    if account is None:
        return
    if subject.target.kind == "vertex" and not _ACCOUNT.fullmatch(account):
        yield Told(None, f"`service_account` is {account}", "use NAME@PROJECT.iam.gserviceaccount.com")
    if subject.target.kind == "kubernetes" and not re.fullmatch(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?", account):
        yield Told(None, f"`service_account` is {account}", "use the name of a ServiceAccount of the namespace")


@check("network-name", "error", "Vertex AI wants the network by the project's number.", ["vertex"])
def network_name(subject: Subject) -> Iterator[Told]:
    network = subject.target.on_vertex.network
    if network is not None and not _NETWORK.fullmatch(network):
        yield Told(None, f"`vertex.network` is {network}", "write projects/<number>/global/networks/<name>")


@check("key-name", "error", "The key's name is none, or the key lies in another region than the run.", ["vertex"])
def key_name(subject: Subject) -> Iterator[Told]:
    key, region = subject.target.on_vertex.cmek_key, subject.target.on_vertex.region
    if key is None:
        return
    found = _KEY.fullmatch(key)
    if found is None:
        cure = "write projects/<project>/locations/<region>/keyRings/<ring>/cryptoKeys/<key>"
        yield Told(None, f"`vertex.cmek_key` is {key}", cure)
    elif region is not None and found[1] != region:
        yield Told(None, f"the key lies in {found[1]}, the run in {region}", "use a key of the run's region")


CHECKS: Final = (
    root_missing,
    root_scheme,
    compiled_elsewhere,
    source_local,
    source_template,
    project_missing,
    host_missing,
    service_account_missing,
    service_account_name,
    network_name,
    key_name,
)
