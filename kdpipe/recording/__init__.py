"""Recording: what every layer makes of the same samples while somebody's own loop trains a network."""

from kdpipe.recording.recorder import Recorder

__all__ = ["Recorder"]
