"""How a command ends on a user's mistake or Ctrl-C: one line and an exit status instead of a traceback."""

import functools
import sys
from collections.abc import Callable

INTERRUPTED = 128 + 2  # the exit status of a process that SIGINT ends


def user_errors_in_one_line(main: Callable[..., int | None]) -> Callable[..., int]:
    """Wrap `main(argv=None)`: return its status, 0 for None.

    On ValueError, OSError or MemoryError print `error: ...` and return 2; on Ctrl-C return 130, as shells do.
    """

    @functools.wraps(main)
    def guarded_main(argv: list[str] | None = None) -> int:
        try:
            return main(argv) or 0
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except MemoryError:
            print("error: out of memory; use fewer --workers", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted: start the same command again to go on", file=sys.stderr)
            return INTERRUPTED

    return guarded_main
