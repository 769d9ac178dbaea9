"""Check and measure everything that needs a GPU: `python -m launch.gpu_acceptance`."""

import signal
import sys

from launch.gpu_acceptance.main import main

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the part under way ends too
    sys.exit(main())
