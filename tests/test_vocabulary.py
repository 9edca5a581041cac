"""The words of a study's tables: one place for each, and nothing heavy to import it."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from kdpipe import relative_depth, vocabulary
from kdpipe.artifacts.schema import TABLES
from kdpipe.config.sections import MapsSpec
from kdpipe.evidence.cell import Rules
from kdpipe.methods import METHODS
from kdpipe.vocabulary import budget_id, budget_in_words, full_title, qualification


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.1, 1 / 3, 0.123456, 0.999, 1.0])
def test_a_budget_is_the_same_text_in_32_bits_and_in_64(fraction):
    assert budget_id(fraction) == budget_id(float(np.float32(fraction)))
    assert float(budget_id(fraction)) == pytest.approx(fraction, rel=1e-5)


def test_budgets_are_told_apart_and_said_in_words():
    assert [budget_id(fraction) for fraction in (0, 0.1, 0.11, 1)] == ["0", "0.1", "0.11", "1"]
    assert [budget_in_words(fraction) for fraction in (0, 0.1, 0.025, 1)] == [
        "no labels", "10% of labels", "2.5% of labels", "all labels",
    ]  # fmt: skip


def test_a_title_is_qualified_only_where_it_claims_something():
    assert full_title("supported", "supported", 2) == "supported, 2 controls not asked"
    assert full_title("supported", "supported", 1) == "supported, 1 control not asked"
    assert full_title("supported", "supported", 0) == "supported" == full_title("supported", "supported", 0)
    assert full_title("explained", "explained by x", 2) == "explained by x" and qualification("reversed", 3) == ""


def test_the_vocabulary_needs_the_standard_library_alone():
    tree = ast.parse(Path(vocabulary.__file__).read_text())
    names = {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    names |= {one.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for one in node.names}
    assert names <= set(sys.stdlib_module_names)


def test_the_depth_of_layers_needs_numpy_alone():
    tree = ast.parse(Path(relative_depth.__file__).read_text())
    names = {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    names |= {one.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for one in node.names}
    assert names <= {"numpy", *sys.stdlib_module_names}


def test_everybody_speaks_of_the_same_things():
    assert set(vocabulary.MEANINGS) == set(get_args(vocabulary.Verdict)) > vocabulary.POSITIVE
    assert set(vocabulary.ENDPOINTS) == set(get_args(vocabulary.EndpointName))
    assert set(vocabulary.CONTROL_KINDS) == set(get_args(vocabulary.Kind))
    assert {method.role for method in METHODS.values()} == set(vocabulary.METHOD_ROLES)
    assert {method.explains for method in METHODS.values()} == {None, *vocabulary.CONTROL_KINDS}
    assert set(MapsSpec().layouts) == set(vocabulary.LAYOUTS)
    assert set(vocabulary.FACTORS) < set(TABLES["samples"].columns)
    assert {endpoint.column for endpoint in vocabulary.ENDPOINTS.values()} < set(TABLES["sample_measures"].columns)
    assert (Rules().least_seeds, Rules().alpha, Rules().level) == (
        vocabulary.LEAST_SEEDS, vocabulary.ALPHA, vocabulary.LEVEL,
    )  # fmt: skip


def test_one_control_alone_is_what_chance_moves():
    assert [name for name, method in METHODS.items() if method.is_null] == ["second-seed"]
