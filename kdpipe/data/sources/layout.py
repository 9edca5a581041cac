"""Which folders and files are the training images, which the test images, and which are leftovers of other programs."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NoReturn, TypeVar

from kdpipe.data.sources.base import shown
from kdpipe.errors import DataError

Role = Literal["train", "test", "validation"]
Entry = TypeVar("Entry")

_ROLES: dict[str, Role] = {
    **dict.fromkeys(("train", "training", "trainset", "trainval"), "train"),
    **dict.fromkeys(("test", "testing", "testset", "eval", "evaluation"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "valset"), "validation"),
}
_LEFTOVERS = {"__macosx", "@eadir", "$recycle.bin", "system volume information", "__pycache__", "lost+found"}


def role_of(name: str) -> Role | None:
    """Of a folder that is called as splits are (``train``, ``Valid``, ``test_set``), else None."""
    return _ROLES.get(re.sub(r"[-_ ](set|data|images|split)$", "", name.lower()))


def role_within(name: str) -> Role | None:
    """Of a name with the word for a split as one of its parts (``seg_train``, ``train-00000-of-00002``), else None."""
    return next((role for word in words_of(name) if (role := role_of_word(word))), None)


def words_of(name: str) -> list[str]:
    """Words of a name: letters and digits between other signs."""
    return re.findall(r"[a-z0-9]+", name.lower())


def role_of_word(word: str) -> Role | None:
    """Of a lower-case word, perhaps with a number behind it (``val2017``)."""
    return _ROLES.get(word.rstrip("0123456789"))


def is_leftover(name: str) -> bool:
    """Whether a name was written by a system or a program for itself: hidden files, macOS's and Windows's own."""
    return name.startswith(".") or name.lower() in _LEFTOVERS


def folders_in(place: Path) -> list[Path]:
    """Folders of ``place``, sorted, without leftovers."""
    return sorted(path for path in place.iterdir() if path.is_dir() and not is_leftover(path.name))


def files_below(place: Path) -> list[Path]:
    """Files at any depth of ``place``, sorted, without leftovers. Links are followed; a broken one is a file.

    Raises:
        DataError: a folder that may not be read.
    """

    def refuse(error: OSError) -> NoReturn:
        raise DataError(f"{shown(error.filename)}: the folder cannot be read ({error.strerror}).")

    real = Path(os.path.realpath(place))
    found, ways = [], {str(place): {str(real), *map(str, real.parents)}}  # of a folder: it and those above, really
    for folder, folders, names in os.walk(place, onerror=refuse, followlinks=True):
        folders[:] = [name for name in folders if not is_leftover(name)]
        for name in list(folders):
            below = os.path.join(folder, name)
            if os.path.realpath(below) in ways[folder]:  # a link back up
                folders.remove(name)
            ways[below] = ways[folder] | {os.path.realpath(below)}
        found += [Path(folder, name) for name in names if not is_leftover(name)]
    return sorted(path for path in found if path.is_file() or path.is_symlink())


def test_candidates(by_role: dict[Role, list[Entry]]) -> list[tuple[Role, list[Entry]]]:
    """What may serve as the test split, the best first: a test split before one for validation."""
    order: tuple[Role, ...] = ("test", "validation")
    return [(role, by_role[role]) for role in order if by_role.get(role)]


def by_role(entries: Iterable[tuple[Role | None, Entry]]) -> dict[Role, list[Entry]]:
    """Entries grouped by their role; those without one are left out."""
    groups: dict[Role, list[Entry]] = defaultdict(list)
    for role, entry in entries:
        if role is not None:
            groups[role].append(entry)
    return dict(groups)


def look(name: str) -> str:
    """A name as people see it: two of one look are one name, written with other code points or spaces."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def refuse_alike(names: Sequence[str], place: object) -> None:
    """Refuse class names that nobody could tell apart on a page, or write to a table.

    Raises:
        DataError: two names of one look, an empty name, or one that is no UTF-8.
    """
    seen: dict[str, str] = {}
    for name in names:
        if name != name.encode("utf-8", "replace").decode():
            raise DataError(f"{place}: the name of class {shown(name)!r} is not UTF-8; rename it.")
        if not look(name):
            raise DataError(f"{place}: a class has an empty name; give it one.")
        if look(name) in seen:
            raise DataError(
                f"{place}: classes {seen[look(name)]!a} and {name!a} look the same to readers; rename or merge them."
            )
        seen[look(name)] = name
