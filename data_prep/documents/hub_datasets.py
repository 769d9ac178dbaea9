"""Hugging Face data sets as raw shards: `hf:ID_OR_FOLDER?name=CONFIG&split=train&streaming=true&num_shards=8`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from data_prep.documents.document_rules import DocumentRules, Parts
from data_prep.documents.files.read_blocks import Digest
from data_prep.documents.parquet_rows import ROWS_PER_BATCH
from data_prep.documents.rows import group_rows
from data_prep.documents.skipped import SkippedRecords
from data_prep.documents.text_field import listed, value_of

PREFIX = "hf:"
OPTIONS = ("name", "split", "revision", "streaming", "num_shards")
# Data sets that the library refuses because a script creates them, and what to download instead.
FILES_OF_SCRIPTS = {
    "cc100": "https://data.statmt.org/cc-100/en.txt.xz (blank_line, the rule for .txt)",
    "bookcorpus": "a copy in text files, one sentence per line (--document_rule line --lines_per_document 64)",
    "openwebtext": "openwebtext.tar.xz of https://skylion007.github.io/OpenWebTextCorpus, its *.xz renamed to *.tar.xz",
    "cc_news": "the WARC files of https://data.commoncrawl.org/crawl-data/CC-NEWS, extracted to .jsonl",
    "wikipedia": "nothing, since hf:wikimedia/wikipedia?name=20231101.en has no script",
}


@dataclass(frozen=True)
class DatasetShard:
    """Consecutive rows of a data set, or, if it is streamed, consecutive files: part `index` of `num_shards`."""

    dataset: str  # as given to --input
    index: int
    num_shards: int
    fingerprint: str | None  # the library's digest of the rows; None if they are streamed
    num_bytes: int  # of text, approximately; 0 if unknown

    @property
    def label(self) -> str:
        return f"{self.dataset}, shard {self.index} of {self.num_shards}"

    @property
    def name(self) -> str:
        """The last part of the data set's name."""
        return Path(_parse(self.dataset)[0]).name.split(".")[0]

    @property
    def source(self) -> str:
        return self.label

    def identity(self) -> dict:
        """Return what distinguishes it from others. Streamed rows have no fingerprint: give a `revision` to be sure."""
        return {"dataset": self.label, "fingerprint": self.fingerprint}

    def read_parts(
        self,
        rules: DocumentRules,
        skipped: SkippedRecords,
        on_read: Callable[[int], None],
        *,
        digest: Digest | None = None,
    ) -> Parts:
        """Yield (text, whether it ends its document); memory holds a batch of rows.

        `digest` is updated with the length and the text of all rows in order.
        """
        return group_rows(self._rows(rules.text_field, skipped, on_read, digest), rules)

    def _rows(
        self, text_field: str, skipped: SkippedRecords, on_read: Callable[[int], None], digest: Digest | None
    ) -> Iterator[str]:
        dataset = _load(self.dataset)
        column = _column(dataset, text_field)
        rows = dataset.select_columns([column]).shard(num_shards=self.num_shards, index=self.index)
        row = 0
        for batch in rows.iter(ROWS_PER_BATCH):
            texts = [value_of({column: value}, text_field) for value in batch[column]]
            for text in texts:
                if isinstance(text, str):
                    if digest is not None:
                        _add_text(digest, text)
                    yield text.replace("\r\n", "\n")
                else:
                    skipped.add(f"row {row}", f"holds no text in column {text_field!r}")
                row += 1
            on_read(sum(len(text) for text in texts if isinstance(text, str)))


def find_dataset_shards(given: str, *, text_field: str) -> list[DatasetShard]:
    """Open the data set and divide it into num_shards; by default one, or one per file if it is streamed.

    ValueError if it cannot be opened or has no column text_field. For a data set made by a loading script, the message
    says what to download instead.
    """
    options = _parse(given)[1]
    dataset = _load(given)
    columns = dataset.column_names
    if columns is not None and _column(dataset, text_field) not in columns:
        raise ValueError(f"{given} has no column {text_field!r} (it has {listed(columns)}); choose with --text_field")
    streamed = _is_streamed(options)
    most = dataset.num_shards if streamed else len(dataset)
    num_shards = int(options.get("num_shards", most if streamed else 1))
    if not 1 <= num_shards <= most:
        unit = "files" if streamed else "rows"
        raise ValueError(f"{given} cannot be divided into {num_shards} shards; it has {most} {unit}")
    num_bytes = (dataset.info.dataset_size or 0) // num_shards
    fingerprint = getattr(dataset, "_fingerprint", None)
    return [DatasetShard(given, index, num_shards, fingerprint, num_bytes) for index in range(num_shards)]


def _add_text(digest: Digest, text: str) -> None:
    """Update the digest with the length before the text: rows that are divided otherwise are other rows."""
    content = text.encode("utf-8", "surrogatepass")
    digest.update(len(content).to_bytes(8, "little"))
    digest.update(content)


def _column(dataset: Any, text_field: str) -> str:
    """Return the column that holds the field, or the object around it."""
    return text_field if text_field in (dataset.column_names or ()) else text_field.split(".")[0]


def _parse(given: str) -> tuple[str, dict[str, str]]:
    """Return the path and the options; ValueError for an unknown option."""
    path, _, query = given.removeprefix(PREFIX).partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for option, value in options.items():
        if option not in OPTIONS:
            raise ValueError(f"{given} has the option {option!r}; choose from {', '.join(OPTIONS)}")
        if option == "num_shards" and not value.isdigit():
            raise ValueError(f"{given}: num_shards={value!r} is not a number")
    return path, options


def _is_streamed(options: dict[str, str]) -> bool:
    return options.get("streaming", "").lower() in ("true", "1")


def _load(given: str) -> Any:
    """Return the Dataset, or the IterableDataset if it is streamed."""
    import datasets  # takes a second, which reading files does not need

    path, options = _parse(given)
    split = options.get("split", "train")
    try:
        if (Path(path) / "state.json").is_file():  # written by save_to_disk
            return datasets.load_from_disk(path)
        return datasets.load_dataset(
            path,
            name=options.get("name"),
            split=split,
            revision=options.get("revision"),
            streaming=_is_streamed(options),
        )
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        raise ValueError(_script_refused(given, path, datasets.__version__)) from error
    except (datasets.exceptions.DatasetsError, ValueError) as error:
        raise ValueError(f"{given} cannot be opened: {error}") from error


def _script_refused(given: str, path: str, version: str) -> str:
    files = FILES_OF_SCRIPTS.get(Path(path).stem, "its files (the data set's page says where they are)")
    return (
        f"{given} needs a loading script, which datasets {version} refuses; download {files}, and give the files as "
        "--input FILE"
    )
