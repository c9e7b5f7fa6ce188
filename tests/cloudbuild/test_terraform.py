"""The triggers and accounts: read by HashiCorp's parser, held against what the provider takes and the README tells."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builds import ROOT
from resources import attributes, faults, of_type, roles_of

Blocks = list[dict[str, Any]]
DIRECTORY = ROOT / "manifests" / "cloudbuild"
README = (DIRECTORY / "README.md").read_text(encoding="utf-8")


def test_everything_that_is_named_is_declared_and_of_its_form(terraform: Blocks) -> None:
    assert faults(terraform) == []


def _misspelt_argument(blocks: Blocks) -> None:
    trigger = next(b for b in blocks if b["labels"] == ["google_cloudbuild_trigger", "merge"])
    trigger["attributes"]["file_name"] = trigger["attributes"].pop("filename")


def _misspelt_inner_argument(blocks: Blocks) -> None:
    job = next(b for b in blocks if b["labels"][:1] == ["google_cloud_scheduler_job"])
    job["blocks"][0]["attributes"]["url"] = job["blocks"][0]["attributes"].pop("uri")


def _missing_argument(blocks: Blocks) -> None:
    next(b for b in blocks if b["labels"] == ["google_cloudbuild_trigger", "merge"])["attributes"].pop("location")


def _misspelt_block(blocks: Blocks) -> None:
    next(b for b in blocks if b["labels"] == ["google_cloudbuild_trigger", "merge"])["blocks"][0]["type"] = (
        "github_event"
    )


def _undeclared(blocks: Blocks) -> None:
    blocks.remove(next(b for b in blocks if b["type"] == "variable" and b["labels"] == ["problem"]))


def _unused(blocks: Blocks) -> None:
    blocks.append({"type": "variable", "labels": ["spare"], "attributes": {}, "blocks": []})


def _too_wide(blocks: Blocks) -> None:
    next(b for b in blocks if b["labels"] == ["google_project_iam_member", "logs"])["attributes"]["role"]["value"] = (
        "roles/editor"
    )


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (_misspelt_argument, "google_cloudbuild_trigger merge: file_name is no argument"),
        (_misspelt_inner_argument, r"google_cloud_scheduler_job nightly: http_target\.url is no argument"),
        (_missing_argument, "google_cloudbuild_trigger merge: location is missing"),
        (_misspelt_block, "google_cloudbuild_trigger merge: github_event is no block"),
        (_undeclared, r"google_cloudbuild_trigger \w+: substitutions: var.problem is declared nowhere"),
        (_unused, "var.spare is never used"),
        (_too_wide, "google_project_iam_member logs: roles/editor gives away too much"),
    ],
)
def test_what_is_wrong_is_told(terraform: Blocks, change: Callable[[Blocks], None], fault: str) -> None:
    changed = copy.deepcopy(terraform)
    change(changed)
    assert any(re.fullmatch(fault, one) for one in faults(changed)), faults(changed)


def test_what_is_no_hcl_is_refused(read_hcl: Callable[[list[Path]], Blocks], tmp_path: Path) -> None:
    (tmp_path / "broken.tf").write_text('resource "google_pubsub_topic" "x" {\n  name = \n}\n')
    with pytest.raises(ValueError, match="Invalid expression"):
        read_hcl([tmp_path / "broken.tf"])


def test_the_files_are_formatted_as_terraform_does() -> None:
    """Terraform's own `validate` needs the provider from its registry, which no test asks."""
    if shutil.which("terraform") is None:
        pytest.skip("no terraform on this machine")
    environment = {**os.environ, "TF_CLI_CONFIG_FILE": os.devnull, "CHECKPOINT_DISABLE": "1"}
    done = subprocess.run(
        ["terraform", "fmt", "-check", "-diff", str(DIRECTORY)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_trigger_has_an_account_of_its_own(terraform: Blocks) -> None:
    triggers = of_type(terraform, "google_cloudbuild_trigger")
    accounts = {name: one["attributes"]["service_account"]["text"] for name, one in triggers.items()}
    assert len(set(accounts.values())) == len(accounts) == 5


def test_a_pull_request_can_write_its_log_and_nothing_else(terraform: Blocks) -> None:
    assert roles_of(terraform)["review"] == {"roles/logging.logWriter"}


def test_a_release_waits_for_a_person(terraform: Blocks) -> None:
    release = of_type(terraform, "google_cloudbuild_trigger")["release"]
    assert dict(attributes(release))["approval_required"]["value"] is True


def test_the_readme_tells_every_role_of_every_account(terraform: Blocks) -> None:
    told = {
        match[1]: set(re.findall(r"`(roles/[\w.]+)`", match[2]))
        for match in re.finditer(r"^\| `tidemill-ci-(\w+)` \|.*?\|(.*)\|$", README, re.M)
    }
    assert told == roles_of(terraform)


def test_the_readme_tells_every_variable(terraform: Blocks) -> None:
    variables = {block["labels"][0] for block in terraform if block["type"] == "variable"}
    assert variables == set(re.findall(r"^([a-z_]+) += ", README, re.M))


def test_new_data_is_told_by_what_storage_says_of_it(terraform: Blocks) -> None:
    """The attributes: https://cloud.google.com/storage/docs/pubsub-notifications#attributes."""
    made = of_type(terraform, "google_cloudbuild_trigger")["new_data"]["attributes"]["substitutions"]["items"]
    from_message = {name: item["value"] for name, item in made.items() if "$(body" in item["text"]}
    assert from_message == {
        "_EVENT": "$(body.message.attributes.eventType)",
        "_BUCKET": "$(body.message.attributes.bucketId)",
        "_OBJECT": "$(body.message.attributes.objectId)",
        "_MESSAGE": "$(body.message.messageId)",
    }
