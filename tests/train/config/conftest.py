"""The recipe that the tests of the config share."""

import pytest


@pytest.fixture
def recipe(tmp_path):
    """Write a recipe and return the arguments that name it."""

    def write(text: str) -> list[str]:
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return ["--config", str(path)]

    return write
