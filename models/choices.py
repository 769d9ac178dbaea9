"""The choices that a network offers, stated once for its configuration and for the recipes of runs."""

POSITION_EMBEDDINGS = ("learned", "sinusoidal")
PLACEMENTS = ("replace", "insert")
HASH_KEYS = ("token", "previous", "bigram", "position", "next", "predicted")
# The routers, and the fields that each of them reads; a field that would be ignored is refused.
ROUTERS = {
    "hash": (),
    "switch": ("router_aux_loss_coef", "router_z_loss_coef", "router_jitter_noise", "capacity_factor"),
    "token_switch": ("router_aux_loss_coef", "router_z_loss_coef", "router_jitter_noise", "capacity_factor"),
    "gshard": ("router_aux_loss_coef", "router_z_loss_coef", "capacity_factor"),
    "base": (),
    "expert_choice": ("capacity_factor", "expert_choice_cap"),
}
# 0.1 was the best of 0, 0.01, 0.05, 0.1 and 0.5 in the paper (Table 9).
ROUTER_DEFAULTS = {
    "router_aux_loss_coef": 0.1,
    "router_z_loss_coef": 0.0,
    "router_jitter_noise": 0.0,
    "capacity_factor": None,
    "expert_choice_cap": 0,
}
