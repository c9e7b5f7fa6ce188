"""Terraform blocks: what they name, and what is wrong with them.

No Terraform registry is asked, so the arguments of each resource that we use are written down here, from the Google
provider's documentation (7.x): https://registry.terraform.io/providers/hashicorp/google/latest/docs
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

Block = Mapping[str, Any]
# Arguments and nested blocks by type; the first set of each must be given but for `for_each`.
KNOWN: Final[Mapping[str, tuple[set[str], set[str], set[str]]]] = {
    "google_service_account": ({"account_id"}, {"display_name", "description", "project"}, set()),
    "google_service_account_iam_member": ({"service_account_id", "role", "member"}, {"for_each"}, {"condition"}),
    "google_project_iam_member": ({"project", "role", "member"}, {"for_each"}, {"condition"}),
    "google_storage_bucket_iam_member": ({"bucket", "role", "member"}, {"for_each"}, {"condition"}),
    "google_artifact_registry_repository_iam_member": (
        {"repository", "role", "member"},
        {"for_each", "project", "location"},
        {"condition"},
    ),
    "google_cloudbuildv2_connection_iam_member": (
        {"name", "role", "member"},
        {"for_each", "project", "location"},
        {"condition"},
    ),
    "google_pubsub_topic": ({"name"}, {"message_retention_duration", "labels", "kms_key_name"}, set()),
    "google_pubsub_topic_iam_member": ({"topic", "role", "member"}, {"for_each"}, {"condition"}),
    "google_storage_notification": (
        {"bucket", "topic", "payload_format"},
        {"event_types", "object_name_prefix", "custom_attributes", "depends_on"},
        set(),
    ),
    "google_storage_project_service_account": (set(), {"project"}, set()),
    "google_cloud_scheduler_job": (
        {"name"},
        {"region", "schedule", "time_zone", "attempt_deadline", "description", "paused"},
        {"http_target", "retry_config", "pubsub_target"},
    ),
    "google_cloudbuild_trigger": (
        {"name", "location", "service_account"},
        {"description", "filename", "substitutions", "filter", "ignored_files", "included_files", "include_build_logs"},
        {"repository_event_config", "source_to_build", "git_file_source", "pubsub_config", "approval_config"},
    ),
}
_NESTED: Final[Mapping[str, tuple[set[str], set[str]]]] = {
    "repository_event_config": ({"repository"}, {"pull_request", "push"}),
    "pull_request": ({"branch", "comment_control", "invert_regex"}, set()),
    "push": ({"branch", "tag", "invert_regex"}, set()),
    "source_to_build": ({"repository", "uri", "ref", "repo_type"}, set()),
    "git_file_source": ({"path", "repository", "uri", "revision", "repo_type"}, set()),
    "pubsub_config": ({"topic", "service_account_email"}, set()),
    "approval_config": ({"approval_required"}, set()),
    "http_target": ({"http_method", "uri", "body", "headers"}, {"oauth_token", "oidc_token"}),
    "oauth_token": ({"service_account_email", "scope"}, set()),
    "retry_config": ({"retry_count", "max_retry_duration", "min_backoff_duration", "max_backoff_duration"}, set()),
}
_TOO_WIDE: Final = re.compile(r"roles/(owner|editor|viewer|iam\.\w*admin|.*securityAdmin)$", re.I)


def of_type(blocks: list[Block], kind: str) -> dict[str, Block]:
    """Returns the resources of a type by name."""
    return {b["labels"][1]: b for b in blocks if b["type"] in ("resource", "data") and b["labels"][0] == kind}


def attributes(block: Block) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields every attribute within a block, however deep."""
    yield from block["attributes"].items()
    for nested in block["blocks"]:
        yield from attributes(nested)


def trigger_file(trigger: Block) -> str:
    """Returns the path of the file whose build a trigger starts."""
    for nested in trigger["blocks"]:
        if nested["type"] == "git_file_source":
            return str(nested["attributes"]["path"]["value"])
    return str(trigger["attributes"]["filename"]["value"])


def faults(blocks: list[Block]) -> list[str]:
    """Returns what Terraform, or its Google provider, would refuse, and roles that give everything away."""
    return [*_references(blocks), *_schemas(blocks), *_roles(blocks)]


def _references(blocks: list[Block]) -> Iterator[str]:
    there = {f"var.{b['labels'][0]}" for b in blocks if b["type"] == "variable"}
    there |= {f"local.{name}" for b in blocks if b["type"] == "locals" for name in b["attributes"]}
    there |= {".".join(b["labels"]) for b in blocks if b["type"] == "resource"}
    there |= {".".join(("data", *b["labels"])) for b in blocks if b["type"] == "data"}
    used = set()
    for block in blocks:
        for name, attribute in () if block["type"] in ("variable", "terraform") else attributes(block):
            for reference in attribute["references"]:
                if reference.startswith(("each.", "self.")):
                    continue
                parts = reference.split(".")
                root = ".".join(parts[: 3 if parts[0] == "data" else 2])
                used.add(root)
                if root not in there:
                    yield f"{' '.join(block['labels'] or [block['type']])}: {name}: {reference} is declared nowhere"
    for name in sorted(there - used):
        if name.startswith(("var.", "local.")):
            yield f"{name} is never used"


def _schemas(blocks: list[Block]) -> Iterator[str]:
    for block in blocks:
        if block["type"] not in ("resource", "data"):
            continue
        kind, name = block["labels"]
        if kind not in KNOWN:
            yield f"{kind} {name}: its arguments aren't written down here"
            continue
        required, optional, nested = KNOWN[kind]
        for missing in sorted(required - set(block["attributes"])):
            yield f"{kind} {name}: {missing} is missing"
        for unknown in sorted(set(block["attributes"]) - required - optional):
            yield f"{kind} {name}: {unknown} is no argument"
        for inner in block["blocks"]:
            if inner["type"] not in nested:
                yield f"{kind} {name}: {inner['type']} is no block"
            else:
                yield from _inner(f"{kind} {name}", inner)


def _inner(where: str, block: Block) -> Iterator[str]:
    arguments, nested = _NESTED[block["type"]]
    for unknown in sorted(set(block["attributes"]) - arguments):
        yield f"{where}: {block['type']}.{unknown} is no argument"
    for inner in block["blocks"]:
        if inner["type"] not in nested:
            yield f"{where}: {block['type']}.{inner['type']} is no block"
        else:
            yield from _inner(where, inner)


def _roles(blocks: list[Block]) -> Iterator[str]:
    for block in blocks:
        for name, attribute in attributes(block):
            if name == "role" and _TOO_WIDE.match(str(attribute.get("value"))):
                yield f"{' '.join(block['labels'])}: {attribute['value']} gives away too much"


def roles_of(blocks: list[Block]) -> dict[str, set[str]]:
    """Returns the roles of each of our accounts, by the account's name in Terraform."""
    groups = {
        f"local.{name}": set(attribute["items"])
        for block in blocks
        if block["type"] == "locals"
        for name, attribute in block["attributes"].items()
        if attribute.get("items") is not None
    }
    found: dict[str, set[str]] = {}
    for block in blocks:
        if block["type"] == "resource" and "role" in block["attributes"]:
            given = block["attributes"]
            group = [r for r in given.get("for_each", {}).get("references", []) if r in groups]
            own = re.fullmatch(r"google_service_account\.(\w+)\.member", given["member"]["text"])
            for account in groups[group[0]] if group else [own[1]] if own else []:
                found.setdefault(account, set()).add(given["role"]["value"])
    return found
