"""Code that the test of a step's budget runs on every rank: what one step of a run waits for, sends and keeps."""

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import deepspeed.comm as dist
import torch
import torch.distributed
from deepspeed.utils import groups
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from tests.distributed.engine_checks import start
from tests.distributed.training import batch, micro_batches
from tests.waits import count_waits
from train.faults.supervision import Supervision
from train.parallel.expert_parallel import ExpertParallelExperts
from train.prefetch.route_ahead import PlanCompleter, make_local_planner
from train.processes.stop_request import StopRequest
from train.train_step import train_step

# torch.ops.c10d's names of the collectives.
_NAMES = {
    "allreduce_": "all_reduce", "_reduce_scatter_base_": "reduce_scatter", "_allgather_base_": "all_gather",
    "alltoall_base_": "all_to_all", "allgather_": "all_gather", "broadcast_": "broadcast", "reduce_": "reduce",
}  # fmt: skip


@dataclass
class Spent:
    """What one step spent, by phase: forward and backward passes of all micro-batches, and the optimizer step.

    waits: by phase and call. sent: number of calls and of bytes by (phase, collective, dtype, group).
    num_gathered: expert weights that ZeRO 3 gathered for forward passes.
    num_alive: those of them that are alive between a forward and a backward pass.
    """

    waits: dict[str, dict[str, int]] = field(default_factory=dict)
    sent: dict[tuple[str, str, str, str], tuple[int, int]] = field(default_factory=dict)
    num_gathered: int = 0
    num_alive: int = 0


def spend(configs: list[dict], folder: str) -> list[dict]:
    """Train two steps of each config, and report on the second: the fields of Spent."""
    return [vars(_spend(StepObserver(*start(**fields, run_dir=folder)), folder)) for fields in configs]


def _spend(observer: "StepObserver", folder: str) -> Spent:
    engine, config = observer.engine, observer.config
    planner, completer = make_local_planner(engine.module), PlanCompleter(engine.module)
    watch = Supervision(engine, config, None, StopRequest(folder, looks_for_file=False))
    for step in range(2):
        parts = micro_batches(batch(step), config, dist.get_rank(), dist.get_world_size())
        planned = [replace(part, plans=completer.complete(planner.plan(part))) for part in parts]
        observer.spent = Spent()
        train_step(observer, planned, _NoLog(), watch)
    return observer.spent


class _NoLog:
    def add_micro_batch(self, loss, records): ...


class StepObserver:
    """Stands before an engine, and observes each phase of a step."""

    def __init__(self, engine, config):
        self.engine, self.config, self.spent = engine, config, Spent()
        self._gathered: list[StorageWeakRef] = []
        for layer in engine.module.transformer.sparse_ffns.values():
            experts = layer.experts.experts if isinstance(layer.experts, ExpertParallelExperts) else layer.experts
            experts.register_forward_pre_hook(self._see_weights)

    def __call__(self, *arguments, **keywords):
        with self._observed("forward"):
            outputs = self.engine(*arguments, **keywords)
        self.spent.num_gathered += len(self._gathered)
        self.spent.num_alive += sum(not storage.expired() for storage in self._gathered)
        return outputs

    def backward(self, loss) -> None:
        with self._observed("backward"):
            self.engine.backward(loss)
        self._gathered = []

    def step(self) -> None:
        with self._observed("step"):
            self.engine.step()

    def _see_weights(self, module, _) -> None:
        if hasattr(next(module.parameters()), "ds_id"):  # with ZeRO 3, gathered just now
            self._gathered += [StorageWeakRef(p.data.untyped_storage()) for p in module.parameters()]

    @contextmanager
    def _observed(self, phase: str):
        with _Collectives(self.spent.sent, phase), count_waits() as waits:
            yield
        self.spent.waits[phase] = dict(Counter(self.spent.waits.get(phase, {})) + waits)


class _Collectives(TorchDispatchMode):
    def __init__(self, sent: dict, phase: str):
        super().__init__()
        self._sent, self._phase, self._groups = sent, phase, _group_names()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if func.namespace == "c10d" and name in _NAMES:
            tensor, group = _largest_tensor(args), next(a for a in args if isinstance(a, torch.ScriptObject))
            group = torch.distributed.ProcessGroup.unbox(group).group_name
            key = (self._phase, _NAMES[name], str(tensor.dtype)[6:], self._groups.get(group, "host"))
            calls, size = self._sent.get(key, (0, 0))
            self._sent[key] = (calls + 1, size + tensor.nbytes)
        return func(*args, **(kwargs or {}))


def _largest_tensor(arguments) -> torch.Tensor:
    """The longer one of what is sent and what is received."""
    leaves = torch.utils._pytree.tree_leaves(arguments)
    return max((leaf for leaf in leaves if isinstance(leaf, torch.Tensor)), key=torch.Tensor.numel)


def _group_names() -> dict[str, str]:
    """The groups of ranks that share weights, or experts, by torch's names; all others are gloo groups of the host."""
    names = {torch.distributed.group.WORLD.group_name: "world", groups._get_data_parallel_group().group_name: "world"}
    for group in groups._get_expert_data_parallel_group_dict().values():
        names.setdefault(group.group_name, "same experts")
    for group in groups._get_expert_parallel_group_dict().values():
        names.setdefault(group.group_name, "other experts")
    return names
