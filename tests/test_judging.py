"""From tables to verdicts: who is held against whom, what is corrected by what, and what a sentence says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from kdpipe.evidence import Contrast, holm
from kdpipe.evidence.tables.comparisons import comparisons_of
from kdpipe.evidence.tables.judge_study import judge_study
from kdpipe.evidence.tables.matched_accuracy import Matched, matched_accuracy
from kdpipe.evidence.tables.values import Values
from kdpipe.evidence.tables.verdicts import single_verdict
from kdpipe.methods import METHODS
from kdpipe.registry import Plugin
from kdpipe.vocabulary import CONTROL_TEACHER, EXPLAINS, MATCHED_ACCURACY, NOT_ASKED, REMAINS, budget_id

LAYERS, IMAGES, CLASSES = 4, 60, 3
DEPTH = [order / (LAYERS - 1) for order in range(LAYERS)]
RISING = np.array([0.1, 0.2, 0.3, 0.5])
EARLIER = np.array([0.1, 0.3, 0.45, 0.5])
LATER = np.array([0.1, 0.12, 0.2, 0.5])
EVIDENCE = {
    "primary": None,
    "epsilon": {"silhouette": 0.005, "knn_accuracy": 0.005, "accuracy": 0.01},
    "resamples": 300,
    "seed": 0,
}


class Made:
    """A study made of curves: every image of a network has its network's curve, and a little noise of its own."""

    def __init__(self, seeds: int = 8) -> None:
        self.seeds, self.rows, self.curves, self.rights = range(seeds), [], {}, {}
        self.random = np.random.default_rng(0)

    def add(self, label, curve, right=0.7, *, method=None, role="control", student="small", fraction=0.1, **more):
        for seed in more.pop("seeds", self.seeds):
            name = f"{student}-{label}-l{fraction:g}-s{seed}"
            row = {
                "network_id": name, "role": role, "student": student, "method": method or label, "method_label": label,
                "method_parameters": "{}", "training": "{}", "teacher_id": None, "label_fraction": fraction,
                "budget_id": budget_id(fraction), "checkpoint_of": None,
                "labelled_images": 100, "unlabelled": False, "seed": seed, "checkpoint_step": 100, "status": "trained",
                "test_accuracy": right,
            }  # fmt: skip
            self.rows.append(row | more)
            self.curves[name], self.rights[name] = np.asarray(curve), right
        return self

    def teacher(self, name="teacher", fraction=1.0, role="teacher"):
        row = {
            "network_id": name, "role": role, "student": "teacher", "method": "supervised",
            "method_label": "supervised", "method_parameters": "{}", "training": "{}", "teacher_id": None,
            "label_fraction": fraction, "budget_id": budget_id(fraction),
            "checkpoint_of": None, "labelled_images": 1000, "unlabelled": False, "seed": 0,
            "checkpoint_step": 100, "status": "trained", "test_accuracy": 0.9,
        }  # fmt: skip
        self.rows.append(row)
        self.curves[name], self.rights[name] = RISING, 0.9
        return self

    def frames(self) -> dict[str, pl.DataFrame]:
        labels, ease = np.arange(IMAGES) % CLASSES, (np.arange(IMAGES) + 0.5) / IMAGES
        layers, samples, answers = [], [], []
        for name, curve in self.curves.items():
            jitter = 0.01 * self.random.normal(size=LAYERS)
            right = np.arange(IMAGES) < round(self.rights[name] * IMAGES)
            answers.append(pl.DataFrame({
                "network_id": name, "sample_id": np.arange(IMAGES), "correct": right, "prediction_depth": 1,
            }))  # fmt: skip
            for order in range(LAYERS):
                for view in ("gap", "projection"):
                    comparison = {"network_id": name, "layer": f"layer{order}", "view": view}
                    layers.append(comparison | {"order": order, "relative_depth": DEPTH[order]})
                    values = curve[order] + jitter[order] + 0.05 * self.random.normal(size=IMAGES)
                    votes = ease < curve[order] + jitter[order]
                    samples.append(pl.DataFrame({
                        **comparison, "sample_id": np.arange(IMAGES), "silhouette": values, "knn_correct": votes,
                        "knn_correct_second": votes, "silhouette_standardised": values,
                        "knn_correct_standardised": votes,
                    }))  # fmt: skip
        used = dict.fromkeys(row["method"] for row in self.rows if row["method"] in METHODS)
        methods = [
            {"method": name, "role": r.role, "explains": r.explains, "control_of": r.control_of, "null": r.is_null}
            for name, r in ((name, METHODS[name]) for name in used)
        ]
        return {
            "networks": pl.DataFrame(self.rows, infer_schema_length=None),
            "layers": pl.DataFrame(layers),
            "samples": pl.DataFrame({"sample_id": np.arange(IMAGES), "label": labels}),
            "sample_measures": pl.concat(samples),
            "predictions": pl.concat(answers),
            "methods": pl.DataFrame(methods, schema_overrides={"explains": pl.String, "control_of": pl.String}),
        }

    def judged(self, frames=None, **headline) -> dict[str, pl.DataFrame]:
        chosen = {"student": "small", "method": "kd", "label_fraction": 0.1} | headline
        record = {"study": {"evidence": EVIDENCE, "measures": {"k": 20, "second_k": 5}}, "headline": chosen}
        return judge_study(frames or self.frames(), record)


