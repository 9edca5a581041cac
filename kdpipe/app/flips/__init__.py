"""The page of flips."""
