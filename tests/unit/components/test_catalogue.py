"""components/README.md tells what the definitions say."""

from __future__ import annotations

from pathlib import Path

from tidemill_pipelines.catalogue import entries, render

CATALOGUE = Path(__file__).parents[3] / "components" / "README.md"


def test_the_catalogue_is_up_to_date():
    assert CATALOGUE.read_text(encoding="utf-8") == render(entries()), "run `make catalogue`"


def test_components_come_in_the_order_of_a_run():
    names = [entry.title for entry in entries()]
    run = ["ingest", "validate", "transform", "train", "evaluate", "rehearse", "register", "deploy", "report"]
    assert [name for name in names if name in run] == run


def test_every_link_of_the_catalogue_leads_somewhere():
    for entry in entries():
        assert (CATALOGUE.parent / "tidemill" / entry.stage / "component.py").is_file()
    assert (CATALOGUE.parent / "tidemill" / "artifacts.py").is_file()


def test_what_releases_elsewhere_comes_last_and_says_where():
    titles = [entry.title for entry in entries()]
    first = titles.index("deploy on KServe")
    assert all(" on " in title for title in titles[first:])
    assert "register on Vertex AI" in titles[first:]
    assert len(titles) == len(set(titles))