def made(seeds: int = 8) -> Made:
    study = Made(seeds).teacher().add("plain", RISING, role="plain")
    study.add("kd", EARLIER, 0.8, role="distilled", teacher_id="teacher")
    return study.add("second-seed", RISING)


def verdict(tables, claim="earlier", method="kd"):
    return tables["verdicts"].filter(claim=claim, method_label=method).row(0, named=True)


def controls(tables, outcome, claim="earlier", method="kd", measure="silhouette"):
    """Controls of an outcome, each with why it was not asked."""
    rows = tables["verdict_controls"].filter(claim=claim, method_label=method, measure=measure, outcome=outcome)
    return dict(rows.select("control", "why_not").iter_rows())


def test_a_planted_advance_is_supported_and_the_sentence_says_so():
    found = made().judged()
    row = verdict(found)
    assert row["verdict"] == "supported" and row["primary"] and row["seeds"] == 8 and row["correction"] == "holm"
    assert row["estimate"] == pytest.approx(np.trapezoid((EARLIER - RISING)[:-1], DEPTH[:-1]), abs=0.01)
    for part in ("10 % of the labels", "kd", "small", "8 seeds", "supported"):
        assert part in row["sentence"]
    assert verdict(found, "accurate")["verdict"] == "supported"
    assert verdict(found, "beats-teacher")["verdict"] == "reversed"
    assert row["takes"] is None


def test_seven_seeds_are_an_estimate_and_say_what_is_missing():
    row = verdict(made(7).judged())
    assert row["verdict"] == "estimate only" and row["p"] is None and row["takes"] == "1 more seed: 8 in all"


def test_a_control_that_gains_as_much_explains_it():
    found = made().add("label-smoothing", EARLIER).judged()
    row = verdict(found)
    assert row["verdict"] == "explained" and row["title"] == "explained by label-smoothing"
    assert list(controls(found, EXPLAINS)) == ["label-smoothing"] and row["controls_explaining"] == 1


def test_after_a_control_that_gains_less_the_effect_remains():
    found = made().add("label-smoothing", RISING).judged()
    row = verdict(found)
    assert row["verdict"] == "supported" and "label-smoothing" in controls(found, REMAINS)
    assert row["controls_remaining"] == len(controls(found, REMAINS))
    assert "it remains after label-smoothing" in row["sentence"]


