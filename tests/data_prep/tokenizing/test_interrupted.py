"""A call killed before any change of the disk keeps its finished shards; repeated, it ends with the same folder."""

import os
import signal

import pytest

from data_prep.documents.document_rules import DocumentRules
from data_prep.shards.manifest import read_manifest
from data_prep.tokenizing.shard_job import ShardTokenizer, finish_shard
from data_prep.tokenizing.tokenize_folder import tokenize_folder
from data_prep.tokenizing.unfinished import SPEC_NAME
from data_prep.train_tokenizer import save_tokenizer, train_tokenizer
from tests.damage import flip_bit
from tests.data_prep.documents.raw_shards import write_raw_shard

NUM_SHARDS = 3
RUN_JOBS = "data_prep.tokenizing.tokenize_folder.run_jobs"


@pytest.fixture
def run(tmp_path, documents, tokenizer_folder, monkeypatch):
    """Return a function that tokenizes three raw shards in this process; it takes the options of tokenize_folder."""
    for number in range(NUM_SHARDS):
        write_raw_shard(tmp_path / "raw" / f"part{number}.txt.gz", documents[number:])
    monkeypatch.setattr(RUN_JOBS, run_jobs_here)

    def tokenize(output, **options):
        options = {"tokenizer": tokenizer_folder, "shard_bytes": 1, **options}
        return tokenize_folder([tmp_path / "raw"], output=tmp_path / output, **options)

    return tokenize


def run_jobs_here(jobs, **_):
    tokenizer = ShardTokenizer(jobs[0].output / "tokenizer", backend="tokenizers", num_threads=1)
    return [finish_shard(job, tokenizer, on_read=lambda n: None, on_tokens=lambda n: None) for job in jobs]


