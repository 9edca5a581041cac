"""The page of measures."""
