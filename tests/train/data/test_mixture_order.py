"""Each part of a mixture comes for its epochs, on any number of ranks."""

from fractions import Fraction

import numpy as np
import pytest

from train.data.batches import micro_batch_addresses
from train.data.mixture_order import MixtureOrder
from train.data.sample_order import SampleOrder
from train.data.validation_split import Subset, held_out_groups
from train.data.window_order import Windows, windows_of

SIZES, EPOCHS = [7, 5, 8], ["1", "2", "1/2"]


WHOLE = windows_of(1024)  # more than any order of these tests holds


def make_order(sizes=SIZES, epochs=EPOCHS, *, seed=3, part_seeds=None, windows=WHOLE) -> MixtureOrder:
    parts, epochs = [Subset(size) for size in sizes], list(map(Fraction, epochs))
    part_seeds = part_seeds or list(range(len(sizes)))
    return MixtureOrder(parts, epochs, seed=seed, part_seeds=part_seeds, windows=windows)


def counts(addresses: np.ndarray) -> list[list[int]]:
    """How often each sequence of each part comes."""
    parts, sequences = addresses.T
    return [np.bincount(sequences[parts == part], minlength=size).tolist() for part, size in enumerate(SIZES)]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_single_part_of_one_epoch_has_the_order_of_its_samples(seed):
    order = make_order([13], ["1"], seed=seed)
    expected = SampleOrder(13, seed=seed).samples(5, 40)
    assert order.addresses(5, 40).tolist() == [[0, sample] for sample in expected.tolist()]


def test_the_order_never_changes_silently():
    # A changed order would make a resumed run see some sequences twice and others never.
    assert make_order().addresses(18, 12).tolist() == [
        [0, 0], [1, 1], [1, 1], [0, 6], [2, 3], [1, 3], [1, 0], [0, 4], [2, 5], [2, 6], [0, 5], [1, 2],
    ]  # fmt: skip


def test_the_order_of_subsets_never_changes_silently():
    digests = ["sha256:" + "1f" * 32, "sha256:" + "2e" * 32]
    sizes = zip([300, 200], digests, strict=True)
    parts = [Subset(n, held_out_groups(n, fraction=0.3, corpus_digest=digest)) for n, digest in sizes]
    order = MixtureOrder(parts, [Fraction(1, 2), Fraction(2)], seed=5, part_seeds=[1, 2], windows=WHOLE)
    assert order.num_slots == 172 // 2 + 2 * 136
    assert order.addresses(order.num_slots - 6, 12).tolist() == [
        [0, 270], [1, 47], [1, 91], [1, 30], [1, 33], [1, 90], [1, 99], [1, 15], [0, 138], [1, 114], [1, 102], [0, 6],
    ]  # fmt: skip


@pytest.mark.parametrize("windows", [WHOLE, Windows(1, lanes=4), Windows(2, lanes=5)])
@pytest.mark.parametrize("epoch", [0, 1, 4])
def test_an_epoch_passes_over_each_part_for_its_epochs(epoch, windows):
    order = make_order(windows=windows)
    assert order.num_slots == 7 + 10 + 4
    whole, twice, half = counts(order.addresses(epoch * 21, 21))
    assert (whole, twice) == ([1] * 7, [2] * 5)
    assert sorted(half) == [0] * 4 + [1] * 4


@pytest.mark.parametrize("windows", [WHOLE, Windows(1, lanes=4)])
def test_every_sequence_of_half_a_part_is_seen_once_before_any_is_seen_twice(windows):
    order = make_order(windows=windows)
    epochs = [counts(order.addresses(epoch * 21, 21))[2] for epoch in range(4)]
    assert np.add(epochs[0], epochs[1]).tolist() == np.add(epochs[2], epochs[3]).tolist() == [1] * 8


def test_fractional_epochs_even_out_over_time():
    order = make_order([7], ["1.5"])  # 10.5 -> 11 of 7 per epoch
    for num_epochs in range(1, 8):
        seen = np.bincount(order.addresses(0, num_epochs * 11)[:, 1], minlength=7)
        assert seen.max() - seen.min() <= 1 and seen.sum() == num_epochs * 11


def test_a_part_of_one_sequence_repeats_it_and_an_empty_part_never_comes():
    assert make_order([1], ["1"]).addresses(0, 3).tolist() == [[0, 0]] * 3
    assert make_order([0, 1], ["1", "2"]).addresses(0, 4).tolist() == [[1, 0]] * 4


@pytest.mark.parametrize(("epochs", "part_seeds"), [(["1"], [0, 1]), (["1", "1"], [0])])
def test_every_part_needs_its_epochs_and_its_seed(epochs, part_seeds):
    with pytest.raises(ValueError, match="shorter"):
        make_order([7, 5], epochs, part_seeds=part_seeds)


def test_parts_are_mixed_and_repeated_in_another_order():
    order = make_order()
    assert (np.diff(order.addresses(0, 21)[:, 0]) != 0).sum() > 5
    orders = [order.addresses(0, 21), order.addresses(21, 21), make_order(seed=4).addresses(21, 21)]
    assert len({str(addresses.tolist()) for addresses in orders}) == 3


def test_a_part_has_an_order_of_its_own():
    one, other = (make_order([8], ["1/2"], part_seeds=[seed]) for seed in (1, 2))
    assert set(one.addresses(0, 4)[:, 1].tolist()) != set(other.addresses(0, 4)[:, 1].tolist())


@pytest.mark.parametrize("windows", [WHOLE, Windows(1, lanes=4)])
def test_a_run_resumes_on_any_number_of_ranks_from_its_step_alone(windows):
    seen = []
    for step, (world_size, micro_batch_size) in enumerate([(1, 4), (4, 1), (2, 1), (2, 2), (1, 1), (4, 1)] * 7):
        order = make_order(windows=windows)  # nothing is kept between steps
        per_step = 4 // world_size // micro_batch_size
        for number in range(step * per_step, (step + 1) * per_step):
            options = {"micro_batch_size": micro_batch_size, "world_size": world_size}
            seen += [micro_batch_addresses(order, number, rank=rank, **options) for rank in range(world_size)]
    assert counts(np.concatenate(seen)) == [[8] * 7, [16] * 5, [4] * 8]  # 42 steps * 4 = 8 epochs of 21


def test_windows_keep_the_sequences_of_a_part_together_that_is_read_twice_or_by_half():
    windows = Windows(lane=13, lanes=80)  # regions of 104 in windows of 1,040
    order = make_order([6000, 6000], ["2", "1/2"], windows=windows)
    for first in range(0, 15_000, 1040)[:13]:  # all windows but the last
        parts, sequences = order.addresses(first, 1040).T
        for part in (0, 1):
            regions = np.unique(sequences[parts == part] // 104)
            # A region of slots may lie in two of the part, each of which may begin anywhere.
            assert len(regions) <= 3 * ((parts == part).sum() / 104 + 2) < 58


def test_a_part_of_one_region_is_shuffled_as_a_whole():
    windows = Windows(lane=13, lanes=8)  # regions of 104
    order = make_order([104, 1000], ["1/2", "1"], windows=windows)
    parts, sequences = order.addresses(0, 1052).T
    drawn = np.sort(sequences[parts == 0])
    assert len(drawn) == 52 and (np.diff(drawn) > 1).sum() > 10  # not one half of the part
