"""Pages run without a browser on a made-up study: what the tests of all pages share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest
from synthetic import Recipe, write_toy_study

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("artifacts")
    write_toy_study(root, Recipe(samples=60, seeds=(0, 1)))
    return root


@pytest.fixture
def root(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_cache: None) -> Path:
    """A copy that a test may break."""
    copy = tmp_path / "artifacts"
    shutil.copytree(pristine, copy)
    monkeypatch.setenv("KDPIPE_ARTIFACTS", str(copy))
    return copy


@pytest.fixture
def fresh_cache() -> Iterator[None]:
    """Nothing that one page test read is remembered in the next."""
    yield
    st.cache_resource.clear()
    st.cache_data.clear()


def show(page: str, **query: str | list[str]) -> AppTest:
    """Run a page as a visitor with this address would, and insist that no traceback shows."""
    app = AppTest.from_file(str(ROOT / page), default_timeout=30)
    app.query_params.update(query)
    app.run()
    assert not app.exception, [element.message for element in app.exception]
    return app


def says(elements: object) -> str:
    return " ".join(element.value for element in elements)  # type: ignore[attr-defined]


def chart_rows(app: AppTest, index: int = 0, holding: str | None = None) -> pl.DataFrame:
    """The rows of the n-th chart: those it has alone, or the first that hold a column."""
    proto = app.get("vega_lite_chart")[index].proto
    data = [proto.data.data] if proto.HasField("data") else [one.data.data for one in proto.datasets]
    frames = (pl.read_ipc_stream(one) for one in data)
    return next(frame for frame in frames if holding is None or holding in frame.columns)
