"""What every artifact holds: the tables of a study, declared once.

Writers and readers both check against these declarations, so a column that is not here does not
exist. Light on purpose (polars only): the app imports it.

``SCHEMA_VERSION`` rises whenever a reader of the old files would misread the new ones.
"""

from kdpipe.artifacts.schema import evidence, layers, maps, measures, networks, registries, samples, statistics
from kdpipe.artifacts.schema.table import Column, Table, disagreement, misfit

SCHEMA_VERSION = 5

_MODULES = (networks, layers, samples, maps, measures, registries, evidence, statistics)
TABLES: dict[str, Table] = {table.name: table for module in _MODULES for table in module.TABLES}

__all__ = ["SCHEMA_VERSION", "TABLES", "Column", "Table", "disagreement", "misfit"]
