"""The error for a name that is not a field of a run: it gives the new name, or the nearest one."""

import dataclasses
import difflib

from train.config.run_config import RunConfig

RENAMED = {
    "width": "hidden_size",
    "ffn_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "steps": "max_steps",
    "clip": "max_grad_norm",
    "clip_norm": "grad_norm_scope",
    "balance_loss": "router_aux_loss_coef",
    "z_loss": "router_z_loss_coef",
    "router_jitter": "router_jitter_noise",
    "skip_bad_steps": "max_nonfinite_steps",
    "valid_data": "eval_data",
    "valid_share": "eval_fraction",
    "monitors": "loggers",
    "plan_ranks": "dry_run_world_size",
}


def unknown_field(name: str, source: str) -> str:
    """The error message; source: the recipe or command line that sets the name."""
    if name in RENAMED:
        return f"{source} sets {name!r}, which is now called {RENAMED[name]!r}"
    return f"{source} sets {name!r}, which is not a field of a run; the nearest is {nearest_field(name)!r}"


def nearest_field(name: str) -> str:
    names = [spec.name for spec in dataclasses.fields(RunConfig)]
    return difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
