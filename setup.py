"""What pyproject.toml cannot say: the package holds the pages, Streamlit's theme, and the commit it was built from."""

import runpy
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent
SOURCE = runpy.run_path(str(ROOT / "kdpipe" / "source.py"))
PAGES = ("Home.py", "pages", ".streamlit")


def write_commit(package: Path) -> None:
    if commit := SOURCE["commit"]():
        (package / SOURCE["COMMIT_FILE"]).write_text(commit + "\n")


class BuildWithPages(build_py):
    """Copies ``Home.py``, ``pages/`` and ``.streamlit/`` to ``kdpipe/app/site``."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # the checkout itself is run
            return
        package = Path(self.build_lib) / "kdpipe"
        site = package / "app" / "site"
        shutil.rmtree(site, ignore_errors=True)  # of an earlier build, with pages that are no more
        for name in PAGES:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, site / name, ignore=shutil.ignore_patterns("__pycache__", "secrets.toml"))
            else:
                site.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, site / name)
        write_commit(package)


class SourcesWithCommit(sdist):
    """Sources outside of a repository still know their commit."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        write_commit(Path(base_dir) / "kdpipe")


setup(cmdclass={"build_py": BuildWithPages, "sdist": SourcesWithCommit})
