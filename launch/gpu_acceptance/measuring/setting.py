"""Setting: the device of an acceptance, the sizes that fit it, and the targets that apply there."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from train.processes.project_root import ROOT

NEEDS_GPU, NEEDS_FULL_SIZES = "skipped: needs a GPU", "skipped: needs full sizes"
LIBRARIES = ("torch", "deepspeed", "transformers")
Size = TypeVar("Size")


@dataclass(frozen=True)
class Setting:
    """What all parts know. JSON values alone, since each part is a process of its own."""

    device: str  # "cpu" or "cuda"
    device_name: str
    small: bool  # sizes that a CPU manages in seconds
    folder: str  # for everything that the acceptance writes
    versions: dict[str, str]  # of the libraries

    def size(self, full: Size, small: Size) -> Size:
        return small if self.small else full

    @property
    def without_gpu(self) -> str | None:
        """Why a figure that only exists on a GPU is skipped; None on a GPU."""
        return NEEDS_GPU if self.device == "cpu" else None

    @property
    def without_speed(self) -> str | None:
        """Why a target of speed does not apply; None on a GPU with full sizes."""
        return self.without_gpu or (NEEDS_FULL_SIZES if self.small else None)

    def work_folder(self, part: str) -> Path:
        """A folder for a part's own files."""
        folder = Path(self.folder) / "work" / part
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def make_setting(*, device: str, small: bool, folder: str | Path) -> Setting:
    """The setting on this machine; a CPU gets small sizes. ValueError if the device is "cuda" and there is none."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device cuda, but torch {torch.__version__} finds no GPU; check nvidia-smi, or omit it")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    folder = str((ROOT / folder).resolve())  # parts run in the repository root
    versions = {library: version(library) for library in LIBRARIES}
    return Setting(device, name, small or device == "cpu", folder, versions)
