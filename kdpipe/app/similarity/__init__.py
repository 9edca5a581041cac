"""The page of similarity."""
