"""Errors a user can cause. Each carries one sentence: what is wrong, where, and what to do."""


class KdpipeError(Exception):
    """Base of every error that is shown to a user without a traceback."""


class StudyError(KdpipeError):
    """A study file that cannot be run: a wrong field, name, type or combination."""


class DataError(KdpipeError):
    """Images or labels that cannot be used: missing, corrupt or inconsistent."""


class NetworkError(KdpipeError):
    """A network that cannot be built, tapped or loaded."""


class TrainingError(KdpipeError):
    """Training that cannot go on: the teacher diverged, say."""


class MapError(KdpipeError):
    """A map that cannot be drawn: a projector that is not installed or failed."""


class ArtifactError(KdpipeError):
    """An artifact that cannot be read or written: one of those below, or a table or column that there is not."""


class MissingArtifactError(ArtifactError):
    """A file of a study that is not there."""


class DamagedArtifactError(ArtifactError):
    """A file that is not what its study wrote."""


class OtherSchemaError(ArtifactError):
    """A file of an older or a newer schema."""


class UnexpectedContentError(ArtifactError):
    """A file that is whole and holds what the schema does not allow."""
