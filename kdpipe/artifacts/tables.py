"""Every table of a study as a typed property. Written by scripts/schema_docs.py; not to be edited."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import polars as pl


class StudyTables(ABC):
    """What a study's tables are called; :class:`kdpipe.artifacts.store.Study` reads them."""

    @abstractmethod
    def frame(self, name: str, *where: pl.Expr, **options: Any) -> pl.DataFrame:
        """Rows of table ``name``."""

    @property
    def networks(self) -> pl.DataFrame:
        """A row is a network."""
        return self.frame("networks")

    @property
    def history(self) -> pl.DataFrame:
        """A row is one quantity of a network at a training step."""
        return self.frame("history")

    @property
    def layers(self) -> pl.DataFrame:
        """A row is a layer of a network in one view."""
        return self.frame("layers")

    @property
    def neighbours(self) -> pl.DataFrame:
        """A row is a probe image at a layer of a mapped network."""
        return self.frame("neighbours")

    @property
    def neighbour_credit(self) -> pl.DataFrame:
        """A row is a probe image at a layer of a distilled network, against its plain companion and its teacher."""
        return self.frame("neighbour_credit")

    @property
    def factors(self) -> pl.DataFrame:
        """A row is a known factor at a layer in a view."""
        return self.frame("factors")

    @property
    def similarity(self) -> pl.DataFrame:
        """A row is a pair of layers of two networks."""
        return self.frame("similarity")

    @property
    def samples(self) -> pl.DataFrame:
        """A row is a probe image."""
        return self.frame("samples")

    @property
    def predictions(self) -> pl.DataFrame:
        """A row is a network's answer to a probe image."""
        return self.frame("predictions")

    @property
    def answers(self) -> pl.DataFrame:
        """A row is a measure of two networks' answers to the probe images."""
        return self.frame("answers")

    @property
    def flips(self) -> pl.DataFrame:
        """A row is what a student fixed, broke and inherited, over all probe images or those of a class."""
        return self.frame("flips")

    @property
    def sample_flips(self) -> pl.DataFrame:
        """A row is what became of a probe image from plain to a student."""
        return self.frame("sample_flips")

    @property
    def explanations(self) -> pl.DataFrame:
        """A row is where a network looks in a probe image."""
        return self.frame("explanations")

    @property
    def maps(self) -> pl.DataFrame:
        """A row is a probe image on a map."""
        return self.frame("maps")

    @property
    def map_measures(self) -> pl.DataFrame:
        """A row is a measure of a map."""
        return self.frame("map_measures")

    @property
    def layer_measures(self) -> pl.DataFrame:
        """A row is a measure of a layer in a view."""
        return self.frame("layer_measures")

    @property
    def class_measures(self) -> pl.DataFrame:
        """A row is a measure of one class at a layer in a view."""
        return self.frame("class_measures")

    @property
    def sample_measures(self) -> pl.DataFrame:
        """A row is a probe image at a layer in a view."""
        return self.frame("sample_measures")

    @property
    def network_measures(self) -> pl.DataFrame:
        """A row is a measure of a network."""
        return self.frame("network_measures")

    @property
    def methods(self) -> pl.DataFrame:
        """A row is a method used in the study."""
        return self.frame("methods")

    @property
    def measures(self) -> pl.DataFrame:
        """A row is a measure of layers, maps or layer pairs."""
        return self.frame("measures")

    @property
    def comparisons(self) -> pl.DataFrame:
        """A row is two kinds of student compared in one quantity."""
        return self.frame("comparisons")

    @property
    def specification(self) -> pl.DataFrame:
        """A row is the area before the last layer, measured in one of several ways."""
        return self.frame("specification")

    @property
    def claims(self) -> pl.DataFrame:
        """A row is a claim that can fail."""
        return self.frame("claims")

    @property
    def verdicts(self) -> pl.DataFrame:
        """A row is a claim judged for a student, a method and a budget."""
        return self.frame("verdicts")

    @property
    def findings(self) -> pl.DataFrame:
        """A row is what one endpoint says by itself of being compact earlier."""
        return self.frame("findings")

    @property
    def verdict_controls(self) -> pl.DataFrame:
        """A row is a control of a claim at one endpoint."""
        return self.frame("verdict_controls")

    @property
    def gains(self) -> pl.DataFrame:
        """A row is what a kind of student gains over plain in one quantity."""
        return self.frame("gains")

    @property
    def method_ranks(self) -> pl.DataFrame:
        """A row is a kind of student ranked against all others of its architecture and budget, within each seed."""
        return self.frame("method_ranks")

    @property
    def slices(self) -> pl.DataFrame:
        """A row is a slice of the probe images on which a student is held against the network that it would replace."""
        return self.frame("slices")

    @property
    def calibration(self) -> pl.DataFrame:
        """A row is a bin of confidence of a student, or of the networks that it is compared with."""
        return self.frame("calibration")

    @property
    def seed_credit(self) -> pl.DataFrame:
        """A row is a layer of a plain student against plain of another seed: a null of neighbour credit."""
        return self.frame("seed_credit")
