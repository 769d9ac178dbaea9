"""StepObserver: what one training step waits for, sends and keeps, by phase."""

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed
from deepspeed.utils import groups
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from launch.gpu_acceptance.measuring.waits import count_waits
from train.parallel.expert_parallel import ExpertParallelExperts

# torch.ops.c10d's names of the collectives.
_NAMES = {
    "allreduce_": "all_reduce", "_reduce_scatter_base_": "reduce_scatter", "_allgather_base_": "all_gather",
    "alltoall_base_": "all_to_all", "allgather_": "all_gather", "broadcast_": "broadcast", "reduce_": "reduce",
}  # fmt: skip


@dataclass
class Spent:
    """What one step spent, by phase: forward and backward passes of all micro-batches, and the optimizer step.

    waits: by phase and call. sent: number of calls and of bytes by (phase, collective, dtype, group).
    num_alarms: waits of the optimizer step that torch itself reports on a GPU.
    num_gathered: expert weights that ZeRO 3 gathered for forward passes.
    num_alive: those of them that are alive between a forward and a backward pass.
    """

    waits: dict[str, dict[str, int]] = field(default_factory=dict)
    sent: dict[tuple[str, str, str, str], tuple[int, int]] = field(default_factory=dict)
    num_alarms: int = 0
    num_gathered: int = 0
    num_alive: int = 0


class StepObserver:
    """Stands before an engine, and observes each phase of a step.

    sounds_alarm: on a GPU, a forward or backward pass that waits raises torch's RuntimeError at the call.
    """

    def __init__(self, engine, config, *, sounds_alarm: bool = False):
        self.engine, self.config, self.spent = engine, config, Spent()
        self.sounds_alarm = sounds_alarm
        self._gathered: list[StorageWeakRef] = []
        for layer in engine.module.transformer.sparse_ffns.values():
            experts = layer.experts.experts if isinstance(layer.experts, ExpertParallelExperts) else layer.experts
            experts.register_forward_pre_hook(self._see_weights)

    def __call__(self, *arguments, **keywords):
        with self._observed("forward"), self._alarm("error"):
            outputs = self.engine(*arguments, **keywords)
        self.spent.num_gathered += len(self._gathered)
        self.spent.num_alive += sum(not storage.expired() for storage in self._gathered)
        return outputs

    def backward(self, loss) -> None:
        with self._observed("backward"), self._alarm("error"):
            self.engine.backward(loss)
        self._gathered = []

    def step(self) -> None:
        with self._observed("step"), self._alarm("warn"):
            self.engine.step()

    def _see_weights(self, module, _) -> None:
        if hasattr(next(module.parameters()), "ds_id"):  # with ZeRO 3, gathered just now
            self._gathered += [StorageWeakRef(p.data.untyped_storage()) for p in module.parameters()]

    @contextmanager
    def _observed(self, phase: str):
        with _Collectives(self.spent.sent, phase), count_waits() as waits:
            yield
        self.spent.waits[phase] = dict(Counter(self.spent.waits.get(phase, {})) + waits)

    @contextmanager
    def _alarm(self, mode: str) -> Iterator[None]:
        """torch's own alarm: "error" raises at the first wait, "warn" counts them."""
        if not self.sounds_alarm or self.engine.device.type != "cuda":
            yield
            return
        torch.cuda.set_sync_debug_mode(mode)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
        self.spent.num_alarms += sum("synchroniz" in str(warning.message) for warning in caught)


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
