"""RunConfig: every argument of a run, with its meaning, its type and what it may be."""

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field

from models.choices import PLACEMENTS, POSITION_EMBEDDINGS, ROUTERS

SCHEDULES = ("constant", "inverse_sqrt", "polynomial", "cosine", "warmup_stable_decay")
RESUME = ("auto", "must", "never")
LOGGERS = ("tensorboard", "csv", "wandb")


@dataclass(frozen=True)
class RunConfig:
    """One run. A recipe sets fields by name; `--field value` on the command line overrides it.

    A recipe may begin with `base: OTHER.yaml`, a recipe in the same folder whose fields it takes over.
    """

    # Data: token shards, mixtures of them (docs/data.md) and route tables, all made by data_prep/.
    train_data: str = field(metadata={"help": "token shards to train on: their folder, or a mixture of folders"})
    eval_data: str | None = field(default=None, metadata={"help": "the same for perplexity; weights but 0 are ignored"})
    eval_fraction: float = field(
        default=0.0,
        metadata={"help": "share of each part of train_data to hold out for perplexity, without eval_data"},
    )
    document_mask: bool = field(
        default=False,
        metadata={
            "help": "tokens see only their own document, whose positions begin at 0; an end token still learns to "
            "predict the first token of the next document"
        },
    )
    loader_workers: int = field(
        default=0, metadata={"help": "processes per rank that read batches and plan routes ahead; 0: a thread does"}
    )
    route_table: list[str] = field(
        default_factory=list,
        metadata={"help": "route-table file of all sparse layers, or one for each of them; none where a router learns"},
    )
    share_route_table: bool = field(default=False, metadata={"help": "all sparse layers use the file's first table"})

    # The network.
    vocab_size: int | None = field(default=None, metadata={"help": "None: as the tokenizer of train_data"})
    context_length: int = field(default=128, metadata={"help": "tokens per sequence"})
    hidden_size: int = field(default=128, metadata={"help": "width d of the hidden states"})
    num_hidden_layers: int = field(default=4, metadata={"help": "blocks"})
    num_attention_heads: int = field(default=4, metadata={"help": "attention heads per block"})
    intermediate_size: int | None = field(
        default=None, metadata={"help": "width D inside a feed-forward; None: 4 * width"}
    )
    activation: str = field(default="gelu_new", metadata={"help": "activation by its transformers name"})
    dropout: float = field(default=0.0, metadata={"help": "dropout of embeddings, attention and residual branches"})
    position_embedding: str = field(default="learned", metadata={"help": "learned or sinusoidal"})
    sparse_layers: list[int] = field(default_factory=list, metadata={"help": "blocks made of experts; []: dense"})
    num_experts: int = field(default=16, metadata={"help": "experts per sparse layer"})
    placement: str = field(
        default="replace", metadata={"help": "replace the block's feed-forward, or insert before it"}
    )
    num_sublayers: int = field(default=1, metadata={"help": "stacked feed-forwards per expert of an inserted layer"})

    # How tokens find their experts: by route_table, or by a router that learns (models/configuration_hash_gpt.py).
    router: str = field(default="hash", metadata={"help": " | ".join(ROUTERS)})
    router_aux_loss_coef: float = field(
        default=0.1, metadata={"help": "coefficient of the loss that balances switch, token_switch and gshard"}
    )
    router_z_loss_coef: float = field(
        default=0.0, metadata={"help": "coefficient of the loss on the size of their logits"}
    )
    router_jitter_noise: float = field(
        default=0.0, metadata={"help": "in training, noise of 1 +- so much on what switch and token_switch route by"}
    )
    capacity_factor: float | None = field(
        default=None,
        metadata={
            "help": "in training, even shares of the tokens that an expert takes before it drops the rest; None: all; "
            "of expert_choice: experts per token, None: 2"
        },
    )
    expert_choice_cap: int = field(default=0, metadata={"help": "of expert_choice: experts per token at most; 0: any"})

    # The optimisation. A batch is counted in sequences of context_length tokens.
    max_steps: int = field(default=1000, metadata={"help": "optimizer steps"})
    global_batch_size: int = field(default=32, metadata={"help": "sequences per step, all ranks together"})
    micro_batch_size: int = field(default=16, metadata={"help": "sequences per rank and forward pass"})
    optimizer: str = field(default="adam", metadata={"help": "adam (decoupled weight decay) or sgd"})
    lr: float = field(default=1e-3, metadata={"help": "maximum learning rate"})
    beta1: float = field(default=0.9, metadata={"help": "Adam's first decay rate"})
    beta2: float = field(default=0.98, metadata={"help": "Adam's second decay rate"})
    adam_epsilon: float = field(default=1e-8, metadata={"help": "Adam's epsilon"})
    weight_decay: float = field(default=0.0, metadata={"help": "on matrices and embeddings; never on biases or norms"})
    schedule: str = field(default="inverse_sqrt", metadata={"help": " | ".join(SCHEDULES)})
    warmup_steps: int = field(default=100, metadata={"help": "steps of linear warm-up"})
    decay_steps: int = field(default=0, metadata={"help": "steps of the final decay of warmup_stable_decay"})
    max_grad_norm: float = field(
        default=1.0, metadata={"help": "maximum norm of all gradients together; 0 does not clip"}
    )
    grad_norm_scope: str = field(
        default="all", metadata={"help": "norm to clip by: of all parameters, or the shared ones"}
    )
    precision: str = field(default="fp32", metadata={"help": "fp32 or bf16"})
    activation_checkpointing: bool = field(default=False, metadata={"help": "recompute blocks in the backward"})

    # How it is spread over ranks.
    ep_size: int = field(default=1, metadata={"help": "ranks that together hold every expert once"})
    zero_stage: int = field(default=1, metadata={"help": "DeepSpeed ZeRO stage, 0 to 3"})
    ds_config: str = field(default="base", metadata={"help": "name in ds_configs/ or path of a DeepSpeed JSON"})

    # The run itself.
    run_dir: str = field(default="runs/default", metadata={"help": "folder that receives everything the run writes"})
    seed: int = field(default=0, metadata={"help": "of weights, data order and dropout"})
    log_every: int = field(default=10, metadata={"help": "steps between metrics"})
    eval_every: int = field(default=200, metadata={"help": "steps between validations; 0: only at the end"})
    eval_sequences: int | None = field(default=None, metadata={"help": "validation sequences, of all parts; None: all"})
    save_every: int = field(default=500, metadata={"help": "steps between checkpoints; 0: only at the end"})
    keep_last: int = field(default=0, metadata={"help": "newest checkpoints to keep; 0: all"})
    keep_every: int = field(default=0, metadata={"help": "of older ones, keep those of every N-th step; 0: none"})
    async_save: bool = field(default=False, metadata={"help": "write checkpoints from a copy while training goes on"})
    stop_on_failed_save: bool = field(
        default=False, metadata={"help": "end the run where a checkpoint cannot be written"}
    )
    resume: str = field(
        default="auto", metadata={"help": "go on from run_dir's newest checkpoint: " + ", ".join(RESUME)}
    )
    allow_mismatch: list[str] = field(
        default_factory=list, metadata={"help": "fields in which a resumed run may differ from its checkpoint"}
    )
    max_nonfinite_steps: int = field(
        default=0, metadata={"help": "steps with NaN or Inf to leave out before the run ends"}
    )
    hang_timeout_seconds: float = field(
        default=1800, metadata={"help": "without a step, after which a run ends; 0: never"}
    )
    loggers: list[str] = field(default_factory=list, metadata={"help": "any of " + ", ".join(LOGGERS)})
    dry_run: bool = field(default=False, metadata={"help": "print sizes, memory and predicted load, then stop"})
    dry_run_world_size: int | None = field(
        default=None, metadata={"help": "ranks of a dry run; None: as started, or ep_size"}
    )

    def __post_init__(self):
        for spec in dataclasses.fields(self):
            object.__setattr__(self, spec.name, _convert(spec, getattr(self, spec.name)))
        _check_choices(self)
        _check_ranges(self)


