#!/usr/bin/env python
"""Write docs/METHODS.md from the registry: ``scripts/methods_docs.py [--check]``."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kdpipe.methods import METHODS
from kdpipe.methods.base import Method

TARGET = ROOT / "docs" / "METHODS.md"
FAMILIES = {
    "control": "Controls",
    "logits": "Logits",
    "features": "Features",
    "relations": "Relations between images",
    "contrastive": "Contrast",
    "explanation": "Explanations",
    "consistency": "Consistency",
}
INTRODUCTION = """# Methods

Written by `scripts/methods_docs.py` from the registry in `kdpipe/methods/`; nothing here was typed in.

Every method is one pure loss on tensors and one record that says what it needs. The losses work without a study:
`from kdpipe.methods import dkd_loss`. In a study, a method is named, alone or with parameters:

```toml
methods = ["plain", "kd", { method = "dkd", parameters = { beta = 2.0 } }, { method = "kd", unlabelled = true }]
```

- **Layers** are paired by relative depth. Methods on several layers take `pairs = [["layer2", "layer3"], ...]`,
  student's layer first, out of the layers that the study looks at. Maps of different size meet at the smaller one.
- **`unlabelled = true`** shows the teacher's term images without labels too, beside the same labelled images.
  Methods whose teacher's term needs labels refuse it.
- **`teacher`** puts another teacher in the place of the study's: `"untrained"`, `"own-budget"` (trained on the
  student's own labels for the student's steps) or `"self"` (the plain student). Such networks are controls.
- **`training = { lr = 0.05 }`** gives a method a learning rate, schedule or number of steps of its own.
- **`[training] teacher_cache = true`** keeps the teacher's logits of every view of every labelled image, for methods
  that read nothing else; it pays where labels are few, and `validate` refuses it where it would not.
- Warm-ups and first phases that papers give in epochs are shares of the training here, because steps are what is held
  equal.
- A method that cannot serve a pair of networks says so at `validate`, with the reason.
"""


def section(method: Method) -> str:
    """One method as a list of facts."""
    defaults = method.resolved({}).model_dump(exclude_none=True)
    facts = {
        "loss": method.formula,
        "defaults": ", ".join(f"`{name}` {_plain(value)}" for name, value in defaults.items()),
        "reads": ", ".join(method.needs),
        "source": method.citation if method.citation != "-" else "",
        "differs": method.differs,
    }
    lines = [f"- *{name}*: {text}" for name, text in facts.items() if text]
    return "\n".join([f"### `{method.name}` – {method.title}", "", method.summary, "", *lines])


def _plain(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    parts = [INTRODUCTION.strip()]
    for family, title in FAMILIES.items():
        parts += [f"## {title}", *(section(method) for method in METHODS.values() if method.family == family)]
    text = "\n\n".join(parts) + "\n"
    if "--check" in sys.argv:
        sys.exit(0 if TARGET.read_text() == text else "docs/METHODS.md is out of date: run scripts/methods_docs.py")
    TARGET.write_text(text)


if __name__ == "__main__":
    main()
