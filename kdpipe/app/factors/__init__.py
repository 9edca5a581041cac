"""The page of factors."""
