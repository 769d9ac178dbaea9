"""Train a model: `deepspeed launch/train.py --config launch/recipes/NAME.yaml --any_field value`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Replaces launch/ on the path, where `import train` would be this file.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from train.main import main

    sys.exit(main())
