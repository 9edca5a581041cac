"""What the stages do, one module a stage or a family of stages."""
