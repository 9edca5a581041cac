"""The studies in this repository as the app shows them: every page, nothing failed and nothing that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from app_pages import ROOT, says, show

from kdpipe.artifacts.schema import TABLES
from kdpipe.artifacts.store import open_study

PAGES = ["Home.py", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "pages").glob("*.py"))]
STUDIES = sorted(path for path in (ROOT / "artifacts").iterdir() if path.is_dir())


@pytest.mark.usefixtures("fresh_cache")
@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_every_committed_study(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDPIPE_ARTIFACTS", str(ROOT / "artifacts"))
    for study in STUDIES:
        app = show(page, study=study.name)
        assert not app.error, f"{study.name}: {says(app.error)}"


@pytest.mark.parametrize("folder", STUDIES, ids=lambda path: path.name)
def test_every_table_of_a_committed_study_can_be_read_and_holds_what_the_schema_allows(folder: Path) -> None:
    study = open_study(folder)
    for name, table in TABLES.items():
        assert study.scan(name).collect_schema() == table.schema
        if table.small:
            study.frame(name)
