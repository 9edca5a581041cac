"""Mutated study files through the real ``validate``: valid, or one sentence a mistake, within a time and a memory."""

from __future__ import annotations

import copy
import os
import random
import resource
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY

from kdpipe.cli.inputs import checked_study
from kdpipe.errors import KdpipeError

MUTANTS = int(os.environ.get("KDPIPE_FUZZ", "240"))
SECONDS, KILOBYTES = 20.0, 4_000_000
ODD: list[Any] = [
    "", "²", "٣", "a" * 5000, "é\n\u2028", "../..", "/dev/zero", "nan", "resnet50", "vit_tiny_patch16_224",
    -1, 0, 1, 2, 3, 7, 64, 1023, 99_999, 10**6, 10**9, 2**63, -(2**70), 10**40,
    0.0, -0.5, 1e-320, 0.5, 1.5, 1e6, 1e300, float("nan"), float("inf"),
    True, False, [], [[]], {}, [1], ["a"], [0] * 50, {"x": 1}, {"a": {"b": []}}, [1, "a", None, 2.5],
]  # fmt: skip
ARGUMENTS = ["channels", "layers", "block", "depth", "img_size", "patch_size", "embed_dim", "num_heads", "mlp_ratio",
             "stem_width", "base_width", "cardinality", "drop_rate", "output_stride", "block_reduce_first", "act_layer",
             "norm_layer", "global_pool", "checkpoint_path", "pretrained_cfg", "num_classes", "features_only",
             "out_indices", "avg_down", "zero_init_last", "replace_stem_pool", "attn_layer", "²"]  # fmt: skip
FIELDS = ["seed", "second_seed", "checkpoints", "views", "headline", "evidence", "label", "parameters", "training",
          "unlabelled", "teacher", "steps", "image_size", "channels", "split_seed", "probe_size", "pretrained", "k",
          "checkpoint", "reference_size", "resamples", "temperature", "projectors", "names", "stem_stride"]  # fmt: skip
POSITIONS = ["0", "1", "²", "٣", "-1", "99", "1e3", "", "name", "x"]


def tables(part: Any) -> list[Any]:
    """Every table and list of a study, itself included."""
    children = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return [part] * isinstance(part, dict | list) + [found for child in children for found in tables(child)]


def mutated(study: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """A copy with one to three things set, doubled, moved or taken away."""
    study = copy.deepcopy(study)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        place = draw.choice(tables(study))
        value = copy.deepcopy(draw.choice([*ODD, *tables(study)]))
        if isinstance(place, list):
            index = draw.randint(0, len(place))
            place[index : index + draw.randint(0, 1)] = [value] * draw.randint(0, 2)
        elif place is study["teacher"].get("arguments") or draw.random() < 0.2:
            place[draw.choice(ARGUMENTS)] = value
        elif place and draw.random() < 0.7:
            key = draw.choice(sorted(place))
            if draw.random() < 0.2:
                del place[key]
            else:
                place[key] = value
        else:
            place[draw.choice(FIELDS)] = value
        if not isinstance(study.get("teacher"), dict):
            break
    return study


def toml(value: Any) -> str:
    """An inline TOML value; what TOML cannot say (null) becomes text."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{text(key)} = {toml(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    return text(str(value))


def text(value: str) -> str:
    return '"' + "".join(c if c.isalnum() or c in " ._/-" else f"\\U{ord(c):08x}" for c in value) + '"'


def overrides(draw: random.Random) -> list[str]:
    """Now and then a dotted key that leads somewhere odd."""
    if draw.random() < 0.8:
        return []
    parts = ["methods", "students", "teacher", "training", "seeds", "label_fractions", *POSITIONS]
    key = ".".join(draw.choice(parts) for _ in range(draw.randint(1, 4)))
    return [f"{key}={toml(draw.choice(ODD))}"]


@pytest.mark.parametrize("part", range(8))
def test_a_mutated_study_is_valid_or_explained(part: int, tmp_path: Path, one_thread: None) -> None:
    study, path = tomllib.loads(TINY), tmp_path / "study.toml"
    explained = 0
    for number in range(part, MUTANTS, 8):
        draw = random.Random(number)
        content = "\n".join(f"{text(key)} = {toml(value)}" for key, value in mutated(study, draw).items())
        path.write_text(content, encoding="utf-8")
        more, started = overrides(draw), time.monotonic()
        try:
            checked_study(path, more, None, ())
        except KdpipeError as error:
            explained += 1
            lines = str(error).splitlines()
            assert lines and all(str(path) in line or "override" in line for line in lines), (number, str(error))
        except Exception as error:
            raise AssertionError(f"mutant {number}, {more}:\n{content}") from error
        assert time.monotonic() - started < SECONDS, f"mutant {number}, {more}:\n{content}"
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < KILOBYTES, f"mutant {number}, {more}:\n{content}"
    assert explained > MUTANTS // 8 // 2
