"""Write digits.npz, arrays as Keras names them, for own_arrays.toml: ``python examples/data/own_arrays.py``."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits


def write(path: Path) -> None:
    """scikit-learn's digits as floating-point images from 0 to 1 with one-hot labels; the last 500 are to test on."""
    digits = load_digits()
    images, labels = digits.images / 16.0, np.eye(10)[digits.target]
    np.savez(path, x_train=images[:-500], y_train=labels[:-500], x_test=images[-500:], y_test=labels[-500:])


if __name__ == "__main__":
    write(Path(__file__).parent / "digits.npz")
