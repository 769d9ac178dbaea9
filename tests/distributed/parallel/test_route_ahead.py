"""Plans made ahead on the host equal the plans of the layers, and the forward pass needs no further splits."""

import pytest

from tests.distributed.parallel.route_ahead_checks import compare_plans, count_collectives
from tests.distributed.ranks import run_ranks
from tests.models.hashes import HASHES

pytestmark = pytest.mark.distributed


def test_plans_ahead_equal_the_plans_of_the_layers_for_every_hash():
    for rank in run_ranks(compare_plans, 2, hashes=list(HASHES)):
        assert rank == {name: True for name in HASHES}


def test_a_micro_batch_costs_one_all_to_all_of_counts_and_four_of_tokens_per_layer():
    for counts in run_ranks(count_collectives, 2):
        # two sparse layers: tokens there and back in the forward pass, and again in the backward pass
        assert counts == {"planning": 1, "forward": 2 * 2, "backward": 2 * 2}
