"""The pages of the documentation, cut into code blocks, commands, inline code and links."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from train.processes.project_root import ROOT

TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
PAGES = [*(ROOT / name for name in TOP), *sorted((ROOT / "docs").glob("*.md"))]

PROGRAMS = ("python", "deepspeed", "torchrun", "mpirun", "srun", "sbatch", "launch/mpi.sh", "pytest", "make")
# Programs whose commands are not checked, each with the reason.
UNCHECKED = {
    "awk": "cuts the reader's own text",
    "xz": "unpacks the reader's own text",
    "mkdir": "makes folders for the reader's own text",
    "touch": "makes an empty file in the folder of a run",
    "git": "fetches the project",
    "cd": "changes the reader's shell",
    "source": "changes the reader's shell",
    "export": "changes the reader's shell",
}
_ASSIGNMENT = re.compile(r"[A-Z_]+=")


@dataclass(frozen=True)
class Command:
    """One command line of a page; words: without comments, variables set in front of it, and pipes behind it."""

    page: Path
    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}: {shlex.join(self.words)}"

    @property
    def program(self) -> str:
        return self.words[0]


@dataclass(frozen=True)
class Block:
    """Lines indented by four spaces, without the indentation. line: number of the first one."""

    page: Path
    line: int
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"

    @property
    def kind(self) -> str:
        """Shell, transcript, python, yaml or drawing, told by the first line that is not a comment."""
        first = next((line for line in self.lines if not line.startswith("#")), "")
        if any(line.startswith("$ ") for line in self.lines):
            return "transcript"
        if starts_a_command(first):
            return "shell"
        if re.match(r"(from|import) \w", first):
            return "python"
        return "yaml" if re.match(r"\w+:( |$)", first) else "drawing"

    @property
    def commands(self) -> list[Command]:
        """Every line of a shell block; the lines behind a prompt in a transcript."""
        if self.kind == "shell":
            return _commands(self, enumerate(self.lines, start=self.line))
        prompts = [(number, text) for number, text in enumerate(self.lines, start=self.line) if text.startswith("$ ")]
        return _commands(self, ((number, text.removeprefix("$ ")) for number, text in prompts))


def starts_a_command(line: str) -> bool:
    first, *_ = line.split() or [""]
    return first in (*PROGRAMS, *UNCHECKED) or bool(_ASSIGNMENT.match(first))


def _commands(block: Block, lines) -> list[Command]:
    """Lines end at a newline that is neither escaped nor within quotes."""
    commands, text = [], ""
    for number, line in lines:
        text += line
        try:
            words = shlex.split(text.replace("\\\n", " "), comments=True)
        except ValueError:  # a quotation is open
            words = None
        if words is None or line.endswith("\\"):
            text += "\n"
            continue
        commands += [Command(block.page, number, tuple(part)) for part in _simple(words)]
        text = ""
    assert not text, f"{block} ends within a command: {text}"
    return commands


def _simple(words: list[str]) -> list[list[str]]:
    """The commands of a pipeline, each without the variables that are set for it."""
    parts: list[list[str]] = [[]]
    for word in words:
        if word in ("|", "&&"):
            parts.append([])
        elif parts[-1] or not _ASSIGNMENT.match(word):
            parts[-1].append(word)
    return [part for part in parts if part]


def blocks(page: Path) -> list[Block]:
    """Every code block of a page; a blank line within one does not end it."""
    found, lines = [], page.read_text().splitlines()
    start = None
    for number, line in enumerate([*lines, "end"], start=1):
        if line.startswith("    "):
            start = start or number
        elif line and start:
            block = [text[4:] for text in lines[start - 1 : number - 1]]
            found.append(Block(page, start, tuple("\n".join(block).rstrip().splitlines())))
            start = None
    return [block for block in found if not lines[block.line - 2].strip()]  # else the block continues an item of a list


def spans(page: Path) -> list[str]:
    """All inline code of a page."""
    inside = {line for block in blocks(page) for line in range(block.line, block.line + len(block.lines))}
    prose = [line for number, line in enumerate(page.read_text().splitlines(), start=1) if number not in inside]
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", "\n".join(prose))]


def links(page: Path) -> list[str]:
    """The targets of a page's links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", page.read_text())


def anchors(page: Path) -> set[str]:
    """The anchors in `PAGE#ANCHOR`: the page's headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
