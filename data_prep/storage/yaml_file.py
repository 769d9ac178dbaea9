"""Read a YAML file so that no entry goes missing, and in time and memory that its size bounds."""

from pathlib import Path
from typing import Any

import yaml

LARGEST_FILE = 2**20  # bytes; takes at most half a minute to parse, and holds 30,000 parts of a mixture


def read_yaml(path: str | Path) -> Any:
    """Return the file's content; ValueError names the file and what is wrong.

    A name that occurs twice in one mapping is refused, and so are aliases: a few lines of them can stand for terabytes.
    """
    if (size := Path(path).stat().st_size) > LARGEST_FILE:
        raise ValueError(f"{path} has {size} bytes, but a YAML file may have {LARGEST_FILE}; divide it")
    try:
        return yaml.load(Path(path).read_bytes(), Loader=_Loader)
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply; it may have some hundred levels") from None
    except _Refused as error:
        raise ValueError(f"{path} {error}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path} is not YAML: {_in_one_line(error)}") from None


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]


class _Refused(Exception):
    """Its argument is the reason."""


class _Loader(yaml.SafeLoader):
    """PyYAML's own loader keeps the last of two entries with the same name."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise _Refused(f"uses the alias *{self.peek_event().anchor[:50]}; write its value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for name in (name.value for name, _ in node.value if isinstance(name, yaml.ScalarNode)):
            if name in seen:
                raise _Refused(f"names {name[:50]!r} twice; name it once")
            seen.add(name)
        return super().construct_mapping(node, deep)
