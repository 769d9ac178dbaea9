"""RunConfig: every setting of a run, with its meaning, its type and the values that it may have."""

from dataclasses import dataclass

from models.choices import PLACEMENTS, POSITION_EMBEDDINGS, ROUTERS
from train.config.field_rules import conform, setting

SCHEDULES = ("constant", "inverse_sqrt", "polynomial", "cosine", "warmup_stable_decay")
LOGGERS = ("tensorboard", "csv", "wandb")


@dataclass(frozen=True)
class RunConfig:
    """One run. A recipe sets fields by name; `--field value` on the command line overrides it.

    A recipe may begin with `base: OTHER.yaml`, a recipe in the same folder whose fields it inherits.
    free_on_resume: the field may change between a run and its resumption (train/config/resume_compatibility.py).
    """

    # Data: token shards, mixtures of them (docs/data.md) and route tables, all made by data_prep/.
    train_data: str = setting(free_on_resume=True, help="token shards to train on: a folder, or a mixture of folders")
    eval_data: str | None = setting(
        None,
        free_on_resume=True,
        help="token shards to validate on; a mixture's epochs are ignored, except that 0 leaves a part out",
    )
    eval_fraction: float = setting(
        0.0,
        at_least=0,
        below=1,
        help="fraction of each part of train_data to hold out for validation, in place of eval_data",
    )
    document_mask: bool = setting(
        False,
        help="tokens attend only to their own document; positions restart at 0 in each document; "
        "an end token still predicts the first token of the next document",
    )
    loader_workers: int = setting(
        0,
        at_least=0,
        free_on_resume=True,
        help="processes per rank that read batches and make dispatch plans ahead; 0 uses a thread",
    )
    route_table: list[str] = setting(
        [],
        free_on_resume=True,
        help="route-table file for all sparse layers, or one per sparse layer; learned routers take none",
    )
    share_route_table: bool = setting(
        False, free_on_resume=True, help="all sparse layers use the first table of the file"
    )

    # The network.
    vocab_size: int | None = setting(None, at_least=1, help="vocabulary size; None takes the tokenizer's")
    context_length: int = setting(128, at_least=1, help="sequence length in tokens")
    hidden_size: int = setting(128, at_least=1, help="width d of the hidden states")
    num_hidden_layers: int = setting(4, at_least=1, help="transformer blocks")
    num_attention_heads: int = setting(4, at_least=1, help="attention heads per block")
    intermediate_size: int | None = setting(
        None, at_least=1, help="inner width D of a feed-forward; None is 4 * hidden_size"
    )
    activation: str = setting("gelu_new", help="activation function, by its name in transformers")
    dropout: float = setting(
        0.0, at_least=0, below=1, help="dropout rate of embeddings, attention and residual branches"
    )
    position_embedding: str = setting("learned", choices=POSITION_EMBEDDINGS, help="position embedding")
    sparse_layers: list[int] = setting([], help="blocks with a sparse layer, counted from 0; [] is a dense model")
    num_experts: int = setting(16, help="experts per sparse layer")
    placement: str = setting(
        "replace",
        choices=PLACEMENTS,
        help="a sparse layer replaces the feed-forward of its block, or is inserted before the block",
    )
    num_sublayers: int = setting(1, at_least=1, help="feed-forwards stacked in each expert of an inserted layer")

    # How tokens find their experts: by route_table, or by a learned router (models/configuration_hash_gpt.py).
    router: str = setting("hash", choices=tuple(ROUTERS), help="how tokens find their experts")
    router_aux_loss_coef: float = setting(
        0.1, help="coefficient of the load-balancing loss (switch, token_switch, gshard)"
    )
    router_z_loss_coef: float = setting(
        0.0, help="coefficient of the z-loss, on the size of the router logits (switch, token_switch, gshard)"
    )
    router_jitter_noise: float = setting(
        0.0,
        help="multiplicative noise on the router input in training, uniform in [1 - value, 1 + value] "
        "(switch, token_switch)",
    )
    capacity_factor: float | None = setting(
        None,
        help="capacity of an expert in training, relative to its even share of the tokens; None is unlimited; "
        "with expert_choice, the mean number of experts per token; None is then 2",
    )
    expert_choice_cap: int = setting(0, help="maximum number of experts per token (expert_choice); 0 is unlimited")

    # The optimisation. A batch is counted in sequences of context_length tokens.
    max_steps: int = setting(1000, at_least=1, free_on_resume=True, help="optimizer steps")
    global_batch_size: int = setting(32, at_least=1, help="sequences per step over all ranks")
    micro_batch_size: int = setting(16, at_least=1, free_on_resume=True, help="sequences per rank and forward pass")
    optimizer: str = setting("adam", choices=("adam", "sgd"), help="optimizer; adam decouples the weight decay")
    lr: float = setting(1e-3, at_least=0, help="peak learning rate")
    beta1: float = setting(0.9, at_least=0, below=1, help="decay rate of Adam's first moment")
    beta2: float = setting(0.98, at_least=0, below=1, help="decay rate of Adam's second moment")
    adam_epsilon: float = setting(1e-8, at_least=0, help="Adam's epsilon")
    weight_decay: float = setting(
        0.0, at_least=0, help="weight decay of matrices and embeddings; biases and norms have none"
    )
    schedule: str = setting("inverse_sqrt", choices=SCHEDULES, help="learning-rate schedule after the warm-up")
    warmup_steps: int = setting(100, at_least=0, help="steps of linear warm-up")
    decay_steps: int = setting(0, at_least=0, help="steps of the final decay (warmup_stable_decay)")
    max_grad_norm: float = setting(
        1.0, at_least=0, free_on_resume=True, help="gradient norm to clip to; 0 disables clipping"
    )
    grad_norm_scope: str = setting(
        "all",
        choices=("all", "shared"),
        free_on_resume=True,
        help="parameters that the gradient norm covers; shared means all but the experts",
    )
    precision: str = setting("fp32", choices=("fp32", "bf16"), help="number format of the forward and backward passes")
    gradient_dtype: str = setting(
        "fp32",
        choices=("fp32", "bf16"),
        free_on_resume=True,
        help="number format in which gradients are added over ranks; bf16 sends half the bytes and loses digits",
    )
    activation_checkpointing: bool = setting(
        False, free_on_resume=True, help="recompute the blocks in the backward pass to save memory"
    )

    # How it is spread over ranks.
    ep_size: int = setting(
        1, at_least=1, free_on_resume=True, help="ranks of an expert-parallel group, which holds every expert once"
    )
    zero_stage: int = setting(1, choices=(0, 1, 2, 3), free_on_resume=True, help="DeepSpeed ZeRO stage")
    ds_config: str = setting("base", free_on_resume=True, help="DeepSpeed JSON: a name in ds_configs/, or a path")

    # The run itself.
    run_dir: str = setting("runs/default", free_on_resume=True, help="folder for everything that the run writes")
    seed: int = setting(0, at_least=0, help="seed of weights, data order and dropout")
    log_every: int = setting(10, at_least=1, free_on_resume=True, help="steps between lines of the log")
    eval_every: int = setting(
        200, at_least=0, free_on_resume=True, help="steps between validations; 0 validates only at the end"
    )
    eval_sequences: int | None = setting(
        None, at_least=1, free_on_resume=True, help="validation sequences over all parts; None uses all"
    )
    save_every: int = setting(
        500, at_least=0, free_on_resume=True, help="steps between checkpoints; 0 saves only at the end"
    )
    keep_last: int = setting(
        0, at_least=0, free_on_resume=True, help="number of newest checkpoints to keep; 0 keeps all"
    )
    keep_every: int = setting(
        0,
        at_least=0,
        free_on_resume=True,
        help="also keep older checkpoints at multiples of this step; 0 keeps none of them",
    )
    async_save: bool = setting(
        False, free_on_resume=True, help="write checkpoints from a copy while training continues"
    )
    stop_on_failed_save: bool = setting(
        False, free_on_resume=True, help="end the run if a checkpoint cannot be written"
    )
    resume: str = setting(
        "auto",
        choices=("auto", "must", "never"),
        free_on_resume=True,
        help="resume from run_dir's newest checkpoint; auto does so if there is one",
    )
    allow_mismatch: list[str] = setting(
        [], free_on_resume=True, help="fields in which a resumed run may differ from its checkpoint"
    )
    max_nonfinite_steps: int = setting(
        0, at_least=0, free_on_resume=True, help="steps with NaN or Inf to skip before the run fails"
    )
    hang_timeout_seconds: float = setting(
        1800, at_least=0, free_on_resume=True, help="seconds without a step before the run ends; 0 disables the limit"
    )
    loggers: list[str] = setting(
        [], choices=LOGGERS, free_on_resume=True, help="DeepSpeed monitors that receive the metrics"
    )
    dry_run: bool = setting(False, free_on_resume=True, help="print sizes, memory and predicted load, then exit")
    dry_run_world_size: int | None = setting(
        None,
        at_least=1,
        free_on_resume=True,
        help="ranks that a dry run assumes; None takes the launched ranks, or ep_size",
    )

    def __post_init__(self):
        conform(self)
        _check_data(self)
        _check_layers(self)
        _check_route_table(self)
        _check_optimization(self)


