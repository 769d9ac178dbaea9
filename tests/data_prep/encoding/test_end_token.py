"""Documents end with the tokenizer's own end token, or with the user's choice, and text never becomes it."""

import json

import pytest

from data_prep.encoding.end_token import find_end_token, own_end_token
from data_prep.encoding.tokenizer import load_tokenizer
from data_prep.shards.manifest import read_manifest
from data_prep.shards.token_stream import TokenStream
from data_prep.shards.tokenizer_files import copy_tokenizer
from data_prep.tokenize_shards import main
from tests.data_prep.encoding.tokenizer_kinds import END_TOKENS, TEXTS, write_tokenizer
from tests.data_prep.tokenizing.test_interrupted import RUN_JOBS, run_jobs_here


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(RUN_JOBS, run_jobs_here)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    return {kind: write_tokenizer(folder / kind, kind) for kind in END_TOKENS}


def tokenize(folder, output, texts, *more):
    """Run the command on texts, one per row; return its exit status."""
    raw = output.with_suffix(".jsonl")
    raw.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return main(["--input", str(raw), "--tokenizer", str(folder), "--output", str(output), *more])


def documents(output):
    """Return the documents of a folder as text, each checked to end with the only end token in it."""
    stream, tokenizer = TokenStream(output), load_tokenizer(output / "tokenizer")
    ids = stream.read(0, stream.num_tokens).tolist()
    borders = stream.documents(0).tolist()
    found = []
    for start, end in zip(borders, borders[1:], strict=False):
        *text, last = ids[start:end]
        assert last == stream.manifest.end_token_id and last not in text
        found.append(tokenizer.decode(text, skip_special_tokens=False))
    return found


@pytest.mark.parametrize("kind", END_TOKENS)
def test_a_tokenizer_ends_documents_with_its_own_end_token(kinds, tmp_path, kind):
    end_token, _ = END_TOKENS[kind]
    hostile = [f"a{end_token}b", end_token, f"x {end_token} y", f"\n{end_token}\n", "<s><bos><|im_start|><unk>"]
    assert tokenize(kinds[kind], tmp_path / "tokens", TEXTS + hostile) == 0
    manifest = read_manifest(tmp_path / "tokens")
    assert manifest.end_token == end_token
    assert manifest.end_token_id == load_tokenizer(kinds[kind]).token_to_id(end_token)
    assert documents(tmp_path / "tokens") == TEXTS + hostile


def test_a_copy_of_the_tokenizer_has_the_same_end_token(kinds, tmp_path):
    for kind, folder in kinds.items():
        (tmp_path / kind).mkdir()
        copy_tokenizer(folder, tmp_path / kind)
        assert own_end_token(tmp_path / kind / "tokenizer") == END_TOKENS[kind][0]


def test_another_end_token_can_be_chosen(kinds, tmp_path):
    assert tokenize(kinds["qwen"], tmp_path / "tokens", TEXTS, "--end_token", "<|endoftext|>") == 0
    assert read_manifest(tmp_path / "tokens").end_token == "<|endoftext|>"
    assert documents(tmp_path / "tokens") == TEXTS


def test_without_settings_gpt2s_end_token_is_taken(kinds, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes((kinds["qwen"] / "tokenizer.json").read_bytes())
    assert find_end_token(tmp_path, load_tokenizer(tmp_path)) == "<|endoftext|>"


def test_a_missing_end_token_is_named_with_the_option_and_the_candidates(kinds, tmp_path, capsys):
    (tmp_path / "tokenizer.json").write_bytes((kinds["deepseek"] / "tokenizer.json").read_bytes())
    assert tokenize(tmp_path, tmp_path / "tokens", TEXTS) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path} has no token '<|endoftext|>' to end documents with; name one of its special tokens with "
        "--end_token: '<｜begin▁of▁sentence｜>', '<｜end▁of▁sentence｜>'\n"
    )
    assert not (tmp_path / "tokens").exists()


def test_a_tokenizer_without_special_tokens_is_told_what_to_add(kinds, tmp_path):
    description = json.loads((kinds["qwen"] / "tokenizer.json").read_text())
    description["added_tokens"] = []
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match="no special tokens: add one to added_tokens in tokenizer.json and name it"):
        find_end_token(tmp_path, load_tokenizer(tmp_path))


@pytest.mark.parametrize("end_token", ["123", "<tool_call>"])
def test_a_token_that_text_can_become_is_refused(kinds, end_token):
    tokenizer = load_tokenizer(kinds["qwen"])
    assert tokenizer.token_to_id(end_token) is not None
    with pytest.raises(ValueError, match=f"would become the end token '{end_token}' .* '<.im_start.>'"):
        find_end_token(kinds["qwen"], tokenizer, end_token)


def test_a_folder_begun_with_one_end_token_is_not_finished_with_another(kinds, tmp_path, monkeypatch, capsys):
    def stop(*_, **__):
        raise OSError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(RUN_JOBS, stop)
        assert tokenize(kinds["qwen"], tmp_path / "tokens", TEXTS) == 2
    capsys.readouterr()
    raw = tmp_path / "tokens.jsonl"
    arguments = ["--input", str(raw), "--tokenizer", str(kinds["qwen"]), "--output", str(tmp_path / "tokens")]
    assert main([*arguments, "--end_token", "<|endoftext|>"]) == 2
    error = capsys.readouterr().err
    assert "has end_token <|im_end|>, but this command has <|endoftext|>" in error
    assert main(arguments) == 0


@pytest.mark.parametrize(("content", "message"), [("{", "is not JSON"), ("[1]", "holds list, not a JSON object")])
def test_damaged_settings_are_named(tmp_path, content, message):
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(ValueError, match=f"tokenizer_config.json {message}"):
        own_end_token(tmp_path)
