"""What the words on the pages mean: terms, and the measures and methods of a study, in one alphabetical list."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from kdpipe.app.shell.words import verbatim
from kdpipe.artifacts.store import Study
from kdpipe.errors import ArtifactError
from kdpipe.vocabulary import LEAST_SEEDS, MEANINGS

TERM, MEASURE, METHOD = "terms", "measures", "methods"
_BETTER = {"higher": "Higher is better.", "lower": "Lower is better.", "neither": "Neither end is better."}


@dataclass(frozen=True)
class Entry:
    """A word, what it means in one or two sentences, and where it comes from (empty for words of this app)."""

    name: str
    text: str
    source: str = ""
    kind: str = TERM


TERMS = (
    Entry(
        "Advance",
        "How much shallower, in relative depth, a distilled student is where plain ends. Seeds at which it never gets "
        "there are left out and counted.",
    ),
    Entry(
        "Alignment of maps",
        "A map has no up or left of its own: each is turned, mirrored and scaled onto a reference map of the same "
        "column, so that only what differs looks different.",
        "Gower (1975), Generalized Procrustes analysis",
    ),
    Entry(
        "Benjamini–Hochberg",
        "A correction for many tests that bounds the share of false finds among all finds. It runs over all "
        "exploratory comparisons of a study.",
        "Benjamini and Hochberg (1995), Controlling the false discovery rate",
    ),
    Entry(
        "Bootstrap",
        "Drawing seeds and images again, with replacement, to see how far a number would move in another draw. Here "
        "both are drawn independently, as all seeds see the same images.",
        "Efron (1979), Bootstrap methods: another look at the jackknife; Owen (2007), The pigeonhole bootstrap",
    ),
    Entry(
        "Budget",
        "The share of the training labels that a network may use. Its teacher may have had more.",
    ),
    Entry(
        "Chance",
        "What a measure gives where nothing is to be found. It is exact where that is known, else measured on the same "
        "layer with labels or images shuffled.",
    ),
    Entry(
        "Checkpoint",
        "A student looked at on its way, before its training ended. It lets two students be compared at the same "
        "accuracy.",
    ),
    Entry(
        "Churn",
        "The share of images to which two networks give different answers, right or wrong.",
        "Milani Fard et al. (2016), Launch and iterate: reducing prediction churn",
    ),
    Entry(
        "Confidence interval",
        "A range made so that 95 of 100 such ranges hold the true value. A band from the lowest seed to the highest is "
        "not one.",
        "Neyman (1937), Outline of a theory of statistical estimation",
    ),
    Entry(
        "Consensus map",
        "One map from the distances that the networks at a depth share. The networks' own maps start from it, so that "
        "what differs is their layers and not the start.",
    ),
    Entry(
        "Continuity",
        "Whether images that are near in a layer are near on its map as well: 1 if no true neighbour is far away.",
        "Venna and Kaski (2001), Neighborhood preservation in nonlinear projection methods",
    ),
    Entry(
        "Control",
        "A student trained as plain or as distilled but for one thing. If it gains as much, distillation does not "
        "explain the gain.",
    ),
    Entry(
        "Dark knowledge",
        "What a teacher's answers say of the wrong classes: which are nearly right, and which are out of the question.",
        "Hinton, Vinyals and Dean (2015), Distilling the knowledge in a neural network",
    ),
    Entry("Distilled", "A student that learned from its teacher, and mostly from labels too."),
    Entry(
        "Early area",
        "The area between the curves of distilled and plain over depth, without the last layer: how far distilled is "
        "ahead before the end. Positive where it is ahead.",
    ),
    Entry(
        "ECE",
        "Expected calibration error: how far a network's confidence is from how often it is right, averaged over "
        "confidences. 0 is honest.",
        "Naeini, Cooper and Hauskrecht (2015), Obtaining well calibrated probabilities using Bayesian binning; "
        "Guo et al. (2017), On calibration of modern neural networks",
    ),
    Entry(
        "Effect size (d_z)",
        "The mean paired difference over its standard deviation over seeds, corrected for few seeds. It says how "
        "steady a difference is, not how large.",
        "Cohen (1988), Statistical power analysis for the behavioral sciences; Hedges (1981), Distribution theory for "
        "Glass's estimator of effect size",
    ),
    Entry(
        "Epsilon",
        "The study's margin: the largest difference that does not matter, fixed in the study file before the run.",
    ),
    Entry(
        "Exploratory",
        "Looked at without having been named before the run. Such finds are hints for the next study, not verdicts of "
        "this one.",
    ),
    Entry(
        "Factor",
        "A property of an image that anybody can measure on it: brightness, contrast, hue, colourfulness, edges.",
    ),
    Entry(
        "Flip",
        "An image that one network gets right and another wrong. Fixed: plain wrong, distilled right; broken: the "
        "other way round; inherited: the teacher's wrong answer, which plain did not give.",
    ),
    Entry(
        "Gain",
        "Test accuracy of a student less that of plain of the same seed, in points (hundredths of all test images).",
    ),
    Entry(
        "Gap (global average pooling)",
        "A view of a layer: the mean of each channel over all places of the image. It drops where things are.",
        "Lin, Chen and Yan (2014), Network in network",
    ),
    Entry(
        "Grad-CAM",
        "A heat map of the places in an image that speak for a class, by the gradients at the last layer with places.",
        "Selvaraju et al. (2017), Grad-CAM: visual explanations from deep networks via gradient-based localization",
    ),
    Entry(
        "Holm",
        "A correction for several tests that keeps the chance of even one false find small. It runs over the two "
        "endpoints of the study's one primary comparison.",
        "Holm (1979), A simple sequentially rejective multiple test procedure",
    ),
    Entry(
        "Initial weights",
        "The random numbers that a network starts from. Plain and distilled of one seed have the same.",
    ),
    Entry(
        "ivis",
        "A map made by a small network that learns to keep an image nearer to its neighbours than to others.",
        "Szubert et al. (2019), Structure-preserving visualisation of high dimensional single-cell datasets",
    ),
    Entry(
        "kNN (k nearest neighbours)",
        "A vote of the k images that lie nearest to an image in a layer. kNN accuracy is how often the vote is the "
        "image's class, without any training on the layer.",
        "Cover and Hart (1967), Nearest neighbor pattern classification",
    ),
    Entry(
        "Knowledge distillation",
        "Training a small network, the student, on what a larger one, the teacher, says of the images.",
        "Bucila, Caruana and Niculescu-Mizil (2006), Model compression; Hinton, Vinyals and Dean (2015), Distilling "
        "the knowledge in a neural network",
    ),
    Entry("Layer", "A place in a network whose output is looked at, named as in timm. Also called a tap."),
    Entry(
        "Similarity of layers",
        "How alike two layers arrange the same images, by CKA and others; the layers may differ in width and network.",
        "Kornblith et al. (2019), Similarity of neural network representations revisited",
    ),
    Entry(
        "Logits",
        "A network's scores for the classes, before they become probabilities.",
    ),
    Entry(
        "MACs",
        "Multiply-accumulates: how many multiplications one image costs. It is not the time, which depends on the "
        "machine.",
    ),
    Entry("Map", "A picture of a layer in two dimensions, a dot an image. It shows neighbours, not distances."),
    Entry("Margin", "The logit of the right class less the largest of the others; below 0 the answer is wrong."),
    Entry(
        "Matched accuracy",
        "Distilled and plain compared where both are as accurate as the worse of the two ends: what is left is not "
        "merely being better trained.",
    ),
    Entry(
        "McNemar's test",
        "Whether two networks differ in how often they are right, from the images on which one of them alone is. Of "
        "one pair of training runs: another seed may say otherwise.",
        "McNemar (1947), Note on the sampling error of the difference between correlated proportions",
    ),
    Entry(
        "Misplacement",
        "The share of an image's true neighbours, in the layer, that its map does not keep near it.",
    ),
    Entry(
        "Neighbour credit",
        "An image's nearest images in a layer, counted by whose they are: kept (the teacher's and plain's), gained "
        "(the teacher's), lost (the teacher's, which plain had) or invented (nobody's).",
    ),
    Entry(
        "Null",
        "What happens where nothing is going on. Here mostly plain trained again from other initial weights: what "
        "chance alone moves.",
    ),
    Entry(
        "p value",
        "How often chance alone would give at least such a difference. Here from flipping the sign of each seed's "
        f"difference in all ways, which needs {LEAST_SEEDS} seeds for {2.0 ** (1 - LEAST_SEEDS):.4f}.",
        "Fisher (1935), The design of experiments",
    ),
    Entry(
        "PCA",
        "Principal component analysis: the flat view along the two directions in which images differ most.",
        "Pearson (1901), On lines and planes of closest fit to systems of points in space",
    ),
    Entry(
        "Perplexity",
        "About how many neighbours of an image t-SNE tries to keep. Maps differ with it, so several should be seen.",
        "van der Maaten and Hinton (2008), Visualizing data using t-SNE",
    ),
    Entry("Plain", "The same student, from the same initial weights and batches, trained on labels alone."),
    Entry(
        "Prediction depth",
        "The first layer from which on the nearest neighbours vote for the network's final answer: where an image is "
        "settled.",
        "Baldock, Maennel and Neyshabur (2021), Deep learning through the lens of example difficulty",
    ),
    Entry(
        "Primary comparison",
        "The one comparison that a study named before it ran. Its p value is not diluted by all the others.",
    ),
    Entry(
        "Probe image",
        "A test image that is followed through every layer of every network. All networks see the same ones.",
    ),
    Entry(
        "Projection",
        "A view of a layer: its whole map times a fixed random matrix, which nearly keeps distances and makes layers "
        "of all sizes equally long.",
        "Johnson and Lindenstrauss (1984), Extensions of Lipschitz mappings into a Hilbert space",
    ),
    Entry(
        "Relative depth",
        "A layer's place among the layers looked at: 0 % is the first, 100 % the last. Layers of two networks are "
        "paired by it.",
    ),
    Entry(
        "Seed",
        "The number that fixes everything random of a run: initial weights, batches, which images have labels. Another "
        "seed is another, equally good run.",
    ),
    Entry(
        "Shape of a curve",
        "A curve on its own scale from 0 to 1. If it moved, classes come apart earlier, not only better everywhere.",
    ),
    Entry(
        "Silhouette",
        "Whether an image is nearer to its own class than to the next one: from -1 to 1, near 1 if classes are tight "
        "and apart. Here classes weigh alike.",
        "Rousseeuw (1987), Silhouettes: a graphical aid to the interpretation of cluster analysis",
    ),
    Entry(
        "Specification curve",
        "One comparison repeated in every way that it could have been measured, to see whether the finding hangs on "
        "the choice.",
        "Simonsohn, Simmons and Nelson (2020), Specification curve analysis",
    ),
    Entry("Student", "The smaller network that is trained, with a teacher (distilled) or without (plain)."),
    Entry("Teacher", "The larger network that was trained first, and that students learn from."),
    Entry(
        "Temperature",
        "What logits are divided by before they become probabilities: the higher, the softer, and the more the wrong "
        "classes count.",
        "Hinton, Vinyals and Dean (2015), Distilling the knowledge in a neural network",
    ),
    Entry(
        "Trustworthiness",
        "Whether images that a map shows near are near in the layer: 1 if no dot is a false neighbour.",
        "Venna and Kaski (2001), Neighborhood preservation in nonlinear projection methods",
    ),
    Entry(
        "t-SNE",
        "A map that keeps neighbours together. Sizes of clusters and distances between them mean little.",
        "van der Maaten and Hinton (2008), Visualizing data using t-SNE",
    ),
    Entry("Verdict", "What a study says of a claim, in fixed words, with the numbers that it rests on."),
    Entry(
        "View",
        "How the output of a layer, channels by height by width, becomes a vector that can be compared: gap or "
        "projection.",
    ),
    *(
        Entry(verdict.capitalize(), f"Verdict: {meaning[:1].lower()}{meaning[1:]}")
        for verdict, meaning in MEANINGS.items()
    ),
)


def entries(study: Study) -> list[Entry]:
    """All words in alphabetical order; those of unreadable tables are left out."""
    found = [*TERMS, *_of_table(study, "measures"), *_of_table(study, "methods")]
    return sorted(found, key=lambda entry: (entry.name.casefold(), entry.kind))


def _of_table(study: Study, table: str) -> list[Entry]:
    try:
        rows = study.frame(table).rows(named=True)
    except ArtifactError:
        return []
    if table == "methods":
        return [
            Entry(row["title"], f"{row['summary']} Loss: {row['formula']}", row["citation"], METHOD) for row in rows
        ]
    return [
        Entry(
            row["title"], f"{row['summary']} {_BETTER.get(row['direction'], '')}{_range(row)}", row["citation"], MEASURE
        )
        for row in rows
    ]


def _range(row: dict[str, float | None]) -> str:
    low, high = row["low"], row["high"]
    if low is None or high is None:
        return ""
    return f" From {low:g} to {high:g}."


def called(entry: Entry) -> str:
    """What an entry is called in a list: a measure and a term may share their name."""
    return entry.name if entry.kind == TERM else f"{entry.name} ({entry.kind[:-1]})"


def as_markdown(shown: Sequence[Entry]) -> str:
    """Entries below the letters they begin with; what comes from files stands for itself."""
    lines, letter = [], ""
    for entry in shown:
        first = entry.name[:1].upper()
        if first != letter and len(shown) > 1:
            lines.append(f"##### {verbatim(first)}")
            letter = first
        kind = "" if entry.kind == TERM else f" · {entry.kind[:-1]}"
        source = f" *{verbatim(entry.source)}*" if entry.source else ""
        lines.append(f"**{verbatim(entry.name)}**{kind}  \n{verbatim(entry.text)}{source}")
    return "\n\n".join(lines)


def as_json(shown: Sequence[Entry]) -> str:
    """The same to take away."""
    return json.dumps([entry.__dict__ for entry in shown], indent=1, ensure_ascii=False)
