"""Named records in one place: what a study file may name, and what code outside the package may add to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_.-]{0,62}[a-z0-9])?")


class Record(Protocol):
    """What can be registered.

    Attributes:
        name: stands in study files, in columns of artifacts and in the addresses of pages.
        version: raised whenever the record would give another result from the same inputs. It is part of the
            key of that result alone.
    """

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...


T = TypeVar("T", bound=Record)


@dataclass(frozen=True)
class Plugin:
    """What brought a record from outside the package.

    Attributes:
        name: of the file, or of the installed distribution.
        identity: ``sha256:`` and the hash of the file, or the distribution's name and version. It is part of the keys
            of its records' results.
    """

    name: str
    identity: str


class Registry(Mapping[str, T], Generic[T]):
    """Records by their names, in the order in which they were registered.

    >>> from kdpipe.measures import MEASURES
    >>> MEASURES.register(my_measure)   # doctest: +SKIP
    """

    def __init__(self, kind: str, records: Iterable[T] = (), reserved: Iterable[str] = ()) -> None:
        """An empty registry, or one with records.

        Args:
            kind: what one record is called in a sentence, such as ``measure``.
            reserved: names that stand for something else where records' names are stored.
        """
        self.kind, self.reserved = kind, frozenset(reserved)
        self._records: dict[str, T] = {}
        self._plugins: dict[str, Plugin] = {}
        for record in records:
            self.register(record)

    def register(self, record: T, plugin: Plugin | None = None) -> T:
        """Add a record, before a study that names it is read.

        Args:
            plugin: what brought it, if a plug-in did.

        Raises:
            ValueError: its name is taken, or cannot stand in a column, a path and an address; its version is no
                whole number from 1.
        """
        if not _NAME.fullmatch(record.name):
            raise ValueError(
                f"{record.name!r} cannot be the name of a {self.kind}: take at most 64 lower-case letters, digits, "
                "'_', '-' and '.', the first and the last a letter or digit."
            )
        if record.name in self.reserved:
            raise ValueError(f"{record.name!r} stands for something else in tables; give the {self.kind} another name.")
        if record.name in self._records:
            raise ValueError(f"There is a {self.kind} {record.name!r} already; give the new one another name.")
        if not isinstance(record.version, int) or record.version < 1:
            raise ValueError(f"The version of {self.kind} {record.name!r} must be 1 or more, not {record.version!r}.")
        self._records[record.name] = record
        if plugin is not None:
            self._plugins[record.name] = plugin
        return record

    def unregister(self, name: str) -> T:
        """Take a record out again, as a notebook does before it registers a changed one."""
        self._plugins.pop(name, None)
        return self._records.pop(name)

    def withdraw_plugins(self) -> None:
        """Take out every record that a plug-in brought."""
        for name in list(self._plugins):
            self.unregister(name)

    def plugin_of(self, name: str) -> Plugin | None:
        """What brought the record, if a plug-in did."""
        return self._plugins.get(name)

    def plugin_in_key(self, name: str) -> dict[str, str]:
        """The record's plug-in as a part of a stage's params; nothing where none brought it."""
        plugin = self._plugins.get(name)
        return {} if plugin is None else {"plugin": plugin.identity}

    def __getitem__(self, name: str) -> T:
        return self._records[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def __repr__(self) -> str:
        return f"<registry of {self.kind}s: {', '.join(self)}>"


def version_in_key(record: Record) -> dict[str, int]:
    """The record's version as a part of a stage's params; nothing at 1, so that outputs made before versions hold."""
    return {} if record.version == 1 else {"version": record.version}
