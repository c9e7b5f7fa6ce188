"""From a problem and a target to a compiled pipeline that its backend takes as it is."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tidemill.errors import UsageError


@dataclass(frozen=True)
class Package:
    """A compiled pipeline.

    Attributes:
        text: the file's content: one YAML document, or two where there is a platform spec.
    """

    text: str

    @property
    def documents(self) -> list[dict[str, Any]]:
        """The file's YAML documents: the pipeline spec, and the platform spec if there is one."""
        return list(yaml.load_all(self.text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))

    @property
    def spec(self) -> dict[str, Any]:
        """The PipelineSpec."""
        return self.documents[0]

    @property
    def name(self) -> str:
        return str(self.spec["pipelineInfo"]["name"])

    @property
    def defaults(self) -> dict[str, Any]:
        """The pipeline's parameters that have a default value."""
        parameters = self.spec["root"].get("inputDefinitions", {}).get("parameters", {})
        return {name: p["defaultValue"] for name, p in parameters.items() if "defaultValue" in p}

    @property
    def digest(self) -> str:
        """Hex sha256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @classmethod
    def read(cls, path: Path) -> Package:
        """Reads a compiled pipeline.

        Raises:
            UsageError: if the file isn't one.
        """
        try:
            package = cls(path.read_text(encoding="utf-8"))
            documents = package.documents
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UsageError(str(path), "cannot be read as a compiled pipeline", str(error)) from error
        if not documents or not isinstance(documents[0], dict) or "pipelineInfo" not in documents[0]:
            raise UsageError(str(path), "expected a compiled pipeline", remedy="`tidemill compile` makes one")
        return package
