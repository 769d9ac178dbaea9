"""metrics.jsonl: the records of a run, one JSON object per line, appended by the run and read by step."""

import dataclasses
import json
import math
from pathlib import Path
from typing import TextIO, TypeVar

from train.metrics.records import ExpertLoadRecord, TrainRecord, ValidationRecord

Record = TrainRecord | ValidationRecord | ExpertLoadRecord
Point = TypeVar("Point", TrainRecord, ValidationRecord)


class MetricsFile:
    """Appends records to the metrics of a run, line by line, so that a killed run keeps its metrics."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._file = _open_at_line_start(self.path)

    def write(self, record: Record) -> None:
        values = {"kind": record.kind, **dataclasses.asdict(record)}
        finite = {name: None if _is_not_finite(value) else value for name, value in values.items()}
        self._file.write(json.dumps(finite) + "\n")

    def close(self) -> None:
        self._file.close()


def read_points(path: str | Path, record_type: type[Point]) -> list[Point]:
    """The records of one type that make up the run, by step.

    A resumed run repeats steps: its first record replaces everything that the interrupted run wrote beyond that step.
    """
    points: list[dict] = []
    for line in _read_lines(path):
        if "step" not in line:
            continue
        while points and points[-1]["step"] > line["step"]:
            points.pop()
        points.append(line)
    by_step = {point["step"]: point for point in points if point["kind"] == record_type.kind}
    return [_record(point, record_type) for point in by_step.values()]


def read_values(path: str | Path, record_type: type[Point], name: str) -> list[tuple[int, float]]:
    """(step, value) of the records in which the field `name` has a value."""
    found = [(point.step, getattr(point, name)) for point in read_points(path, record_type)]
    return [(step, value) for step, value in found if value is not None]


def read_expert_loads(path: str | Path) -> list[ExpertLoadRecord]:
    """The last expert load of each sparse layer, by layer."""
    loads = {line["layer"]: line for line in _read_lines(path) if line["kind"] == ExpertLoadRecord.kind}
    return [_record(loads[layer], ExpertLoadRecord) for layer in sorted(loads)]


def _record(line: dict, record_type):
    """A field that the line lacks is None."""
    return record_type(**{spec.name: line.get(spec.name) for spec in dataclasses.fields(record_type)})


def _read_lines(path: str | Path) -> list[dict]:
    lines = []
    for text in Path(path).read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:  # a killed run leaves half a line
            continue
    return lines


def _open_at_line_start(path: Path) -> TextIO:
    """Open for appending with line buffering; a line that was cut off is ended first."""
    file = open(path, "a+", buffering=1)
    file.seek(0)
    text = file.read()
    if text and not text.endswith("\n"):
        file.write("\n")
    return file


def _is_not_finite(value) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