def test_a_teacher_without_extra_labels_must_still_bring_something():
    """own-budget-teacher withholds the teacher's labels: if it gains nothing over plain, they were the gain."""
    study = made().teacher("teacher-l0.1", 0.1, CONTROL_TEACHER)
    row = verdict(study.add("own-budget-teacher", RISING, teacher_id="teacher-l0.1").judged())
    assert row["title"] == "explained by own-budget-teacher"
    study = made().teacher("teacher-l0.1", 0.1, CONTROL_TEACHER)
    found = study.add("own-budget-teacher", EARLIER, teacher_id="teacher-l0.1").judged()
    assert verdict(found)["verdict"] == "supported" and "own-budget-teacher" in controls(found, REMAINS)
    held = found["comparisons"].filter(control="own-budget-teacher", measure="silhouette", quantity="early_abc")
    assert held.select("against", "control_kind").rows() == [("control", "without")]


def test_the_fair_teacher_is_beaten_by_its_own_student():
    """A teacher with all labels is hard to outperform; one with the student's own few is what the claim is about."""
    study = made().teacher("teacher-l0.1", 0.1, CONTROL_TEACHER)
    study.rights["teacher-l0.1"] = 0.5
    found = study.add("own-budget-teacher", EARLIER, 0.7, teacher_id="teacher-l0.1").judged()
    assert verdict(found, "beats-teacher", "own-budget-teacher")["verdict"] == "supported"
    assert found["verdicts"].filter(method_label="own-budget-teacher").height == 1
    assert not found["specification"].filter(method_label="own-budget-teacher").height


def test_more_labels_explain_an_unlabelled_distillation_alone():
    study = made().add("kd-unlabelled", EARLIER, method="kd", role="distilled", teacher_id="teacher", unlabelled=True)
    study.add("supervised-on-the-same-images", EARLIER, labelled_images=1000)
    found = study.judged()
    assert verdict(found)["verdict"] == "supported"  # an upper bound is no explanation
    assert verdict(found, method="kd-unlabelled")["title"] == "explained by supervised-on-the-same-images"


def test_variants_of_kd_are_controls_of_kd_alone():
    study = made().add("fitnet", EARLIER, role="distilled", teacher_id="teacher")
    found = study.add("random-teacher", EARLIER).judged()
    assert verdict(found)["title"] == "explained by random-teacher"
    assert verdict(found, method="fitnet")["verdict"] == "supported"


def test_a_stand_in_teacher_is_a_control_of_its_own_method():
    study = made().add("fitnet", EARLIER, role="distilled", teacher_id="teacher")
    study.teacher("teacher-untrained", 0, CONTROL_TEACHER)
    study.add("fitnet-untrained-teacher", EARLIER, method="fitnet", teacher_id="teacher-untrained")
    found = study.judged()
    assert verdict(found, method="fitnet")["title"] == "explained by fitnet-untrained-teacher"
    assert verdict(found)["verdict"] == "supported"


def test_a_control_that_lacks_a_seed_is_named_and_not_asked():
    study = made().add("label-smoothing", EARLIER, seeds=range(7))
    found = study.judged()
    assert verdict(found)["verdict"] == "supported"
    assert controls(found, NOT_ASKED)["label-smoothing"] == "it is missing at seed 7"


def test_only_the_primary_cell_is_corrected_by_holm():
    study = made().add("fitnet", EARLIER, role="distilled", teacher_id="teacher")
    rows = study.judged()["comparisons"]
    tested = rows.filter(pl.col("p").is_not_null())
    primary = tested.filter((pl.col("correction") == "holm") & (pl.col("method_label") == "kd"))
    assert set(primary["measure"]) == {"silhouette", "knn_accuracy"} and set(primary["quantity"]) == {"early_abc"}
    assert primary["p_corrected"].to_list() == pytest.approx(holm(primary["p"].to_list()), rel=1e-5)
    others = tested.filter(pl.col("correction") != "holm")
    assert set(others["correction"]) == {"benjamini-hochberg"} and others.height == tested.height - 2
    assert (others["p_corrected"] >= others["p"] - 1e-7).all()
    assert others.filter(method_label="fitnet", quantity="early_abc", against="plain").height == 2


