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


def test_an_alias_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"file.yaml uses the alias \*a; write its value out"):
        read(tmp_path, "a: &a [lol, lol]\nb: &b [*a, *a]\nc: [*b, *b]\n")


@pytest.mark.parametrize("opening", ["[", "? ", "- ", "a: {"])
def test_a_file_that_is_nested_too_deeply_is_refused_in_one_line(tmp_path, opening):
    with pytest.raises(ValueError, match="file.yaml is nested too deeply; it may have some hundred levels$"):
        read(tmp_path, opening * 1500)


@pytest.mark.parametrize(
    "text",
    ["a: " + "9" * 5000, "a: 2024-99-99", "\t" * 9000, '"' + "\\n" * 9000],
    ids=["number", "date", "tabs", "quote"],
)
def test_a_message_is_one_short_line(tmp_path, text):
    with pytest.raises(ValueError, match="file.yaml is not YAML: ") as error:
        read(tmp_path, text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


def test_a_file_above_a_mebibyte_is_refused_before_it_is_parsed(tmp_path):
    with pytest.raises(ValueError, match="file.yaml has 2000000 bytes, but a YAML file may have 1048576; divide it"):
        read(tmp_path, "[" * 2_000_000)


def test_many_names_are_compared_in_linear_time(tmp_path):
    names = [f"part-{number}" for number in range(5000)]
    assert list(read(tmp_path, "".join(f"{name}: 1\n" for name in names))) == names  # 25 million comparisons otherwise
