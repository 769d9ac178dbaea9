"""Values are converted to their field's type, and held to the choices and the range beside it."""

import math
from dataclasses import dataclass

import pytest

from train.config.field_rules import conform, setting


@dataclass(frozen=True)
class Config:
    size: int = setting(1, at_least=1, help="")
    share: float = setting(0.0, at_least=0, below=1, help="")
    speed: float = setting(1.0, at_least=0, help="")
    limit: int | None = setting(None, at_least=1, help="")
    colour: str = setting("red", choices=("red", "blue"), help="")
    tags: list[str] = setting([], choices=("a", "b"), help="")

    def __post_init__(self):
        conform(self)


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("size", 0, "size=0 must be at least 1"),
        ("share", 1, "share=1.0 must be at least 0 and below 1"),
        ("share", -0.5, "share=-0.5 must be at least 0 and below 1"),
        ("speed", math.inf, "speed=inf must be at least 0 and finite"),
        ("speed", "nan", "speed=nan must be at least 0 and finite"),
        ("limit", 0, "limit=0 must be at least 1, or None"),
        ("colour", "green", "colour='green' is not one of red, blue"),
        ("tags", ["a", "c"], "tags names 'c', which is not one of a, b"),
        ("size", None, "size must not be empty"),
        ("size", "x", "size='x' is not of type int"),
    ],
)
def test_a_broken_rule_is_named_with_field_value_and_rule(field, value, message):
    with pytest.raises(ValueError) as error:
        Config(**{field: value})
    assert str(error.value) == message


def test_values_at_the_edge_of_a_range_are_accepted():
    config = Config(size=1, share=0, speed="0", limit="none", tags=["b", "a"])
    assert (config.size, config.share, config.speed, config.limit, config.tags) == (1, 0.0, 0.0, None, ["b", "a"])


def test_two_configs_do_not_share_a_default_list():
    assert Config().tags is not Config().tags


def test_further_rules_are_kept_beside_the_field():
    assert setting(0, help="", free_on_resume=True).metadata["free_on_resume"]
