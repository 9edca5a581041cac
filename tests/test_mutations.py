"""The faults of the mutation check: which a function may have, where they go, and that they are faults."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from mutations import Mutant, mutants_of

SOURCE = '''
LIMIT = 1 + 1


def share(values: "list[1]", axis=0) -> "2 + 2":
    """The mean of 1 + 1, – in words."""
    if len(values) < 2:
        raise ValueError(f"at least {1 + 1}")
    return abs(values + 1) * values.mean(axis=axis) ** 2


class Record:
    def within(self, low, high): return not low == high and near(low, high) or self.any(axis=-1)
'''


def outcome(source: str, values: list[float]) -> object:
    names: dict = {}
    exec(source, names)
    try:
        return names["share"](np.array(values)).tolist()
    except (ValueError, TypeError, IndexError) as error:
        return str(error)


def found(function: str) -> list[Mutant]:
    return [mutant for mutant in mutants_of("module.py", SOURCE) if mutant.function == function]


def test_faults_are_put_into_what_functions_compute_and_nowhere_else():
    assert {mutant.what for mutant in found("share")} == {
        "0 → 1",
        "len(values) < 2 → len(values) <= 2",
        "len(values) < 2 → len(values) >= 2",
        "len(values) < 2 → len(values) < 3",
        "abs(values + 1) * values.mean(axis=axis) ** 2 → abs(values + 1) / values.mean(axis=axis) ** 2",
        "abs(values + 1) → values + 1",
        "values + 1 → values - 1",
        "values + 1 → values + 2",
        "values.mean(axis=axis) ** 2 → values.mean(axis=axis) * 2",
        "values.mean(axis=axis) ** 2 → values.mean(axis=axis) ** 3",
        "values.mean(axis=axis) → values.sum(axis=axis)",
    }
    assert {mutant.what for mutant in found("Record.within")} == {
        "not low == high and near(low, high) or self.any(axis=-1) → (not low == high and near(low, high)) and "
        "self.any(axis=-1)",
        "not low == high and near(low, high) → not low == high or near(low, high)",
        "not low == high → low == high",
        "low == high → low != high",
        "near(low, high) → near(high, low)",
        "self.any(axis=-1) → self.all(axis=-1)",
        "-1 → 1",
        "-1 → -2",
    }
    assert len(mutants_of("module.py", SOURCE)) == 19


@pytest.mark.parametrize("mutant", found("share"), ids=lambda mutant: mutant.what)
def test_a_fault_shows_and_leaves_the_rest_of_the_module_as_it_was(mutant):
    made = mutant.applied_to(SOURCE)
    tries = ([-3.0, 2.0], [-3.0, 2.0, 5.0], [1.0])
    assert any(outcome(made, values) != outcome(SOURCE, values) for values in tries)
    lines, changed = SOURCE.splitlines(), made.splitlines()
    assert [i for i, (one, other) in enumerate(zip(lines, changed, strict=True), 1) if one != other] == [mutant.line]


def test_equal_faults_of_a_function_are_told_apart():
    twice = [mutant.identity for mutant in mutants_of("m.py", "def f(a, b):\n    return (a + b, a + b)\n")]
    assert twice == ["m.py f: a + b → a - b", "m.py f: a + b → a - b (2)"]