def test_a_seed_without_its_plain_companion_is_in_no_pair():
    study = Made(9).teacher().add("plain", RISING, role="plain", seeds=range(8))
    study.add("kd", EARLIER, role="distilled", teacher_id="teacher")
    (comparison,) = comparisons_of(study.frames(), {"student": "small", "method": "kd", "label_fraction": 0.1})
    assert comparison.seeds == tuple(range(8)) and comparison.primary


def test_diverged_networks_are_in_no_cell():
    study = made()
    study.rows[-20]["status"] = "diverged"
    frames = study.frames()
    lost = frames["networks"].filter(status="diverged").row(0, named=True)
    (comparison,) = comparisons_of(frames, {"student": "small", "method": "kd", "label_fraction": 0.1})
    assert lost["seed"] not in comparison.seeds or lost["method_label"] not in ("plain", "kd")


def test_without_a_second_seed_the_null_is_plain_of_the_next_one():
    study = (
        Made().teacher().add("plain", RISING, role="plain").add("kd", EARLIER, role="distilled", teacher_id="teacher")
    )
    (comparison,) = comparisons_of(study.frames(), {"student": "small", "method": "kd", "label_fraction": 0.1})
    assert (
        comparison.null is not None
        and comparison.null[0] == "small-plain-l0.1-s1"
        and comparison.null[7] == "small-plain-l0.1-s0"
    )


def checkpoints(study: Made, method: str, accuracies, curve, **more) -> Made:
    for step, right in zip((40, 60, 80), accuracies, strict=True):
        study.add(f"{method}-at{step}", curve, right, method=method, role="checkpoint", checkpoint_step=step, **more)
        for row in study.rows[-len(study.seeds) :]:
            row |= {"method_label": method, "checkpoint_of": f"small-{method}-l0.1-s{row['seed']}"}
    return study


def test_matched_accuracy_stops_the_better_student_where_plain_ends():
    study = checkpoints(made(), "kd", (0.5, 0.6, 0.75), EARLIER, teacher_id="teacher")
    frames = study.frames()
    (comparison,) = comparisons_of(frames, {"student": "small", "method": "kd", "label_fraction": 0.1})
    found = matched_accuracy(frames, comparison)
    assert isinstance(found, Matched)
    stopped, end = found.pairs[3]
    assert (stopped.before, stopped.after) == ("small-kd-at60-l0.1-s3", "small-kd-at80-l0.1-s3")
    assert stopped.share == pytest.approx((0.7 - 0.6) / 0.15)
    assert end.before == end.after == "small-plain-l0.1-s3"
    judged = study.judged()
    assert verdict(judged)["verdict"] == "supported" and MATCHED_ACCURACY in controls(judged, REMAINS)


def test_a_gain_that_is_gone_at_matched_accuracy_is_explained_by_it():
    row = verdict(checkpoints(made(), "kd", (0.5, 0.7, 0.7), RISING, teacher_id="teacher").judged())
    assert row["title"] == f"explained by {MATCHED_ACCURACY}"


def test_a_seed_without_a_gain_does_not_cancel_matched_accuracy():
    """At one seed plain ends the more accurate: there plain is the one that is stopped."""
    study = checkpoints(made(), "kd", (0.5, 0.7, 0.7), RISING, teacher_id="teacher")
    checkpoints(study, "plain", (0.4, 0.5, 0.6), RISING)
    for row in study.rows:
        if row["network_id"] == "small-kd-l0.1-s2":
            row["test_accuracy"] = 0.65
    row = verdict(study.judged())
    assert row["title"] == f"explained by {MATCHED_ACCURACY}"


def test_checkpoints_without_an_accuracy_are_passed_over():
    study = checkpoints(made(), "kd", (0.5, 0.6, 0.75), EARLIER, teacher_id="teacher")
    for row in study.rows:
        if (row["method_label"], row["checkpoint_step"]) == ("kd", 40):
            row["test_accuracy"] = None
    assert MATCHED_ACCURACY in controls(study.judged(), REMAINS)


