"""PartResult: how a part of the acceptance ended, kept as a JSON file, so that a later start need not repeat it."""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path

from data_prep.storage.atomic_file import atomic_file
from launch.gpu_acceptance.measuring.figures import FAILED, MEASURED, PASSED, Figure
from launch.gpu_acceptance.measuring.setting import Setting


@dataclass(frozen=True)
class PartResult:
    """error: what ended the part before its figures were complete; None if it ran to its end."""

    part: str
    seconds: float
    figures: list[Figure]
    error: str | None = None

    @property
    def verdict(self) -> str:
        """failed if anything failed; skipped if nothing passed and something was skipped; else passed or measured."""
        verdicts = [figure.verdict for figure in self.figures]
        if self.error or FAILED in verdicts:
            return FAILED
        skipped = [verdict for verdict in verdicts if verdict not in (PASSED, MEASURED)]
        return PASSED if PASSED in verdicts else next(iter(skipped), MEASURED)


def write_result(result: PartResult, setting: Setting) -> None:
    """Write the file of a part atomically, with the setting that it was measured in."""
    values = {**result_as_json(result), "setting": dataclasses.asdict(setting)}
    write_json(result_path(result.part, setting), values)


def read_result(part: str, setting: Setting) -> PartResult | None:
    """The result of an earlier start; None if there is none, or if it is of another setting."""
    path = result_path(part, setting)
    if not path.is_file():
        return None
    values = json.loads(path.read_text())
    if values["setting"] != dataclasses.asdict(setting):
        return None
    names = [field.name for field in dataclasses.fields(Figure)]
    figures = [Figure(**{name: figure[name] for name in names}) for figure in values["figures"]]
    return PartResult(part, values["seconds"], figures, values["error"])


def result_path(part: str, setting: Setting) -> Path:
    return Path(setting.folder) / f"{part}.json"


def log_path(part: str, setting: Setting) -> Path:
    return Path(setting.folder) / f"{part}.log"


def result_as_json(result: PartResult) -> dict:
    """JSON values of a result, its verdicts included; values that are not finite become None."""
    figures = [
        {**{name: _finite(v) for name, v in dataclasses.asdict(figure).items()}, "verdict": figure.verdict}
        for figure in result.figures
    ]
    return {**dataclasses.asdict(result), "figures": figures, "verdict": result.verdict}


def write_json(path: Path, values: dict) -> None:
    with atomic_file(path) as file:
        file.write((json.dumps(values, indent=2, allow_nan=False) + "\n").encode())


def _finite(value):
    return None if isinstance(value, float) and not math.isfinite(value) else value
