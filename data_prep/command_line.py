"""What the commands share: a mistake of the user ends in one line and exit status 2, not in a traceback."""

import functools
import sys
from collections.abc import Callable


def user_errors_in_one_line(main: Callable[..., None]) -> Callable[..., int]:
    """Wrap `main(argv=None)`: returns 0 when it ran, prints `error: ...` and returns 2 on ValueError and OSError."""

    @functools.wraps(main)
    def guarded_main(argv: list[str] | None = None) -> int:
        try:
            main(argv)
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        return 0

    return guarded_main
