"""Plant small faults in the core files one at a time, and count those that their tests notice: `make mutants`.

A mutant differs from its file in one place: a comparison, an operator, a constant, a dropped call, a returned None. It
exists only in memory, in a fork of this process, which has imported the libraries already. The same seed draws the same
mutants.
"""

import argparse
import ast
import contextlib
import gc
import importlib.machinery
import importlib.util
import io
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIRED_SHARE = 0.85
# A core file -> the fast tests that should notice its faults, from tests/, the fastest first.
CORES = {
    "models/dispatch.py": ["models/test_dispatch.py", "models/test_sparse_ffn.py", "models/test_grouped.py"],
    "models/grouped.py": ["models/test_grouped.py", "models/test_fits_grouped_mm.py", "models/test_sparse_ffn.py"],
    "models/router_hash.py": ["models/test_router_hash.py"],
    "models/hash_keys.py": ["models/test_hash_keys.py"],
    "data_prep/counts/hash_keys.py": ["data_prep/counts/test_hash_keys.py"],
    "data_prep/tables/assignments.py": ["data_prep/tables/test_assignments.py"],
    "data_prep/tables/greedy.py": [
        "data_prep/tables/test_greedy.py::test_a_placement_that_a_person_can_check",
        "data_prep/tables/test_greedy.py::test_heaps_place_as_a_search_of_all_experts_does",
        "data_prep/tables/test_assignments.py",
    ],
    "data_prep/documents/text_chunks.py": ["data_prep/documents/test_text_chunks.py"],
    "train/data/sample_order.py": ["train/data/test_sample_order.py"],
    "train/data/window_order.py": ["train/data/test_window_order.py"],
    "train/data/mixture_order.py": ["train/data/test_mixture_order.py"],
    "train/parallel/all_to_all.py": ["train/parallel/test_all_to_all.py"],
    "train/parallel/expert_parallel.py": ["train/parallel/test_expert_parallel.py"],
    "train/parallel/packed_experts.py": ["train/parallel/test_packed_experts.py"],
    "train/parallel/token_shuffle.py": ["train/parallel/test_token_shuffle.py"],
    "train/checkpoint/commit.py": ["train/checkpoint/test_commit.py"],
    "train/checkpoint/state_parts.py": ["train/checkpoint/test_state_shards.py"],
    "train/checkpoint/state_shards.py": ["train/checkpoint/test_state_shards.py"],
}
SWAPS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult, ast.Mod: ast.Add,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    """One fault: the attribute `field` of the number-th node of the file's tree has another value."""

    number: int
    field: str
    value: object
    line: int
    change: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", default=list(CORES), help="core files; all of them by default")
    parser.add_argument("--per_file", type=int, default=40, help="maximum number of mutants per file")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="mutants that run at the same time")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample of mutants")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    os.chdir(ROOT)
    _import_libraries()
    gc.freeze()  # a fork's garbage collector would search, and so copy, the libraries' objects: half of its time
    shares = [report(path, options) for path in options.files]
    return int(min(shares) < REQUIRED_SHARE)


def report(path: str, options: argparse.Namespace) -> float:
    """Run the mutants of a file, print its row and its survivors, and return the share of killed mutants."""
    tree = ast.parse((ROOT / path).read_text())
    mutants = sample(list(mutants_of(tree)), options.per_file, seed=options.seed)
    tests = [f"tests/{name}" for name in CORES[path] if (ROOT / "tests" / name.split("::")[0]).exists()]
    start = time.monotonic()
    if _wait_for(_fork(path, None, tests), start + 600) != 0:
        raise SystemExit(f"{path}: the tests {tests} fail without a mutant; mend them first")
    limit = 5 + 3 * options.processes * (time.monotonic() - start)
    survivors = run_mutants(path, mutants, tests, limit=limit, processes=options.processes)
    share = 1 - len(survivors) / max(len(mutants), 1)
    print(f"{path:40} {len(mutants):4} mutants {share:7.1%} killed {time.monotonic() - start:6.0f} s", flush=True)
    for mutant in survivors:
        print(f"    survived: line {mutant.line}: {mutant.change}", flush=True)
    return share


def sample(mutants: list[Mutant], size: int, *, seed: int) -> list[Mutant]:
    chosen = random.Random(seed).sample(mutants, min(size, len(mutants)))
    return sorted(chosen, key=lambda mutant: mutant.number)


def mutants_of(tree: ast.Module) -> Iterator[Mutant]:
    """Every mutant of a file, in the order of ast.walk; annotations, decorators, errors and texts are left alone."""
    ignored = {id(child) for node in ast.walk(tree) for part in _ignored_parts(node) for child in ast.walk(part)}
    for number, node in enumerate(ast.walk(tree)):
        if id(node) in ignored:
            continue
        for field, value in faults(node):
            before, old = ast.unparse(node), getattr(node, field)
            setattr(node, field, value)
            change = f"{before}  ->  {ast.unparse(node)}"
            setattr(node, field, old)
            yield Mutant(number, field, value, node.lineno, change)


