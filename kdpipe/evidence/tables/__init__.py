"""From a study's tables to its evidence: comparisons, contrasts, verdicts."""
