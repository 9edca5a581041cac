"""The base of all parts of a study file, and numbers that several of them hold."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(gt=0.0, le=1.0)]


Share = Annotated[float, Field(gt=0.0, lt=1.0)]


Positive = Annotated[int, Field(ge=1)]


Alpha = Annotated[float, Field(ge=0.0)]


Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Spec(BaseModel):
    """Base of all parts: unknown fields are errors, types are not coerced, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False)
    later: ClassVar[frozenset[str]] = frozenset()

    def keyed(self, exclude: Collection[str] = ()) -> dict[str, Any]:
        """JSON values for a stage's key.

        Fields named in ``later`` came after networks had been trained; at their default they stay out,
        so that those networks are still known.
        """
        fields = type(self).model_fields
        same = {name for name in self.later if getattr(self, name) == fields[name].default}
        described = self.model_dump(mode="json", exclude={*exclude, *same})
        parts = ((name, getattr(self, name)) for name in described)
        return described | {name: part.keyed() for name, part in parts if isinstance(part, Spec)}
