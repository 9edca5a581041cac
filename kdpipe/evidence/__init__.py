"""Evidence: pure functions that judge whether distilled students are more compact, already in earlier layers.

Arrays in, numbers and verdicts out; nothing here knows studies, files or networks. What a synthetic truth looks
like is in :mod:`kdpipe.evidence.simulation`, which needs the measures and is imported by its own name.
"""

from kdpipe.evidence.bootstrap import Resamples, image_weights, pigeonhole_bootstrap
from kdpipe.evidence.cell import Arms, Cell, Rules
from kdpipe.evidence.estimates import (
    Advance,
    Contrast,
    ControlContrast,
    EndpointEstimates,
    Estimates,
    contrast,
    estimate,
)
from kdpipe.evidence.judge import (
    Judgement,
    correct_primary,
    decide,
    finding,
    judge,
    judge_grid,
)
from kdpipe.evidence.statistics import (
    Components,
    benjamini_hochberg,
    hedges_dz,
    holm,
    null_ratio,
    sign_flip,
    variance_components,
)
from kdpipe.relative_depth import (
    abc,
    advance,
    area_weights,
    early_abc,
    first_reached,
    rescaled,
    shape_abc,
    why_not_computable,
)
from kdpipe.vocabulary import ENDPOINTS, MEANINGS, Endpoint, EndpointName, Finding, Kind, Verdict

__all__ = [
    "ENDPOINTS",
    "MEANINGS",
    "Advance",
    "Arms",
    "Cell",
    "Components",
    "Contrast",
    "ControlContrast",
    "Endpoint",
    "EndpointEstimates",
    "EndpointName",
    "Estimates",
    "Finding",
    "Judgement",
    "Kind",
    "Resamples",
    "Rules",
    "Verdict",
    "abc",
    "advance",
    "area_weights",
    "benjamini_hochberg",
    "contrast",
    "correct_primary",
    "decide",
    "early_abc",
    "estimate",
    "finding",
    "first_reached",
    "hedges_dz",
    "holm",
    "image_weights",
    "judge",
    "judge_grid",
    "null_ratio",
    "pigeonhole_bootstrap",
    "rescaled",
    "shape_abc",
    "sign_flip",
    "variance_components",
    "why_not_computable",
]
