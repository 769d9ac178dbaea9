"""The report of an acceptance, in Markdown for docs/benchmarks.md and in JSON."""

import dataclasses
from pathlib import Path

from data_prep.storage.atomic_file import atomic_file
from launch.gpu_acceptance.measuring.figures import Figure
from launch.gpu_acceptance.measuring.setting import Setting
from launch.gpu_acceptance.part_list import Part
from launch.gpu_acceptance.results import PartResult, result_as_json, write_json

_HEAD = "| | value | p10..p90 | target | verdict |\n|---|---|---|---|---|"


def write_report(parts: list[Part], results: dict[str, PartResult], setting: Setting) -> Path:
    """Write report.md and report.json, and return the former's path. results: by the name of the part."""
    folder = Path(setting.folder)
    measured = [result_as_json(results[part.name]) for part in parts if part.name in results]
    write_json(folder / "report.json", {"setting": dataclasses.asdict(setting), "parts": measured})
    with atomic_file(folder / "report.md") as file:
        file.write(markdown(parts, results, setting).encode())
    return folder / "report.md"


def markdown(parts: list[Part], results: dict[str, PartResult], setting: Setting) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in setting.versions.items())
    sizes = "small sizes" if setting.small else "full sizes"
    sections = [_section(part, results.get(part.name)) for part in parts]
    return "\n\n".join([f"Device: {setting.device_name}; {versions}; {sizes}.", *sections]) + "\n"


def _section(part: Part, result: PartResult | None) -> str:
    if result is None:
        return f"### {part.promise}\n\n`{part.name}` has not run."
    lines = [f"### {part.promise}", "", f"`{part.name}`: {result.verdict}, {result.seconds:.0f} s."]
    if result.figures:
        lines += ["", _HEAD, *map(_row, result.figures)]
    if result.error:
        lines += ["", *(f"    {line}" for line in result.error.splitlines())]
    return "\n".join(lines)


def _row(figure: Figure) -> str:
    value = "" if figure.value is None else f"{_number(figure.value)} {figure.unit}".strip()
    spread = "" if figure.p10 is None else f"{_number(figure.p10)}..{_number(figure.p90)}"
    note = f" ({figure.note})" if figure.note else ""
    cells = (figure.what, value, spread, figure.target, figure.verdict + note)
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
