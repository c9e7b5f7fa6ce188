"""A bundle's bytes depend on its content alone, and what is in it can be run anywhere."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from pathlib import Path

import pytest

from tidemill.bundle import VIEWS, open_bundle, pack, pack_views
from tidemill.errors import PlatformError, ProblemError, UserCodeError
from tidemill.problem import load_problem

PROBLEM = """\
name: loans
task: regression
label: {column: y}
features: {x: numeric}
user_code: {preprocessing: "prep:preprocessing_fn"}
"""
CODE = "from prep_parts import scale\n\n\ndef preprocessing_fn(inputs):\n    return scale(inputs)\n"


@pytest.fixture(autouse=True)
def unpacked_elsewhere(tmp_path, monkeypatch):
    """Unpacks below the test's directory and forgets the modules that it imported."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("prep"):
            del sys.modules[name]


def problem_dir(path: Path, **files: str) -> Path:
    path.mkdir(parents=True)
    defaults = {"problem.yaml": PROBLEM, "prep.py": CODE, "prep_parts.py": "def scale(inputs):\n    return inputs\n"}
    for name, text in {**defaults, **files}.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


def pack_at(directory: Path, destination: Path) -> Path:
    return pack(load_problem(directory), directory, destination)


def test_the_same_content_makes_the_same_bytes_wherever_and_whenever_it_lies(tmp_path):
    first, second = problem_dir(tmp_path / "a"), problem_dir(tmp_path / "deep" / "b")
    for file in second.iterdir():
        os.utime(file, (1e9, 1e9))
        file.chmod(0o600)
    one, two = pack_at(first, tmp_path / "out1"), pack_at(second, tmp_path / "out2")
    assert one.name == two.name == f"{hashlib.sha256(one.read_bytes()).hexdigest()}.zip"
    assert one.read_bytes() == two.read_bytes()


def test_comments_and_caches_are_no_content(tmp_path):
    first = problem_dir(tmp_path / "a")
    second = problem_dir(
        tmp_path / "b",
        **{"problem.yaml": "# why\n" + PROBLEM, "__pycache__/prep.py": "1", ".venv/lib/x.py": "1", "n.txt": ""},
    )
    assert pack_at(first, tmp_path).name == pack_at(second, tmp_path).name


@pytest.mark.parametrize("changed", ["prep_parts.py", "schema.pbtxt", "sub/more.py"])
def test_a_changed_file_makes_another_bundle(tmp_path, changed):
    first, second = problem_dir(tmp_path / "a"), problem_dir(tmp_path / "b", **{changed: "# new\n"})
    assert pack_at(first, tmp_path).name != pack_at(second, tmp_path).name


def test_an_override_makes_another_bundle_and_goes_into_it(tmp_path):
    directory = problem_dir(tmp_path / "a")
    overridden = pack(load_problem(directory, {"threshold": "0.7"}), directory, tmp_path / "out")
    assert overridden.name != pack_at(directory, tmp_path / "out").name
    assert open_bundle(overridden).problem.threshold == 0.7


def test_modules_stay_behind_when_no_user_code_is_named(tmp_path):
    plain = PROBLEM.replace('user_code: {preprocessing: "prep:preprocessing_fn"}\n', "")
    packed = pack_at(problem_dir(tmp_path / "a", **{"problem.yaml": plain}), tmp_path)
    assert zipfile.ZipFile(packed).namelist() == ["problem.yaml"]


def test_packing_twice_leaves_one_file_and_no_debris(tmp_path):
    directory = problem_dir(tmp_path / "a")
    pack_at(directory, tmp_path / "out")
    written = pack_at(directory, tmp_path / "out").stat().st_mtime_ns
    assert [p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()] == [written]


def test_user_code_that_is_not_there_is_told(tmp_path):
    directory = problem_dir(tmp_path / "a")
    (directory / "prep.py").unlink()
    with pytest.raises(ProblemError, match=r"user_code names prep:preprocessing_fn, and prep\.py is not there"):
        pack_at(directory, tmp_path / "out")


def test_a_bundle_opens_with_problem_schema_and_functions(tmp_path):
    bundle = open_bundle(pack_at(problem_dir(tmp_path / "a", **{"schema.pbtxt": "feature {}"}), tmp_path))
    assert bundle.problem.name == "loans"
    assert bundle.schema is not None
    assert bundle.schema.read_text() == "feature {}"
    assert bundle.archive.stem == bundle.digest
    assert bundle.user_function("prep:preprocessing_fn")({"x": 1}) == {"x": 1}


def test_a_bundle_is_unpacked_once(tmp_path):
    packed = pack_at(problem_dir(tmp_path / "a"), tmp_path)
    first = open_bundle(packed)
    assert first.schema is None
    (first.directory / "mark").touch()
    assert (open_bundle(packed).directory / "mark").exists()
    assert [p.name for p in first.directory.parent.iterdir()] == [first.digest]


