"""The page of study."""
