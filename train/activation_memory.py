"""The bytes that a forward pass keeps for its backward pass, by a formula that a test compares with saved tensors."""

from models.configuration_hash_gpt import HashGPTConfig

# Tensors of the inner width H that a dense feed-forward keeps: its activation's input, output, and what lies between.
_INNER_TENSORS = {"gelu_new": 5, "gelu_pytorch_tanh": 2, "gelu": 2, "relu": 1}


def activation_bytes(
    network: HashGPTConfig, *, num_tokens: int, element_bytes: int, recomputes: bool, ep_size: int
) -> int:
    """Bytes on one rank for a micro-batch of num_tokens, if its experts get an even share of the tokens.

    recomputes: with activation checkpointing, which keeps the inputs of blocks, and makes one block's rest at a time.
    If experts are split over ep_size ranks, it also keeps what sparse layers received, so as to send nothing twice.
    Masks of dropout, and what learned routers keep, are not counted.
    """
    hidden, blocks = network.hidden_size, [block_elements(network, i) for i in range(network.num_hidden_layers)]
    kept = hidden * len(blocks) + max(blocks) if recomputes else sum(blocks)
    if recomputes and ep_size > 1:
        kept += len(network.sparse_layers) * received_elements(network)
    # Behind the blocks: the input of the last norm, and the gradient of its output, which the loss makes in advance.
    return num_tokens * element_bytes * (kept + 2 * hidden)


def block_elements(network: HashGPTConfig, index: int) -> int:
    """Elements that a block keeps per token, for hidden size D and inner width H.

    8 D: the inputs of both norms (2 D) and their outputs (2 D), query, key and value (3 D), and the heads' output (D).
    """
    hidden, inner = network.hidden_size, network.intermediate_size
    dense = inner * _INNER_TENSORS.get(network.activation_function, 2)
    if index not in network.sparse_layers:
        return 8 * hidden + dense
    if network.placement == "insert":
        # Before a dense block: each sublayer keeps its input, its norm and what a feed-forward keeps.
        return 8 * hidden + dense + network.num_sublayers * (2 * hidden + dense)
    if network.num_hashes > 1:
        # Each hash keeps both its inputs in the order of its experts, in place of those that all feed-forwards keep.
        return 8 * hidden + dense + (network.num_hashes - 1) * (hidden + inner)
    return 8 * hidden + inner  # the experts apply the activation again


def received_elements(network: HashGPTConfig) -> int:
    """Elements per token that a sparse layer receives from the ranks of its experts: inputs there, outputs here."""
    hidden, inner, num_hashes = network.hidden_size, network.intermediate_size, network.num_hashes
    # Each hash of MultiHash takes the whole input of both matrices, and returns its part of their output.
    return 2 * hidden if num_hashes == 1 else (num_hashes + 1) * (hidden + inner)
