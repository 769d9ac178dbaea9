"""The embedded corpus has every help topic of Python once, and holds a twelfth of them out."""

from pydoc_data.topics import topics

from data_prep.documents.raw_shards import find_raw_shards, read_documents
from data_prep.embedded_corpus import main


def documents_of(folder):
    return [document for shard in find_raw_shards([folder]) for document in read_documents(shard)]


def test_each_topic_is_one_document_in_one_of_the_two_parts(tmp_path, capsys):
    assert main(["--output", str(tmp_path)]) == 0
    train, valid = documents_of(tmp_path / "train"), documents_of(tmp_path / "valid")
    assert len(train) + len(valid) == len(topics) and not set(train) & set(valid)
    assert 0.05 < len(valid) / len(topics) < 0.11
    assert f"{len(train)} topics for training, {len(valid)} held out" in capsys.readouterr().out


def test_the_files_are_reproducible(tmp_path):
    for name in ("one", "two"):
        main(["--output", str(tmp_path / name)])
    names = ["valid/topics-valid.txt"] + [f"train/topics-{shard:05d}.txt.xz" for shard in range(4)]
    assert [(tmp_path / "one" / n).read_bytes() for n in names] == [(tmp_path / "two" / n).read_bytes() for n in names]
