"""Where images come from: one small record a dataset, each read into uint8 arrays in memory.

A source knows three things: which files it reads (their content, not their path, makes the cache
key), how to describe itself without decoding everything, and how to decode. A new one is a record
in the ``SOURCES`` of a module here; ``SOURCES.register`` adds one of your own.
"""

from kdpipe.data.sources import arrays, digits, folder, idx, parquet, vision
from kdpipe.data.sources.base import Peek, RawData, Request, Source, Split, data_root, fingerprint, no_tick, peek
from kdpipe.registry import Registry

SOURCES: Registry[Source] = Registry(
    "dataset", (source for module in (digits, vision, folder, parquet, arrays, idx) for source in module.SOURCES)
)

__all__ = [
    "SOURCES",
    "Peek",
    "RawData",
    "Request",
    "Source",
    "Split",
    "data_root",
    "fingerprint",
    "no_tick",
    "peek",
]
