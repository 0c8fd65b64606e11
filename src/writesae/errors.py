"""Every exception that writesae raises on purpose.

    WritesaeError                 base; the command line prints it as one line and exits with 2
    ├── InputError                what was asked for cannot be done: unknown name, bad value, bad shape
    │   └── ConfigError           a config file or flag: unknown key, wrong type, impossible combination
    ├── HostError                 a model that cannot be used as a host
    │   └── ReplayError           its recorded stream does not reproduce its own state
    ├── DataError                 data that is damaged or not finite: NaN streams, cut stores, wrong hashes
    └── OutputError               an output folder that belongs to something else, or cannot be written

A message says what was attempted, what was given, what is allowed, and what to do.
"""

_LONGEST = 2000


def shown(text: str) -> str:
    """Text in one line, with what would move the cursor, turn the direction of writing or not be seen as escapes."""
    if text.isprintable():
        return text
    return "".join(x if x.isprintable() else " " if x in "\n\t\r" else ascii(x)[1:-1] for x in text)


class WritesaeError(Exception):
    """Base of all errors that are meant for the user to read: one line that can be printed anywhere."""

    def __init__(self, message: str) -> None:
        told = shown(message)
        super().__init__(told if len(told) <= _LONGEST else f"{told[: _LONGEST - 100]} .. {told[-90:]}")


class InputError(WritesaeError):
    """A request that cannot be carried out as asked."""


class ConfigError(InputError):
    """A configuration with an unknown key, a wrong type or an impossible combination."""


class HostError(WritesaeError):
    """A model that cannot serve as a host."""


class ReplayError(HostError):
    """A host whose recorded stream does not reproduce its own cached state."""


class DataError(WritesaeError):
    """Stored or streamed data that is incomplete, damaged or not finite."""


class OutputError(WritesaeError):
    """An output place that belongs to another run or cannot be written."""
