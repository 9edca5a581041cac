"""The registry: every record complete, every loss importable in the form that others rely on."""

from __future__ import annotations

import inspect
import json

import pairs
import pytest
import torch
from pydantic import ValidationError

import kdpipe.methods as methods
from kdpipe.methods import METHODS
from kdpipe.methods.base import Method, Parameters
from kdpipe.methods.numerics import full_precision, wide

DISTILLATIONS = {name for name, method in METHODS.items() if method.role == "distilled"}
# Studies name these.
KNOWN = {
    "kd", "dkd", "dist", "nkd", "lskd", "wttm", "mlkd", "fitnet", "at", "vid", "reviewkd", "simkd", "catkd", "ofa",
    "rkd", "sp", "cc", "pkt", "nst", "crd", "e2kd", "funmatch",
    "ft", "ab", "fsp", "kdsvd", "ofd", "ickd",
}  # fmt: skip
CONTROLS = {
    "second-seed", "plain-long", "label-smoothing", "random-teacher", "shuffled-teacher", "own-budget-teacher",
    "self-distillation", "supervised-on-the-same-images",
}  # fmt: skip
# The losses as they are called without a study: positional tensors, then parameters with published defaults.
SIGNATURES = {
    "kd_loss": "logits_student, logits_teacher, temperature=4.0",
    "dkd_loss": "logits_student, logits_teacher, target, alpha=1.0, beta=8.0, temperature=4.0",
    "dist_loss": "logits_student, logits_teacher, beta=1.0, gamma=1.0, temperature=4.0",
    "nkd_loss": "logits_student, logits_teacher, target, gamma=1.5, temperature=1.0",
    "ctkd_loss": "logits_student, logits_teacher, temperature",
    "rld_loss": "logits_student, logits_teacher, target, alpha=1.0, beta=8.0",
    "sdd_loss": "logits_student, logits_teacher, target, alpha=1.0, beta=8.0, temperature=4.0, complementary=2.0",
    "wkdl_loss": "logits_student, logits_teacher, target, cost, temperature=8.0, regularisation=0.05, iterations=10",
    "wkdf_loss": "map_student, map_teacher, mean_weight=4.0, grid=1",
    "lskd_loss": "logits_student, logits_teacher, temperature=2.0",
    "ttm_loss": "logits_student, logits_teacher, gamma=0.1",
    "wttm_loss": "logits_student, logits_teacher, gamma=0.2",
    "mlkd_loss": "logits_student, logits_teacher, temperatures=(2.0, 3.0, 4.0, 5.0, 6.0)",
    "fitnet_loss": "map_student, map_teacher",
    "at_loss": "maps_student, maps_teacher",
    "vid_loss": "map_student, map_teacher, log_scale",
    "reviewkd_loss": "maps_student, maps_teacher",
    "simkd_loss": "map_student, map_teacher",
    "catkd_loss": "cam_student, cam_teacher, pooled=2",
    "ofa_loss": "logits_exit, logits_teacher, target, gamma=1.0, temperature=1.0",
    "rkd_loss": "pooled_student, pooled_teacher, distance_weight=25.0, angle_weight=50.0",
    "sp_loss": "map_student, map_teacher",
    "cc_loss": "embedded_student, embedded_teacher",
    "pkt_loss": "pooled_student, pooled_teacher",
    "nst_loss": "maps_student, maps_teacher",
    "crd_loss": "embedded_student, embedded_teacher, index, memory",
    "e2kd_loss": "explanation_student, explanation_teacher",
    "ft_loss": "factor_student, factor_teacher, p=1",
    "ab_loss": "maps_student, maps_teacher, margin=1.0",
    "fsp_loss": "maps_student, maps_teacher",
    "kdsvd_loss": "maps_student, maps_teacher, k=1",
    "ofd_loss": "maps_student, maps_teacher, margins",
    "ickd_loss": "map_student, map_teacher",
}


