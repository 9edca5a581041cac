"""What a network's name says of it: the role, and perhaps the seed, the step and the method."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kdpipe.errors import DataError
from kdpipe.vectors.content import VECTOR_ROLES, NetworkRecord
from kdpipe.vocabulary import CONTROL, DISTILLED

_WORD = re.compile(r"[A-Za-z0-9+]+")
_SEED, _STEP = re.compile(r"(?:s|seed)([0-9]{1,9})"), re.compile(r"step([0-9]{1,12})")


def record_of(name: str, said: Mapping[str, Any]) -> NetworkRecord:
    """A network by its name, and by what was ``said`` of it, which goes first.

    A name's words are read as follows: one of the roles; ``s1`` or ``seed1``, the seed; ``step200``, the step. Of a
    distilled network or a control, the other words are its method: ``kd-distilled-s1``.

    Raises:
        DataError: no role, or more than one, in a name of whose role nothing was said.
    """
    words = [word.lower() for word in _WORD.findall(name)]
    fields: dict[str, Any] = {}
    rest = []
    for word in words:
        if seed := _SEED.fullmatch(word):
            fields["seed"] = int(seed[1])
        elif step := _STEP.fullmatch(word):
            fields["step"] = int(step[1])
        else:
            rest.append(word)
    roles = [word for word in rest if word in VECTOR_ROLES]
    if "role" not in said and len(roles) != 1:
        found = f"Its name says {' and '.join(roles)}" if roles else "Its name says none"
        raise DataError(
            f"network {name!r}: which role does it have ({', '.join(VECTOR_ROLES)})? {found}; say it by "
            f"--map {name}=distilled on the command line, by a sheet, or by about={{{name!r}: ...}} in Python."
        )
    role = said.get("role") or roles[0]
    if roles == [role] and role in (DISTILLED, CONTROL):
        fields["method"] = "-".join(word for word in rest if word != role)
    return NetworkRecord(**{"name": name, "role": role, **fields, **said})