def _check_data(config: RunConfig) -> None:
    if config.eval_fraction and config.eval_data:
        raise ValueError(
            f"eval_fraction={config.eval_fraction} and eval_data={config.eval_data} both name the validation data; "
            "remove one of them"
        )


def _check_layers(config: RunConfig) -> None:
    layers = config.sparse_layers
    if len(set(layers)) < len(layers) or not all(0 <= layer < config.num_hidden_layers for layer in layers):
        raise ValueError(f"sparse_layers={layers} must be different blocks from 0 to {config.num_hidden_layers - 1}")
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"hidden_size={config.hidden_size} cannot be split evenly over "
            f"num_attention_heads={config.num_attention_heads}; choose a multiple"
        )
    if config.sparse_layers and config.num_experts % config.ep_size:
        raise ValueError(
            f"{config.num_experts} experts cannot be split evenly over ep_size={config.ep_size} ranks; "
            f"choose an ep_size that divides {config.num_experts}"
        )


def _check_route_table(config: RunConfig) -> None:
    if config.router != "hash" and config.route_table:
        raise ValueError(
            f"router={config.router} learns its routes, but route_table={config.route_table} fixes them; "
            "remove the table (--route_table none)"
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
            f"{config.sparse_layers}; name one for all, or one per layer"
        )


def _check_optimization(config: RunConfig) -> None:
    if config.grad_norm_scope == "shared" and config.zero_stage == 3:
        raise ValueError("grad_norm_scope=shared cannot be combined with zero_stage=3; choose zero_stage 1 or 2")
    if config.warmup_steps + config.decay_steps > config.max_steps and config.schedule == "warmup_stable_decay":
        raise ValueError(
            f"warmup_steps={config.warmup_steps} and decay_steps={config.decay_steps} together exceed "
            f"max_steps={config.max_steps}; lower one of them"
        )
