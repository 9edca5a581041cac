"""The app needs requirements.txt and nothing heavier: each page runs with all else forbidden.

``KDPIPE_APP_PYTHON`` names the interpreter of an environment with ``requirements.txt`` alone; without
it the check runs here, under an import hook that refuses what the pipeline needs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic import Recipe, write_toy_study

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "torchvision", "timm", "tensorflow", "sklearn", "openTSNE", "ivis", "scipy", "pydantic", "ray")
PROGRAM = f"""
import sys
from pathlib import Path

HEAVY = {HEAVY!r}


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in HEAVY:
            raise ModuleNotFoundError(name + " is not what the app may import", name=name)


sys.meta_path.insert(0, Refuse())
from streamlit.testing.v1 import AppTest

for page in ["Home.py", *sorted(map(str, Path("pages").glob("*.py")))]:
    app = AppTest.from_file(page, default_timeout=60)
    app.query_params["sample"] = "3"
    app.run()
    assert not app.exception, (page, [element.message for element in app.exception])
    assert not app.error, (page, [element.value for element in app.error])
    assert app.get("vega_lite_chart"), page
loaded = sorted(set(HEAVY) & {{name.split(".")[0] for name in sys.modules}})
assert not loaded, loaded
print("light")
"""


@pytest.mark.parametrize("python", sorted({sys.executable, os.environ.get("KDPIPE_APP_PYTHON", sys.executable)}))
def test_pages_run_with_the_app_requirements_alone(tmp_path: Path, python: str) -> None:
    write_toy_study(tmp_path, Recipe(samples=40, seeds=(0, 1), fractions=(0.1,)))
    environment = {**os.environ, "KDPIPE_ARTIFACTS": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [python, "-c", PROGRAM], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("light")
