"""A project's region: the parent of all that Vertex AI holds."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tidemill.errors import UsageError


@dataclass(frozen=True)
class Location:
    """Where resources are.

    Attributes:
        project: id, such as ``example-project``.
        region: such as ``europe-west1``.
    """

    project: str
    region: str

    @classmethod
    def parse(cls, path: str) -> Location:
        """Reads ``projects/<project>/locations/<region>``.

        Raises:
            UsageError: if ``path`` has another form.
        """
        if (match := re.fullmatch(r"projects/([^/]+)/locations/([^/]+)", path)) is None:
            raise UsageError("Vertex AI", "expected projects/<project>/locations/<region>", path or "nothing")
        return cls(*match.groups())

    @property
    def path(self) -> str:
        return f"projects/{self.project}/locations/{self.region}"

    @property
    def api_endpoint(self) -> str:
        """Host of the region's service."""
        return f"{self.region}-aiplatform.googleapis.com"

    def console(self, page: str) -> str:
        """Returns the address of a page of the console, such as ``pipelines/runs/<id>``."""
        return f"https://console.cloud.google.com/vertex-ai/locations/{self.region}/{page}?project={self.project}"
