"""The page of sample."""
