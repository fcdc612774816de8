"""What can go wrong, as one tree.

    DreamsrError                 anything a user can cause; exits 1 with one line and no traceback
    ├── UsageError               the request itself makes no sense; exits 2
    ├── ConfigError              a configuration (TOML, header, preset) holds something unknown or impossible
    ├── ImageError               a picture cannot be read, used or written
    │   └── DamagedError         a picture decodes, but not to what was encoded
    ├── DataError                a training or benchmark data set is unusable
    ├── WeightsError             weights are unknown, damaged or do not fit their backbone
    │   └── DownloadError        weights could not be fetched
    ├── DeviceError              the device asked for is missing or out of memory
    ├── OutputError              a result cannot be put where it was asked for
    └── TrainingError            a training run cannot start or go on

Every message says what was given, what is possible, and what to do next. It names the fields of a request as Python
knows them, in backticks, such as `if_exists`; the command line puts its options there (`cli/spelling.py`).
"""


class DreamsrError(Exception):
    """Anything a user can cause. `str(error)` is one complete line."""

    exit_code = 1


class UsageError(DreamsrError):
    """The request itself makes no sense."""

    exit_code = 2


class ConfigError(DreamsrError):
    """A configuration holds something unknown or impossible."""


class ImageError(DreamsrError):
    """A picture cannot be read, used or written."""


class DamagedError(ImageError):
    """A picture decodes, but not to what was encoded: part of it is missing or wrong."""


class DataError(DreamsrError):
    """A training or benchmark data set is unusable."""


class WeightsError(DreamsrError):
    """Weights are unknown, damaged or do not fit their backbone."""


class DownloadError(WeightsError):
    """Weights could not be fetched."""


class DeviceError(DreamsrError):
    """The device asked for is missing or out of memory."""


class OutputError(DreamsrError):
    """A result cannot be put where it was asked for."""


class TrainingError(DreamsrError):
    """A training run cannot start or go on."""


def printable(text: object) -> str:
    """Text fit for one line of a message: line breaks, control and undecodable bytes are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))
