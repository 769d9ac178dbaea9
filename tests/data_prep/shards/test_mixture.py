"""A mixture is read as written, is counted by its epochs to the last digit, and is refused with the wrong value."""

from fractions import Fraction

import numpy as np
import pytest

from data_prep import count_tokens
from data_prep.counts.count_folders import count_folders
from data_prep.counts.counts_file import read_counts
from data_prep.processes.mpi_ranks import MpiRanks
from data_prep.shards.manifest import read_manifest
from data_prep.shards.mixture import Mixture, Part, read_mixture, read_mixtures, scaled, write_mixture
from data_prep.shards.token_stream import TokenStream
from tests.data_prep.counts.test_count_folders import empty_corpus
from tests.data_prep.shards.test_token_stream import SHARDS, edit_manifest, write_folder


@pytest.fixture
def folder(tmp_path):
    """Two corpora: "one" of 12 tokens, "two" of 5."""
    write_folder(tmp_path / "one")
    write_folder(tmp_path / "two", shards=SHARDS[:1])
    return tmp_path


def mixture(folder, text: str):
    (folder / "mixture.yaml").write_text(text)
    return read_mixture(folder)


def error_of(folder, text: str) -> str:
    with pytest.raises((ValueError, OSError)) as error:
        mixture(folder, text)
    assert str(folder / "mixture.yaml") in str(error.value)
    return str(error.value)


def test_a_folder_of_token_shards_is_one_part_of_one_epoch(folder):
    found = read_mixture(folder / "one")
    assert [(part.stream.num_tokens, part.epochs) for part in found.parts] == [(12, 1)]
    assert found.corpus_digest == read_manifest(folder / "one").corpus_digest


def test_a_file_and_its_folder_name_the_same_mixture(folder):
    write_mixture(folder / "mixture.yaml", {"two": 0.1, "one": 3})
    for path in (folder, folder / "mixture.yaml"):
        found = read_mixture(path)
        assert [part.stream.folder.name for part in found.parts] == ["two", "one"]
        assert found.epochs == [Fraction(1, 10), 3]
        assert (found.vocab_size, found.end_token_id, found.tokenizer_digest) == (10, 9, "sha256:t")


def test_epochs_may_be_written_as_yaml_has_them(folder):
    assert mixture(folder, "parts: {one: 1e-3, two: 2.50}").epochs == [Fraction(1, 1000), Fraction(5, 2)]
    assert mixture(folder, "parts: {one: 1/3}").epochs == [Fraction(1, 3)]


def test_a_part_of_0_epochs_is_skipped(folder):
    found = mixture(folder, "parts: {one: 0, two: 1}")
    assert found.corpus_digest == read_manifest(folder / "two").corpus_digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parts: {one: often}", "'one' epochs='often', which is not a number"),
        ("parts: {one: .nan}", "'one' epochs=nan, which is not a number"),
        ("parts: {one: .inf}", "'one' epochs=inf, which is not a number"),
        ("parts: {one: true}", "'one' epochs=True, which is not a number"),
        ("parts: {one:}", "'one' epochs=None, which is not a number"),
        ("parts: {one: 1/0}", "'one' epochs='1/0', which is not a number"),
        ("parts: {one: -0.5}", "'one' epochs=-0.5; it must be from 0 to 1,000,000"),
        ("parts: {one: 1e6, two: 1e7}", "'two' epochs='1e7'; it must be from 0 to 1,000,000"),
        ("parts: {one: '1e30000000'}", "'one' epochs='1e30000000', which is not a number"),
        ("parts: {one: '1e-30000000'}", "'one' epochs='1e-30000000', which is not a number"),
        ("parts: {one: 0, two: 0.0}", "no part with epochs above 0: {'one': 0, 'two': 0.0}"),
        ("parts: {}", "no part with epochs above 0: {}"),
        ("parts: {one: 1, nowhere: 1}", "names 'nowhere': "),
        ("parts: {one: 1, two: 1, one: 2}", "names 'one' twice"),
        ("parts: {one: {weight: 2}}", "'one' epochs={'weight': 2}, which is not a number"),
        ("parts: {one: 1}\nweights: {one: 2}", "it must read `parts: {FOLDER: EPOCHS, ...}` and nothing else"),
        ("parts: [one, two]", "is not a mixture"),
        ("one: 1", "is not a mixture"),
        ("", "is not a mixture"),
        ("parts: {one: 1", "is not YAML"),
    ],
)
def test_a_file_that_is_not_a_mixture_is_refused_with_its_name_and_value(folder, text, message):
    assert message in error_of(folder, text)


