"""What the commands share: a mistake of the user ends in one line and exit status 2, not in a traceback."""

import functools
import sys
from collections.abc import Callable


def user_errors_in_one_line(main: Callable[..., int | None]) -> Callable[..., int]:
    """Wrap `main(argv=None)`: returns its status, 0 for None; on ValueError and OSError prints `error: ...`, 2."""

    @functools.wraps(main)
    def guarded_main(argv: list[str] | None = None) -> int:
        try:
            return main(argv) or 0
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2

    return guarded_main
