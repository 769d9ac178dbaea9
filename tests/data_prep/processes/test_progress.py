"""A command reads its workers' progress, and stops them, even if one of them is killed."""

import signal

import pytest

from data_prep.processes.progress import Progress
from data_prep.processes.worker_pool import CONTEXT


def die_holding(progress: Progress) -> None:
    progress._bytes_read.get_lock().acquire()
    signal.raise_signal(signal.SIGKILL)


def test_a_worker_killed_while_it_counts_does_not_stop_the_command():
    progress = Progress()
    progress.add_bytes(5)
    worker = CONTEXT.Process(target=die_holding, args=(progress,))
    worker.start()
    worker.join()
    assert progress.bytes_read == 5
    progress.stop()
    with pytest.raises(InterruptedError, match="another shard failed"):
        progress.add_bytes(1)
