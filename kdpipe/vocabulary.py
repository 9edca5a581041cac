"""The words that a study's tables hold, with what they mean: the one place for each.

A leaf that needs nothing but the standard library, so that evidence (with SciPy), training (with torch) and the app
(with neither) speak of the same things in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

# ------------------------------------------------------------------------------------------ networks

# What a network is in its study: the column ``role`` of networks.parquet.
TEACHER, PLAIN, CONTROL, DISTILLED = "teacher", "plain", "control", "distilled"
CHECKPOINT, UNTRAINED, CONTROL_TEACHER = "checkpoint", "untrained", "control-teacher"
ROLES: Mapping[str, str] = {  # in the order of reading
    TEACHER: "the network that students learn from",
    PLAIN: "a student of labels alone",
    CONTROL: "a student that could explain a gain away",
    DISTILLED: "a student of the teacher",
    CHECKPOINT: "a student on its way",
    UNTRAINED: "not trained: a student's initial weights, or the raw pixels",
    CONTROL_TEACHER: "another teacher, which a control learned from",
}
STUDENT_ROLES = (PLAIN, CONTROL, DISTILLED)
METHOD_ROLES = STUDENT_ROLES  # a method makes a student of its own role, or a control

# The column ``student`` where there is no student's architecture.
TEACHER_ARCHITECTURE, PIXELS = "teacher", "pixels"
# The column ``method`` where a network has no method of the registry; raw pixels have PIXELS there too.
SUPERVISED_TEACHER, UNTRAINED_NETWORK = "supervised", "untrained"
STATUSES = ("trained", "diverged", "untaught")


def budget_id(label_fraction: float) -> str:
    """A share of the training labels as the text that tables are joined by: ``0.1``; ``1`` for all of them.

    Six significant digits, so that a share comes to the same text in 32 bits and in 64.
    """
    return f"{label_fraction:.6g}"


def budget_in_words(label_fraction: float) -> str:
    """A share of the training labels for people: ``10% of labels``."""
    if label_fraction == 0:
        return "no labels"
    return "all labels" if budget_id(label_fraction) == "1" else f"{100 * label_fraction:.3g}% of labels"


# ------------------------------------------------------------------------------- images, layers, maps

# Known factors of a probe image: columns of samples.parquet, and values of ``factor`` in factors.parquet.
FACTORS: Mapping[str, str] = {
    "brightness": "mean luma, 0 to 1",
    "contrast": "standard deviation of luma",
    "hue": "dominant hue in degrees, 0 is red; empty where the image has no colour",
    "colourfulness": "Hasler and Süsstrunk's index; 0 for grey images",
    "edge_density": "mean length of the luma's gradient (Sobel)",
    "teacher_entropy": "entropy of the teacher's probabilities, in bits",
}
ALL_FACTORS = "all"

# How a layer's map became a vector.
VIEWS: Mapping[str, str] = {"gap": "channel means", "projection": "whole map"}

CONSENSUS, INDEPENDENT = "consensus", "independent"
LAYOUTS: Mapping[str, str] = {
    CONSENSUS: "started from the map that the networks at this depth share",
    INDEPENDENT: "optimised alone",
}

# ---------------------------------------------------------------------------------------- statistics

# Slices of the probe images, apart from the quarters of each factor: the column ``kind`` of slices.parquet.
ALL_IMAGES, CLASS_SLICE = "all", "class"
# Whose place a student would take: the column ``replaces``.
REPLACES = ("teacher", "plain")
# Where a teacher is sure, it is mostly right itself: quarters of this factor are no slices to replace it on.
TEACHER_CERTAINTY = "teacher_entropy"

# What methods are ranked by: the column ``measure`` of method_ranks.parquet, apart from the endpoints.
TEST_ACCURACY = "test_accuracy"
LEVEL_ITSELF = "level"  # its ``quantity``: the accuracy, not a difference
RANK_DRAWS = 2000  # of the bootstrap over seeds

CALIBRATION_BINS = 10  # of equal width
# Whose answers they hold: the column ``who`` of calibration.parquet.
OWN, SECOND_START = "student", "second start"
CALIBRATED = (OWN, PLAIN, TEACHER, SECOND_START)

# ------------------------------------------------------------------------------------------ evidence

LEAST_SEEDS = 8  # with fewer paired seeds there are estimates, no p values and no verdicts
ALPHA = 0.05  # a corrected p below it is significant
LEVEL = 0.95  # of all intervals

EndpointName = Literal["silhouette", "knn_accuracy"]


@dataclass(frozen=True)
class Endpoint:
    """A measure that the claim is judged by, fixed in advance.

    Attributes:
        name: the measure.
        view: of the layer.
        balanced: whether its curve is a mean of class means, or of images.
        column: of sample_measures.parquet, with its value for each image (1 or 0 for a correct kNN vote).
        title: for people.
        vectors: what the view is called after the title.
    """

    name: EndpointName
    view: Literal["projection", "gap"]
    balanced: bool
    column: str
    title: str
    vectors: str

    @property
    def full_title(self) -> str:
        """``silhouette (projection)``."""
        return f"{self.title} ({self.vectors})"


ENDPOINTS: Mapping[EndpointName, Endpoint] = {
    "silhouette": Endpoint("silhouette", "projection", True, "silhouette", "silhouette", "projection"),
    "knn_accuracy": Endpoint("knn_accuracy", "gap", False, "knn_correct", "kNN accuracy", "channel means"),
}
PREDICTION_DEPTH, ACCURACY = "prediction_depth", "accuracy"  # what else is compared
COMPARED = (*ENDPOINTS, PREDICTION_DEPTH, ACCURACY)

# What is compared of two curves over depth, or of two numbers.
QUANTITIES: Mapping[str, str] = {
    "abc": "area between the two curves over all layers",
    "early_abc": "the same without the last layer",
    "shape_abc": "area between the curves, each on its own scale from 0 to 1",
    "advance": "how much shallower distilled is at plain's final value",
    "difference": "distilled less plain, or less the teacher",
}

# How a control could explain a gain away.
Kind = Literal["instead", "without"]
CONTROL_KINDS: Mapping[Kind, str] = {
    "instead": "Does this in the place of distillation do as much?",
    "without": "Is anything gained over plain without what it withholds?",
}
MATCHED_ACCURACY = "matched-accuracy"  # a control that needs no network of its own
MATCHED_ACCURACY_SUMMARY = (
    "Both students at the accuracy of the less accurate one: the other is stopped where it first was as accurate."
)

# What became of an effect when a control was held against it.
REMAINS, EXPLAINS, NOT_ASKED = "remains", "explains", "not asked"
OUTCOMES: Mapping[str, str] = {
    REMAINS: "the effect remains: the interval of what is left lies above 0",
    EXPLAINS: "the control can explain the effect: that interval reaches 0",
    NOT_ASKED: "the control was not held against the effect",
}

Correction = Literal["holm", "benjamini-hochberg"]
CORRECTIONS: Mapping[Correction, str] = {
    "holm": "corrected after Holm over the two endpoints",
    "benjamini-hochberg": "corrected after Benjamini and Hochberg over all exploratory comparisons",
}

Verdict = Literal[
    "supported",
    "supported for compactness only",
    "better but not earlier",
    "explained",
    "reversed",
    "no difference",
    "not supported by all",
    "inconclusive",
    "estimate only",
    "not computable",
]
# In words that fit every claim.
MEANINGS: Mapping[Verdict, str] = {
    "supported": "The effect is there, on all that it is judged by, and no control that was asked gains as much.",
    "supported for compactness only": "Classes are tighter earlier, but neighbours are not shown to agree more.",
    "better but not earlier": "The curve is higher, but its shape over depth is not shown to be an earlier one.",
    "explained": (
        "The effect is there, but not shown to remain after a control: one that takes distillation's place gains as "
        "much, or the effect goes with what the control withholds, such as the teacher's extra labels."
    ),
    "reversed": "The effect is there with the other sign than the claim says.",
    "no difference": "The whole interval lies within ±ε, the study's margin.",
    "not supported by all": "It holds for some of what it should hold for, not for all.",
    "inconclusive": "The data neither shows a difference nor rules one out.",
    "estimate only": "Too few seeds for a verdict: the numbers stand as estimates.",
    "not computable": "Something that it takes is missing: a curve that rises, or a second architecture or method.",
}
POSITIVE: frozenset[str] = frozenset({"supported", "supported for compactness only", "better but not earlier"})

# What one endpoint says by itself; ``higher`` is a significant gain that no control explains.
Finding = Literal["estimate only", "not computable", "no difference", "reversed", "explained", "higher", "inconclusive"]
FINDINGS: tuple[Finding, ...] = get_args(Finding)


def qualification(verdict: str, not_asked: int) -> str:
    """What qualifies a positive verdict: ``2 controls not asked``; empty for others, and where all were asked."""
    if verdict not in POSITIVE or not not_asked:
        return ""
    return f"{not_asked} control{'s' * (not_asked != 1)} not asked"


def full_title(verdict: str, title: str, not_asked: int) -> str:
    """A verdict's title with its :func:`qualification`: ``supported, 2 controls not asked``."""
    return ", ".join(filter(None, [title, qualification(verdict, not_asked)]))
