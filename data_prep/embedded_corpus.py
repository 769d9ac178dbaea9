"""Write the help topics of Python, English text that every installation includes, as a small corpus like CC100."""

import argparse
import lzma
import sys
from pathlib import Path
from pydoc_data.topics import topics

from data_prep.processes.command_line import user_errors_in_one_line
from data_prep.storage.atomic_file import atomic_file

NUM_TRAIN_SHARDS = 4
HELD_OUT_EVERY = 12  # 1/12 = 8% of the topics


@user_errors_in_one_line
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m data_prep.embedded_corpus", description=__doc__)
    parser.add_argument("--output", required=True, metavar="DIR", help="folder in which to write train/ and valid/")
    folder = Path(parser.parse_args(argv).output)
    num_train, num_valid = write_corpus(folder)
    print(f"{num_train} topics for training, {num_valid} held out -> {folder}")


def write_corpus(folder: Path) -> tuple[int, int]:
    """Write <folder>/train/topics-0000<i>.txt.xz and <folder>/valid/topics-valid.txt; return the topics in each."""
    documents = [_without_blank_lines(topics[name]) for name in sorted(topics)]
    train = [document for number, document in enumerate(documents) if number % HELD_OUT_EVERY != 0]
    valid = documents[::HELD_OUT_EVERY]
    for shard in range(NUM_TRAIN_SHARDS):
        _write(folder / "train" / f"topics-{shard:05d}.txt.xz", lzma.compress(_cc100(train[shard::NUM_TRAIN_SHARDS])))
    _write(folder / "valid" / "topics-valid.txt", _cc100(valid))
    return len(train), len(valid)


def _without_blank_lines(text: str) -> str:
    """Remove blank lines, which would end the document."""
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


def _cc100(documents: list[str]) -> bytes:
    return "".join(f"{document}\n\n" for document in documents).encode()


def _write(path: Path, content: bytes) -> None:
    with atomic_file(path) as file:
        file.write(content)


if __name__ == "__main__":
    sys.exit(main())
