"""Tokens that are split over several experts, as a route table holds them."""

import hashlib
from dataclasses import dataclass, fields

import numpy as np

from data_prep.storage.tensor_file import check_range, tensor_digest


@dataclass(frozen=True, eq=False)
class HeavySplit:
    """Tokens that go to several experts: which one, says the token before or, for a few bigrams, the position."""

    split_index: np.ndarray  # int32 [vocab_size], -1 or the token's row in split_table
    split_table: np.ndarray  # int32 [num_heavy, vocab_size + 1], by previous token: the expert, or -(g + 1) for group g
    position_table: np.ndarray  # int32 [num_groups, period], the expert at position % period

    @property
    def start_experts(self) -> np.ndarray:
        """The expert of each heavy token at the start of a context, where no token is before it: int32 [num_heavy]."""
        found = self.split_table[:, -1].copy()
        by_position = found < 0
        found[by_position] = self.position_table[-found[by_position] - 1, 0]
        return found

    @property
    def digest(self) -> str:
        tensors = (self.split_index, self.split_table, self.position_table)
        return "sha256:" + hashlib.sha256("".join(tensor_digest(tensor) for tensor in tensors).encode()).hexdigest()


def split_in_turns(split: HeavySplit, experts_PE: np.ndarray) -> HeavySplit:
    """Let experts_PE[p % P, e] stand in for expert e at position p: all that was one expert becomes group e."""
    rotation_period, num_experts = experts_PE.shape
    steps = _shortest_period(split.position_table)
    own = np.repeat(np.arange(num_experts)[:, None], steps, axis=1)
    without_turns = np.concatenate([own, split.position_table[:, :steps]])  # [groups, steps]
    position = np.arange(rotation_period * steps)
    expert = without_turns[
        :, position // rotation_period % steps
    ]  # a step per round, so that every part meets every turn
    entries = split.split_table
    group = np.where(entries >= 0, entries, num_experts - 1 - entries)
    return HeavySplit(
        split.split_index,
        (-1 - group).astype(np.int32),
        experts_PE[position % rotation_period, expert].astype(np.int32),
    )


def check_split(split: HeavySplit, *, vocab_size: int, num_experts: int) -> None:
    """Raise ValueError where the tensors contradict each other, the vocabulary or the number of experts."""
    tensors = [getattr(split, field.name) for field in fields(HeavySplit)]
    num_heavy, num_groups = len(split.split_table), len(split.position_table)
    shapes = [list(tensor.shape) for tensor in tensors]
    expected = [[vocab_size], [num_heavy, vocab_size + 1], [num_groups, *split.position_table.shape[1:2]]]
    if shapes != expected or {tensor.dtype for tensor in tensors} != {np.dtype("int32")}:
        raise ValueError(f"split tensors must be int32 of shapes {expected}, not {shapes}")
    check_range("split_index", split.split_index, -1, num_heavy - 1)
    check_range("split_table", split.split_table, -num_groups, num_experts - 1)
    check_range("position_table", split.position_table, 0, num_experts - 1)


def _shortest_period(position_table: np.ndarray) -> int:
    period = position_table.shape[1]
    divisors = (steps for steps in range(1, period + 1) if period % steps == 0)
    return next(steps for steps in divisors if (position_table[:, steps:] == position_table[:, :-steps]).all())
