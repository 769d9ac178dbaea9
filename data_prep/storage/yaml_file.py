"""Read a YAML file so that no entry goes missing: a name that occurs twice in one mapping is refused."""

from pathlib import Path
from typing import Any

import yaml


def read_yaml(path: str | Path) -> Any:
    """Return the file's content; ValueError names the file and a name that occurs twice."""
    try:
        return yaml.load(Path(path).read_bytes(), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {error}") from None
    except _NamedTwice as error:
        raise ValueError(f"{path} names {error.args[0]!r} twice; name it once") from None


class _NamedTwice(Exception):
    """Its argument is the name."""


class _Loader(yaml.SafeLoader):
    """PyYAML's own loader keeps the last of two entries with the same name."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [name.value for name, _ in node.value if isinstance(name, yaml.ScalarNode)]
        for name in names:
            if names.count(name) > 1:
                raise _NamedTwice(name)
        return super().construct_mapping(node, deep)
