"""Export: a Hugging Face directory from a model that is spread over ranks, one expert in memory at a time."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import deepspeed
import deepspeed.comm as dist
import torch
from transformers import GenerationConfig
from transformers.dynamic_module_utils import custom_object_save

from models.modeling_hash_gpt import HashGPTForCausalLM
from train.expert_parallel import ExpertParallelExperts, stacked_expert_tensors
from train.safetensors_stream import SafetensorsStream, TensorSpec

_INDEX = "model.safetensors.index.json"


def export_model(model: HashGPTForCausalLM, folder: Path, *, tokenizer_dir: Path) -> list[OSError]:
    """Write weights, configuration, modelling code and tokenizer into a folder that exists.

    Collective over all ranks. Weights go to model-shared.safetensors and one file per sparse layer. Returns what
    went wrong on this rank: only rank 0 writes, but it must not leave the others alone in their collectives.
    """
    errors: list[OSError] = []
    weight_map = _write_shared(model, folder / "model-shared.safetensors", errors)
    for layer in model.config.sparse_layers:
        weight_map |= _write_experts(model, layer, folder / f"model-experts-{layer:05d}.safetensors", errors)
    if dist.get_rank() == 0 and not errors:
        try:
            _write_description(model, folder, weight_map, tokenizer_dir)
        except OSError as error:
            errors.append(error)
    return errors


def _write_description(
    model: HashGPTForCausalLM, folder: Path, weight_map: dict[str, str], tokenizer_dir: Path
) -> None:
    (folder / _INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}, indent=2))
    config = model.config
    config.architectures = [type(model).__name__]
    config.dtype = next(model.parameters()).dtype
    custom_object_save(model, folder, config=config)
    config.save_pretrained(folder)
    GenerationConfig.from_model_config(config).save_pretrained(folder)
    shutil.copytree(tokenizer_dir, folder, dirs_exist_ok=True)


def _write_shared(model: HashGPTForCausalLM, path: Path, errors: list[OSError]) -> dict[str, str]:
    """Everything but experts, a tensor at a time. Collective over all ranks: ZeRO 3 gathers each parameter."""
    tensors = dict(_shared_tensors(model))
    specs = {name: TensorSpec(tensor.dtype, _whole_shape(tensor)) for name, tensor in tensors.items()}
    with SafetensorsStream(path, specs, enabled=dist.get_rank() == 0, errors=errors) as stream:
        for tensor in tensors.values():
            with _gathered(tensor):
                stream.write(tensor)
    return {name: path.name for name in specs}


def _shared_tensors(model: HashGPTForCausalLM) -> Iterator[tuple[str, torch.Tensor]]:
    yield from ((name, parameter) for name, parameter in model.named_parameters() if ".experts." not in name)
    persistent = model.state_dict(keep_vars=True).keys()
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name in persistent)


def _write_experts(model: HashGPTForCausalLM, layer: int, path: Path, errors: list[OSError]) -> dict[str, str]:
    """The experts of one layer, expert by expert in the order of their global ids."""
    experts = model.transformer.h[layer].sparse_ffn.experts
    parameters = list(experts.parameters())
    with _gathered(*parameters):
        stacked = stacked_expert_tensors(experts)
        attribute = "sparse" if model.config.placement == "insert" else "mlp"
        prefix = f"transformer.h.{layer}.{attribute}.experts."
        specs = {
            prefix + name: TensorSpec(tensor.dtype, (experts.num_experts, *tensor.shape[1:]))
            for name, tensor in stacked.items()
        }
        with SafetensorsStream(path, specs, enabled=dist.get_rank() == 0, errors=errors) as stream:
            for tensor in stacked.values():
                for expert_tensor in _experts_on_rank_0(experts, tensor):
                    stream.write(expert_tensor)
    return {name: path.name for name in specs}


def _experts_on_rank_0(experts: torch.nn.Module, stacked: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yields, for each global expert, its tensor on rank 0 and None elsewhere.

    Only rank 0's expert-parallel group takes part, the ranks [0, ep_size): together they hold every expert.
    """
    num_local = len(experts.expert_ids)
    for expert in range(experts.num_experts):
        owner, rank = expert // num_local, dist.get_rank()
        if owner == 0:
            yield stacked[expert] if rank == 0 else None
        elif rank == 0:
            received = torch.empty_like(stacked[0], memory_format=torch.contiguous_format)
            dist.recv(received, src=owner, group=_group(experts))
            yield received
        else:
            if rank == owner:
                dist.send(stacked[expert % num_local].contiguous(), dst=0, group=_group(experts))
            yield None


def _group(experts: torch.nn.Module):
    return experts.ep_group if isinstance(experts, ExpertParallelExperts) else None


def _whole_shape(tensor: torch.Tensor) -> tuple[int, ...]:
    return tuple(getattr(tensor, "ds_shape", tensor.shape))


def _gathered(*tensors: torch.Tensor):
    """ZeRO 3 keeps parameters as shards; inside this context they are whole. Does nothing for other tensors."""
    return deepspeed.zero.GatheredParameters([tensor for tensor in tensors if hasattr(tensor, "ds_id")])
