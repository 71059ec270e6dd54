"""What whylens raises. Every message says what must hold, what came, and the remedy."""

from __future__ import annotations


class WhylensError(Exception):
    """Base of everything whylens raises on purpose."""


class InputError(WhylensError, ValueError):
    """The caller asked for something that cannot be done as asked."""


class NetError(InputError):
    """The net itself refused its input; the net's own error is the cause."""


class ImageError(InputError):
    """One image cannot be read; the message is the reason kept in its row."""


class DamageError(WhylensError):
    """A stored file is missing, or is not what was written."""


class MissingExtra(WhylensError, ImportError):  # noqa: N818 - reads as the fact it states
    """An optional package is not installed."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(f"{what} needs the '{package}' package. Install it: pip install 'whylens[{extra}]'.")


def no_such(kind: str, name: str, known: list[str], listing: str) -> InputError:
    """The sentence for an unknown name: the nearest known one, and where all of them are listed."""
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return InputError(f"No {kind} '{name}'.{hint} {listing}")


def kind_and_line(error: BaseException) -> str:
    """The kind of an error of other code and its first line: the whole of it may be a page."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]]).rstrip(".")