def killed_before_step(number, function):
    """Call `function` in a process that kills itself before step `number`; return whether it reached that step."""
    child = os.fork()
    if child == 0:
        count_steps_down(number)
        try:
            function()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def count_steps_down(number):
    steps = iter(range(number))

    def counted(function):
        def step(*arguments, **options):
            if next(steps, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return step

    for name in ("fsync", "replace", "unlink", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def recorded_files(folder):
    """Return name -> (inode, time of change) for the files of every shard that has a record."""
    files = [path for record in folder.glob("*.done.json") for path in folder.glob(f"{record.name.split('.')[0]}.*")]
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files if path.suffix != ".json"}


def interrupt_after(num_shards, run, output):
    """Leave `output` unfinished, with `num_shards` finished shards."""
    step = 0
    while len(list(output.glob("*.done.json"))) < num_shards:
        assert killed_before_step(step, lambda: run(output.name))
        step += 1


@pytest.mark.parametrize("options", [{}, {"overwrite": True}], ids=["new", "overwrite"])
def test_a_kill_before_any_step_changes_nothing_in_the_end(run, tmp_path, options):
    run("untouched")
    step, is_killed = 0, True
    while is_killed:
        output = tmp_path / f"killed{step}"
        if options:
            run(output.name, rules=DocumentRules("other"))
        before = contents(output)
        is_killed = killed_before_step(step, lambda output=output: run(output.name, **options))
        kept = recorded_files(output) if output.exists() else {}
        if is_killed and (not is_complete(output) or contents(output) == before):
            run(output.name, **options)
        assert contents(output) == contents(tmp_path / "untouched")
        assert kept.items() <= all_files(output).items()
        step += 1
    assert step > 30


def is_complete(folder):
    return (folder / "manifest.json").exists() and not (folder / SPEC_NAME).exists()


def all_files(folder):
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.mark.parametrize("suffix", ["bin", "idx", "sum", "done.json"])
def test_a_finished_shard_that_is_damaged_is_written_again(run, tmp_path, suffix):
    run("untouched")
    output = tmp_path / "tokens"
    interrupt_after(2, run, output)
    kept = recorded_files(output)
    flip_bit(output / f"00001-part1.{suffix}", 5)
    run("tokens")
    assert contents(output) == contents(tmp_path / "untouched")
    assert {name for name, file in kept.items() if all_files(output)[name] == file} == {
        "00000-part0.bin",
        "00000-part0.idx",
        "00000-part0.sum",
    }


def test_a_raw_shard_that_changed_is_read_again(run, tmp_path, documents):
    output = tmp_path / "tokens"
    interrupt_after(2, run, output)
    write_raw_shard(tmp_path / "raw" / "part0.txt.gz", documents[::-1])
    kept = recorded_files(output)
    run("tokens")
    run("untouched")
    assert contents(output) == contents(tmp_path / "untouched")
    assert kept["00001-part1.bin"] == all_files(output)["00001-part1.bin"]
    assert kept["00000-part0.bin"] != all_files(output)["00000-part0.bin"]


def test_another_tokenizer_is_refused_or_starts_over(run, tmp_path, documents):
    other = tmp_path / "other"
    save_tokenizer(train_tokenizer(documents, vocab_size=258), other)
    output = tmp_path / "tokens"
    interrupt_after(2, run, output)
    before = contents(output)
    with pytest.raises(ValueError, match="has tokenizer_digest sha256:.* this command has sha256:.*--overwrite"):
        run("tokens", tokenizer=other)
    assert contents(output) == before
    run("tokens", tokenizer=other, overwrite=True)
    run("untouched", tokenizer=other)
    assert contents(output) == contents(tmp_path / "untouched")


def test_other_arguments_are_refused_with_both_values(run, tmp_path):
    interrupt_after(1, run, tmp_path / "tokens")
    with pytest.raises(ValueError, match="is unfinished and has document_rule auto, but this command has line;"):
        run("tokens", rules=DocumentRules(document_rule="line"))
    (tmp_path / "raw" / "part2.txt.gz").unlink()
    with pytest.raises(ValueError, match="holds text of raw/part2.txt.gz, which this command does not read;"):
        run("tokens")


def test_one_more_raw_shard_of_an_unfinished_folder_is_appended(run, tmp_path, documents):
    interrupt_after(2, run, tmp_path / "tokens")
    kept = recorded_files(tmp_path / "tokens")
    write_raw_shard(tmp_path / "raw" / "part0b.txt.gz", documents)
    with pytest.raises(ValueError, match="has no tokens of .*part0b.txt.gz .1 new raw shards.; repeat .* --extend"):
        run("tokens")
    run("tokens", extend=True)
    assert kept.items() <= all_files(tmp_path / "tokens").items() and len(kept) == 6
    shards = [shard.name for shard in read_manifest(tmp_path / "tokens").shards]
    assert shards == ["00000-part0", "00001-part1", "00002-part2", "00003-part0b"]


def test_a_damaged_spec_is_refused_or_replaced(run, tmp_path):
    run("untouched")
    interrupt_after(1, run, tmp_path / "tokens")
    flip_bit(tmp_path / "tokens" / SPEC_NAME, 60)
    with pytest.raises(ValueError, match="unfinished.json is damaged: its content has digest .*--overwrite"):
        run("tokens")
    run("tokens", overwrite=True)
    assert contents(tmp_path / "tokens") == contents(tmp_path / "untouched")


def test_a_finished_folder_stays_as_it_is(run, tmp_path):
    run("tokens")
    before = all_files(tmp_path / "tokens")
    assert run("tokens").num_documents == 6
    assert all_files(tmp_path / "tokens") == before
    with pytest.raises(ValueError, match="is finished and has document_rule auto, but this command has line;"):
        run("tokens", rules=DocumentRules(document_rule="line"))


def test_two_commands_cannot_write_one_folder(run, monkeypatch):
    monkeypatch.setattr(RUN_JOBS, lambda *_, **__: run("tokens"))
    with pytest.raises(ValueError, match="tokens is being written by another process; wait for it, or stop it"):
        run("tokens")