def _convert(spec: dataclasses.Field, value):
    """Bring one value to its field's type; text comes from the command line, and YAML reads 1e-3 as text."""
    kind, optional = spec.type, False
    if isinstance(kind, types.UnionType):
        kind, optional = typing.get_args(kind)[0], True
    if value is None or (optional and value in ("None", "none", "null")):
        if optional:
            return None
        raise ValueError(f"{spec.name} must not be empty")
    try:
        if typing.get_origin(kind) is list:
            return _convert_list(value, typing.get_args(kind)[0])
        return _convert_scalar(value, kind)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError(f"{spec.name}={value!r} is not of type {getattr(kind, '__name__', kind)}") from None


def _convert_list(value, item_kind) -> list:
    if isinstance(value, str):
        value = [value]
    if item_kind is str:  # a path may hold commas and spaces
        return [str(item) for item in value if item not in ("", "[]", "None", "none", "null")]
    parts = [part for item in value for part in str(item).strip("[]").replace(",", " ").split()]
    return [_convert_scalar(part, item_kind) for part in parts]


def _convert_scalar(value, kind):
    if kind is bool:
        return {"true": True, "false": False}[str(value).lower()]
    if isinstance(value, bool | list | dict):
        raise TypeError(value)
    if kind is int and float(value) != int(float(value)):
        raise ValueError(value)
    # An integer goes through float only where it is written as 1e6: floats have 53 bits.
    return int(float(value)) if kind is int and not str(value).lstrip("-").isdigit() else kind(value)


