"""Recipes, mixtures, tokenizers, weights and token shards from strangers end as raw files do."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import pytest
import xxhash

from data_prep import build_table, count_tokens, import_table, prepare, tokenize_shards, verify
from data_prep.documents.document_rules import DocumentRules
from data_prep.shards.manifest import read_manifest
from data_prep.storage.sealed_json import sealed_json
from data_prep.tokenizing.tokenize_folder import tokenize_folder
from data_prep.tokenizing.unfinished import SPEC_KIND, SPEC_NAME, spec_of
from tests.data_prep.documents.raw_shards import write_raw_shard
from tests.data_prep.hostile.command_runs import check_ending, run_command
from tests.data_prep.shards.test_token_stream import edit_manifest

DEEP = b"[" * 100_000
NAME = "model.layers.0.mlp.gate.tid2eid"

RULES = asdict(DocumentRules())


class Case(NamedTuple):
    """The content of a file, and the line with which the command that reads it ends."""

    name: str
    content: bytes
    message: str


def weights(entry: object, *, length: int | None = None) -> bytes:
    """Return a .safetensors file with this entry for one tensor."""
    header = json.dumps({NAME: entry}).encode()
    return (len(header) if length is None else length).to_bytes(8, "little") + header + bytes(8)


def tensor(**fields: object) -> bytes:
    return weights({"dtype": "I64", "shape": [1, 1], "data_offsets": [0, 8]} | fields)


def bomb(levels: int) -> bytes:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines).encode()


YAML = [
    Case("empty", b"", "it has None|must read"),
    Case("aliases", bomb(30), r"file.yaml uses the alias \*a0; write its value out"),
    Case("one alias", b"parts: {a: &a {input: x}, b: *a}", r"file.yaml uses the alias \*a"),
    Case("deep list", DEEP[:1500], "file.yaml is nested too deeply"),
    Case("deep mapping", b"{a: " * 5000, "file.yaml is nested too deeply"),
    Case("2 MB", b"- x\n" * 500_000, "file.yaml has 2000000 bytes, but a YAML file may have 1048576"),
    Case("python", b"!!python/object/apply:os.system ['touch planted']", "file.yaml is not YAML: could not determine"),
    Case("binary", bytes(range(256)), "file.yaml is not YAML"),
    Case("twice", b"parts: {a: 1, a: 2}", "file.yaml names 'a' twice"),
    Case("long number", b"parts: {a: {input: x, epochs: " + b"9" * 5000 + b"}}", "file.yaml is not YAML: Exceeds the"),
    Case("long list", b"[" + b"x, " * 9999 + b"]", "file.yaml (must have parts|is not a mixture)"),
]
EPOCHS = ["1e30", "'1e30000000'", "'1e-30000000'", "-1", ".nan", ".inf", "1/0", "[1]", "'" + "1" * 9999 + "'"]
TOKENIZERS = [
    Case("empty", b"", "tokenizer.json cannot be loaded"),
    Case("object", b"{}", "tokenizer.json cannot be loaded"),
    Case("null", b"null", "tokenizer.json cannot be loaded"),
    Case("deep", DEEP, "tokenizer.json cannot be loaded"),
    Case("binary", bytes(range(256)), "tokenizer.json cannot be loaded"),
]
WEIGHTS = [
    Case("empty", b"", "is not a complete .safetensors file"),
    Case("longest header", weights({}, length=2**63), "is not a complete .safetensors file"),
    Case("deep header", len(DEEP).to_bytes(8, "little") + DEEP, "is not a complete .safetensors file"),
    Case("bytes before the data", tensor(data_offsets=[-8, 8]), "is not a complete .safetensors file"),
    Case("bytes after the data", tensor(data_offsets=[0, 2**40]), "is not a complete .safetensors file"),
    Case("another shape", tensor(shape=[2**31, 2**31]), "is not a complete .safetensors file"),
    Case("no shape", weights({"dtype": "I64", "data_offsets": [0, 8]}), "is not a complete .safetensors file"),
    Case("unknown dtype", tensor(dtype="I65"), "is not a complete .safetensors file"),
]
INDEXES = [
    Case("empty", b"", "index.json is not an index of tensors"),
    Case("object", b"{}", "index.json is not an index of tensors"),
    Case("deep", DEEP, "index.json is not an index of tensors"),
    Case("number", b'{"weight_map": {"a": 1}}', "index.json is not an index of tensors"),
    Case("above", b'{"weight_map": {"a": "../a.safetensors"}}', "is not a .safetensors file of its folder"),
    Case("absolute", b'{"weight_map": {"a": "/etc/passwd"}}', "is not a .safetensors file of its folder"),
]
MANIFESTS = [
    Case("empty", b"", "manifest.json"),
    Case("list", b"[]", "manifest.json"),
    Case("object", b"{}", "manifest.json"),
    Case("binary", bytes(range(256)), "manifest.json"),
    Case("cut", b'{"kind": "token_shards"', "manifest.json"),
]


class Edit(NamedTuple):
    """A change of an honest manifest, which is sealed again, and the line with which a command refuses it."""

    name: str
    change: Callable[[dict], object]
    message: str


def of_all(name: str, message: str, /, **fields: object) -> Edit:
    return Edit(name, lambda values: values.update(fields), message)


def of_shard(name: str, message: str, /, **fields: object) -> Edit:
    return Edit(name, lambda values: values["shards"][0].update(fields), message)


SEALED = [
    Edit("no fields", dict.clear, "schema_version None, this code reads 2"),
    Edit("no version", lambda values: values.pop("schema_version"), "schema_version None, this code reads 2"),
    of_all("list for a version", r"schema_version \[\[2\]\], this code reads 2", schema_version=[[2]]),
    of_all("true for a version", "schema_version True, this code reads 2", schema_version=True),
    of_all("no shards", "shards of Manifest is None, not tuple", shards=None),
    of_all("shards of numbers", "shards of Manifest is 1, not Shard", shards=[1]),
    of_all("object for shards", "shards of Manifest is {}, not tuple", shards={}),
    of_all("unknown rule", "document_rule 'x' is not one of auto", rules=dict(RULES, document_rule="x")),
    of_all("number for a rule", "document_rule of DocumentRules is 1, not str", rules=dict(RULES, document_rule=1)),
    of_all("unknown field of rules", "DocumentRules has the wrong fields: .'colour'", rules=dict(RULES, colour="red")),
    of_all("no rules", "rules of Manifest is None", rules=None),
    of_all("long rule", "document_rule 'xxx", rules=dict(RULES, document_rule="x" * 10**6)),
    of_all("unknown dtype", "dtype is 'zz', but its vocabulary and shards give 'uint16'", dtype="zz"),
    of_all("other dtype", "dtype is 'int32', but its vocabulary and shards give 'uint16'", dtype="int32"),
    of_all("no ids", "vocab_size is 0, not 1 to 2147483648", vocab_size=0),
    of_all("too many ids", "vocab_size is 1000.*000, not 1 to 2147483648", vocab_size=10**4000),
    of_all("ids for text", "vocab_size of Manifest is '9', not int", vocab_size="9"),
    of_all("negative end token", "end_token_id -1 is not below vocab_size 260", end_token_id=-1),
    of_all("end token outside", "end_token_id 260 is not below vocab_size 260", end_token_id=260),
    of_all("end token of several", r"end_token of Manifest is \['a'\], not str", end_token=["a"]),
    of_all("text for a sum", "num_tokens of Manifest is '1', not int", num_tokens="1"),
    of_all("fraction for a sum", "num_tokens of Manifest is 1.5, not int", num_tokens=1.5),
    of_all("other sum", "num_tokens is 1, but its vocabulary and shards give", num_tokens=1),
    of_all("other documents", "num_documents is 1, but its vocabulary and shards give", num_documents=1),
    of_all("list for sources", r"sources of Manifest is \[\], not", sources=[]),
    of_all("list for tokenizer", r"tokenizer_files of Manifest is \[\], not TokenizerFile", tokenizer_files=[[]]),
    of_all(
        "code for tokenizer", "'a.py' is not one of a token", tokenizer_files=[{"name": "a.py", "size": 1, "xxh3": ""}]
    ),
    Edit("twice", lambda values: values["shards"].append(values["shards"][0]), "num_tokens is"),
    of_shard("empty blocks", "has block_bytes=0, not 1 to 1048576", block_bytes=0),
    of_shard("negative blocks", "has block_bytes=-4096, not 1 to 1048576", block_bytes=-4096),
    of_shard("large blocks", "has block_bytes=1099511627776, not 1 to 1048576", block_bytes=2**40),
    of_shard("true for blocks", "block_bytes of Shard is True, not int", block_bytes=True),
    of_shard("negative tokens", "has num_tokens=-1, num_documents=", num_tokens=-1),
    of_shard("8 EiB of tokens", "has num_tokens=9223372036854775808, num_documents=", num_tokens=2**63),
    of_shard("text for tokens", "num_tokens of Shard is '1', not int", num_tokens="1"),
    of_shard("long digest", "has digests that are not 32 and 16 hex digits", sums_xxh3="0" * 33),
    of_shard("digest of lines", "has digests that are not 32 and 16 hex digits", index_xxh3="0" * 15 + "\n"),
    of_shard("number for a digest", "index_xxh3 of Shard is 0, not str", index_xxh3=0),
    of_shard("above", "'../tokens' is not a plain name of a shard", name="../tokens"),
    of_shard("absolute", "'/etc/passwd' is not a plain name of a shard", name="/etc/passwd"),
    of_shard("hidden", "'.a' is not a plain name of a shard", name=".a"),
    of_shard("no name", "'' is not a plain name of a shard", name=""),
    of_shard("nul", r"'a\\x00' is not a plain name of a shard", name="a\0"),
    of_shard("long name", "'aaaaaaaaaaaa...aaaaaaaaaaaaa' is not a plain name of a shard", name="a" * 10**6),
    of_shard("other name", "a.bin is listed in the manifest but missing", name="a"),
]


def by_name(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


@by_name(YAML)
def test_a_recipe(tmp_path, tokenizer_folder, case):
    file = write(tmp_path / "file.yaml", case.content)
    arguments = [file, "--raw", tmp_path, "--tokenizer", tokenizer_folder, "--output", tmp_path / "out"]
    check_ending(run_command(prepare.main, arguments, tmp_path / "log"), 2, case.message)
    assert not Path("planted").exists()


@by_name(YAML)
def test_a_mixture(tmp_path, case):
    file = write(tmp_path / "file.yaml", case.content)
    check_ending(_count(file, tmp_path), 2, case.message)


@pytest.mark.parametrize("epochs", EPOCHS, ids=lambda epochs: epochs[:12])
def test_epochs(tmp_path, epochs):
    file = write(tmp_path / "file.yaml", f"parts: {{a: {epochs}}}".encode())
    message = "file.yaml gives 'a' epochs=.*(which is not a number|must be from 0 to 1,000,000)"
    check_ending(_count(file, tmp_path), 2, message)


@by_name(TOKENIZERS)
def test_a_tokenizer(tmp_path, case):
    folder = write(tmp_path / "tokenizer" / "tokenizer.json", case.content).parent
    raw = write_raw_shard(tmp_path / "a.txt", ["one"])
    arguments = ["--input", raw, "--tokenizer", folder, "--output", tmp_path / "out"]
    check_ending(run_command(tokenize_shards.main, arguments, tmp_path / "log"), 2, case.message)


@by_name(WEIGHTS)
def test_the_weights_of_a_model(tmp_path, tokenizer_folder, case):
    file = write(tmp_path / "model.safetensors", case.content)
    check_ending(_import(file, tokenizer_folder, tmp_path), 2, case.message)


@by_name(INDEXES)
def test_the_index_of_a_model(tmp_path, tokenizer_folder, case):
    folder = write(tmp_path / "model" / "model.safetensors.index.json", case.content).parent
    check_ending(_import(folder, tokenizer_folder, tmp_path), 2, case.message)


@by_name(WEIGHTS)
def test_counts(tmp_path, case):
    file = write(tmp_path / "counts.safetensors", case.content)
    arguments = ["--counts", file, "--num_experts", 4, "--output", tmp_path / "table.safetensors"]
    check_ending(run_command(build_table.main, arguments, tmp_path / "log"), 2, "counts.safetensors")


@by_name(MANIFESTS)
def test_a_manifest(tmp_path, case):
    folder = write(tmp_path / "tokens" / "manifest.json", case.content).parent
    check_ending(_count(folder, tmp_path), 2, case.message)


@by_name(SEALED)
def test_a_sealed_manifest(tmp_path, tokens, case):
    folder = shutil.copytree(tokens, tmp_path / "tokens")
    edit_manifest(folder, case.change)
    check_ending(_count(folder, tmp_path), 2, case.message)


@pytest.mark.parametrize("content", [DEEP + b"]" * len(DEEP), b"[]", b"null", b"9" * 5000], ids=len)
def test_a_sealed_manifest_that_is_no_object(tmp_path, content):
    head = b'{"xxh3": "%s", "token_shards":\n' % xxhash.xxh3_128_hexdigest(content).encode()
    folder = write(tmp_path / "tokens" / "manifest.json", head + content + b"}\n").parent
    check_ending(_count(folder, tmp_path), 2, "manifest.json (is damaged: |has schema_version None)")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory, tokenizer_folder):
    folder = tmp_path_factory.mktemp("tokens")
    raw = write_raw_shard(folder / "a.txt", ["one", "two"] * 99)
    tokenize_folder([raw], tokenizer=tokenizer_folder, output=folder / "tokens")
    return folder / "tokens"


@pytest.mark.parametrize("suffix", ["idx", "bin"])
@pytest.mark.parametrize("damage", [lambda _: b"", lambda _: DEEP, lambda old: old[:-1], lambda old: old + b"\0"])
def test_a_token_shard(tmp_path, tokens, suffix, damage):
    folder = shutil.copytree(tokens, tmp_path / "tokens")
    (file,) = folder.glob(f"*.{suffix}")
    file.write_bytes(damage(file.read_bytes()))
    check_ending(run_command(verify.main, [folder], tmp_path / "log"), 1, file.name)


def test_the_plan_of_an_extension_stays_in_its_folder(tmp_path, tokens, tokenizer_folder):
    folder = shutil.copytree(tokens, tmp_path / "tokens")
    spec = spec_of(read_manifest(folder)).to_json()
    write(folder / SPEC_NAME, sealed_json({"spec": spec, "shards": [["../victim", []]]}, kind=SPEC_KIND))
    victim = write(tmp_path / "victim.bin", b"another's")
    arguments = ["--input", tokens.parent / "a.txt", "--tokenizer", tokenizer_folder, "--output", folder, "--extend"]
    ending = run_command(tokenize_shards.main, arguments, tmp_path / "log")
    check_ending(ending, 2, "'../victim' is not the name of a token shard")
    assert victim.read_bytes() == b"another's"


def _count(data, folder):
    return run_command(count_tokens.main, [data, "--output", folder / "counts.safetensors"], folder / "log")


def _import(model, tokenizer, folder):
    options = ["--format", "deepseek", "--num_experts", 4, "--tokenizer", tokenizer, "--output", folder / "out"]
    return run_command(import_table.main, [model, *options], folder / "log")
