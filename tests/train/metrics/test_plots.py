"""Figures exist only if there is something to draw, and show the values of metrics.jsonl."""

import json

import pytest
from PIL import Image

from train.metrics import plots
from train.metrics.plots import plot_expert_load, plot_loss, plot_routing

TRAIN = [{"kind": "train", "step": step, "loss": 5.0 - step / 10} for step in (1, 2, 3)]
VALIDATION = [{"kind": "validation", "step": 3, "loss": 4.0}]


def load_line(layer=1, observed=(1, 5, 2), predicted=(2, 4, 2)):
    return {"kind": "expert_load", "layer": layer, "observed": observed, "predicted": predicted}


@pytest.fixture
def metrics(tmp_path):
    def write(*lines):
        path = tmp_path / "metrics.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    return write


@pytest.fixture
def drawn(monkeypatch):
    """The saved figures, in the order of saving."""
    figures, save = [], plots._save
    monkeypatch.setattr(plots, "_save", lambda figure, path: (figures.append(figure), save(figure, path))[1])
    return figures


@pytest.mark.parametrize("validation", [VALIDATION, []], ids=["with validation", "without validation"])
def test_the_loss_is_drawn_with_and_without_validation(metrics, tmp_path, drawn, validation):
    path = plot_loss(metrics(*TRAIN, *validation), tmp_path / "new folder" / "loss.png")
    with Image.open(path) as image:
        assert image.size == (960, 600)  # 6.4 * 4 inches at 150 dots
    assert len(drawn[0].axes[0].lines) == 1 + len(validation)


def test_axes_are_labelled_with_their_units(metrics, tmp_path, drawn):
    plot_loss(metrics(*TRAIN), tmp_path / "loss.png")
    axes = drawn[0].axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("optimizer step", "loss (nats per token)")
    assert axes.child_axes[0].get_ylabel() == "perplexity"


def test_a_loss_that_was_not_finite_is_skipped(metrics, tmp_path, drawn):
    diverged = [{"kind": "train", "step": 2, "loss": None}, {"kind": "validation", "step": 2, "loss": None}]
    plot_loss(metrics(TRAIN[0], *diverged, TRAIN[2], *VALIDATION), tmp_path / "loss.png")
    assert [list(line.get_xdata()) for line in drawn[0].axes[0].lines] == [[1, 3], [3]]


def test_a_run_that_diverged_at_its_end_is_drawn(metrics, tmp_path, drawn):
    diverged = [{"kind": "train", "step": 4, "loss": None}, {"kind": "validation", "step": 4, "loss": None}]
    plot_loss(metrics(*TRAIN, *VALIDATION, *diverged), tmp_path / "loss.png")
    assert [list(line.get_xdata()) for line in drawn[0].axes[0].lines] == [[1, 2, 3], [3]]


def test_bars_fall_and_dots_show_the_prediction_for_the_same_expert(metrics, tmp_path, drawn):
    plot_expert_load(metrics(load_line(observed=[1, 5, 2], predicted=[2, 4, 2])), tmp_path / "load.png")
    axes = drawn[0].axes[0]
    assert [bar.get_height() for bar in axes.patches] == [5 / 8, 2 / 8, 1 / 8]
    assert axes.collections[0].get_offsets()[:, 1].tolist() == [4 / 8, 2 / 8, 2 / 8]


@pytest.mark.parametrize("predicted", [None, [None] * 3, [0, 0, 0]])
def test_a_table_made_without_counts_shows_the_observed_load_alone(metrics, tmp_path, drawn, predicted):
    plot_expert_load(metrics(load_line(predicted=predicted)), tmp_path / "load.png")
    assert len(drawn[0].axes[0].patches) == 3 and not drawn[0].axes[0].collections


def test_the_first_four_sparse_layers_are_drawn(metrics, tmp_path, drawn):
    plot_expert_load(metrics(*(load_line(layer=layer) for layer in (9, 1, 3, 5, 7))), tmp_path / "load.png")
    assert [axes.get_title().split(":")[0] for axes in drawn[0].axes] == ["Layer 1", "Layer 3", "Layer 5", "Layer 7"]


def test_the_routing_has_a_panel_for_each_measured_value(metrics, tmp_path, drawn):
    measured = {"dropped_share": 0.125, "routing_entropy": 1.5}
    lines = [{**line, **measured} for line in TRAIN] + [{**VALIDATION[0], "routing_fluctuation": 0.25}]
    plot_routing(metrics(*lines), tmp_path / "routing.png")
    values = {axes.get_title(): axes.lines[0].get_ydata().tolist() for axes in drawn[0].axes}
    assert values == {
        "dropped tokens": [0.125] * 3,
        "router entropy (nats)": [1.5] * 3,
        "tokens rerouted between validations": [0.25],
    }


def test_the_routing_of_a_hash_has_no_entropy(metrics, tmp_path, drawn):
    lines = [{**line, "dropped_share": 0.0, "routing_entropy": None} for line in TRAIN]
    plot_routing(metrics(*lines), tmp_path / "routing.png")
    assert [axes.get_title() for axes in drawn[0].axes] == ["dropped tokens"]


@pytest.mark.parametrize("plot, lines", [(plot_loss, VALIDATION), (plot_expert_load, TRAIN), (plot_routing, TRAIN)])
def test_there_is_no_file_if_there_is_nothing_to_draw(metrics, tmp_path, plot, lines):
    assert plot(metrics(*lines), tmp_path / "figure.png") is None
    assert not (tmp_path / "figure.png").exists()
