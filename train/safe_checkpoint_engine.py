"""SafeCheckpointEngine: DeepSpeed's checkpoint files, read in a way that cannot run code from them."""

import torch
from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address


class SafeCheckpointEngine(TorchCheckpointEngine):
    """Loads with weights_only=True and a short list of DeepSpeed's plain value classes."""

    _VALUE_CLASSES = [LossScaler, ZeroStageEnum, fragment_address]

    def load(self, path: str, map_location=None):
        """Raises ValueError naming the file where it holds anything but tensors and plain values."""
        try:
            with torch.serialization.safe_globals(self._VALUE_CLASSES):
                return torch.load(path, map_location=map_location, weights_only=True)
        except Exception as error:
            raise ValueError(f"checkpoint file {path} cannot be read safely: {error}") from error
