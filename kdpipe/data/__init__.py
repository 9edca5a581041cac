"""Data: where images come from, how they are split, augmented and batched."""
