"""Training over two hosts whose link is cut: both sides end in time, and the same command resumes when it is back."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.two_ranks import events, losses
from tests.hosts.two_hosts import TwoHosts, two_hosts, why_not
from tests.tiny_run import write_tiny_recipe
from train.checkpoint.folders import open_checkpoint
from train.config.run_paths import completed_checkpoints, step_of
from train.processes.exit_codes import EXIT_DONE, EXIT_HANG

NUM_STEPS, TIMEOUT = 120, 5
SSH_GAVE_UP = 255
pytestmark = [pytest.mark.slow, pytest.mark.distributed]


@pytest.fixture(scope="module", autouse=True)
def permission():
    if reason := why_not():
        pytest.skip(reason)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    return write_tiny_recipe(
        tmp_path_factory.mktemp("two_hosts"), max_steps=NUM_STEPS, save_every=50, eval_every=0, keep_last=3,
        eval_sequences=4, hang_timeout_seconds=TIMEOUT,
    )  # fmt: skip


class Run:
    """launch/train.py with a process on each host, started on the first host as README says."""

    def __init__(self, hosts: TwoHosts, recipe: Path, run_dir: Path, *arguments: str):
        self.hosts, self.run_dir, self.log = hosts, run_dir, run_dir.with_suffix(".log")
        script = ["launch/train.py", "--config", str(recipe), "--run_dir", str(run_dir), *arguments]
        self.launcher = hosts.launch("--hostfile", str(hosts.folder / "hostfile"), *script, log=self.log)

    def wait_for_step(self, step: int) -> None:
        metrics = self.run_dir / "metrics.jsonl"
        self._wait_until(lambda: metrics.exists() and f'"step": {step},' in metrics.read_text())

    def wait_for_save(self) -> None:
        """Wait until a checkpoint is half written."""
        self._wait_until(lambda: any((self.run_dir / "checkpoints").glob("step_*.partial")))

    def _wait_until(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not is_so():
            assert time.monotonic() < deadline and self.launcher.poll() is None, self.log.read_text()
            time.sleep(0.001)

    def seconds_until_ended(self, *, limit: float) -> dict[str, float]:
        """Seconds until the training process of each host ended; inf beyond the limit."""
        start, seconds = time.monotonic(), {}
        while len(seconds) < len(self.hosts.hosts) and time.monotonic() < start + limit:
            ended = [host.name for host in self.hosts.hosts if host.name not in seconds and not host.trainers()]
            seconds |= {name: round(time.monotonic() - start, 2) for name in ended}
            time.sleep(0.02)
        return {host.name: seconds.get(host.name, float("inf")) for host in self.hosts.hosts}

    def wait(self) -> int:
        """The launcher's exit code; it hears from the other host only while the link is up."""
        try:
            return self.launcher.wait(timeout=120)
        except subprocess.TimeoutExpired:
            pytest.fail(self.log.read_text())

    def sound_steps(self) -> list[int]:
        """The steps of all checkpoints with a final name, newest first. ValueError if one of them is damaged."""
        folders = completed_checkpoints(self.run_dir / "checkpoints")
        for folder in folders:
            open_checkpoint(folder).check_digests()
        return [step_of(folder) for folder in folders]


@pytest.fixture(scope="module")
def untouched(recipe) -> list[float]:
    with two_hosts(recipe.parent / "hosts") as hosts:
        run = Run(hosts, recipe, recipe.parent / "untouched")
        assert run.wait() == EXIT_DONE, run.log.read_text()
    return losses(run.run_dir)


def test_two_hosts_train_what_two_processes_of_one_host_train(recipe, untouched, tmp_path):
    with two_hosts(tmp_path / "hosts") as hosts:
        script = ["launch/train.py", "--config", str(recipe), "--run_dir", str(tmp_path / "run")]
        launcher = hosts.launch("--num_gpus", "2", *script, log=tmp_path / "log")
        assert launcher.wait(timeout=120) == EXIT_DONE, (tmp_path / "log").read_text()
    assert len(untouched) == NUM_STEPS and losses(tmp_path / "run") == untouched


def cut_and_join(run: Run, *, code: int) -> None:
    """Cut the link until both hosts have ended, and check what they leave; the launcher must exit with `code`."""
    checkpoints = run.run_dir / "checkpoints"
    before = completed_checkpoints(checkpoints)
    run.hosts.cut()
    seconds = run.seconds_until_ended(limit=TIMEOUT + 4)
    print(f"after the link was cut the ranks lived on for {seconds} seconds")
    assert max(seconds.values()) < TIMEOUT + 4, run.log.read_text()
    assert len(set(completed_checkpoints(checkpoints)) - set(before)) <= 1
    run.hosts.join()
    assert run.wait() == code, run.log.read_text()
    assert sorted((event["what"], event["rank"]) for event in events(run.run_dir)) == [("hang", 0), ("hang", 1)]


def check_resuming(run: Run, untouched: list[float]) -> None:
    """All checkpoints are valid, and the run resumes from the newest to the losses of a run whose link held."""
    (newest, *_) = run.sound_steps()
    assert run.wait() == EXIT_DONE, run.log.read_text()
    assert f"resuming from step {newest}" in run.log.read_text()
    assert losses(run.run_dir) == untouched


# ssh may wait for the link to return, or give up before the ranks do; then the output of rank 1 is lost.
@pytest.mark.parametrize("keepalive", [False, True], ids=["ssh waits", "ssh gives up"])
def test_a_link_cut_in_a_step_ends_both_hosts_in_time_and_the_same_command_resumes(
    recipe, untouched, tmp_path, keepalive
):
    with two_hosts(tmp_path / "hosts", keepalive=keepalive) as hosts:
        run = Run(hosts, recipe, tmp_path / "run")
        run.wait_for_step(57)
        cut_and_join(run, code=SSH_GAVE_UP if keepalive else EXIT_HANG)
        assert run.sound_steps() == [50]
        check_resuming(Run(hosts, recipe, run.run_dir), untouched)


@pytest.mark.parametrize("how", [[], ["--async_save"]], ids=["training waits", "in the background"])
def test_a_link_cut_in_a_save_ends_both_hosts_in_time_and_the_same_command_resumes(recipe, untouched, tmp_path, how):
    arguments = ["--save_every", "5", *how]
    with two_hosts(tmp_path / "hosts") as hosts:
        run = Run(hosts, recipe, tmp_path / "run", *arguments)
        run.wait_for_step(57)
        run.wait_for_save()
        cut_and_join(run, code=EXIT_HANG)
        assert how or any("step 60, saving" in event["report"] for event in events(run.run_dir))
        check_resuming(Run(hosts, recipe, run.run_dir, *arguments), untouched)
