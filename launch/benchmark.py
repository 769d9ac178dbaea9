"""Time the hash layer beside other mixture-of-experts layers: `python launch/benchmark.py --tokens FOLDER`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Replaced, not inserted before: with launch/ on the path, `import train` would be launch/train.py.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from train.benchmark_main import main

    sys.exit(main())
