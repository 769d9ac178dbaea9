"""Corpus recipes: the parts of a corpus, each with its raw shards, its document rules and its epochs."""

import reprlib
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.documents.document_rules import DocumentRules
from data_prep.documents.raw_shards import RawShard, find_raw_shards, input_in
from data_prep.documents.text_field import listed
from data_prep.shards.mixture import check_epochs
from data_prep.storage.yaml_file import read_yaml

# Of the files beside the parts: mixture.yaml, valid.yaml, counts.safetensors, the route tables and report.html.
RESERVED_SUFFIXES = (".yaml", ".safetensors", ".html")
_FIELDS = {"input", "include", "text_field", "document_rule", "lines_per_document", "epochs", "obtain"}


@dataclass(frozen=True)
class CorpusPart:
    """One part of a corpus; it becomes one folder of token shards."""

    name: str
    input: list[str]  # raw shards, folders or globs of them, relative to the folder of raw text; or a URL, or hf:NAME
    rules: DocumentRules = field(default_factory=DocumentRules)
    epochs: float | str = 1  # passes over the part per epoch of the mixture; 0 leaves it out of training
    obtain: str = ""  # where its raw shards come from

    def inputs(self, raw: str | Path) -> list[str]:
        """Return what find_raw_shards takes; `raw` is a folder, or the URL of one."""
        return [input_in(raw, each) for each in self.input]

    def find_raw_shards(self, raw: str | Path, *, leave_out: Path | None = None) -> list[RawShard]:
        """ValueError or FileNotFoundError if there are none; the message says where to obtain them.

        leave_out: a folder that is not read, such as the output.
        """
        try:
            inputs, rules = self.inputs(raw), self.rules
            return find_raw_shards(inputs, text_field=rules.text_field, include=rules.include, leave_out=leave_out)
        except (ValueError, FileNotFoundError) as error:
            obtain = f" (obtain {self.name}: {self.obtain})" if self.obtain else ""
            raise type(error)(f"part {self.name}: {error}{obtain}") from error


def read_corpus_recipe(path: str | Path) -> list[CorpusPart]:
    """Read `end_token_rule` and `parts` from a YAML file; ValueError names the file, the part and the invalid value."""
    content = read_yaml(path)
    parts = content.get("parts") if isinstance(content, dict) else None
    if not isinstance(parts, dict) or not parts or content.keys() - {"parts", "end_token_rule"}:
        found = listed(content) if isinstance(content, dict) else reprlib.repr(content)
        raise ValueError(f"{path} must have parts, each with a name, and may have end_token_rule; it has {found}")
    end_token_rule = content.get("end_token_rule", "gpt2")
    read = [_part(f"{path}, part {name}", str(name), values, end_token_rule) for name, values in parts.items()]
    check_epochs(path, {part.name: part.epochs for part in read})
    return read


def _part(where: str, name: str, values: dict, end_token_rule: str) -> CorpusPart:
    if isinstance(values, dict) and "weight" in values:
        raise ValueError(f"{where}: weight is now epochs, passes over the part per epoch of the mixture; rename it")
    if not isinstance(values, dict) or "input" not in values or values.keys() - _FIELDS:
        raise ValueError(
            f"{where} must have input, and may have {', '.join(sorted(_FIELDS))}; it is {reprlib.repr(values)}"
        )
    values = dict(values)
    paths, epochs, obtain = values.pop("input"), values.pop("epochs", 1), values.pop("obtain", "")
    paths = [paths] if isinstance(paths, str) else paths
    if not isinstance(paths, list) or not paths or not all(isinstance(each, str) for each in paths):
        raise ValueError(f"{where}: input={reprlib.repr(paths)} must be a path, or a list of paths")
    if not name or name != Path(name).name or name.startswith(".") or name.lower().endswith(RESERVED_SUFFIXES):
        raise ValueError(
            f"{where}: the name {name!r} must be that of a folder, and not end with {' or '.join(RESERVED_SUFFIXES)} "
            "as the files beside the parts do"
        )
    try:
        rules = DocumentRules(end_token_rule=end_token_rule, **values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error
    return CorpusPart(name, paths, rules, epochs, obtain)
