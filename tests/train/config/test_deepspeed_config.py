"""A DeepSpeed JSON is filled in from the run config, and refused if the two contradict or experts would break."""

import json

import pytest

from train.config import deepspeed_config as module
from train.config.deepspeed_config import DS_CONFIGS, check_loggers, check_topology, deepspeed_config
from train.config.run_config import LOGGERS, RunConfig

NAMES = sorted(path.stem for path in DS_CONFIGS.glob("*.json"))


def run_config(**fields) -> RunConfig:
    return RunConfig("shards", **{"global_batch_size": 12, "micro_batch_size": 2, "run_dir": "run", **fields})


@pytest.fixture
def resolve(tmp_path):
    """Resolve a JSON, given as a value or as text."""

    def resolve_json(settings, *, world_size=2, **fields) -> dict:
        path = tmp_path / "mine.json"
        path.write_text(settings if isinstance(settings, str) else json.dumps(settings))
        return deepspeed_config(run_config(ds_config=str(path), **fields), world_size=world_size)

    return resolve_json


@pytest.fixture
def error_of(resolve):
    def message(settings, **fields) -> str:
        with pytest.raises(ValueError) as error:
            resolve(settings, **fields)
        return str(error.value)

    return message


def leaves(settings, path=()):
    """Every value of a nested dict by its path."""
    for name, value in settings.items():
        yield from leaves(value, (*path, name)) if isinstance(value, dict) else [((*path, name), value)]


@pytest.mark.parametrize(
    "name, precision, zero_stage",
    [("base", "fp32", 0), ("base", "fp32", 1), ("base", "bf16", 1), ("base", "bf16", 3), ("overlap", "bf16", 2)],
)
def test_every_json_of_the_repository_resolves_without_auto(name, precision, zero_stage):
    assert NAMES == ["base", "overlap"]
    config = run_config(ds_config=name, precision=precision, zero_stage=zero_stage, loggers=["csv"])
    assert not [path for path, value in leaves(deepspeed_config(config, world_size=2)) if value == "auto"]


def test_auto_and_absent_are_filled_from_the_run_config(resolve):
    # 12 sequences / (2 ranks * 2 sequences) = 3 micro-batches
    for settings in ({}, {"gradient_accumulation_steps": "auto", "zero_optimization": {"stage": "auto"}}):
        filled = resolve(settings, zero_stage=2, max_grad_norm=0.5)
        assert filled["train_batch_size"] == 12
        assert filled["train_micro_batch_size_per_gpu"] == 2
        assert filled["gradient_accumulation_steps"] == 3
        assert filled["gradient_clipping"] == 0.5
        assert filled["zero_optimization"]["stage"] == 2
        assert filled["bf16"]["enabled"] is False


def test_settings_that_the_run_config_does_not_own_are_kept(resolve):
    filled = resolve({"zero_optimization": {"overlap_comm": True}, "wall_clock_breakdown": True})
    assert filled["zero_optimization"]["overlap_comm"] is True
    assert filled["wall_clock_breakdown"] is True


def test_no_clipping_is_written_down_because_deepspeed_clips_at_1_by_default(resolve):
    assert resolve({}, max_grad_norm=0)["gradient_clipping"] == 0


@pytest.mark.parametrize("precision, expected", [("fp32", None), ("bf16", "fp32")])
def test_bf16_sums_gradients_in_fp32(resolve, precision, expected):
    filled = resolve({}, precision=precision)
    assert filled["data_types"]["grad_accum_dtype"] == expected
    assert filled["bf16"]["enabled"] is (precision == "bf16")


@pytest.mark.parametrize(
    "logger, section", [("tensorboard", "tensorboard"), ("csv", "csv_monitor"), ("wandb", "wandb")]
)
def test_a_logger_that_the_run_config_names_is_on_and_writes_into_the_run(resolve, logger, section):
    assert resolve({})[section]["enabled"] is False
    filled = resolve({}, loggers=[logger])[section]
    assert filled["enabled"] is True
    assert filled.get("output_path", "run/monitor") == "run/monitor"


@pytest.mark.parametrize(
    "settings, name, in_json, in_run",
    [
        ({"gradient_clipping": 0.3}, "gradient_clipping", "0.3", "1.0"),
        ({"zero_optimization": {"stage": 3}}, "zero_optimization.stage", "3", "1"),
        ({"train_batch_size": 64}, "train_batch_size", "64", "12"),
        ({"bf16": {"enabled": True}}, "bf16.enabled", "true", "false"),
        ({"data_types": {"grad_accum_dtype": "bf16"}}, "data_types.grad_accum_dtype", '"bf16"', "null"),
    ],
)
def test_a_contradiction_names_the_file_the_setting_and_both_values(error_of, settings, name, in_json, in_run):
    message = error_of(settings)
    assert "mine.json" in message
    assert f"{name}={in_json} but the run needs {in_run};" in message


def test_a_setting_that_agrees_with_the_run_config_is_no_contradiction(resolve):
    assert resolve({"gradient_clipping": 1, "train_batch_size": 12})["gradient_clipping"] == 1


@pytest.mark.parametrize("section", [name for name in module._REFUSED_SECTIONS])
def test_a_section_that_breaks_experts_is_refused_with_its_reason(error_of, section):
    value = 2 if section == "sequence_parallel_size" else {"some": "value"}
    message = error_of({section: value})
    assert "mine.json" in message and f"{section}={json.dumps(value)}" in message
    assert module._REFUSED_SECTIONS[section] in message


@pytest.mark.parametrize("section", ["use_data_before_expert_parallelism", "amp"])
def test_a_refused_section_set_to_true_is_refused(error_of, section):
    assert section in error_of({section: True})


