"""The engine: stages with content-addressed outputs, run once and never half-written."""
