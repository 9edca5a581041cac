"""A study's artifacts: their schema, and the store that writes and reads them checked."""
