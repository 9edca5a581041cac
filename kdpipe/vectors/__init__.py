"""Vectors made elsewhere: networks, layers and samples, checked, joined by ids and kept in one folder."""
