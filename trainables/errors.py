"""What a stage may raise on purpose.

TrialError
├── DataError         the images are absent, corrupted or not what the config says
├── CodeError         a user's own model cannot be imported as it was planned, or its code failed
├── InfeasibleError   the config cannot be carried out on this network (row status `infeasible`)
├── DivergedError     the loss is no longer a number (row status `failed`, failure `diverged`)
├── CheckpointError   a checkpoint is damaged, or of another stage, version or machine
├── PackedFileError   a packed file is truncated, tampered with or of another version
├── ExportError       an exported network computes something else than the network it was made from
├── BundleError       an exported folder or file is not what was written
└── MissingExtraError a package that only exported networks need is not installed
"""


class TrialError(Exception):
    """A stage could not be carried out; the message says what is wrong and what to do."""


class DataError(TrialError):
    """Images are absent, corrupted, or not what the config says."""


class CodeError(TrialError):
    """A user's own model cannot be imported as it was planned, or its code failed."""


class InfeasibleError(TrialError):
    """The config asks for something that this network cannot be."""


class DivergedError(TrialError):
    """The training loss became NaN or infinite."""


class CheckpointError(TrialError):
    """A stage cannot go on from a checkpoint; it has to begin anew."""


class PackedFileError(TrialError):
    """A packed file cannot be read."""


class ExportError(TrialError):
    """An exported network's predictions are not those of the network it was made from."""


class BundleError(TrialError):
    """An exported folder, or a model file of one, cannot be used."""


class MissingExtraError(TrialError):
    """An optional package is not installed."""
