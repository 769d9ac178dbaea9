"""No changed, missing or truncated file passes for the one that the manifest describes."""

import json
from pathlib import Path

import pytest
import xxhash

from tests.damage import damages
from train.checkpoint.files.hashed_file import Run
from train.checkpoint.files.manifest import (
    MANIFEST,
    check_digests,
    check_sizes,
    describe_files,
    manifest_bytes,
    read_manifest,
)

FILES = {"config.json": b'{"hidden_size": 16}', "training/rank_00000.safetensors": bytes(range(256)) * 8}


def runs(name: str, begin: int, end: int) -> list[Run]:
    return [Run(begin, end - begin, xxhash.xxh3_128_hexdigest(FILES[name][begin:end]))]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two files and their manifest; the second file has three runs, of two ranks."""
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    first, second = FILES
    rank_0 = {first: runs(first, 0, 19), second: [*runs(second, 0, 100), *runs(second, 1000, 2048)]}
    files = describe_files([rank_0, {second: runs(second, 100, 1000)}])
    (tmp_path / MANIFEST).write_bytes(manifest_bytes({"step": 1, "files": files}))
    return tmp_path


def is_sound(folder: Path) -> bool:
    try:
        manifest = read_manifest(folder)
        check_sizes(folder, manifest)
        check_digests(folder, manifest)
    except (OSError, ValueError):
        return False
    return True


def test_a_manifest_reads_back_as_it_was_written(folder):
    manifest = read_manifest(folder)
    assert manifest["step"] == 1 and manifest["files"].keys() == FILES.keys()
    assert [size for size, _ in manifest["files"]["config.json"]] == [19]
    assert [size for size, _ in manifest["files"]["training/rank_00000.safetensors"]] == [100, 900, 1048]
    assert json.loads((folder / MANIFEST).read_bytes())["checkpoint"] == manifest


def test_a_thousand_flipped_bits_and_truncations_are_all_noticed(folder):
    for path in damages([folder / name for name in (MANIFEST, *FILES)], number=1000):
        assert not is_sound(folder), f"{path} with {path.stat().st_size} bytes"
    assert is_sound(folder)


@pytest.mark.parametrize("name", [MANIFEST, *FILES])
def test_damage_is_reported_with_the_name_of_the_file(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    last = {"config.json": "0 to 18", "training/rank_00000.safetensors": "1000 to 2047"}
    with pytest.raises(ValueError, match=f"{name} is damaged.*{last.get(name, '')}"):
        check_digests(folder, read_manifest(folder))


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        ((10, 19), "no rank has written the bytes 8 to 9 of config.json"),
        ((5, 19), "two ranks have written the bytes 5 to 7 of config.json"),
    ],
)
def test_bytes_that_no_rank_or_two_have_written_are_refused(second, problem):
    with pytest.raises(ValueError, match=problem):
        describe_files([{"config.json": runs("config.json", *second)}, {"config.json": runs("config.json", 0, 8)}])


def test_a_missing_file_is_noticed_without_reading_any(folder):
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json is missing, but was written with 19 bytes"):
        check_sizes(folder, read_manifest(folder))


def test_ranks_share_the_checking_of_digests(folder):
    (folder / "config.json").write_bytes(b"x" * 19)
    manifest, num_damages = read_manifest(folder), 0
    for part in range(2):
        try:
            check_digests(folder, manifest, part=part, num_parts=2)
        except ValueError:
            num_damages += 1
    assert num_damages == 1


def test_a_manifest_with_another_digest_than_its_own_is_damaged(tmp_path):
    (tmp_path / MANIFEST).write_bytes(manifest_bytes({"step": 1}).replace(b"1", b"2", 1))
    with pytest.raises(ValueError, match="is damaged"):
        read_manifest(tmp_path)
    with pytest.raises(ValueError, match=r"has no manifest.json: it was never completed"):
        read_manifest(tmp_path / "nowhere")
