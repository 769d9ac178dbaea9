"""Read a run's metrics.jsonl: its points by step, and the load of its experts."""

import json
from pathlib import Path


def read_points(metrics_path: str | Path, *, kind: str) -> list[dict]:
    """The lines of one kind ("train" or "valid") that make up the run, by step.

    A resumed run repeats steps: from its first line on it replaces what an interrupted one wrote beyond that step.
    """
    points: list[dict] = []
    for line in _read_lines(metrics_path):
        if "step" not in line:
            continue
        while points and points[-1]["step"] > line["step"]:
            points.pop()
        points.append(line)
    return list({point["step"]: point for point in points if point["kind"] == kind}.values())


def read_values(metrics_path: str | Path, *, kind: str, name: str) -> list[tuple[int, float]]:
    """(step, value) of the points that have a value of this name."""
    points = read_points(metrics_path, kind=kind)
    return [(point["step"], point[name]) for point in points if point.get(name) is not None]


def read_expert_loads(metrics_path: str | Path) -> list[dict]:
    """The last expert_load line of each sparse layer, by layer."""
    loads = {line["layer"]: line for line in _read_lines(metrics_path) if line["kind"] == "expert_load"}
    return [loads[layer] for layer in sorted(loads)]


def _read_lines(metrics_path: str | Path) -> list[dict]:
    lines = []
    for text in Path(metrics_path).read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:  # a run that was killed leaves half a line
            continue
    return lines