def _check_choices(config: RunConfig) -> None:
    choices = {
        "optimizer": ("adam", "sgd"),
        "schedule": SCHEDULES,
        "resume": RESUME,
        "precision": ("fp32", "bf16"),
        "grad_norm_scope": ("all", "shared"),
        "position_embedding": POSITION_EMBEDDINGS,
        "placement": PLACEMENTS,
        "router": tuple(ROUTERS),
        "zero_stage": (0, 1, 2, 3),
    }
    for name, allowed in choices.items():
        if getattr(config, name) not in allowed:
            raise ValueError(f"{name}={getattr(config, name)!r} is not one of {', '.join(map(str, allowed))}")
    for monitor in config.loggers:
        if monitor not in LOGGERS:
            raise ValueError(f"loggers names {monitor!r}, which is not one of {', '.join(LOGGERS)}")


def _check_ranges(config: RunConfig) -> None:
    sizes = "context_length hidden_size num_hidden_layers num_attention_heads num_sublayers max_steps global_batch_size micro_batch_size"
    for name in f"{sizes} ep_size log_every".split():
        if getattr(config, name) < 1:
            raise ValueError(f"{name}={getattr(config, name)} must be at least 1")
    for name in "intermediate_size eval_sequences vocab_size dry_run_world_size".split():
        if getattr(config, name) is not None and getattr(config, name) < 1:
            raise ValueError(f"{name}={getattr(config, name)} must be at least 1, or None")
    numbers = "lr adam_epsilon weight_decay max_grad_norm warmup_steps decay_steps eval_every save_every seed"
    for name in f"{numbers} keep_last keep_every max_nonfinite_steps hang_timeout_seconds loader_workers".split():
        if not 0 <= getattr(config, name) < math.inf:
            raise ValueError(f"{name}={getattr(config, name)} must be a number from 0")
    for name in "dropout beta1 beta2 eval_fraction".split():
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{name}={getattr(config, name)} must be from 0 to below 1")
    if config.eval_fraction and config.eval_data:
        raise ValueError(
            f"eval_fraction={config.eval_fraction} and eval_data={config.eval_data} are two ways to say what is held "
            "out; leave one of them out"
        )
    _check_layers(config)
    if config.grad_norm_scope == "shared" and config.zero_stage == 3:
        raise ValueError("grad_norm_scope=shared cannot be combined with zero_stage=3; choose zero_stage 1 or 2")
    if config.warmup_steps + config.decay_steps > config.max_steps and config.schedule == "warmup_stable_decay":
        raise ValueError(
            f"warmup_steps={config.warmup_steps} and decay_steps={config.decay_steps} exceed max_steps={config.max_steps}"
        )


def _check_layers(config: RunConfig) -> None:
    layers = config.sparse_layers
    if len(set(layers)) < len(layers) or not all(0 <= layer < config.num_hidden_layers for layer in layers):
        raise ValueError(f"sparse_layers={layers} must be different blocks from 0 to {config.num_hidden_layers - 1}")
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"hidden_size={config.hidden_size} cannot be split evenly over num_attention_heads={config.num_attention_heads}"
        )
    if config.sparse_layers and config.num_experts % config.ep_size:
        raise ValueError(
            f"{config.num_experts} experts cannot be split evenly over ep_size={config.ep_size} ranks; "
            f"choose an ep_size that divides {config.num_experts}"
        )
    _check_route_table(config)


def _check_route_table(config: RunConfig) -> None:
    if config.router != "hash" and config.route_table:
        raise ValueError(
            f"router={config.router} learns its routes, but route_table={config.route_table} names some; leave it out "
            "(--route_table none)"
        )
    if config.router != "hash" or not config.sparse_layers:
        return
    if not config.route_table:
        raise ValueError(
            f"sparse_layers={config.sparse_layers} need a route table: build one with "
            "`python -m data_prep.build_table` and name it with --route_table"
        )
    if len(config.route_table) not in (1, len(config.sparse_layers)):
        raise ValueError(
            f"route_table names {len(config.route_table)} files for {len(config.sparse_layers)} sparse layers "
            f"{config.sparse_layers}; name one for all, or one for each"
        )
