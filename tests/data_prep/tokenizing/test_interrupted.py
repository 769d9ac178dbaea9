"""Killed before any step that reaches the disk, tokenizing again keeps what is finished and makes the same folder."""

import os
import signal

import pytest

from data_prep import tokenize_shards as command
from data_prep.documents.document_rules import DocumentRules
from data_prep.tokenizing.shard_job import ShardTokenizer, finish_shard
from data_prep.tokenizing.unfinished import PLAN_NAME
from data_prep.train_tokenizer import save_tokenizer, train_tokenizer
from tests.damage import flip_bit
from tests.data_prep.raw_shards import write_raw_shard

NUM_SHARDS = 3


@pytest.fixture
def run(tmp_path, documents, tokenizer_folder, monkeypatch):
    """Tokenize three raw shards in this process; the options replace those of the call."""
    for number in range(NUM_SHARDS):
        write_raw_shard(tmp_path / "raw" / f"part{number}.txt", documents[number:])
    monkeypatch.setattr(command, "run_jobs", run_jobs_here)

    def tokenize(output, **options):
        options = {"tokenizer": tokenizer_folder, **options}
        return command.tokenize_shards([tmp_path / "raw"], output=tmp_path / output, **options)

    return tokenize


def run_jobs_here(jobs, **_):
    tokenizer = ShardTokenizer(jobs[0].output / "tokenizer", backend="tokenizers", num_threads=1)
    return [finish_shard(job, tokenizer, on_read=lambda n: None, on_tokens=lambda n: None) for job in jobs]


def killed_before_step(number, function):
    """Call `function` in a process of its own that kills itself before its step `number`; whether it came so far."""
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
    """Inode and time of the files of every shard that has a record."""
    files = [path for record in folder.glob("*.done.json") for path in folder.glob(f"{record.name.split('.')[0]}.*")]
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files if path.suffix != ".json"}


def interrupt_after(num_shards, run, output):
    """Leave a folder with `num_shards` finished shards."""
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
    return (folder / "manifest.json").exists() and not (folder / PLAN_NAME).exists()


def all_files(folder):
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.mark.parametrize("suffix", ["bin", "idx", "done.json"])
def test_a_finished_shard_that_is_damaged_is_made_again(run, tmp_path, suffix):
    run("untouched")
    output = tmp_path / "tokens"
    interrupt_after(2, run, output)
    kept = recorded_files(output)
    flip_bit(output / f"00001-part1.{suffix}", 40)
    run("tokens")
    assert contents(output) == contents(tmp_path / "untouched")
    assert {name for name, file in kept.items() if all_files(output)[name] == file} == {
        "00000-part0.bin",
        "00000-part0.idx",
    }


def test_a_raw_shard_that_changed_is_read_again(run, tmp_path, documents):
    output = tmp_path / "tokens"
    interrupt_after(2, run, output)
    write_raw_shard(tmp_path / "raw" / "part0.txt", documents[::-1])
    kept = recorded_files(output)
    run("tokens")
    run("untouched")
    assert contents(output) == contents(tmp_path / "untouched")
    assert kept["00001-part1.bin"] == all_files(output)["00001-part1.bin"]
    assert kept["00000-part0.bin"] != all_files(output)["00000-part0.bin"]


def test_another_tokenizer_is_refused_or_begins_anew(run, tmp_path, documents):
    other = tmp_path / "other"
    save_tokenizer(train_tokenizer(documents, vocab_size=258), other)
    output = tmp_path / "tokens"
    interrupt_after(2, run, output)
    before = contents(output)
    with pytest.raises(ValueError, match="was begun with tokenizer_digest sha256:.* now it is sha256:.*--overwrite"):
        run("tokens", tokenizer=other)
    assert contents(output) == before
    run("tokens", tokenizer=other, overwrite=True)
    run("untouched", tokenizer=other)
    assert contents(output) == contents(tmp_path / "untouched")


def test_other_arguments_are_refused_with_both_values(run, tmp_path, documents):
    interrupt_after(1, run, tmp_path / "tokens")
    with pytest.raises(ValueError, match="was begun with document_rule auto and not finished, now it is line;"):
        run("tokens", rules=DocumentRules(document_rule="line"))
    write_raw_shard(tmp_path / "raw" / "part00.txt", documents)
    with pytest.raises(ValueError, match=r"begun with shards \(3 of them\) and not finished, now it is \(4 of them\);"):
        run("tokens")
    (tmp_path / "raw" / "part2.txt").unlink()
    with pytest.raises(ValueError, match="begun with shards 00001-part1 and not finished, now it is 00001-part00;"):
        run("tokens")


def test_a_damaged_plan_is_refused_or_replaced(run, tmp_path):
    run("untouched")
    interrupt_after(1, run, tmp_path / "tokens")
    flip_bit(tmp_path / "tokens" / PLAN_NAME, 60)
    with pytest.raises(ValueError, match="unfinished.json is damaged: its content has digest .*--overwrite"):
        run("tokens")
    run("tokens", overwrite=True)
    assert contents(tmp_path / "tokens") == contents(tmp_path / "untouched")


def test_a_finished_folder_is_refused(run):
    run("tokens")
    with pytest.raises(ValueError, match="tokens is not empty; give another --output, or --overwrite"):
        run("tokens")


def test_two_commands_do_not_write_one_folder(run, monkeypatch):
    monkeypatch.setattr(command, "run_jobs", lambda *_, **__: run("tokens"))
    with pytest.raises(ValueError, match="tokens is being written by another process; wait for its end, or end it"):
        run("tokens")
