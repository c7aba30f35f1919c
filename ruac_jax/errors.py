"""One way to tell a user what went wrong: a line on standard error and an exit status that is not zero."""

import sys
from collections.abc import Callable, Sequence

from absl import app, logging


class UserError(Exception):
    """Bad input: the message says what was expected, what was found and how to mend it."""


def run_main(main: Callable[[Sequence[str]], None], positional: int = 0) -> None:
    """Runs a command: parses absl flags, calls `main`, turns a `UserError` into one line and exit status 1.

    Args:
      main: gets the command's name and the arguments that are not flags.
      positional: how many of those there may be.
    """

    def guarded(argv: Sequence[str]) -> None:
        if logging.get_verbosity() == logging.INFO:  # the default: libraries would drown our own output
            logging.set_verbosity(logging.WARNING)
        try:
            if len(argv) > 1 + positional:
                raise UserError(f"unexpected argument {argv[1 + positional]!r}: settings are flags, see --help")
            main(argv)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)

    app.run(guarded, flags_parser=_parse_flags)


def _parse_flags(argv: Sequence[str]) -> Sequence[str]:
    """Parses flags; what `--config` and its overrides raise where a name or value is wrong becomes one line."""
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError, TypeError, ValueError, OSError, UserError) as error:
        message = (
            str(error).replace("\\n", " ").replace("\n", " ").replace("\\'", "'").removeprefix("'").removesuffix("'")
        )
        print(f"error: in the flags: {message}", file=sys.stderr)
        sys.exit(1)
