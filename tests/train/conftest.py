"""The data that the tests of train share: made once per session, and only read afterwards."""

import pytest

from tests.tiny_run import TinyData, make_tiny_data


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> TinyData:
    return make_tiny_data(tmp_path_factory.mktemp("tiny_data"))
