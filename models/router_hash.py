"""HashRouter: fixed tables map the key of each token to experts (Roller et al., 2021, section 3.1)."""

import hashlib

import torch
from torch import nn

from .hash_keys import TokenContext, hash_keys
from .routes import Routes

UNSET = -1  # not 0: an unset table must fail in the first batch, not send every token to expert 0
TOKEN_ID_KEYS = ("token", "next", "predicted")  # a token id is the key, so their tables grow with the vocabulary


class HashRouter(nn.Module):
    """Owns `route_table` [keys, columns], and the tables of split frequent tokens; all travel with the weights.

    The columns are the hashes of MultiHash or, with rotation_period > 1, the rotation: a token at position p of its
    context uses column p % rotation_period. A frequent token (row f = split_index[token] >= 0) goes to expert
    split_table[f, previous token]; a negative entry -(g + 1) there refers to position_table[g, position % its columns]
    (data_prep/tables/frequent_tokens.py makes these tables).
    """

    def __init__(self, config, index: int):
        super().__init__()
        self.hash_key = config.hash_keys[index]
        self.none = config.hash_vocab_size  # id of "no previous token"
        self.num_buckets = config.num_buckets
        self.num_experts = config.num_experts
        self.rotation_period = config.rotation_period
        self._register("route_table", num_keys(self.hash_key, config), config.num_hashes * config.rotation_period)
        num_frequent, groups, period = config.split_sizes[index] if config.split_sizes else (0, 0, 0)
        self.splits = num_frequent > 0
        if self.splits:
            self._register("split_index", config.vocab_size)
            self._register("split_table", num_frequent, config.hash_vocab_size + 1)
            self._register("position_table", groups, period)
        self._checked = None

    def forward(self, context: TokenContext) -> list[Routes]:
        """The Routes of T = B * S tokens, one per hash. ValueError if the table is unset or names an unknown expert."""
        self._check_table_once()
        expert_TM = self._look_up(context).long()
        if self.splits:
            expert_TM = self._split_frequent(expert_TM, context)
        return [Routes(expert_N) for expert_N in expert_TM.unbind(1)]

    def set_table(self, route_table: torch.Tensor, **split_tables: torch.Tensor) -> None:
        """Copy a table of integers [keys, columns]; ValueError, naming both shapes, if it does not fit."""
        for name, values in {"route_table": route_table, **split_tables}.items():
            buffer = getattr(self, name)
            if tuple(values.shape) != tuple(buffer.shape):
                raise ValueError(
                    f"{name} has shape {tuple(values.shape)} but the model needs {tuple(buffer.shape)}; "
                    "build it for the model's vocabulary, hash_key, number of hashes and rotation_period"
                )
            buffer.copy_(values)
        self._check_table_once()

    def resize(self, vocab_size: int) -> None:
        """Cut the tables, or extend them: new tokens go to the experts in turn, least used by the vocabulary first.

        The tables of other keys stay: these keys depend on the vocabulary that the tables were built for.
        """
        if self.hash_key in TOKEN_ID_KEYS:
            self.route_table = self._resized(self.route_table, vocab_size)
        if self.splits:
            new = self.split_index.new_full((max(vocab_size - len(self.split_index), 0),), UNSET)
            self.split_index = torch.cat([self.split_index[:vocab_size], new])

    @property
    def layer_digest(self) -> str:
        """Digest of the route table, or of all tables if tokens are split; as in train/data/layer_tables.py."""
        digests = [_digest(buffer) for buffer in self.buffers()]
        return digests[0] if len(digests) == 1 else "sha256:" + hashlib.sha256("".join(digests).encode()).hexdigest()

    def _register(self, name: str, *shape: int) -> None:
        self.register_buffer(name, torch.full(shape, UNSET, dtype=torch.int32))

    def _look_up(self, context: TokenContext) -> torch.Tensor:
        """The experts of all tokens, int32 [T, M] for M hashes."""
        keys_T = hash_keys(self.hash_key, context, none=self.none, num_buckets=self.num_buckets).flatten()
        if self.rotation_period == 1:
            return self.route_table[keys_T]
        column_T = context.position.expand_as(context.current).flatten() % self.rotation_period
        return self.route_table[keys_T, column_T].unsqueeze(1)

    def _split_frequent(self, expert_TM: torch.Tensor, context: TokenContext) -> torch.Tensor:
        """Replace the experts of frequent tokens [T, 1]; all tokens are looked up, as a selection would synchronise."""
        row_T = self.split_index[context.current.flatten()]
        found_T = self.split_table[row_T.clamp(min=0), context.previous.flatten()]
        group_T = (-found_T - 1).clamp(min=0)
        if self.position_table.numel():
            column_T = context.position.expand_as(context.current).flatten() % self.position_table.shape[1]
            found_T = torch.where(found_T < 0, self.position_table[group_T, column_T], found_T)
        return torch.where(row_T >= 0, found_T.long(), expert_TM[:, 0]).unsqueeze(1)

    def _resized(self, table: torch.Tensor, num_keys: int) -> torch.Tensor:
        num_new = num_keys - len(table)
        if num_new <= 0:
            return table[:num_keys]
        columns = []
        for column in table.unbind(1):
            used_E = torch.bincount(column[column >= 0].long(), minlength=self.num_experts)
            place = torch.arange(num_new, device=table.device) % self.num_experts
            is_set = bool((column >= 0).all())
            columns.append(used_E.argsort(stable=True)[place] if is_set else torch.full_like(place, UNSET))
        return torch.cat([table, torch.stack(columns, dim=1).to(table.dtype)])

    def _check_table_once(self) -> None:
        # Reading the table back synchronises the device, so it happens once per change of its contents.
        version = 0 if self.route_table.is_inference() else self.route_table._version
        state = (self.route_table.data_ptr(), version)
        if state == self._checked:
            return
        low, high = int(self.route_table.min()), int(self.route_table.max())
        if low < 0:
            raise ValueError(
                "the route table is not set (it holds -1): build one with `python -m data_prep.build_table` and "
                "call model.set_route_tables(), or load a trained checkpoint"
            )
        if high >= self.num_experts:
            raise ValueError(f"the route table names expert {high} but the layer has {self.num_experts} experts")
        self._checked = state


def _digest(table: torch.Tensor) -> str:
    """sha256 of the shape as text, a newline and the values as little-endian int32."""
    values = table.detach().cpu().contiguous().numpy().astype("<i4")
    shape = ",".join(str(size) for size in values.shape)
    return "sha256:" + hashlib.sha256(f"{shape}\n".encode() + values.tobytes()).hexdigest()


def num_keys(hash_key: str, config) -> int:
    """Number of rows of the route table of a hash key."""
    if hash_key in TOKEN_ID_KEYS:
        return config.vocab_size
    sizes = {
        "previous": config.hash_vocab_size + 1,  # the last row: no previous token
        "bigram": config.num_buckets,
        "position": config.max_position_embeddings,
    }
    return sizes.get(hash_key, config.hash_vocab_size)