@pytest.mark.parametrize("settings", [{"fp16": {"enabled": False}}, {"amp": None}, {"sequence_parallel_size": 1}])
def test_a_refused_section_that_is_off_is_accepted(resolve, settings):
    assert resolve(settings)


@pytest.mark.parametrize("name", ["contiguous_gradients", "reduce_scatter"])
def test_settings_that_reduce_experts_over_the_wrong_ranks_are_refused(error_of, resolve, name):
    message = error_of({"zero_optimization": {name: False}})
    assert "mine.json" in message and f"zero_optimization.{name}=false but the run needs true" in message
    assert "over the wrong ranks" in message
    assert resolve({"zero_optimization": {name: True}})


def test_timers_that_wait_for_the_device_are_off_and_refused(error_of, resolve):
    assert resolve({})["timers"]["throughput"]["enabled"] is False
    message = error_of({"timers": {"throughput": {"enabled": True}}})
    assert "timers.throughput.enabled=true" in message and "wait for the device" in message


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("gradient_dtype", ["fp32", "bf16"])
def test_gradients_are_added_over_ranks_in_the_format_of_the_run(error_of, resolve, precision, gradient_dtype):
    filled = resolve({}, precision=precision, gradient_dtype=gradient_dtype)
    assert filled["communication_data_type"] == gradient_dtype
    other = {"fp32": "bf16", "bf16": "fp32"}[gradient_dtype]
    message = error_of({"communication_data_type": other}, precision=precision, gradient_dtype=gradient_dtype)
    assert f'communication_data_type="{other}" but the run needs "{gradient_dtype}"' in message


def test_bf16_gradients_are_not_kept_beside_their_sums(error_of, resolve):
    assert resolve({}, precision="bf16")["bf16"]["immediate_grad_update"] is True
    assert "beside their fp32 sums" in error_of({"bf16": {"immediate_grad_update": False}}, precision="bf16")


@pytest.mark.parametrize("precision, ignored", [("fp32", [0]), ("bf16", [1])])
def test_an_overlap_that_deepspeed_would_ignore_is_refused(error_of, resolve, precision, ignored):
    overlap = {"zero_optimization": {"overlap_comm": True}}
    for stage in ignored:
        message = error_of(overlap, precision=precision, zero_stage=stage)
        assert f"precision={precision} and zero_stage={stage}" in message and f"zero_stage {stage + 1}" in message
    assert resolve(overlap, precision=precision, zero_stage=2)["zero_optimization"]["overlap_comm"] is True


@pytest.mark.parametrize("name", ["offload_optimizer", "offload_param"])
@pytest.mark.parametrize("device", ["cpu", "nvme"])
def test_offloaded_state_is_refused_because_checkpoints_do_not_reach_it(error_of, resolve, name, device):
    assert f"{name}.device={device}" in error_of({"zero_optimization": {name: {"device": device}}})
    assert resolve({"zero_optimization": {name: {"device": "none"}}})


def test_bf16_needs_zero(error_of):
    message = error_of({}, precision="bf16", zero_stage=0)
    assert "zero_stage=0" in message and "bf16" in message and "choose zero_stage 1" in message
    message = error_of({}, precision="bf16", zero_stage=0, ep_size=2, max_grad_norm=0.5)
    assert "zero_stage=0" in message and "max_grad_norm=0.5" in message and "ep_size=2" in message


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError) as error:
        deepspeed_config(run_config(ds_config="bse"), world_size=1)
    assert "'bse'" in str(error.value) and ", ".join(NAMES) in str(error.value)


def test_invalid_json_is_named_with_its_position(error_of):
    message = error_of('{"bf16": }')
    assert "mine.json is not JSON" in message and "line 1 column 10" in message


@pytest.mark.parametrize("settings", [[1], {"bf16": True}, {"zero_optimization": 2}])
def test_a_value_in_place_of_a_section_is_refused(error_of, settings):
    assert "mine.json" in error_of(settings)


def test_auto_in_a_setting_that_the_run_config_does_not_own_is_refused(error_of):
    assert "reduce_bucket_size" in error_of({"zero_optimization": {"reduce_bucket_size": "auto"}})


@pytest.mark.parametrize("name", ["elasticity", "torch_autocast"])
def test_sections_that_override_the_run_config_are_refused(error_of, name):
    assert name in error_of({name: {"enabled": True}})


@pytest.mark.parametrize(
    "world_size, fields, words",
    [
        (3, {"ep_size": 2}, ["3 ranks", "ep_size=2"]),
        (2, {"global_batch_size": 6}, ["global_batch_size=6", "micro_batch_size=2", "2 ranks = 4"]),
        (4, {"global_batch_size": 4}, ["global_batch_size=4", "micro_batch_size=2", "4 ranks = 8"]),
    ],
)
def test_ranks_that_do_not_fit_are_refused_with_both_numbers(world_size, fields, words):
    with pytest.raises(ValueError) as error:
        check_topology(run_config(**fields), world_size=world_size)
    assert all(word in str(error.value) for word in words), error.value


def test_ranks_that_fit_are_accepted():
    check_topology(run_config(ep_size=2), world_size=6)  # 12 = 6 * 2 * 1, 6 = 3 * 2


@pytest.mark.parametrize("logger", LOGGERS)
def test_a_missing_package_is_reported_before_only_rank_0_fails(monkeypatch, logger):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=f"logger '{logger}' needs the package {logger}"):
        check_loggers(run_config(loggers=[logger]))
    check_loggers(run_config())


def test_the_csv_logger_needs_no_package():
    check_loggers(run_config(loggers=["csv"]))
