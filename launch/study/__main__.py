"""Train a folder of recipes under equal conditions and compare them: `python -m launch.study RECIPE_DIR --seeds 3`."""

import sys

from launch.study.main import main

if __name__ == "__main__":
    sys.exit(main())
