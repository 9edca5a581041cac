"""What all tests share: fixed threads and examples, and one small study run to the end by the real command line."""

from __future__ import annotations

import os

os.environ.setdefault("KDPIPE_CHECK_CHARTS", "1")  # before anything imports the charts

import contextlib
import io
import random
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import numpy as np
import pytest
from app_pages import fresh_cache, pristine, root  # noqa: F401  (fixtures)
from visits import address, browser, visitor  # noqa: F401

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch: see kdpipe/cli/main.py

# ``ci`` tries the same examples everywhere and every time; ``wide``, by KDPIPE_TESTS=wide or
# --hypothesis-profile=wide, many new ones; ``mutants`` is ``ci`` without the search for the smallest failure.
UNSHRUNK = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, max_examples=30, database=None)
hypothesis.settings.register_profile("wide", deadline=None, max_examples=500)
hypothesis.settings.register_profile("mutants", hypothesis.settings.get_profile("ci"), phases=UNSHRUNK)
hypothesis.settings.load_profile(os.environ.get("KDPIPE_TESTS", "ci"))

REPOSITORY = Path(__file__).resolve().parent.parent
TINY = """
name = "tiny"
title = "Tiny digits"
label_fractions = [0.2]
seeds = [0, 1]
methods = ["plain", "kd", "fitnet", "second-seed"]

[data]
dataset = "digits"
probe_size = 60
augmentation = "shift1"

[teacher]
arch = "resnet18"
arguments = { channels = [8, 8, 16, 16], layers = [1, 1, 1, 1] }
stem = "small"
stem_stride = 1
layers = ["layer1", "layer3"]

[teacher.training]
steps = 30
batch_size = 32

[[students]]
name = "small"
arch = "resnet18"
arguments = { channels = [8, 8, 8, 8], layers = [1, 1, 1, 1] }
stem = "small"
stem_stride = 1
layers = ["layer1", "layer3"]

[training]
steps = 30
batch_size = 32
evaluations = 3

[maps]
projectors = ["tsne", "pca"]
perplexity = 5.0
plain_seeds = 1

[measures]
k = 5
second_k = 3
"""


@pytest.fixture(scope="session", autouse=True)
def torch_threads():
    """Two threads of torch; one where test processes share the cores among them."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


@pytest.fixture(scope="module")
def one_thread():
    """Small networks and layers only wait for a second thread."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def same_numbers():
    """What a test draws without naming a seed is the same whichever tests ran before it."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    np.random.seed(0)  # the stream of libraries that take no other
    random.seed(0)


@pytest.fixture(scope="session", autouse=True)
def same_width():
    """The program's console keeps the width that it found when it was first imported, by whichever test that was."""
    pytest.importorskip("torch")
    from kdpipe.cli.inputs import console

    console.width = 200


@pytest.fixture(autouse=True)
def same_way_out():
    """A proxy that one test sets stays with it: urllib keeps the first opener that it builds for the whole process."""
    yield
    urllib.request.install_opener(None)  # the next call builds one from the proxies of its own time


class CommandLine:
    """``scripts/precompute.py`` in a process of its own, with its cache, artifacts and weights in one folder."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self.study = folder / "tiny.toml"
        self.study.write_text(TINY)
        self.cache, self.artifacts, self.weights = folder / "cache", folder / "artifacts", folder / "weights"

    def arguments(self, *more: str, command: str = "run") -> list[str]:
        script = str(REPOSITORY / "scripts" / "precompute.py")
        places = {
            "run": ["--cache", self.cache, "--artifacts", self.artifacts, "--weights", self.weights, "--threads", "1"],
            "plan": ["--cache", self.cache],
            "validate": [],
        }[command]
        device = [] if command == "validate" else ["--device", "cpu"]
        return [sys.executable, script, command, str(self.study), *map(str, places), *device, *more]

    def __call__(self, *more: str, command: str = "run") -> SimpleNamespace:
        environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
        done = subprocess.run(
            self.arguments(*more, command=command), capture_output=True, text=True, env=environment, timeout=900
        )
        return SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr)

    def here(self, *more: str, command: str = "run") -> SimpleNamespace:
        """The same command in this process, where nothing long is to be done."""
        return self.words(*self.arguments(*more, command=command)[2:])

    @staticmethod
    def words(*words: str) -> SimpleNamespace:
        """``kdpipe`` with these words, in this process."""
        from kdpipe.cli.main import main

        out, err, code = io.StringIO(), io.StringIO(), 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["kdpipe", *words])
            patch.setenv("COLUMNS", "200")
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    main()
                except SystemExit as ended:
                    code = ended.code or 0
        return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue())

    def files(self) -> dict[str, bytes]:
        """Every artifact but the timings, which differ from run to run."""
        folder = self.artifacts / "tiny"
        return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "timings.json"}

    def stages(self, kind: str) -> set[str]:
        folder = self.cache / "stages" / kind
        return {path.name for path in folder.iterdir() if not path.name.startswith(".")} if folder.is_dir() else set()

    def everything(self) -> dict[str, bytes]:
        return {str(p.relative_to(self.root)): p.read_bytes() for p in self.root.rglob("*") if p.is_file()}


@pytest.fixture
def command_line(tmp_path):
    return CommandLine(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The tiny study, run to the end. Tests may add to its cache; its artifacts are read only."""
    line = CommandLine(tmp_path_factory.mktemp("finished"))
    line.result = line()
    assert line.result.code == 0, line.result.err + line.result.out
    line.first = line.files()
    return line
