"""Damage files as bad disks and interrupted copies do: one flipped bit or one missing end at a time."""

import random
from collections.abc import Iterator
from pathlib import Path


def damages(paths: list[Path], *, number: int, seed: int = 0) -> Iterator[Path]:
    """Yield `number` damaged files of `paths`, each restored afterwards. Two thirds of the damage is flipped bits."""
    generator = random.Random(seed)
    contents = {path: path.read_bytes() for path in paths}
    for _ in range(number):
        path = generator.choice([path for path, content in contents.items() if content])
        position = generator.randrange(len(contents[path]))
        if generator.random() < 1 / 3:
            path.write_bytes(contents[path][:position])
        else:
            flip_bit(path, position, generator.randrange(8))
        yield path
        path.write_bytes(contents[path])


def flip_bit(path: Path, position: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)
