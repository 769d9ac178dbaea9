"""Check and measure everything that needs a GPU: `python -m launch.gpu_acceptance`."""

import sys

from launch.gpu_acceptance.main import main

if __name__ == "__main__":
    sys.exit(main())
