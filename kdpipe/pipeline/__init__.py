"""The pipeline: from a study to a plan of stages, to their outputs, to artifacts."""
