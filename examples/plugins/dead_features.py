"""How many features of a layer say nothing: a measure in one file."""

from numpy import ptp

from kdpipe.measures import Measure

DEAD_FEATURES = Measure(
    "dead_features", of="layer", title="Dead features", summary="Share of features that are the same for every image.",
    citation="Lu et al. (2020), Dying ReLU and initialization", function=lambda X: float((ptp(X, axis=0) == 0).mean()),
    takes=("X",), chance=None, direction="lower", low=0.0, high=1.0, cost="N d",
)  # fmt: skip