@pytest.mark.parametrize(
    ("code", "reference", "fault"),
    [
        ("def preprocessing_fn(:\n", "prep:preprocessing_fn", "the module cannot be imported .got SyntaxError"),
        ("import nothing_like_it\n", "prep:preprocessing_fn", "got ModuleNotFoundError: No module named 'nothing"),
        ("1 / 0\n", "prep:preprocessing_fn", "got ZeroDivisionError"),
        ("other = 1\n", "prep:preprocessing_fn", r"prep\.py has no function preprocessing_fn"),
        ("preprocessing_fn = 1\n", "prep:preprocessing_fn", r"prep\.py has no function preprocessing_fn"),
    ],
)
def test_user_code_that_fails_is_the_users_fault_and_says_how(tmp_path, code, reference, fault):
    bundle = open_bundle(pack_at(problem_dir(tmp_path / "a", **{"prep.py": code}), tmp_path))
    with pytest.raises(UserCodeError, match=fault):
        bundle.user_function(reference)


def test_a_member_that_points_outside_stays_inside(tmp_path):
    """A forged archive writes nothing beside the directory that it is unpacked to."""
    forged = tmp_path / "forged.zip"
    with zipfile.ZipFile(forged, "w") as archive:
        archive.writestr("problem.yaml", "name: x\ntask: regression\nlabel: {column: y}\nfeatures: {x: numeric}\n")
        archive.writestr("../../../escaped.py", "")
        archive.writestr(f"{tmp_path}/absolute.py", "")
    directory = open_bundle(forged).directory
    outside = [p for p in tmp_path.rglob("*.py") if directory not in p.parents]
    assert outside == []


def test_a_place_for_bundles_that_belongs_to_another_user_is_not_trusted(tmp_path, monkeypatch):
    packed = pack_at(problem_dir(tmp_path / "a"), tmp_path)
    place = open_bundle(packed).directory.parent
    monkeypatch.setattr("os.getuid", lambda: 12345)
    place.rename(place.with_name("tidemill-12345"))
    with pytest.raises(PlatformError, match="must belong to this user"):
        open_bundle(packed)


def test_two_bundles_with_modules_of_one_name_give_each_its_own(tmp_path):
    """Beam workers and servers may open more than one bundle in a process."""
    one = open_bundle(
        pack_at(problem_dir(tmp_path / "a", **{"prep.py": "def preprocessing_fn(i):\n    return 1\n"}), tmp_path)
    )
    two = open_bundle(
        pack_at(problem_dir(tmp_path / "b", **{"prep.py": "def preprocessing_fn(i):\n    return 2\n"}), tmp_path)
    )
    assert (one.user_function("prep:preprocessing_fn")(0), two.user_function("prep:preprocessing_fn")(0)) == (1, 2)


WITH_EVERYTHING = (
    PROBLEM
    + """\
training: {max_epochs: 2}
threshold: 0.4
baseline: mean
ingest: {source: table.csv}
gates: {data: {min_rows: 10}, quality: [{metric: mae, max: 9}], serving: {rows: 9}}
"""
)


@pytest.mark.parametrize(
    ("override", "renewed"),
    [
        ({"gates.quality": "[{metric: mae, max: 8}]"}, {"whole"}),
        ({"gates.serving.p99_ms": "9"}, {"whole"}),
        ({"baseline": "null"}, {"whole"}),
        ({"threshold": "0.6"}, {"model", "whole"}),
        ({"training.max_epochs": "3"}, {"model", "whole"}),
        ({"gates.data.min_rows": "20"}, {"data", "whole"}),
        ({"split.seed": "1"}, {"data", "features", "model", "whole"}),
        ({"features.z": "categorical"}, {"data", "features", "model", "whole"}),
        ({"ingest.source": "other.csv"}, set()),
    ],
)
def test_a_change_renews_the_views_that_it_concerns_and_no_other(tmp_path, override, renewed):
    directory = problem_dir(tmp_path / "a", **{"problem.yaml": WITH_EVERYTHING})
    before = pack_views(load_problem(directory), directory, tmp_path / "out")
    after = pack_views(load_problem(directory, override), directory, tmp_path / "out")
    assert {view for view in VIEWS if before[view].name != after[view].name} == renewed


def test_user_code_concerns_every_view_but_that_of_the_data(tmp_path):
    one = problem_dir(tmp_path / "a", **{"problem.yaml": WITH_EVERYTHING})
    two = problem_dir(tmp_path / "b", **{"problem.yaml": WITH_EVERYTHING, "prep_parts.py": "# other\n"})
    before, after = (pack_views(load_problem(d), d, tmp_path / "out") for d in (one, two))
    assert {view for view in VIEWS if before[view].name != after[view].name} == {"features", "model", "whole"}


def test_every_view_opens_as_a_problem_without_what_it_leaves_out(tmp_path):
    directory = problem_dir(tmp_path / "a", **{"problem.yaml": WITH_EVERYTHING})
    views = {v: open_bundle(p).problem for v, p in pack_views(load_problem(directory), directory, tmp_path).items()}
    assert views["whole"].gates.quality[0].max == 9
    assert views["data"].gates.data.min_rows == 10
    assert views["data"].gates.quality == views["features"].gates.quality == views["model"].gates.quality == ()
    assert views["features"].training == views["data"].training != views["model"].training
    assert views["data"].user_code.preprocessing is None
    assert {problem.ingest.source for problem in views.values()} == {None}
