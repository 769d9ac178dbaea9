"""A YAML file is read whole, and one that would lose an entry is refused."""

import pytest

from data_prep.storage.yaml_file import read_yaml


def read(folder, text):
    (folder / "file.yaml").write_text(text)
    return read_yaml(folder / "file.yaml")


def test_the_content_is_read(tmp_path):
    assert read(tmp_path, "a: {b: 1}\nc: [2]\n") == {"a": {"b": 1}, "c": [2]}


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "b:\n  a: 1\n  a: 2\n"])
def test_a_name_that_occurs_twice_in_one_mapping_is_refused(tmp_path, text):
    with pytest.raises(ValueError, match="file.yaml names 'a' twice; name it once"):
        read(tmp_path, text)


def test_a_name_may_occur_in_two_mappings(tmp_path):
    assert read(tmp_path, "a: {a: 1}\nb: {a: 2}\n") == {"a": {"a": 1}, "b": {"a": 2}}


def test_a_file_that_is_not_yaml_is_refused(tmp_path):
    with pytest.raises(ValueError, match="file.yaml is not YAML: "):
        read(tmp_path, "a: [1")
