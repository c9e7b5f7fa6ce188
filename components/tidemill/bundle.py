"""The problem as content-addressed files: problem.yaml, curated schema and user modules.

Stages get an archive, not a path in somebody's home, so cache keys follow content and workers need nothing
installed. A stage gets the *view* of the problem that concerns it: a new fairness limit must not train the model
again. What a view leaves out isn't in its archive at all, so a stage cannot read what its cache key ignores.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemill.errors import PlatformError, ProblemError, UserCodeError
from tidemill.problem import Problem, dump_problem, parse_problem

PROBLEM_FILE = "problem.yaml"
SCHEMA_FILE = "schema.pbtxt"
EVAL_CONFIG_FILE = "eval_config.pbtxt"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold: the same bytes whenever it is packed


@dataclass(frozen=True)
class Bundle:
    """An unpacked bundle.

    Attributes:
        problem: the validated problem, overrides included.
        directory: where the archive is unpacked; user modules are imported from here.
        digest: hex sha256 of the archive.
        archive: the archive itself, to hand on to Beam workers.
    """

    problem: Problem
    directory: Path
    digest: str
    archive: Path

    @property
    def schema(self) -> Path | None:
        """The curated schema, if the problem has one."""
        path = self.directory / SCHEMA_FILE
        return path if path.is_file() else None

    def user_function(self, reference: str) -> Callable[..., Any]:
        """Imports ``module:function`` from the user's modules.

        Raises:
            UserCodeError: if the module cannot be imported or lacks the function.
        """
        module_name, _, function_name = reference.partition(":")
        import_from(self.directory)
        try:
            module = importlib.import_module(module_name)
        except Exception as error:
            raise UserCodeError(
                reference, "the module cannot be imported", f"{type(error).__name__}: {error}"
            ) from error
        if not callable(function := getattr(module, function_name, None)):
            raise UserCodeError(reference, f"{module_name}.py has no function {function_name}")
        return function  # type: ignore[no-any-return]


# What each view leaves out, in pydantic's notation for `exclude`.
_ALWAYS: dict[str, Any] = {"ingest": {"source"}}
VIEWS: Mapping[str, Mapping[str, Any]] = {
    "data": {
        **_ALWAYS,
        "training": True,
        "tuning": True,
        "user_code": True,
        "threshold": True,
        "baseline": True,
        "compression": True,
        "gates": {"quality", "fairness", "serving"},
    },
    "features": {
        **_ALWAYS,
        "training": True,
        "tuning": True,
        "user_code": {"search_space"},
        "threshold": True,
        "baseline": True,
        "compression": True,
        "gates": True,
    },
    "model": {
        **_ALWAYS,
        "tuning": True,
        "user_code": {"search_space"},
        "baseline": True,
        "compression": True,
        "gates": True,
    },
    "whole": _ALWAYS,
}
"""The views: ``data`` for ingest and validate, ``features`` for transform, ``model`` for train and the trials of
a tuning, ``whole`` for what suggests them and all after."""


def pack_views(problem: Problem, problem_dir: Path, destination: Path) -> dict[str, Path]:
    """Packs every view of a problem; see :func:`pack`."""
    return {view: pack(problem, problem_dir, destination, view) for view in VIEWS}


def pack(problem: Problem, problem_dir: Path, destination: Path, view: str = "whole") -> Path:
    """Writes a view of a problem as ``destination/<sha256>.zip`` and returns its path.

    The bytes depend on content alone, so nothing is compressed: libraries differ in that. Python modules beside
    problem.yaml go in where the view has user code.

    Raises:
        ProblemError: if user code is named whose module doesn't lie beside problem.yaml.
    """
    files = {PROBLEM_FILE: dump_problem(problem, VIEWS[view]).encode()}
    if (problem_dir / SCHEMA_FILE).is_file():
        files[SCHEMA_FILE] = (problem_dir / SCHEMA_FILE).read_bytes()
    if view == "whole" and (problem_dir / EVAL_CONFIG_FILE).is_file():
        files[EVAL_CONFIG_FILE] = (problem_dir / EVAL_CONFIG_FILE).read_bytes()
    code = problem.user_code
    references = [r for r in (code.preprocessing, code.model, code.search_space) if r]
    left_out = VIEWS[view].get("user_code", ())
    if left_out is not True and any(code.model_dump(exclude=left_out or None).values()):
        files |= {path.relative_to(problem_dir).as_posix(): path.read_bytes() for path in _modules(problem_dir)}
    for reference in references:
        stem = reference.partition(":")[0].replace(".", "/")
        if not any((problem_dir / name).is_file() for name in (f"{stem}.py", f"{stem}/__init__.py")):
            raise ProblemError(
                str(problem_dir / PROBLEM_FILE), f"user_code names {reference}, and {stem}.py is not there"
            )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name])
    destination.mkdir(parents=True, exist_ok=True)
    path = destination / f"{hashlib.sha256(buffer.getvalue()).hexdigest()}.zip"
    if not path.is_file():
        beside = path.with_suffix(f".{os.getpid()}.partial")
        beside.write_bytes(buffer.getvalue())
        os.replace(beside, path)
    return path


def _modules(directory: Path) -> Iterator[Path]:
    """Yields the Python files below ``directory``; what is hidden, such as an environment, is no module."""
    for parent, directories, files in os.walk(directory):
        directories[:] = [name for name in directories if name != "__pycache__" and not name.startswith(".")]
        yield from (Path(parent) / name for name in files if name.endswith(".py"))


def open_bundle(path: Path) -> Bundle:
    """Unpacks a bundle (once per machine and content) and validates its problem.

    Raises:
        PlatformError: if the place for unpacked bundles belongs to someone else.
    """
    data = Path(path).read_bytes()
    directory = unpack(data)
    text = (directory / PROBLEM_FILE).read_text(encoding="utf-8")
    return Bundle(parse_problem(text, PROBLEM_FILE), directory, directory.name, Path(path))


def unpack(data: bytes) -> Path:
    """Unpacks an archive (once per machine and content) into a directory named by its digest.

    Raises:
        PlatformError: if the place for unpacked bundles belongs to someone else.
    """
    directory = Path(tempfile.gettempdir()) / f"tidemill-{os.getuid()}" / hashlib.sha256(data).hexdigest()
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.parent.stat().st_uid != os.getuid():  # whoever owns it could slip code under our digest
        raise PlatformError(str(directory.parent), "must belong to this user", remedy="set TMPDIR to one of yours")
    if not directory.is_dir():
        with tempfile.TemporaryDirectory(dir=directory.parent) as beside:
            unpacked = Path(beside) / "bundle"
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                archive.extractall(unpacked)
            try:
                os.rename(unpacked, directory)
            except OSError:
                if not directory.is_dir():  # else another process was first, with the same content
                    raise
    return directory


def import_from(directory: Path) -> None:
    """Makes the modules of an unpacked bundle the ones that are found, not another's of the same name."""
    own, any_bundle = f"{directory}{os.sep}", f"{directory.parent}{os.sep}"
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if file.startswith(any_bundle) and not file.startswith(own):
            del sys.modules[name]
    sys.path[:] = [str(directory), *(entry for entry in sys.path if not entry.startswith(any_bundle))]
