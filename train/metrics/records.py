"""The lines of metrics.jsonl: one dataclass per kind, with the fields that the log writes and the plots read."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class TrainRecord:
    """The steps since the record before. In the file, a value that is not finite is null, which reads as None."""

    kind: ClassVar[str] = "train"

    step: int
    tokens: int  # trained on since step 0
    loss: float  # mean cross-entropy in nats per token
    perplexity: float
    tokens_per_second: float  # of all ranks; validation and saving do not count
    batch_wait_share: float  # of the time, spent waiting for batches and their dispatch plans
    gradient_norm: float | None  # of the last step, before clipping
    imbalance: float | None  # tokens of the fullest expert / mean, in the worst layer; None without experts
    predicted_imbalance: float | None  # the same by the tables' counts; None without them
    rank_imbalance: float | None  # tokens of the fullest rank / mean, in the worst layer
    peak_memory_bytes: int  # of rank 0
    dropped_share: float | None  # of the tokens, mean over layers; 0 for hashes
    routing_entropy: float | None  # in nats, mean over layers; learned routers only
    auxiliary_loss: float | None  # sum over layers; learned routers only
    learning_rate: float  # of the last step


@dataclass(frozen=True)
class ValidationRecord:
    """One validation."""

    kind: ClassVar[str] = "validation"

    step: int
    loss: float
    perplexity: float
    routing_fluctuation: float | None  # share of a fixed batch's tokens routed to other experts than one validation ago
    num_tokens: int  # that loss is the mean over


@dataclass(frozen=True)
class ExpertLoadRecord:
    """The tokens of each expert of one sparse layer, summed over the whole run."""

    kind: ClassVar[str] = "expert_load"

    layer: int
    observed: list[int]
    predicted: list[int] | None  # by the counts of the layer's table