def test_parts_of_different_tokenizers_are_refused(folder):
    write_folder(folder / "other", shards=[])
    digest = "sha256:" + "0" * 64
    change = {"tokenizer_digest": digest, "corpus_digest": empty_corpus(digest)}
    edit_manifest(folder / "other", lambda values: values.update(change))
    with pytest.raises(ValueError, match=f"one was tokenized with sha256:t but .*other with {digest}"):
        mixture(folder, "parts: {one: 1, other: 1}")


def test_a_folder_of_token_shards_with_a_mixture_is_ambiguous(folder):
    write_mixture(folder / "one" / "mixture.yaml", {"../two": 1})
    with pytest.raises(ValueError, match="one holds both manifest.json and mixture.yaml"):
        read_mixture(folder / "one")


def test_a_mixture_that_cannot_be_read_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="'one' epochs=-1"):
        write_mixture(tmp_path / "mixture.yaml", {"one": -1})
    assert list(tmp_path.iterdir()) == []


def test_the_digest_follows_parts_order_and_epochs(folder):
    texts = ["one: 1", "two: 1", "one: 1, two: 1", "two: 1, one: 1", "one: 2, two: 1", "one: 1, two: 2", "one: 2"]
    assert len({mixture(folder, f"parts: {{{text}}}").corpus_digest for text in texts}) == len(texts)
    same = ["one: 1, two: 0.5", "one: 1.0, two: 1/2", "one: 1, two: 5e-1"]
    assert len({mixture(folder, f"parts: {{{text}}}").corpus_digest for text in same}) == 1


@pytest.mark.parametrize(("factor", "expected"), [("1/2", [0, 1, 1, 2]), ("0.1", [0, 0, 0, 0]), ("2.5", [0, 3, 5, 8])])
def test_halves_are_rounded_up(factor, expected):
    assert scaled(np.arange(4), Fraction(factor)).tolist() == expected


def test_numbers_beyond_the_digits_of_a_float_are_exact():
    number = np.array([[2**53 + 1], [0]])
    assert scaled(number, Fraction("3")).tolist() == [[3 * 2**53 + 3], [0]]


# ---- counts ----


def counts_of(*paths, **options):
    return count_folders(paths, **options).counts.tolist()


@pytest.mark.parametrize("options", [{}, {"hash_key": "previous", "context_length": 2}])
def test_counts_of_a_mixture_are_those_of_its_parts_times_their_epochs(folder, options):
    mixture(folder, "parts: {one: 0.5, two: 3}")
    one, two = counts_of(folder / "one", **options), counts_of(folder / "two", **options)
    expected = [(a + 1) // 2 + 3 * b for a, b in zip(one, two, strict=True)]
    assert counts_of(folder, **options) == expected


def test_one_epoch_of_each_part_counts_as_two_folders(folder):
    mixture(folder, "parts: {one: 1, two: 1}")
    together = count_folders([folder / "one", folder / "two"])
    found = count_folders([folder])
    assert (found.counts.tolist(), found.corpus_digest) == (together.counts.tolist(), together.corpus_digest)


def test_mixtures_are_counted_together(folder):
    mixture(folder, "parts: {one: 2}")
    assert read_mixtures([folder, folder / "two"]).epochs == [2, 1]
    assert sum(counts_of(folder, folder / "two")) == 2 * 12 + 5


def test_counts_are_rounded_after_the_ranks_are_summed(folder, monkeypatch):
    monkeypatch.setattr("data_prep.shards.contexts.CHUNK_TOKENS", 2)  # half of the tokens for each rank
    write_folder(folder / "halves", shards=[[[1, 9]], [[1, 9]]])
    mixture(folder, "parts: {halves: 1/2}")
    shares = []

    class Ranks(MpiRanks):
        def sum(self, numbers):
            shares.append(numbers.copy())
            return sum(shares)

    found = [counts_of(folder, ranks=Ranks(rank, 2)) for rank in (1, 0)]
    assert [share.sum() for share in shares] == [2, 2]
    assert found[-1] == counts_of(folder) == [0, 1, 0, 0, 0, 0, 0, 0, 0, 1]


def test_the_command_writes_counts_beside_the_mixture(folder, capsys):
    mixture(folder, "parts: {one: 0.5, two: 3}")
    assert count_tokens.main([str(folder)]) == 0
    counts = read_counts(folder / "counts.safetensors")
    assert counts.corpus_digest == read_mixture(folder).corpus_digest
    assert count_tokens.main([str(folder / "mixture.yaml")]) == 2
    assert "mixture.yaml is a file; name the file for its counts with --output" in capsys.readouterr().err


def test_a_mixture_can_be_made_without_a_file(folder):
    streams = [TokenStream(folder / name) for name in ("one", "two")]
    assert (
        Mixture((Part(streams[0]), Part(streams[1]))).corpus_digest
        == read_mixtures([folder / "one", folder / "two"]).corpus_digest
    )
