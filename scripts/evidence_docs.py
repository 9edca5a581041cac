#!/usr/bin/env python
"""Write docs/EVIDENCE.md from claims, controls and verdicts as the code has them: ``scripts/evidence_docs.py [--check]``."""

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kdpipe.evidence import MEANINGS, Rules
from kdpipe.evidence.claims import CLAIMS
from kdpipe.methods import METHODS
from kdpipe.vocabulary import MATCHED_ACCURACY, MATCHED_ACCURACY_SUMMARY

TARGET = ROOT / "docs" / "EVIDENCE.md"
RULES = Rules()
TEXT = f"""# Evidence: how a claim is judged

Written by `scripts/evidence_docs.py` from `kdpipe/evidence/`, `kdpipe/vocabulary.py` and the registry of methods.

Lee & Wallraven's abstract makes several claims in one sentence. Each can be true or false by itself, so each is judged by
itself, for every student, method and budget of labels of a study. kdpipe tests what the abstract says; it does not claim to
reproduce the paper's numbers.

## The claims

{{claims}}

## What is measured

Two endpoints are fixed for all studies: the class-balanced **silhouette** of the projected maps, and **kNN accuracy** (k of the study, by default 20) of
the channel means, both by `relative_depth`. Of each, with the distilled and the plain student of one seed side by side:

- `abc`: the area between their curves over depth, positive where distillation is ahead.
- `early_abc`: the same without the last layer. **This is the claim**: nobody doubts that a better student ends better.
- `shape_abc`: the area once each curve runs from 0 to 1 on its own scale: earlier, rather than better everywhere.
- `advance`: how much shallower the distilled student reaches the plain one's final value; seeds at which it never does are counted.
- how much earlier images are settled (`prediction_depth`), and the shares of probe images answered rightly.

## How chance is kept out

- **Pairs.** Both students of a seed share labels, batches and initial weights. The test is an exact sign flip over seeds: with
  {RULES.least_seeds} seeds p cannot fall below .0078, with 5 not below .0625. Below {RULES.least_seeds} seeds there are estimates and no p values.
- **Crossed intervals.** All seeds see the same images, so seeds and images are resampled independently (pigeonhole bootstrap, Owen
  2007) over stored per-image values. Neighbours are never computed again on images drawn twice, where a copy would be the nearest.
  As seeds are few, the percentiles are expanded (Hesterberg 2015).
- **One primary comparison.** A study names one comparison before it runs; Holm's correction runs over its two endpoints. Everything
  else in the comparisons is exploratory, and Benjamini-Hochberg runs over all of it; the specification curve's p values stand as they are.
- **This teacher, these images.** p is about seeds, the interval about seeds and images; both hold for the one teacher of the study.
- **The null.** Every effect is also given as a multiple of what plain moves when only its initial weights differ. Where a study has no
  second start, plain of the next seed stands in, whose labels and batches differ too: a wider null.
- **The margin** ±ε, within which a difference does not matter, is the study's: under `[evidence]` in its file, or the default.

## What else could explain it

A positive effect must remain after every control of the study that could explain it. Of a control *instead*, which puts something else in
distillation's place, distilled must be ahead; of a control *without*, which distils but withholds something, a gain over plain must be left.

{{controls}}

`matched-accuracy` needs no network of its own: seed by seed, the more accurate of the two students is stopped where it first was as
accurate as the other is at its end, between two of its checkpoints (a study's `checkpoints`); what distilled is ahead there is what is
left. Controls that vary KD are asked of KD alone; a method with another `teacher` in the study file is asked in the same way. A student
that saw more labels is an upper bound, and explains a gain only where the distilled student saw the same images.

A control that could explain a gain and was not asked, because the study does not have it or lacks a seed of it, is named with the verdict and
counted: *supported, 2 controls not asked*. More controls leave less room for *supported*, so a comparison that was tested less
is not one that fared better.

The **specification curve** repeats the comparison in every way that it could have been measured: both views, columns standardised or not,
two numbers of neighbours.

## The verdicts

Tried in this order; each comes with its numbers, the controls after which it remains and those that could not be asked.

{{verdicts}}

*Explained by X* says that distillation is not shown to do more than X, not that X was shown to do as much: the interval of what is left
against X reaches 0. Every sentence names the control against which the least is left. *Reversed* rests on the interval alone.

The silhouette leads, as the claim is about compactness; kNN accuracy must bear it out. Curves that are flat, or that fall by more than
{RULES.fall_tolerance:.0%} of their range, have no "earlier", and no p value. A claim across architectures or methods is *supported* if each of at least two is, and else *not supported by
all*, or open as long as one of them is. A claim that one contrast decides (more compact, more accurate, ahead of
its teacher) goes through the same order. How often the instrument errs, and how small an effect it finds, is measured by
`benchmarks/instrument.py`: see [BENCHMARKS.md](BENCHMARKS.md).

## Judging again

Verdicts are artifacts, computed once and never by a page. `kdpipe judge NAME` judges a finished study anew from its
per-image values, without a network.
"""


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def main() -> None:
    claims = [(f"`{claim.name}`", claim.title, claim.measured_by, claim.rule) for claim in CLAIMS]
    explaining = [method for method in METHODS.values() if method.explains]
    controls = [(f"`{m.name}`", m.explains or "", m.control_of or "any", m.summary) for m in explaining]
    controls.append((f"`{MATCHED_ACCURACY}`", "without", "any", MATCHED_ACCURACY_SUMMARY))
    text = TEXT.format(
        claims=table(("claim", "in words", "judged by", "supported if"), claims),
        controls=table(("control", "kind", "of", "what it is"), controls),
        verdicts=table(("verdict", "meaning"), [(f"*{name}*", meaning) for name, meaning in MEANINGS.items()]),
    )
    if "--check" in sys.argv:
        sys.exit(0 if TARGET.read_text() == text else "docs/EVIDENCE.md is out of date: run scripts/evidence_docs.py")
    TARGET.write_text(text)


if __name__ == "__main__":
    main()
