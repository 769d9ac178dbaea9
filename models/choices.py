"""The values that the fields of a network may have, for the model's config and the trainer's; imports nothing."""

POSITION_EMBEDDINGS = ("learned", "sinusoidal")
PLACEMENTS = ("replace", "insert")
# The routers, each with the fields that it reads; a field that the router would ignore is refused.
ROUTERS = {
    "hash": (),
    "switch": ("router_aux_loss_coef", "router_z_loss_coef", "router_jitter_noise", "capacity_factor"),
    "token_switch": ("router_aux_loss_coef", "router_z_loss_coef", "router_jitter_noise", "capacity_factor"),
    "gshard": ("router_aux_loss_coef", "router_z_loss_coef", "capacity_factor"),
    "base": (),
    "expert_choice": ("capacity_factor", "expert_choice_cap"),
}
