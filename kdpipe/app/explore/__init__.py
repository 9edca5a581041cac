"""The page of explore."""
