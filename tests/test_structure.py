"""The rooms: the imports that each may have, its number of files, and the sentence that opens every file and room."""

import ast
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from train.processes.project_root import ROOT

# Each room and the rooms that it may import. A room imports only rooms above it in this list, so there are no circles.
MAY_IMPORT = {
    "models": "",  # relative imports only: the folder travels with the weights
    "data_prep.processes": "",
    "data_prep.storage": "",
    "data_prep.documents.files": "data_prep.storage",
    "data_prep.documents": "data_prep.documents.files data_prep.processes data_prep.storage",
    "data_prep.encoding": "data_prep.storage",
    "data_prep.shards": "data_prep.documents data_prep.storage",
    "data_prep.counts": "data_prep.shards data_prep.processes data_prep.storage",
    "data_prep.tables": "data_prep.counts data_prep.shards data_prep.storage",
    "data_prep.table_checks": "data_prep.tables data_prep.counts data_prep.shards data_prep.storage",
    "data_prep.tokenizing": (
        "data_prep.shards data_prep.encoding data_prep.documents data_prep.documents.files data_prep.processes "
        "data_prep.storage"
    ),
    "data_prep.verifying": (
        "data_prep.tokenizing data_prep.shards data_prep.encoding data_prep.documents data_prep.documents.files "
        "data_prep.processes data_prep.storage"
    ),
    "data_prep.benchmark": (
        "data_prep.tokenizing data_prep.counts data_prep.shards data_prep.encoding data_prep.documents "
        "data_prep.processes data_prep.storage"
    ),
    "data_prep.preparing": (
        "data_prep.tokenizing data_prep.table_checks data_prep.tables data_prep.counts data_prep.shards "
        "data_prep.encoding data_prep.documents data_prep.documents.files data_prep.processes data_prep.storage"
    ),
    "data_prep": (  # the commands
        "data_prep.preparing data_prep.verifying data_prep.tokenizing data_prep.table_checks data_prep.tables "
        "data_prep.counts data_prep.shards data_prep.encoding data_prep.documents data_prep.processes data_prep.storage"
    ),
    "train.processes": "data_prep.processes",
    "train.config": "models train.processes data_prep.storage",
    "train.parallel": "models train.processes",
    "train.data": (
        "models train.config train.processes data_prep.tables data_prep.counts data_prep.shards data_prep.storage"
    ),
    "train.checkpoint.files": "data_prep.storage",
    "train.checkpoint": (
        "models train.checkpoint.files train.parallel train.config train.processes data_prep.shards data_prep.storage"
    ),
    "train.faults": "train.config train.processes data_prep.storage",
    "train.metrics": "models train.data train.config train.processes data_prep.tables data_prep.storage",
    "train.prefetch": "models train.data train.parallel train.processes",
    "train.engine": "models train.data train.parallel train.config train.processes",
    "train": (  # the steps of a run
        "models train.engine train.prefetch train.metrics train.faults train.checkpoint train.data train.parallel "
        "train.config train.processes data_prep.tokenizing data_prep.tables data_prep.shards"
    ),
    "launch.benchmark.layers": "models train.parallel train.config data_prep.tables data_prep.counts data_prep.shards",
    "launch.benchmark": (
        "launch.benchmark.layers models train train.checkpoint train.engine train.prefetch train.data train.config "
        "train.processes data_prep.tables data_prep.storage"
    ),
    "launch.gpu_acceptance.measuring": (
        "models launch.benchmark launch.benchmark.layers train train.engine train.prefetch train.checkpoint "
        "train.data train.parallel train.config train.processes data_prep data_prep.tokenizing data_prep.tables "
        "data_prep.counts data_prep.shards"
    ),
    "launch.gpu_acceptance.parts": (
        "models launch.gpu_acceptance.measuring launch.benchmark launch.benchmark.layers train train.engine "
        "train.prefetch train.metrics train.faults train.checkpoint train.config train.processes"
    ),
    "launch.gpu_acceptance": (
        "launch.gpu_acceptance.parts launch.gpu_acceptance.measuring train.processes data_prep.storage"
    ),
    "launch.study": (
        "models train train.metrics train.checkpoint train.checkpoint.files train.config "
        "train.processes data_prep.table_checks data_prep.tables data_prep.counts data_prep.shards data_prep.processes "
        "data_prep.storage"
    ),
    "launch": (  # the scripts
        "models train train.metrics train.data train.checkpoint train.processes data_prep.counts data_prep.shards "
        "data_prep.processes"
    ),
}
# Libraries that the machines of a folder may lack.
MUST_NOT_IMPORT = {
    "data_prep": ["torch", "deepspeed", "transformers"],
    "models": ["deepspeed", "torch.distributed", "mpi4py"],
}
MAX_FILES, MAX_LINES = 12, 40
FOLDERS = sorted({room.split(".")[0] for room in MAY_IMPORT})
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
ALL_FILES = sorted([*FILES, *(ROOT / "tests").rglob("*.py")])


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module(path: Path) -> str:
    return name(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def room(path: Path) -> str:
    return name(path.parent).replace("/", ".")


def imported(path: Path, nodes=None) -> set[str]:
    """Absolute names of everything that a file imports, also inside functions.

    `from torch import distributed` gives torch and torch.distributed.
    """
    found = set()
    for node in nodes or ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = f"{room(path)}.{node.module}" if node.level else node.module
            found |= {package, *(f"{package}.{alias.name}" for alias in node.names)}
    return found


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


@cache
def graph() -> dict[Path, set[Path]]:
    """The project's files and the files of the project that each of them imports."""
    by_module = {module(path): path for path in FILES}
    return {path: {by_module[other] for other in imported(path) & by_module.keys()} - {path} for path in FILES}


def test_every_room_is_in_the_list():
    assert {room(path) for path in FILES} == set(MAY_IMPORT)


def test_the_list_of_rooms_points_in_one_direction():
    rooms = list(MAY_IMPORT)
    for number, allowed in enumerate(MAY_IMPORT.values()):
        assert set(allowed.split()) <= set(rooms[:number]), rooms[number]


@pytest.mark.parametrize("of", MAY_IMPORT)
def test_a_room_imports_only_the_rooms_that_it_may(of):
    allowed = {of, *MAY_IMPORT[of].split()}
    files = [path for path in FILES if room(path) == of]
    used = {f"{name(path)} imports {name(other)}" for path in files for other in graph()[path]
            if room(other) not in allowed and other.name != "__init__.py"}  # fmt: skip
    assert not used


def test_no_files_import_each_other_in_a_circle():
    files = {path: others for path, others in graph().items() if path.name != "__init__.py"}
    TopologicalSorter({name(path): map(name, others) for path, others in files.items()}).prepare()


@pytest.mark.parametrize("folder", MUST_NOT_IMPORT)
def test_folders_do_without_the_libraries_that_their_machines_may_lack(folder):
    files = [path for path in FILES if name(path).startswith(f"{folder}/")]
    pairs = [(path, banned) for path in files for banned in MUST_NOT_IMPORT[folder]]
    assert not [(name(path), b) for path, b in pairs if any(is_within(found, b) for found in imported(path))]


def test_files_that_travel_with_the_weights_import_from_one_flat_folder():
    for path in (ROOT / "models").rglob("*.py"):
        assert path.parent == ROOT / "models"
        imports = [node for node in ast.walk(tree(path)) if isinstance(node, ast.ImportFrom) and node.level]
        # `from . import x` leaves x.py behind when the model is saved; `from ..x` and `from .x.y` break saving.
        assert all(node.level == 1 and node.module and "." not in node.module for node in imports), name(path)


def test_a_folder_holds_at_most_twelve_files():
    # models/ travels with the weights as one flat folder, and tests/models mirrors it.
    folders = {path.parent for path in ALL_FILES} - {ROOT / "models", ROOT / "tests" / "models"}
    sizes = {name(folder): len({*folder.glob("*.py")} - {folder / "__init__.py"}) for folder in folders}
    assert not {folder: size for folder, size in sizes.items() if size > MAX_FILES}


def test_every_file_opens_with_a_sentence():
    for path in ALL_FILES:
        if path.read_text().strip():
            first, *_ = (ast.get_docstring(tree(path)) or "nothing").splitlines()
            assert first.endswith("."), f"{name(path)} opens with {first}"


def test_every_room_opens_with_one_sentence_and_holds_no_code_before_its_files():
    for path in FILES:
        if path.name == "__init__.py":
            promise = ast.get_docstring(tree(path)) or "nothing"
            assert len(tree(path).body) == 1 and promise.endswith(".") and "\n" not in promise, name(path)


def test_no_function_is_longer_than_forty_lines():
    functions = [
        (path, node) for path in ALL_FILES for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef)
    ]
    lengths = {f"{name(path)}: {node.name}": length(node) for path, node in functions}
    assert not {function: lines for function, lines in lengths.items() if lines > MAX_LINES}


def length(function: ast.FunctionDef) -> int:
    """Lines of a function without its docstring and decorators."""
    has_docstring = ast.get_docstring(function) is not None
    docstring = function.body[0].end_lineno - function.body[0].lineno + 1 if has_docstring else 0
    return function.end_lineno - function.lineno + 1 - docstring


def test_no_script_hides_a_module_of_the_standard_library():
    # A script's own folder is searched first: data_prep/tokenize.py would break inspect, and so torch.
    assert not {name(path) for path in FILES if path.stem in sys.stdlib_module_names}


def test_mpi4py_is_imported_only_when_it_is_used():
    # Importing it needs an MPI library, which most machines lack: so never at the top of a file.
    top = {path: imported(path, tree(path).body) for path in FILES if tree(path).body}
    assert not [name(path) for path, found in top.items() if any(is_within(other, "mpi4py") for other in found)]