def test_the_registry_has_every_method_and_control():
    assert KNOWN <= DISTILLATIONS
    assert {name for name, method in METHODS.items() if method.role == "control"} == CONTROLS
    assert {name for name, method in METHODS.items() if method.role == "plain"} == {"plain"}


@pytest.mark.parametrize("name", list(SIGNATURES))
def test_losses_are_called_in_one_form(name):
    """What is promised stands first; parameters that follow have defaults."""
    found = [
        parameter.name if parameter.default is inspect.Parameter.empty else f"{parameter.name}={parameter.default}"
        for parameter in inspect.signature(getattr(methods, name)).parameters.values()
    ]
    promised = SIGNATURES[name]
    assert ", ".join(found).startswith(promised)
    rest = ", ".join(found).removeprefix(promised)
    assert all("=" in part for part in rest.strip(", ").split(", ") if part)
    assert getattr(methods, name).__doc__


@pytest.mark.parametrize("name", list(METHODS))
def test_every_record_is_complete(name):
    method = METHODS[name]
    assert method.name == name and method.title and method.summary and method.formula and method.citation
    json.dumps(method.resolved({}).model_dump(mode="json"))
    for wrong in ({"no_such_parameter": 1}, {field: float("inf") for field in method.parameters.model_fields}):
        if wrong:
            with pytest.raises(ValidationError):
                method.resolved(wrong)
    assert method.needs_teacher or method.needs == ()
    assert not (method.reveals_labels and method.needs_teacher)


@pytest.mark.parametrize("name", list(METHODS))
def test_terms_are_named_finite_and_leave_the_teacher_alone(name):
    """On a batch whose last images have no label; what needs no teacher gives those rows no gradient."""
    made = pairs.setting(name, *pairs.pair_for(name))
    terms = pairs.terms(made, labelled=5)
    assert all(term.ndim == 0 and term.isfinite() and term.dtype == torch.float32 for term in terms.values())
    sum(terms.values()).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in made.student.parameters())
    assert all(p.grad is None for p in made.teacher.parameters())


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.role == "distilled"])
def test_whether_unlabelled_images_matter_is_what_the_record_says(name):
    """Taking an unlabelled image away changes the teacher's terms at some time, or none if they need labels."""
    made = pairs.setting(name, *pairs.pair_for(name))
    made.student.eval()  # batch statistics would change every row

    def value(rows):
        made.student.train = lambda mode=True: made.student
        terms = {}
        for progress in (0.0, 0.5):
            torch.manual_seed(0)
            found = pairs.terms(made, rows=rows, labelled=5, progress=progress)
            terms |= {f"{name} at {progress}": term for name, term in found.items()}
        return terms

    if made.extras is not None:
        made.extras.eval()
    fewer, more = value(6), value(8)
    changed = {term for term in fewer if not torch.isclose(fewer[term], more[term], rtol=1e-6, atol=0.0)}
    assert not any(term.startswith("ce ") for term in changed)
    assert bool(changed) != made.method.uses_labels


def test_losses_stay_out_of_autocast():
    @full_precision
    def product(left, right):
        return (wide(left) @ wide(right)).sum()

    a, b = torch.randn(2, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = product(a, b)
        assert inside.item() == product(left=a, right=b).item()
    assert inside.item() == (a @ b).sum().item() and inside.dtype == torch.float32
    assert wide(a.double()).dtype == torch.float64 and wide(a.half()).dtype == torch.float32


def test_a_method_is_a_record_that_anyone_can_add():
    own = Method(
        name="own", title="Own", role="distilled", family="logits", formula="-", summary="-", citation="-",
        terms=lambda step: {"mean": step.student.logits.mean() - step.of_teacher.logits.mean()},
    )  # fmt: skip
    assert own.needs_teacher and own.resolved({}) == Parameters()
    assert own.refuse(pairs.pair("cnn", "cnn"), own.resolved({})) is None
