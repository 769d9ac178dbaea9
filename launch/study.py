"""Train a folder of recipes alike and compare them: `python -m launch.study RECIPE_DIR --seeds 3`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Replaced, not inserted before: with launch/ on the path, `import train` would be launch/train.py.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from train.study_main import main

    sys.exit(main())
