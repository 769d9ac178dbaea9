"""Every command, option, file, recipe and link in the documentation exists.

Commands are parsed by the parsers that would run them, and nothing is run: a page may name data that only a reader has.
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
TRAIN = "launch/train.py"
RECIPES = {"RECIPE": "launch/recipes/quickstart.yaml"}  # stands for any recipe
# Recipes that a page tells its reader to write, or that a run writes.
READERS_RECIPES = ("my_corpus.yaml", "runs/my_corpus/run.yaml")
# Files that a reader makes.
READERS_FILES = {"launch/hostfile"}
# Options of other programs, and pieces of options.
OTHERS_OPTIONS = {"--long", "--mpi", "--bind-to", "--any_field", "--quiet", "--num_gpus", "--hostfile", "--help", "-m"}
DATA_PREP = {path.stem for path in (ROOT / "data_prep").glob("[a-z]*.py")} | {"benchmark"}


class _Found(BaseException):
    """Carries a parser out of the command that made it."""


def test_every_block_is_understood():
    for block in BLOCKS:
        if block.kind in ("drawing", "yaml", "python"):
            hidden = [line for line in block.lines if starts_a_command(line)]
            assert not hidden, f"{block} hides commands among other lines: {hidden}"


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_every_command_would_start(command: Command):
    if command.program not in UNCHECKED:
        check_command(command.words)


def check_command(words: tuple[str, ...]) -> None:
    """A launcher's own options are its own business: what it launches is checked."""
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        makefile = (ROOT / "Makefile").read_text()
        assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets), words
        return
    if words[0] == "git":
        return
    if words[0] == "pytest":
        check_pytest(words[1:])
        return
    program, arguments = split_program(words)
    if program == "pytest":
        check_pytest(arguments)
        return
    if program.endswith(".sh"):
        assert (ROOT / program).is_file(), program
        program = TRAIN
    parse(program, arguments)


def split_program(words: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The module or script that a command line runs, and the arguments that it hands over."""
    for index, word in enumerate(words):
        if word == "-m":
            return words[index + 1], words[index + 2 :]
        if word.endswith((".py", ".sh")):
            return word, words[index + 1 :]
    raise AssertionError(f"{words} runs neither a module nor a script")


def check_pytest(words: tuple[str, ...]) -> None:
    paths = [word.split("::")[0] for word in words if word.startswith("tests")]
    assert all((ROOT / path).exists() for path in paths), paths


def parse(program: str, arguments: tuple[str, ...]) -> None:
    if program == "launch/quickstart.py":  # hands its options on
        program, arguments = TRAIN, ("--config", "launch/recipes/quickstart.yaml", *arguments)
    parser_of(program).parse_args([RECIPES.get(word, word) for word in arguments])
    recipes = [word for word in arguments if word.endswith(".yaml") or word in RECIPES]
    if program == TRAIN and not set(recipes) & set(READERS_RECIPES):
        load_run_config([RECIPES.get(word, word) for word in arguments])


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
            runpy.run_path(str(script(program)), run_name="__main__")
        except _Found as answer:
            parser = answer.args[0]
            parser.error = lambda message: pytest.fail(f"{program}: {message}")
            return parser
    raise AssertionError(f"{program} parses no options")


def script(program: str) -> Path:
    """The file that runs as __main__."""
    path = ROOT / program if program.endswith(".py") else ROOT / program.replace(".", "/")
    return path / "__main__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def all_options() -> frozenset[str]:
    """The options of all commands of this project."""
    programs = [f"data_prep.{name}" for name in DATA_PREP]
    programs += [
        TRAIN,
        "launch/generate.py",
        "launch/predict.py",
        "launch.study",
        "launch.benchmark",
        "tests.faults.soak",
    ]
    return frozenset(option for program in programs for option in parser_of(program)._option_string_actions)


@pytest.mark.parametrize(("page", "span"), SPANS, ids=lambda value: value.name if isinstance(value, Path) else value)
def test_every_word_of_code_exists(page: Path, span: str):
    if page.name == "CHANGELOG.md" and f"`{span}` ->" in page.read_text():
        return  # an old name
    if "NAME" in span:
        return  # stands for any
    words = tuple(span.split())
    if words[0] in PROGRAMS and words[0] != "git" and len(words) > 1:
        check_inline_command(words)
    elif words[0] in DATA_PREP:
        check_options(f"data_prep.{words[0]}", words[1:])
    elif words[0].startswith("-"):
        options = [word.split("=")[0] for word in words if word.startswith("-")]
        assert set(options) <= all_options() | OTHERS_OPTIONS, span
    elif re.fullmatch(r"(data_prep|models|train|launch|ds_configs|tests|docs)/[\w./*-]*", span):
        assert span in READERS_FILES or list(ROOT.glob(span.rstrip("/"))), span
    elif re.fullmatch(r"(data_prep|models|train|launch|tests)(\.\w+)+", span):
        assert defines(span), span


def check_inline_command(words: tuple[str, ...]) -> None:
    """A command within a sentence may lack what it needs; what is there must exist."""
    if words[0] in ("make", "pytest"):
        check_command(words)
        return
    if "-c" in words or words == ("deepspeed", "launch/train.py"):
        return
    program, arguments = split_program(words)
    if program == "pytest":
        check_pytest(arguments)
    elif program != "launch/quickstart.py":
        check_options(TRAIN if program.endswith(".sh") else program, arguments)


def check_options(program: str, words: tuple[str, ...]) -> None:
    given = {word.split("=")[0] for word in words if word.startswith("--")}
    assert given <= set(parser_of(program)._option_string_actions) | OTHERS_OPTIONS, given


def defines(dotted: str) -> bool:
    """Whether a dotted name is a module of this project, or something that one of them defines."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:length])
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if file.is_file():
            names = parts[length:]
            return all(re.search(rf"(def|class) {name}\b|^{name}\b", file.read_text(), re.MULTILINE) for name in names)
    return importlib.util.find_spec(dotted) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_exists(page: Path):
    """Also those in drawings and lists."""
    text = page.read_text()
    files = set(
        re.findall(r"(?<![\w/])(?:data_prep|models|train|launch|tests|ds_configs)/[\w./]+\.(?:py|yaml|sh|json)\b", text)
    )
    old = {file for file in files if f"`{file}` ->" in text}
    assert not [file for file in files - old if "NAME" not in file and not (ROOT / file).is_file()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path):
    for target in links(page):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.kind == "yaml"], ids=str)
def test_every_recipe_of_a_page_can_be_read(block: Block, tmp_path):
    fields = yaml.safe_load(block.text)
    if "train_data" in fields:
        (tmp_path / "recipe.yaml").write_text(block.text)
        load_run_config(["--config", str(tmp_path / "recipe.yaml")])


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
