"""Tensor files are ordinary .safetensors with reproducible bytes."""

import numpy as np
import pytest
import xxhash
from safetensors import safe_open
from safetensors.numpy import save_file

from data_prep.storage.tensor_file import check_schema, read_tensors, write_tensors

TENSORS = {"table": np.arange(6, dtype=np.int32).reshape(2, 3), "load": np.array([2**40, 7])}
METADATA = {"kind": "test", "schema_version": "1", "seed": "0"}


def test_safetensors_reads_what_was_written(tmp_path):
    write_tensors(tmp_path / "file.safetensors", TENSORS, metadata=METADATA)
    with safe_open(tmp_path / "file.safetensors", framework="numpy") as file:
        assert file.metadata() == METADATA | {"file_xxh3": "2f616eeb4522e4490d28c15180b0e306"}
        assert {name: file.get_tensor(name).tolist() for name in TENSORS} == {
            "table": [[0, 1, 2], [3, 4, 5]],
            "load": [2**40, 7],
        }


def test_the_order_of_arguments_does_not_change_the_bytes(tmp_path):
    write_tensors(tmp_path / "a", TENSORS, metadata=METADATA)
    write_tensors(tmp_path / "b", dict(reversed(TENSORS.items())), metadata=dict(reversed(METADATA.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "file.safetensors"
    write_tensors(path, TENSORS, metadata=METADATA)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="file.safetensors is not a complete .safetensors file"):
        read_tensors(path)


def test_the_digest_is_that_of_the_file_with_zeros_in_place_of_the_digest(tmp_path):
    path = tmp_path / "file.safetensors"
    lookalike = {"before": "0" * 64, "f": '"file_xxh3":"' + "0" * 32 + '"'}
    write_tensors(path, TENSORS, metadata=lookalike)
    digest = read_tensors(path)[1]["file_xxh3"]
    assert path.read_bytes().count(digest.encode()) == 1
    assert xxhash.xxh3_128_hexdigest(path.read_bytes().replace(digest.encode(), b"0" * 32)) == digest


def test_a_changed_byte_is_refused_with_both_digests(tmp_path):
    path = tmp_path / "file.safetensors"
    write_tensors(path, TENSORS, metadata=METADATA)
    written = read_tensors(path)[1]["file_xxh3"]
    path.write_bytes(path.read_bytes().replace(b'"seed":"0"', b'"seed":"1"'))
    with pytest.raises(ValueError, match=f"is damaged: it has digest .{{32}} but was written with {written}"):
        read_tensors(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.safetensors does not exist"):
        read_tensors(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize(("kind", "version"), [("test", 2), ("other", 1)])
def test_another_kind_or_version_is_refused(kind, version):
    with pytest.raises(ValueError, match=rf"holds test \(schema_version 1\), but {kind} \(schema_version {version}\)"):
        check_schema("file", METADATA, kind=kind, schema_version=version)


def test_a_file_without_its_digest_is_refused(tmp_path):
    save_file(TENSORS, tmp_path / "file.safetensors", metadata=METADATA)
    with pytest.raises(ValueError, match="file.safetensors names no file_xxh3: it is damaged or from another program"):
        read_tensors(tmp_path / "file.safetensors")
