"""Every command, option, file, recipe and link in the documentation exists.

Commands are parsed by the parsers that would run them, and nothing is run: a page may name data that only its reader
has.
"""

import argparse
import ast
import importlib.util
import re
import runpy
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.pages import PAGES, PROGRAMS, UNCHECKED, Block, Command, anchors, blocks, links, spans, starts_a_command
from train.config.arguments import load_run_config
from train.processes.project_root import ROOT

BLOCKS = [block for page in PAGES for block in blocks(page)]
COMMANDS = [command for block in BLOCKS for command in block.commands]
SPANS = sorted({(page, span) for page in PAGES for span in spans(page)})
TRAIN, QUICKSTART = "launch/train.py", "launch/recipes/quickstart.yaml"
DATA_PREP = {path.stem for path in (ROOT / "data_prep").glob("[a-z]*.py")} | {"benchmark"}
OTHER_COMMANDS = (
    TRAIN, "launch/generate.py", "launch/predict.py", "launch.study", "launch.benchmark", "launch.gpu_acceptance",
    "tests.faults.soak",
)  # fmt: skip
# Options of other programs that pages name, and one that stands for any field of a recipe.
OTHERS_OPTIONS = {"--any_field", "--bind-to", "--help", "--long", "--mpi", "-m"}
MADE_BY_READERS = {"launch/hostfile"}
FILES = re.compile(r"(?<![\w/])(?:data_prep|models|train|launch|tests|ds_configs)/[\w./]+\.(?:py|yaml|sh|json)\b")


def of_page(value) -> str:
    return value.name if isinstance(value, Path) else str(value)


def test_every_block_is_understood():
    for block in BLOCKS:
        if block.kind in ("drawing", "yaml", "python"):
            hidden = [line for line in block.lines if starts_a_command(line)]
            assert not hidden, f"{block} hides commands among other lines: {hidden}"


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_every_command_would_start(command: Command, tmp_path):
    if command.program in UNCHECKED:
        return
    if command.program in ("make", "pytest"):
        check_targets(command.words)
        return
    check_launcher(command.words)
    program, arguments = split_program(command.words)
    if program == "pytest":
        check_targets((program, *arguments))
        return
    parser_of(program).parse_args(arguments)
    if program == TRAIN:
        load_run_config([readable_recipe(command, word, tmp_path) for word in arguments])


def check_targets(words: tuple[str, ...]) -> None:
    """The targets of make and the files of pytest exist."""
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text()
        missing = [word for word in words[1:] if "=" not in word and f"\n{word}:" not in makefile]
    else:
        missing = [word for word in words if word.startswith("tests") and not (ROOT / word).exists()]
    assert not missing


def check_launcher(words: tuple[str, ...]) -> None:
    """The launcher accepts its options. Those of MPI and Slurm are not checked: this machine may lack them."""
    if words[0] == "deepspeed":
        from deepspeed.launcher.runner import parse_args
    elif words[0] == "torchrun":
        from torch.distributed.run import parse_args
    else:
        return
    parse_args(list(words[1:]))


