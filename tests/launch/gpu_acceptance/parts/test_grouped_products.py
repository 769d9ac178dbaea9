"""The comparison of grouped_mm with the loop passes on a CPU, and sees a wrong gradient."""

import pytest

from launch.gpu_acceptance.measuring.setting import Setting
from launch.gpu_acceptance.parts import grouped_products


@pytest.fixture
def setting(tmp_path):
    return Setting("cpu", "CPU", small=True, folder=str(tmp_path), versions={})


def test_both_ways_agree_and_the_choice_of_the_layer_needs_a_gpu(setting):
    *differences, choice = grouped_products.measure(setting)
    assert [figure.verdict for figure in differences] == ["passed"] * 7
    assert choice.verdict == "skipped: needs a GPU"


def test_a_gradient_of_the_wrong_size_fails(setting, monkeypatch):
    backward = grouped_products.GroupedMMFeedForward.backward

    def wrong(ctx, grad_TD):
        grads = list(backward(ctx, grad_TD))
        grads[3] = grads[3] * 1.1
        return tuple(grads)

    monkeypatch.setattr(grouped_products.GroupedMMFeedForward, "backward", staticmethod(wrong))
    failed = [figure.what for figure in grouped_products.measure(setting) if figure.verdict == "failed"]
    assert failed == ["difference in the gradient of up"]
