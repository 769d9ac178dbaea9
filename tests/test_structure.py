"""What the folders may import from each other, and that every file promises its contents in its first sentence."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# launch -> train -> models; train and launch -> data_prep; nothing else between folders.
MAY_IMPORT = {
    "data_prep": {"data_prep"},
    "models": set(),  # relative imports only: the folder travels with the weights
    "train": {"train", "models", "data_prep"},
    "launch": {"launch", "train", "models", "data_prep"},
}
MUST_NOT_IMPORT = {
    "data_prep": {"torch", "deepspeed", "transformers"},
    "models": {"deepspeed", "torch.distributed", "mpi4py"},
}
FILES = sorted(path for folder in MAY_IMPORT for path in (ROOT / folder).rglob("*.py"))
ALL_FILES = sorted([*FILES, *(ROOT / "tests").rglob("*.py")])


def name(path):
    return str(path.relative_to(ROOT))


def imported_modules(path):
    """Absolute names of everything that a file imports, also inside functions."""
    return {module for node in ast.walk(ast.parse(path.read_text())) for module in module_names(node)}


def module_names(node):
    """What a statement imports: torch and torch.distributed for `from torch import distributed`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def is_within(module, package):
    return module == package or module.startswith(package + ".")


@pytest.mark.parametrize("path", FILES, ids=name)
def test_folders_import_each_other_in_one_direction(path):
    folder = path.relative_to(ROOT).parts[0]
    imported = {module.split(".")[0] for module in imported_modules(path)}
    assert imported & MAY_IMPORT.keys() <= MAY_IMPORT[folder]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_folders_leave_out_what_their_machines_may_lack(path):
    banned = MUST_NOT_IMPORT.get(path.relative_to(ROOT).parts[0], set())
    assert not [module for module in imported_modules(path) for package in banned if is_within(module, package)]


@pytest.mark.parametrize("path", sorted((ROOT / "models").rglob("*.py")), ids=name)
def test_files_that_travel_with_the_weights_import_from_one_flat_folder(path):
    assert path.parent == ROOT / "models"
    imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    # `from . import x` leaves x.py behind when the model is saved; `from ..x` and `from .x.y` break saving.
    assert all(node.level == 1 and node.module and "." not in node.module for node in imports if node.level)


@pytest.mark.parametrize("path", [path for path in ALL_FILES if path.read_text().strip()], ids=name)
def test_every_file_opens_with_a_sentence(path):
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, "the file has no docstring"
    assert docstring.splitlines()[0].endswith("."), docstring.splitlines()[0]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_script_hides_a_module_of_the_standard_library(path):
    # A script's own folder is searched first: data_prep/tokenize.py would break inspect, and so torch.
    assert path.stem not in sys.stdlib_module_names


@pytest.mark.parametrize("path", FILES, ids=name)
def test_mpi4py_is_imported_only_when_it_is_used(path):
    # Importing it needs an MPI library, which most machines do without: so never at the top of a file.
    at_the_top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not [module for node in at_the_top for module in module_names(node) if is_within(module, "mpi4py")]
