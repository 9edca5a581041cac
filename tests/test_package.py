"""What is installed: the wheel's content and metadata, and the package at work outside of a checkout."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path
from types import SimpleNamespace

import pytest
from synthetic import Recipe, write_toy_study
from visits import free_port, healthy

import kdpipe
from kdpipe import source

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BUILT_FROM = ("kdpipe", "pages", ".streamlit", "Home.py", "setup.py", "pyproject.toml", "README.md", "LICENSE")


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    done = subprocess.run(["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def copy_of_the_checkout(folder: Path) -> Path:
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            folder.mkdir(exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A wheel of this code, its commit, and the folder into which it was unpacked as pip would."""
    root = copy_of_the_checkout(tmp_path_factory.mktemp("build") / "checkout")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "all")
    wheels = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(wheels)]
    subprocess.run([*pip, str(root)], check=True, timeout=300, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    installed = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
        names = set(archive.namelist())
    return SimpleNamespace(wheel=wheel, names=names, installed=installed, commit=git(root, "rev-parse", "HEAD"))


def installed_kdpipe(built: SimpleNamespace, folder: Path, *words: str) -> subprocess.Popen[str]:
    """``kdpipe`` of the unpacked wheel, in ``folder``."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KDPIPE_")}
    environment |= {"PYTHONPATH": str(built.installed), "PYTHONSAFEPATH": "1", "COLUMNS": "200"}
    line = [sys.executable, "-m", "kdpipe", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(line, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)


def answer(process: subprocess.Popen[str]) -> SimpleNamespace:
    out, err = process.communicate(timeout=300)
    return SimpleNamespace(code=process.returncode, out=out, err=err)


# ------------------------------------------------------------------------------- content


def test_the_wheel_holds_the_package_and_the_pages_and_nothing_else(built: SimpleNamespace) -> None:
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "kdpipe").rglob("*.py")}
    pages = {f"kdpipe/app/site/pages/{path.name}" for path in (ROOT / "pages").glob("*.py")}
    site = {"kdpipe/app/site/Home.py", "kdpipe/app/site/.streamlit/config.toml"}
    others = {name for name in built.names if ".dist-info/" not in name} - package - pages - site
    assert others == {"kdpipe/py.typed", "kdpipe/commit.txt"}
    assert (package | pages | site) <= built.names


def test_the_metadata_tell_what_a_reader_of_an_index_asks(built: SimpleNamespace) -> None:
    about = built.installed / f"kdpipe-{kdpipe.__version__}.dist-info"
    told = Parser().parsestr((about / "METADATA").read_text())
    assert told["Version"] == kdpipe.__version__ and told["License-Expression"] == "MIT"
    assert told["Author"] and told["Summary"] and told["Keywords"]
    urls = dict(entry.split(", ", 1) for entry in told.get_all("Project-URL", []))
    assert {"Homepage", "Repository", "Issues", "Documentation"} <= urls.keys()
    assert "kdpipe = kdpipe.cli.main:main" in (about / "entry_points.txt").read_text()
    assert "Copyright" in (about / "licenses" / "LICENSE").read_text()


def test_the_app_and_the_package_ask_for_the_same() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == PROJECT["dependencies"]


def test_the_version_stands_in_changelog_and_citation() -> None:
    newest = re.findall(r"^## (\d\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)[0]
    cited = re.findall(r"^version: (\S+)", (ROOT / "CITATION.cff").read_text(), re.M)[0]
    assert newest == cited == kdpipe.__version__


# ------------------------------------------------------------------------------- at work


def test_an_installed_package_knows_its_commit(built: SimpleNamespace, tmp_path: Path) -> None:
    done = answer(installed_kdpipe(built, tmp_path, "--version"))
    assert done.out == f"kdpipe {kdpipe.__version__} (commit {built.commit})\n", done.err


def test_an_installed_package_keeps_its_files_in_the_current_folder(built: SimpleNamespace, tmp_path: Path) -> None:
    done = answer(installed_kdpipe(built, tmp_path, "cache", "show"))
    assert done.out.startswith("cache: 0 finished stages"), done.err
    write_toy_study(tmp_path / "artifacts", Recipe(samples=40, seeds=(0, 1), fractions=(0.1,)))
    done = answer(installed_kdpipe(built, tmp_path, "judge", "toyy"))
    assert done.code == 2 and "did you mean 'toy'" in done.err


def test_the_installed_app_serves_its_own_pages(built: SimpleNamespace, tmp_path: Path) -> None:
    write_toy_study(tmp_path / "studies", Recipe(samples=40, seeds=(0, 1), fractions=(0.1,)))
    port = free_port()
    words = ["app", "--artifacts", "studies", "--port", str(port), "--no-browser"]
    process = installed_kdpipe(built, tmp_path, *words)
    try:
        assert healthy(process, f"http://localhost:{port}") == "ok"
    finally:
        process.terminate()
        process.communicate(timeout=30)
    program = (
        "import sys; from streamlit.testing.v1 import AppTest; app = AppTest.from_file(sys.argv[1], default_timeout=60)"
        "; app.run(); assert not app.exception and not app.error; print(app.title[0].value)"
    )
    environment = {**os.environ, "PYTHONPATH": str(built.installed), "KDPIPE_ARTIFACTS": str(tmp_path / "studies")}
    for page in ("Home.py", "pages/11_Study.py"):
        script = built.installed / "kdpipe" / "app" / "site" / page
        done = subprocess.run(
            [sys.executable, "-P", "-c", program, str(script)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0 and done.stdout.strip(), done.stderr[-2000:]


# ------------------------------------------------------------------------------- commits


def test_a_commit_is_dirty_once_the_package_changes(tmp_path: Path) -> None:
    (tmp_path / "kdpipe").mkdir()
    (tmp_path / "kdpipe" / "code.py").write_text("1")
    assert source.commit_of(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert source.commit_of(tmp_path) is None  # nothing was committed
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "results.txt").write_text("results are not code")
    assert source.commit_of(tmp_path) == head
    (tmp_path / "kdpipe" / "new.py").write_text("2")
    assert source.commit_of(tmp_path) == f"{head}+dirty"
    assert source.commit_of(tmp_path / "kdpipe") is None  # a folder within somebody else's repository


def test_a_git_hook_of_another_repository_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ours", "other"):
        (tmp_path / name).mkdir()
        git(tmp_path / name, "init", "-q")
        git(tmp_path / name, "commit", "-q", "--allow-empty", "-m", name)
    ours = git(tmp_path / "ours", "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert source.commit_of(tmp_path / "ours") == ours


# ------------------------------------------------------------------------------- what is public


def public_names() -> list[str]:
    return re.findall(r"^\| `(kdpipe\.\S+)` \|", (ROOT / "docs" / "API.md").read_text(), re.M)


def test_the_page_of_the_api_lists_all_that_the_package_exports() -> None:
    own = {name.removeprefix("kdpipe.") for name in public_names() if name.count(".") == 1}
    assert own == set(kdpipe.__all__)


@pytest.mark.parametrize("name", public_names())
def test_what_is_public_can_be_imported(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    found = importlib.import_module(module)
    assert hasattr(found, attribute)
    assert attribute in getattr(found, "__all__", [attribute])


@pytest.mark.parametrize("room", ["methods", "measures", "evidence", "models"])
def test_every_exported_name_is_there(room: str) -> None:
    module = importlib.import_module(f"kdpipe.{room}")
    assert module.__all__ and all(hasattr(module, name) for name in module.__all__)
