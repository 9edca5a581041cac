"""The trained weights of a study, as files for others to load."""

from __future__ import annotations

import shutil
from pathlib import Path

from kdpipe.engine.cache import Cache
from kdpipe.files import new_folder
from kdpipe.pipeline.planned import NetworksPlan
from kdpipe.pipeline.run_study import finished
from kdpipe.vocabulary import PIXELS


def export_weights(plan: NetworksPlan, cache: Cache, folder: Path) -> list[str]:
    """Copy the last-step weights of every trained network, one safetensors file each.

    Returns:
        the networks whose weights are not at hand, as their stage was packed without them.
    """
    lacking = []
    with new_folder(folder) as building:
        for planned in (one for one in finished(plan, cache) if one.network_id != PIXELS and not one.vectors):
            name = f"{planned.network_id}.safetensors"
            source = cache.path(planned.stage) / planned.weights
            if cache.thinned(planned.stage):
                source = folder / name  # from an earlier run, if there was one
            if source.is_file():
                shutil.copyfile(source, building / name)
            else:
                lacking.append(planned.network_id)
    return lacking
