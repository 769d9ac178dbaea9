"""Time the hash layer beside other mixture-of-experts layers: `python -m launch.benchmark --tokens FOLDER`."""

import sys

from launch.benchmark.main import main

if __name__ == "__main__":
    sys.exit(main())
