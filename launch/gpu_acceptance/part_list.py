"""PARTS: the parts of the acceptance in their order, with the time that each may take."""

from dataclasses import dataclass

_ROOM = "launch.gpu_acceptance.parts"


@dataclass(frozen=True)
class Part:
    """module: whose measure(setting) is the part. A part that takes longer than limit_seconds is killed."""

    name: str
    module: str
    limit_seconds: float
    promise: str


# The limits add up to 25 minutes.
PARTS = [
    Part("budgets", f"{_ROOM}.budgets", 180, "What a step waits for and keeps"),
    Part("grouped_mm", f"{_ROOM}.grouped_products", 60, "grouped_mm beside the loop over experts"),
    Part("routings", f"{_ROOM}.routings", 150, "Three steps of every hash and router"),
    Part("layer", f"{_ROOM}.layer", 240, "The layer beside its alternatives"),
    Part("step", f"{_ROOM}.whole_step", 270, "A whole step beside the dense model's"),
    Part("resume", f"{_ROOM}.kill_and_resume", 360, "A run that is killed and resumes"),
    Part("async_save", f"{_ROOM}.background_save", 240, "A checkpoint written while training goes on"),
]
