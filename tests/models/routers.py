"""One configuration of every learned router and its options, as fields of HashGPTConfig."""

NUM_EXPERTS = 4

ROUTERS = {
    "switch": {"router": "switch", "router_z_loss_coef": 0.01},
    "switch, full experts and jitter": {"router": "switch", "capacity_factor": 0.75, "router_jitter_noise": 0.1},
    "token_switch": {"router": "token_switch"},
    "gshard": {"router": "gshard"},
    "gshard, full experts": {"router": "gshard", "capacity_factor": 0.75},
    "base": {"router": "base", "placement": "insert", "num_sublayers": 2},
    "base in place": {"router": "base"},
    "switch inserted, full experts": {"router": "switch", "placement": "insert", "capacity_factor": 0.75},
    "expert_choice": {"router": "expert_choice"},
    "expert_choice, half": {"router": "expert_choice", "capacity_factor": 0.5},
    "expert_choice, capped": {"router": "expert_choice", "expert_choice_cap": 2},
}
CAUSAL = [name for name, fields in ROUTERS.items() if fields["router"] != "expert_choice"]
PLAIN = [name for name, fields in ROUTERS.items() if name == fields["router"]]  # one of each
