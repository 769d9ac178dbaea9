"""DocumentRules: what is read of raw shards, its division into documents, and the places of end tokens."""

from collections.abc import Iterator
from dataclasses import dataclass

from data_prep.documents.files.include import Include, include_of

Parts = Iterator[tuple[str, bool]]  # parts of documents, in order: (text, whether it ends its document)
DOCUMENT_RULES = ("auto", "blank_line", "line", "wikitext")
END_TOKEN_RULES = ("gpt2", "fairseq")


@dataclass(frozen=True)
class DocumentRules:
    """Rules for reading raw shards. A .txt consists of lines; .jsonl, .parquet and data sets consist of rows.

    text_field: the field or column with the text of a row; `a.b` is also the field b of a.
    document_rule: "blank_line" ends a document at a blank line, or at a row without text. "line" ends it after every
    `lines_per_document` lines or rows, not counting empty ones. "auto" is "blank_line" for lines, "line" for rows.
    "wikitext" begins a document at a title between blank lines, or rows, as described in wikitext.py.
    end_token_rule: "gpt2" appends the end token to every document. "fairseq" also replaces every newline by it, that
    of a blank line between documents included, as in fairseq and in the data of BASE layers (Lewis et al., 2021).
    include: of folders, globs and archives, only the files that match one of these patterns are read, if there is one.
    """

    text_field: str = "text"
    document_rule: str = "auto"
    lines_per_document: int = 1
    end_token_rule: str = "gpt2"
    include: Include = ()

    def __post_init__(self):
        object.__setattr__(self, "include", include_of(self.include))  # JSON and YAML have lists
        for name, allowed in (("document_rule", DOCUMENT_RULES), ("end_token_rule", END_TOKEN_RULES)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} {getattr(self, name)!r} is not one of {', '.join(allowed)}")
        if not isinstance(self.text_field, str):
            raise ValueError(f"text_field={self.text_field!r} must be a name; put it in quotes")
        if not isinstance(self.lines_per_document, int) or self.lines_per_document < 1:
            raise ValueError(f"lines_per_document={self.lines_per_document!r} must be an integer of at least 1")
        if self.lines_per_document > 1 and self.document_rule != "line":
            raise ValueError(
                f"lines_per_document={self.lines_per_document} needs document_rule line, but it is {self.document_rule}"
            )

    @property
    def blank_line(self) -> str:
        """The text that a blank line between documents adds to the document before it."""
        return "\n" if self.end_token_rule == "fairseq" else ""