def _ignored_parts(node: ast.AST) -> list[ast.AST]:
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.arg | ast.Import | ast.ImportFrom):
        return [node]
    if isinstance(node, ast.AnnAssign):
        return [node.annotation]
    if isinstance(node, ast.FunctionDef):
        return [*node.decorator_list, *([node.returns] if node.returns else [])]
    return node.decorator_list if isinstance(node, ast.ClassDef) else []


def faults(node: ast.AST) -> Iterator[tuple[str, object]]:
    """Faults of one node, as a field of it and another value of that field."""
    match node:
        case ast.Compare():
            for index, operator in enumerate(node.ops):
                yield "ops", [*node.ops[:index], SWAPS[type(operator)](), *node.ops[index + 1 :]]
        case ast.BinOp() | ast.AugAssign() | ast.BoolOp() if type(node.op) in SWAPS:
            yield "op", SWAPS[type(node.op)]()
        case ast.UnaryOp(op=ast.Not()):
            yield "operand", ast.UnaryOp(ast.Not(), node.operand)
        case ast.Constant(value=bool()):
            yield "value", not node.value
        case ast.Constant(value=int()):
            yield "value", node.value + 1  # not 0 - 1, which as an axis or an index is often the same
            if node.value > 1:
                yield "value", node.value - 1
        case ast.Name(id=name) if name in CALLS:
            yield "id", CALLS[name]
        case ast.Return(value=value) if value and not _is_none(value):
            yield "value", ast.Constant(None)
        case ast.If() | ast.IfExp():
            yield "test", ast.UnaryOp(ast.Not(), node.test)
        case ast.Expr(value=ast.Call()):
            yield "value", ast.Constant(None)


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def run_mutants(path: str, mutants: list[Mutant], tests: list[str], *, limit: float, processes: int) -> list[Mutant]:
    """The mutants that all tests pass with; a mutant beyond its time limit in seconds counts as killed."""
    waiting, running, survivors = list(reversed(mutants)), {}, []
    while waiting or running:
        while waiting and len(running) < processes:
            mutant = waiting.pop()
            running[_fork(path, mutant, tests)] = mutant, time.monotonic() + limit
        for pid, (mutant, deadline) in list(running.items()):
            code = _poll(pid, deadline)
            if code is not None:
                del running[pid]
                survivors += [mutant] if code == 0 else []
        time.sleep(0.01)
    return sorted(survivors, key=lambda mutant: mutant.line)


def _poll(pid: int, deadline: float) -> int | None:
    """The status of a process that has ended; one beyond its deadline is killed with everything that it started."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    if not ended and time.monotonic() < deadline:
        return None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return status if ended else os.waitpid(pid, 0)[1]


def _wait_for(pid: int, deadline: float) -> int:
    while (code := _poll(pid, deadline)) is None:
        time.sleep(0.01)
    return code


def _fork(path: str, mutant: Mutant | None, tests: list[str]) -> int:
    """Start a copy of this process that runs the tests on the mutant, and exits with 0 if all pass."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        os.setpgid(0, 0)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        code = _run_tests(path, mutant, tests)
    finally:
        os._exit(code)


def _run_tests(path: str, mutant: Mutant | None, tests: list[str]) -> int:
    import pytest

    from tests import processes

    processes.START_METHOD = "fork"  # ranks inherit the mutant
    if mutant:
        sys.meta_path.insert(0, MutantFinder(path, mutant))
    options = ["-x", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:timeout"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # _import_libraries came before pytest
    with contextlib.redirect_stdout(io.StringIO()):
        return int(pytest.main([*options, *tests]))


class MutantFinder:
    """Imports the mutant in place of its file."""

    def __init__(self, path: str, mutant: Mutant):
        self.name, self.path, self.mutant = path.removesuffix(".py").replace("/", "."), str(ROOT / path), mutant

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        loader = MutantLoader(name, self.path)
        loader.mutant = self.mutant
        return importlib.util.spec_from_file_location(name, self.path, loader=loader)


class MutantLoader(importlib.machinery.SourceFileLoader):
    """Compiles a file with one node changed."""

    def get_code(self, name):
        tree = ast.parse(Path(self.path).read_text())
        node = next(node for number, node in enumerate(ast.walk(tree)) if number == self.mutant.number)
        setattr(node, self.mutant.field, self.mutant.value)
        return compile(ast.fix_missing_locations(tree), self.path, "exec")


def _import_libraries() -> None:
    import tests.conftest  # noqa: F401  the environment of the tests
    from tests.processes import LIBRARIES

    for name in ("pytest", *LIBRARIES):
        importlib.import_module(name)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # anyio's takes half a second
    gc.freeze()  # pytest collects garbage ten times, which takes a second with the libraries' objects


if __name__ == "__main__":
    sys.exit(main())