def split_program(words: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The module or script of this project that a command line runs, and the arguments that it passes."""
    for index, word in enumerate(words):
        if word == "-m":
            return words[index + 1], words[index + 2 :]
        if word.endswith((".py", ".sh")):
            assert (ROOT / word).is_file(), word
            return TRAIN if word.endswith(".sh") else word, words[index + 1 :]
    raise AssertionError(f"{words} runs neither a module nor a script")


def readable_recipe(command: Command, word: str, folder: Path) -> str:
    """RECIPE stands for any recipe; a file at the top of the project is the recipe that the page shows."""
    if word == "RECIPE":
        return QUICKSTART
    if not word.endswith(".yaml") or "/" in word:
        return word
    (written,) = [block for block in BLOCKS if block.page == command.page and "train_data:" in block.text]
    (folder / word).write_text(written.text)
    return str(folder / word)


@cache
def parser_of(program: str) -> argparse.ArgumentParser:
    """The parser that a module or script would parse its command line with, made as it would be."""

    def found(parser, *_):
        raise _Found(parser)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", found)
        patch.setattr(sys, "argv", [program])
        patch.setattr(sys, "path", list(sys.path))
        try:
            runpy.run_path(str(main_file(program)), run_name="__main__")
        except _Found as answer:
            parser = answer.args[0]
            parser.error = lambda message: pytest.fail(f"{program}: {message}")
            return parser
    raise AssertionError(f"{program} parses no options")


class _Found(BaseException):
    """Carries a parser out of the command that made it."""


def main_file(program: str) -> Path:
    path = ROOT / program if program.endswith(".py") else ROOT / program.replace(".", "/")
    return path / "__main__.py" if path.is_dir() else path.with_suffix(".py")


@pytest.mark.parametrize(("page", "span"), SPANS, ids=of_page)
def test_inline_code_exists(page: Path, span: str):
    words = tuple(span.split())
    if "NAME" in span or f"`{span}` ->" in page.read_text():
        return  # stands for any, or is the old name of something
    if words[0] in PROGRAMS and len(words) > 1 and words[:2] != ("deepspeed", TRAIN):
        check_inline_command(words)
    elif words[0] in DATA_PREP:
        check_options(f"data_prep.{words[0]}", words[1:])
    elif words[0].startswith("-"):
        assert options_in(words) <= all_options(), span
    elif re.fullmatch(r"(data_prep|models|train|launch|ds_configs|tests|docs)/[\w./*-]*", span):
        assert span in MADE_BY_READERS or list(ROOT.glob(span.rstrip("/"))), span
    elif re.fullmatch(r"(data_prep|models|train|launch|tests)(\.\w+)+", span):
        assert is_defined(span), span


def check_inline_command(words: tuple[str, ...]) -> None:
    """A command within a sentence may lack arguments that it needs; those that are there must exist."""
    if words[0] in ("make", "pytest"):
        check_targets(words)
        return
    program, arguments = split_program(words)
    check_options(program, arguments)


def check_options(program: str, words: tuple[str, ...]) -> None:
    assert options_in(words) <= {*parser_of(program)._option_string_actions, *OTHERS_OPTIONS}


def options_in(words: tuple[str, ...]) -> set[str]:
    return {word.split("=")[0] for word in words if word.startswith("-")}


@cache
def all_options() -> set[str]:
    programs = [*(f"data_prep.{name}" for name in DATA_PREP), *OTHER_COMMANDS]
    return OTHERS_OPTIONS.union(*(parser_of(program)._option_string_actions for program in programs))


def is_defined(dotted: str) -> bool:
    """Whether a dotted name is a module of this project, or something that one of its files defines."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:length])
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if file.is_file():
            text, names = file.read_text(), parts[length:]
            return all(re.search(rf"^ *(def |class )?{name}\b", text, re.MULTILINE) for name in names)
    return importlib.util.find_spec(dotted) is not None


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_every_file_exists(page: Path):
    """Also those in drawings and lists."""
    text = page.read_text()
    named = {file for file in FILES.findall(text) if "NAME" not in file and f"`{file}` ->" not in text}
    assert not [file for file in named if not (ROOT / file).is_file()]


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_a_file_holds_the_names_that_a_page_finds_in_it(page: Path):
    text = " ".join(page.read_text().split())
    places = re.findall(r"`(\w+)` (?:in|of) `([\w/]+\.py)`", text)
    assert not [(name, file) for name, file in places if name not in (ROOT / file).read_text()]


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_every_link_leads_somewhere(page: Path):
    for target in links(page):
        name, _, anchor = target.partition("#")
        if not target.startswith("https://"):
            path = (page.parent / name).resolve() if name else page
            assert path.exists(), target
            assert not anchor or anchor in anchors(path), target


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.kind == "yaml"], ids=str)
def test_yaml_of_a_page_can_be_read(block: Block):
    assert isinstance(yaml.safe_load(block.text), dict)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.kind == "python"], ids=str)
def test_python_of_a_page_compiles(block: Block):
    compile(block.text, str(block), "exec")


def test_the_index_leads_to_every_page():
    index = ROOT / "docs/index.md"
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"} <= set(links(index))


def test_the_architecture_guide_has_every_room_with_its_sentence():
    guide = (ROOT / "docs/architecture.md").read_text()
    for folder in ("data_prep", "train", "launch"):
        for path in sorted((ROOT / folder).rglob("__init__.py")):
            room, sentence = path.parent.relative_to(ROOT), ast.get_docstring(ast.parse(path.read_text()))
            assert f"| [{room}](../{room}) | {sentence} |" in guide, f"{room}: {sentence}"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_every_exception_is_needed():
    assert UNCHECKED.keys() <= {command.program for command in COMMANDS}
