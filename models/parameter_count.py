"""count_parameters: the parameters of a HashGPT by the paper's formulas, without allocating a weight."""

from dataclasses import dataclass

from .configuration_hash_gpt import HashGPTConfig


@dataclass(frozen=True)
class ParameterCount:
    """Parameters of one model; tied weights count once, and route tables are buffers, which do not count."""

    shared: int  # everything that every token uses, learned routers included
    per_expert: int  # one expert: a feed-forward, or an inserted layer's stack of them with their norms
    total: int  # shared and all experts of all sparse layers
    active: int  # used by one token, on average: shared and, per sparse layer, its experts

    @property
    def experts(self) -> int:
        """All experts of all sparse layers together."""
        return self.total - self.shared


def count_parameters(config: HashGPTConfig) -> ParameterCount:
    """Count from the configuration alone; experts replace dense feed-forwards, or stand beside all of them."""
    num_sparse = len(config.sparse_layers)
    is_inserted = config.placement == "insert"
    dense = feed_forward(config.hidden_size, config.intermediate_size)
    expert = config.num_sublayers * (dense + norm(config.hidden_size)) if is_inserted else dense
    blocks = config.num_hidden_layers * (attention(config.hidden_size) + 2 * norm(config.hidden_size))
    num_dense = config.num_hidden_layers if is_inserted else config.num_hidden_layers - num_sparse
    shared = embeddings(config) + blocks + num_dense * dense + norm(config.hidden_size) + num_sparse * router(config)
    return ParameterCount(
        shared=shared,
        per_expert=expert,
        total=shared + num_sparse * config.num_experts * expert,
        active=shared + round(num_sparse * config.num_experts_per_tok * expert),
    )


def router(config: HashGPTConfig) -> int:
    """A vector per expert; Switch adds a bias, Token Switch a bias and a vector per token. Hashes have none."""
    if config.router == "hash":
        return 0
    bias = config.num_experts if config.router in ("switch", "token_switch") else 0
    vectors = config.vocab_size if config.router == "token_switch" else 0
    return (config.num_experts + vectors) * config.hidden_size + bias


def attention(hidden_size: int) -> int:
    """Query, key, value and output matrices, with biases."""
    return 4 * hidden_size * hidden_size + 4 * hidden_size


def feed_forward(hidden_size: int, intermediate_size: int) -> int:
    """Two matrices with biases."""
    return 2 * hidden_size * intermediate_size + intermediate_size + hidden_size


def norm(hidden_size: int) -> int:
    """Scale and bias."""
    return 2 * hidden_size


def embeddings(config: HashGPTConfig) -> int:
    """Token embeddings, which are also the output matrix if tied, and learned positions."""
    num_matrices = 1 if config.tie_word_embeddings else 2
    num_positions = config.max_position_embeddings if config.position_embedding == "learned" else 0
    return (num_matrices * config.vocab_size + num_positions) * config.hidden_size
