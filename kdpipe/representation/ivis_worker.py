"""The process that draws ivis maps: ``python -m kdpipe.representation.ivis_worker JOBS_DIR``.

TensorFlow and torch in one process end in a segmentation fault, so ivis lives here, alone, and arrays
come and go as files. TensorFlow takes seconds to import; one worker therefore draws all of a study's
maps. Only :func:`main` imports TensorFlow: the parent uses this module to write the jobs.

JOBS_DIR holds ``jobs.json`` (a list of name, file and options) and one ``.npz`` (X, neighbours) a job.
A finished map is written next to it and announced by one JSON line on stdout, ``{"name", "layout"}``; a
failed one by ``{"name", "error"}``, and the next is drawn. Everything else goes to stderr.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from kdpipe.files import new_file

JOBS_FILE = "jobs.json"
# Keras 2 is the only one ivis works with; these maps are too small for an accelerator to pay.
ENVIRONMENT = {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}

Array = NDArray[Any]


@dataclass(frozen=True)
class IvisOptions:
    """ivis: a small network that pulls k neighbours together and pushes others away (Szubert et al. 2019).

    Early stopping at ivis's own patience of 20 ends on a lucky loss after anything from 30 to 140 epochs,
    and trustworthiness varies with it (.88 to .95 on layers of 500 digits); 60 epochs of small batches
    with a patience that seldom ends them give .89 to .94 in the same time.

    Attributes:
        k: neighbours that count as near.
        epochs: at most so many passes over the images.
        patience: stop after so many epochs without a lower loss.
        model: ivis's name of the network; ``szubert`` is three layers of 128.
    """

    k: int = 15
    epochs: int = 60
    batch_size: int = 64
    patience: int = 40
    model: str = "szubert"
    seed: int = 0


def write_jobs(folder: Path, jobs: Mapping[str, tuple[Array, Array, IvisOptions]]) -> None:
    """Write each job's X (N, d), neighbours (N, >= k) and options where :func:`main` finds them."""
    listed = []
    for number, (name, (X, neighbours, options)) in enumerate(jobs.items()):
        file = f"{number:05d}.npz"
        np.savez(folder / file, X=X, neighbours=neighbours)
        listed.append({"name": name, "file": file, "options": asdict(options)})
    (folder / JOBS_FILE).write_text(json.dumps(listed))


def main(folder: Path, answers: TextIO) -> None:
    """Draw every job in ``folder``, and write one line to ``answers`` for each."""
    _start_tensorflow()
    for job in json.loads((folder / JOBS_FILE).read_text()):
        answer = {"name": job["name"]}
        try:
            with np.load(folder / job["file"]) as arrays:
                layout = draw(arrays["X"], arrays["neighbours"], IvisOptions(**job["options"]))
            answer["layout"] = _save(folder / job["file"], layout)
        except Exception as error:  # one map that fails must not take the others with it
            logging.exception("The map %r failed.", job["name"])
            answer["error"] = f"{type(error).__name__}: {error}"
        print(json.dumps(answer), file=answers, flush=True)


def draw(X: Array, neighbours: Array, options: IvisOptions) -> Array:
    """The layout (N, 2) of ``X`` (N, d); the same bits for the same seed, whatever was drawn before.

    Raises:
        ValueError: too few points for k, or points that are all the same.
    """
    import tensorflow as tf
    from ivis import Ivis

    check_k(len(X), neighbours.shape[1], options.k)
    points = _standardised(X)
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(options.seed)
    model = Ivis(
        k=options.k,
        neighbour_matrix=neighbours[:, : options.k],
        batch_size=min(options.batch_size, len(X)),
        epochs=options.epochs,
        n_epochs_without_progress=options.patience,
        model=options.model,
        verbose=0,
    )
    layout = np.asarray(model.fit_transform(points))
    if not np.isfinite(layout).all():
        raise ValueError("the layout is not finite.")
    return layout


def check_k(n: int, given: int, k: int) -> None:
    """Raise ValueError unless ``given`` neighbours suffice for ``k`` and some point is not a neighbour.

    ivis draws points until one is not a neighbour: with none it would never end.
    """
    if not 1 <= k <= given or k > n - 2:
        raise ValueError(f"k = {k} needs {k} neighbours and at least {k + 2} images; there are {given} and {n}.")


def _standardised(X: Array) -> Array:
    """Centred and divided by one number, so that layers of any scale suit one learning rate."""
    centred = X.astype(np.float64) - X.mean(axis=0, dtype=np.float64)
    size = float(np.sqrt(np.square(centred).mean()))
    if not size > 0:
        raise ValueError("every image has the same vector.")
    return np.asarray((centred / size).astype(np.float32))


def _save(job_file: Path, layout: Array) -> str:
    """Write ``layout`` next to its job, whole or not at all, and return the file's name."""
    target = job_file.with_suffix(".layout.npy")
    with new_file(target) as unfinished, unfinished.open("wb") as file:
        np.save(file, layout.astype(np.float32))
    return target.name


def _start_tensorflow() -> None:
    os.environ.update(ENVIRONMENT)
    import tensorflow as tf

    # One thread each: products this small lose by being shared, and their sums keep one order.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()


def _own_stdout() -> TextIO:
    """The real stdout; what libraries print from now on, also from C, goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def read_answers(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """The answers among the worker's lines of output."""
    for line in lines:
        try:
            answer = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(answer, dict) and "name" in answer:
            yield answer


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m kdpipe.representation.ivis_worker JOBS_DIR")
    main(Path(sys.argv[1]), _own_stdout())