@pytest.mark.parametrize("budget", [0.5, 1.0])
def test_another_budget_takes_no_control_away(budget):
    study = made().add("label-smoothing", EARLIER)
    study.add("plain", RISING, role="plain", fraction=budget, labelled_images=500)
    study.add("label-smoothing", RISING, fraction=budget, labelled_images=500)
    row = study.judged()["verdicts"].filter(pl.col("label_fraction") < 0.2, claim="earlier", method_label="kd")
    assert row["title"].to_list() == ["explained by label-smoothing"]


@pytest.mark.parametrize("lost", ["small-label-smoothing-l0.1-s3", "small-second-seed-l0.1-s3", "small-kd-l0.1-s3"])
@pytest.mark.parametrize("how", ["no rows", "null", "nan", "no answers"])
def test_what_a_failed_stage_left_out_takes_part_in_nothing(lost, how):
    study = made().add("label-smoothing", RISING)
    frames = study.frames()
    mine = pl.col("network_id") == lost
    changes = {
        "no rows": {"sample_measures": frames["sample_measures"].filter(~mine)},
        "null": {
            "sample_measures": frames["sample_measures"].with_columns(silhouette=pl.when(~mine).then("silhouette"))
        },
        "nan": {
            "sample_measures": frames["sample_measures"].with_columns(
                silhouette=pl.when(mine).then(float("nan")).otherwise("silhouette")
            )
        },
        "no answers": {"predictions": frames["predictions"].filter(~mine)},
    }  # fmt: skip
    record = {
        "study": {"evidence": EVIDENCE, "measures": {"k": 20, "second_k": 5}},
        "headline": {"student": "small", "method": "kd", "label_fraction": 0.1},
    }
    judged = judge_study(frames | changes[how], record)
    assert verdict(judged)["seeds"] == (7 if "-kd-" in lost else 8)
    missing = controls(judged, NOT_ASKED).get("label-smoothing")
    assert missing == ("it is missing at seed 3" if "smoothing" in lost else None)


def test_a_verdict_says_how_many_controls_nobody_asked():
    found = made().add("label-smoothing", RISING).judged()
    row, missing = verdict(found), controls(found, NOT_ASKED)
    assert row["title"] == "supported" and row["controls_not_asked"] == len(missing)
    assert row["sentence"].endswith(f"Verdict: supported, {len(missing)} controls not asked.")
    unmatched = missing.pop(MATCHED_ACCURACY)
    # Those of KD itself and of any method; not label smoothing, which ran, nor more labels, which no student here saw.
    of_kd = {"random-teacher", "shuffled-teacher", "own-budget-teacher", "self-distillation"}
    assert missing == dict.fromkeys(("plain-long", *of_kd), "it is not in the study")
    assert unmatched.startswith("no checkpoints of kd")


def test_of_a_method_without_controls_of_its_own_stand_ins_for_its_teacher_are_missed():
    study = made().add("fitnet", EARLIER, role="distilled", teacher_id="teacher")
    found = study.judged()["verdict_controls"].filter(claim="earlier", method_label="fitnet", outcome=NOT_ASKED)
    stand_ins = {
        "fitnet-untrained-teacher": "random-teacher",
        "fitnet-self-teacher": "self-distillation",
        "fitnet-own-budget-teacher": "own-budget-teacher",
    }
    expected = {"label-smoothing": "label-smoothing", "plain-long": "plain-long", **stand_ins}
    # as accurate as plain here, so matched accuracy was asked
    assert dict(found.select("control", "control_method").iter_rows()) == expected


