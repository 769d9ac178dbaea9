"""Time every stage of data preparation: `python -m data_prep.benchmark`."""

import sys

from data_prep.benchmark.measure import main

if __name__ == "__main__":
    sys.exit(main())
