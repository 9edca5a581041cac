"""A fault of kdpipe on a page is shown as that, with a report; a damaged file is shown as a damaged file."""

from __future__ import annotations

import logging
from pathlib import Path

import polars as pl
import pytest
from app_pages import ROOT, says, show

import kdpipe
from kdpipe.app.shared import tables
from kdpipe.app.shell import faults, software

MEASURES = "pages/3_Measures.py"
SECRET = "**a value** out of /home/someone/a file"


def _broken(*_: object, **__: object) -> pl.DataFrame:
    raise KeyError(SECRET)


def test_a_fault_is_logged_and_reported_and_the_rest_goes_on(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = show(MEASURES, study="toy")
    monkeypatch.setattr(tables, "by_class", _broken)
    with caplog.at_level(logging.ERROR):
        app = show(MEASURES, study="toy", view="channel means (gap)")
    assert "a fault of kdpipe, not of your study" in says(app.error) and "precompute" not in says(app.error)
    assert len(app.get("vega_lite_chart")) == len(whole.get("vega_lite_chart")) - 1, "the other parts are there"
    (report,) = (block.value for block in app.code)
    said = dict(line.split(": ", 1) for line in report.splitlines())
    assert said["fault"] == "KeyError" and said["page"] == "Measures, part: The classes"
    assert kdpipe.__version__ in said["software"] and said["study"].startswith("toy, artifact schema ")
    assert "study=toy" in said["link"] and "view=channel+means" in said["link"]
    place = Path(__file__)
    line = _broken.__code__.co_firstlineno + 1
    assert said["at"].startswith(f"{place.relative_to(ROOT)}:{line} in _broken ← ")
    (logged,) = (record for record in caplog.records if record.name == faults.__name__)
    assert logged.exc_info is not None and logged.exc_info[0] is KeyError


def test_a_report_holds_no_values_and_no_paths_of_the_machine(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "by_depth", _broken)
    app = show(MEASURES, study="toy")
    shown = says([*app.error, *app.code, *app.markdown])
    assert app.code and "a value" not in shown and "/home/" not in shown and str(ROOT) not in shown


def test_a_fault_inside_a_library_names_both_places(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "by_class", lambda *_: pl.DataFrame({"a": [1]}).select("b"))
    app = show(MEASURES, study="toy")
    places = [line for block in app.code for line in block.value.splitlines() if line.startswith("at: ")]
    assert places and all(" ← " in line and line.startswith("at: polars/") for line in places)


def test_a_damaged_file_is_no_fault(root: Path) -> None:
    (root / "toy" / "class_measures.parquet").write_bytes(b"PAR1")
    app = show(MEASURES, study="toy")
    assert "toy/class_measures.parquet is damaged" in says(app.error)
    assert "fault of kdpipe" not in says(app.error) and not app.code


def test_an_address_to_report_to_is_named_where_there_is_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "by_depth", _broken)
    known = {**software.package(), "issues": "https://example.org/issues"}
    monkeypatch.setattr(faults, "package", lambda: known)
    assert "report it at https://example.org/issues with" in says(show(MEASURES, study="toy").error)
    monkeypatch.setattr(faults, "package", lambda: {**known, "issues": "", "url": ""})
    assert "to whoever gave you kdpipe" in says(show(MEASURES, study="toy").error)


def test_the_software_is_named_from_its_sources() -> None:
    told = software.package()
    assert told["name"] == "kdpipe" and told["version"] == kdpipe.__version__ and told["licence"] == "MIT"