def test_verdicts_of_a_study_are_the_same_where_the_plugin_of_its_controls_is_absent():
    plugin = Plugin("mine.py", "sha256:0")
    for name in ("random-fitnet", "shuffled-fitnet"):  # the second one does not run
        METHODS.register(replace(METHODS["random-teacher"], name=name, control_of="fitnet"), plugin)
    study = made().add("fitnet", EARLIER, role="distilled", teacher_id="teacher").add("random-fitnet", EARLIER)
    frames = study.frames()
    with_it = study.judged(frames)
    METHODS.withdraw_plugins()
    without = study.judged(frames)
    assert verdict(without, method="fitnet")["title"] == "explained by random-fitnet"
    assert all(with_it[name].equals(without[name]) for name in with_it)
    assert "fitnet-untrained-teacher" not in controls(without, NOT_ASKED, method="fitnet")


def test_two_settings_of_one_method_are_one_method():
    study = made().add("kd-warm", EARLIER, method="kd", role="distilled", teacher_id="teacher")
    row = verdict(study.judged(), "across-methods", "")
    assert row["verdict"] == "not computable" and row["because"] == "the study has one method only"


def test_a_loss_is_called_a_loss_and_no_control_is_named():
    study = Made().teacher().add("plain", RISING, role="plain").add("second-seed", RISING)
    study.add("kd", LATER, 0.6, role="distilled", teacher_id="teacher").add("label-smoothing", RISING)
    row = verdict(study.judged())
    assert row["verdict"] == "reversed" and "less compact" in row["sentence"] and "remain" not in row["sentence"]


def test_accuracies_that_are_never_met_say_so():
    found = checkpoints(made(), "kd", (0.75, 0.75, 0.78), EARLIER, teacher_id="teacher").judged()
    assert verdict(found)["verdict"] == "supported"
    assert controls(found, NOT_ASKED)[MATCHED_ACCURACY].startswith("no checkpoints of kd")


def test_claims_across_methods_are_supported_only_if_each_is():
    study = made().add("fitnet", EARLIER, role="distilled", teacher_id="teacher")
    assert verdict(study.judged(), "across-methods", "")["verdict"] == "supported"
    study.add("rkd", LATER, role="distilled", teacher_id="teacher")
    assert verdict(study.judged(), "across-methods", "")["verdict"] == "not supported by all"
    alone = verdict(made().judged(), "across-methods", "")
    assert alone["verdict"] == "not computable" and alone["takes"]


def test_every_specification_stands_once_and_the_fixed_ones_are_marked():
    rows = made().add("label-smoothing", RISING).judged()["specification"]
    assert rows.group_by("against", "control").len()["len"].to_list() == [10, 10]
    fixed = rows.filter("fixed_in_advance", against="plain").sort("measure")
    assert fixed.select("measure", "view", "k").rows() == [
        ("knn_accuracy", "gap", 20),
        ("silhouette", "projection", None),
    ]
    early = made().judged()["comparisons"].filter(quantity="early_abc", against="plain", measure="silhouette")
    assert fixed.filter(measure="silhouette")["estimate"][0] == pytest.approx(early["estimate"][0], abs=0.01)


def test_a_verdict_says_in_how_many_ways_it_holds():
    row = verdict(made().judged())
    assert (row["specifications"], row["specifications_above"]) == (10, 10)
    assert "above 0 in 10 of 10 ways" in row["sentence"]
    assert verdict(made().judged(), "compact")["specifications"] is None


def test_against_controls_the_interval_decides_and_no_p_value_is_corrected():
    rows = made().add("label-smoothing", RISING).judged()["comparisons"].filter(control="label-smoothing")
    assert rows.height and rows["p"].null_count() == rows.height


def test_a_study_of_one_view_has_one_endpoint_and_says_so():
    study = made()
    frames = study.frames()
    for name in ("layers", "sample_measures"):
        frames[name] = frames[name].filter(view="gap")
    record = {
        "study": {"evidence": EVIDENCE, "measures": {"k": 20, "second_k": 5}},
        "headline": {"student": "small", "method": "kd", "label_fraction": 0.1},
    }
    row = verdict(judge_study(frames, record))
    assert row["verdict"] == "not computable" and "not measured" in row["because"]


