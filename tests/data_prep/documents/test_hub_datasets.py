"""Hugging Face data sets are raw shards like files: saved, local or streamed, in the number of shards given."""

import json

import pytest
import xxhash

from data_prep.documents.document_rules import DocumentRules
from data_prep.documents.raw_shards import find_raw_shards, read_documents
from data_prep.documents.skipped import SkippedRecords
from data_prep.encoding.tokenizer import load_tokenizer
from data_prep.shards.token_stream import TokenStream
from data_prep.tokenizing.sources import read_sources
from data_prep.tokenizing.tokenize_folder import tokenize_folder

ROWS = [f"row {number}" for number in range(9)]


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def local(tmp_path):
    folder = tmp_path / "local"
    folder.mkdir()
    for number in range(3):
        rows = [json.dumps({"text": row}) for row in ROWS[3 * number : 3 * number + 3]]
        (folder / f"train-{number}.jsonl").write_text("\n".join(rows))
    return folder


@pytest.fixture
def saved(tmp_path):
    from datasets import Dataset

    Dataset.from_dict({"text": ROWS}).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def texts(given, rules=DocumentRules()):
    shards = find_raw_shards([given], text_field=rules.text_field)
    return [list(read_documents(shard, rules)) for shard in shards]


def test_a_saved_and_a_local_data_set_are_read_in_order(saved, local):
    assert texts(f"hf:{saved}") == texts(f"hf:{local}") == [ROWS]


def test_a_data_set_is_divided_into_num_shards(saved):
    assert texts(f"hf:{saved}?num_shards=2") == [ROWS[:5], ROWS[5:]]


def test_a_stream_is_divided_by_its_files(local):
    assert texts(f"hf:{local}?streaming=true") == [ROWS[:3], ROWS[3:6], ROWS[6:]]
    assert texts(f"hf:{local}?streaming=true&num_shards=1") == [ROWS]


def test_rows_are_grouped_by_the_rule(saved):
    rules = DocumentRules(document_rule="line", lines_per_document=8)
    assert texts(f"hf:{saved}", rules) == [["\n".join(ROWS[:8]), ROWS[8]]]


def test_a_loading_script_is_refused_with_what_to_download(tmp_path):
    (tmp_path / "cc100").mkdir()
    (tmp_path / "cc100" / "cc100.py").write_text("import datasets\n")
    message = r"needs a loading script, which datasets .* refuses; download https://.*/en.txt.xz .* --input FILE"
    with pytest.raises(ValueError, match=message):
        texts(f"hf:{tmp_path}/cc100")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("?text_column=a", "has the option 'text_column'; choose from name, split, revision, streaming"),
        ("?num_shards=many", "num_shards='many' is not a number"),
        ("?num_shards=0", "cannot be divided into 0 shards; it has 9 rows"),
        ("?num_shards=10", "cannot be divided into 10 shards; it has 9 rows"),
    ],
)
def test_invalid_options_are_refused(saved, options, message):
    with pytest.raises(ValueError, match=message):
        texts(f"hf:{saved}{options}")


def test_a_stream_has_no_more_shards_than_files(local):
    with pytest.raises(ValueError, match="cannot be divided into 4 shards; it has 3 files"):
        texts(f"hf:{local}?streaming=true&num_shards=4")


def test_a_missing_column_is_refused(saved):
    with pytest.raises(ValueError, match=r"has no column 'body' \(it has text\); choose with --text_field"):
        texts(f"hf:{saved}", DocumentRules("body"))


def test_a_dotted_field_leads_into_nested_columns(tmp_path):
    from datasets import Dataset

    Dataset.from_dict({"meta": [{"body": row} for row in ROWS]}).save_to_disk(tmp_path / "nested")
    assert texts(f"hf:{tmp_path}/nested", DocumentRules("meta.body")) == [ROWS]
    with pytest.raises(ValueError, match="row 0 holds no text in column 'meta.text'"):
        texts(f"hf:{tmp_path}/nested", DocumentRules("meta.text"))


def test_a_data_set_that_cannot_be_opened_is_refused(tmp_path):
    with pytest.raises(OSError, match="nobody/nothing"):
        texts("hf:nobody/nothing")


def test_a_data_set_becomes_token_shards(saved, tmp_path, tokenizer_folder):
    given = f"hf:{saved}?num_shards=2"
    manifest = tokenize_folder([given], tokenizer=tokenizer_folder, output=tmp_path / "tokens", num_workers=2)
    stream = TokenStream(tmp_path / "tokens")
    text = load_tokenizer(tokenizer_folder).decode(stream.read(0, stream.num_tokens).tolist())
    assert text == "".join(ROWS)
    assert [shard.name for shard in manifest.shards] == ["00000-saved", "00001-saved"]
    sources = [each.part.source for each in read_sources(tmp_path / "tokens", manifest)]
    assert sources == [f"{given}, shard 0 of 2", f"{given}, shard 1 of 2"]


def test_the_digest_tells_rows_that_are_divided_otherwise(tmp_path):
    from datasets import Dataset

    def digest_of(rows):
        folder = tmp_path / "-".join(rows)
        Dataset.from_dict({"text": rows}).save_to_disk(folder)
        (shard,) = find_raw_shards([f"hf:{folder}"])
        digest = xxhash.xxh3_128()
        list(shard.read_parts(DocumentRules(), SkippedRecords("a"), print, digest=digest))
        return digest.digest()

    assert digest_of(["one", "two"]) != digest_of(["onet", "wo"])
