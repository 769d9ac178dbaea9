"""ROOT: the folder that contains train/, models/, launch/ and ds_configs/, wherever the project is installed."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
