"""How a command ends on a user's mistake: one line and exit status 2 instead of a traceback."""

import functools
import sys
from collections.abc import Callable


def user_errors_in_one_line(main: Callable[..., int | None]) -> Callable[..., int]:
    """Wrap `main(argv=None)`: return its status (0 for None); on ValueError or OSError print `error: ...`, return 2."""

    @functools.wraps(main)
    def guarded_main(argv: list[str] | None = None) -> int:
        try:
            return main(argv) or 0
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2

    return guarded_main