def test_every_number_of_a_verdict_is_stored():
    found = made().add("label-smoothing", RISING).judged()
    findings = found["findings"].sort("measure")
    assert findings.select("measure", "view", "finding").rows() == [
        ("knn_accuracy", "gap", "higher"),
        ("silhouette", "projection", "higher"),
    ]
    assert findings["epsilon"].to_list() == pytest.approx([0.005, 0.005]) and findings["seeds"].to_list() == [8, 8]
    rows = found["comparisons"].filter(measure="silhouette", against="plain")
    assert set(rows["quantity"]) == {"abc", "early_abc", "shape_abc", "advance"}
    assert rows["per_seed"].list.len().to_list() == [8] * 4
    held = found["verdict_controls"].filter(control="label-smoothing", claim="earlier").drop_nulls("estimate")
    on = ["student", "method_label", "budget_id", "measure", "quantity", "control", "control_kind"]
    joined = held.join(found["comparisons"], on=on)
    assert joined.height == 2 and joined["estimate"].equals(joined["estimate_right"])


def test_a_seed_that_never_reaches_plains_value_is_empty_in_its_place():
    study = made()
    study.curves |= {f"small-kd-l0.1-s{seed}": EARLIER + 0.1 for seed in range(8)}
    study.curves["small-kd-l0.1-s2"] = RISING / 2
    advance = study.judged()["comparisons"].filter(quantity="advance", measure="silhouette").row(0, named=True)
    assert [seed for seed, value in enumerate(advance["per_seed"]) if value is None] == [2]
    assert advance["never_reached"] == 1
    assert advance["estimate"] == pytest.approx(np.mean([v for v in advance["per_seed"] if v is not None]), rel=1e-5)


def test_the_order_of_cells_and_rows_does_not_matter():
    study = made().add("label-smoothing", RISING)
    study.random = np.random.default_rng(1)
    frames = study.frames()
    record = {
        "study": {"evidence": EVIDENCE, "measures": {"k": 20, "second_k": 5}},
        "headline": {"student": "small", "method": "kd", "label_fraction": 0.1},
    }
    one = judge_study(frames, record)
    other = judge_study({name: frame.reverse() for name, frame in frames.items()}, record)
    keys = ["measure", "quantity", "against", "control"]
    a, b = (tables["comparisons"].sort(keys).select(*keys, "estimate", "p") for tables in (one, other))
    assert a.select(keys).equals(b.select(keys))
    assert np.allclose(a["estimate"], b["estimate"], atol=1e-6)


def test_values_are_in_the_order_of_layers_and_images():
    frames = made().frames()
    values = Values({name: frame.sample(fraction=1.0, shuffle=True, seed=3) for name, frame in frames.items()})
    found = values.of_layers(["small-plain-l0.1-s0"], "gap", "silhouette")[0]
    mine = frames["sample_measures"].filter(network_id="small-plain-l0.1-s0", view="gap", layer="layer2")
    assert np.allclose(found[2], mine.sort("sample_id")["silhouette"])


CONTRAST = Contrast(0.02, (0.02,) * 8, 0.01, 0.03, 0.01, None, None, None)


@pytest.mark.parametrize(
    ("low", "high", "p", "explained", "seeds", "expected"),
    [
        (0.01, 0.03, 0.01, False, 8, "supported"),
        (0.01, 0.03, 0.01, True, 8, "explained"),
        (0.01, 0.03, 0.06, False, 8, "inconclusive"),
        (0.01, 0.03, None, False, 8, "inconclusive"),
        (-0.01, 0.03, 0.01, False, 8, "inconclusive"),
        (-0.004, 0.005, 0.01, False, 8, "no difference"),
        (-0.03, -0.01, 0.01, False, 8, "reversed"),
        (0.01, 0.03, 0.01, False, 7, "estimate only"),
    ],
)
def test_one_contrast_is_judged_in_order(low, high, p, explained, seeds, expected):
    found = Contrast(CONTRAST.estimate, CONTRAST.per_seed, low, high, p, None, None, None)
    assert single_verdict(found, p, 0.005, explained, seeds) == expected
