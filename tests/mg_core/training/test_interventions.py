"""Interventions of a model against one image at a time in float64."""

import numpy as np
import pytest
import torch

from mg_core.attributions import attribute, upsample
from mg_core.config import EvaluationPair
from mg_core.data.backgrounds import swapped_backgrounds
from mg_core.metrics.perturbation import deletion_insertion
from mg_core.models import build_model
from mg_core.training import interventions
from mg_core.training.interventions import intervene

PAIRS = [
    EvaluationPair(attribution="ixg", layer="input"),
    EvaluationPair(attribution="gradcam", layer="mid2"),
]


def probability_of(model, k):
    return lambda images: model(model.encode(images)).sigmoid()[:, k]


@pytest.mark.parametrize("batch_size", [3, 64])
def test_deletion_and_insertion_are_means_over_single_pairs(shapes, model, batch_size):
    split = shapes.split("test")
    found = intervene(model, split, PAIRS, batch_size).perturbed
    check_areas(model.double().eval(), split, PAIRS, found)


def test_explanations_outlast_the_passes_in_between(shapes):
    """W(x) of a B-cos network is that of the image, and not of the one that was changed last."""
    torch.manual_seed(0)
    model = build_model("bcos_tiny", len(shapes.classes)).eval()
    pair = EvaluationPair(attribution="bcos", layer="input")
    split = shapes.split("test")
    assert split.labels.sum(1).max() > 1
    found = intervene(model, split, [pair]).perturbed
    check_areas(model.double(), split, [pair], found)


def check_areas(model, split, pairs, found):
    for pair in pairs:
        areas = []
        for i in range(len(split)):
            images = split.images([i]).double() / 255
            for k in np.flatnonzero(split.labels[i]):
                where = (pair.attribution, pair.layer)
                raw = attribute(model, model.encode(images), torch.tensor([k]), *where)
                maps = upsample(raw.detach(), images.shape[-2:])
                areas.append(deletion_insertion(probability_of(model, k), images, maps))
        table = np.array([[float(area) for area in both] for both in areas])
        assert len(table) == split.labels.sum()
        known = table[~np.isnan(table[:, 0])]
        deletion, insertion = known.mean(axis=0)
        assert found[pair]["n_perturbed"] == len(known) >= len(table) - 1
        # Equal attributions may come in another order in single precision.
        assert found[pair]["deletion"] == pytest.approx(deletion, abs=1e-3)
        assert found[pair]["insertion"] == pytest.approx(insertion, abs=1e-3)


def test_f1_of_swapped_backgrounds_is_that_of_the_swapped_images(shapes, model):
    split = shapes.split("test")
    found = intervene(model, split, batch_size=3).swapped
    model.double().eval()
    expected = {}
    for name, place in (("f1_unswapped", 1), ("f1_swapped", 2)):
        hits = decisions = 0
        for batch in swapped_backgrounds(split, 3):
            for i, image in zip(batch[0], batch[place], strict=True):
                with torch.no_grad():
                    predicted = model(model.encode(image[None].double() / 255))[0].numpy() >= 0
                hits += (predicted & split.labels[i]).sum()
                decisions += predicted.sum() + split.labels[i].sum()
        expected[name] = 2 * hits / decisions
    assert found == pytest.approx({**expected, "n_swapped": len(split)})


def test_at_most_the_drawn_images_are_perturbed(shapes, model, monkeypatch):
    monkeypatch.setattr(interventions, "DRAWN", 5)
    split = shapes.split("val")
    found = intervene(model, split, PAIRS[:1]).perturbed[PAIRS[0]]
    assert 5 <= found["n_perturbed"] < split.labels.sum()
    assert found == intervene(model, split, PAIRS[:1]).perturbed[PAIRS[0]]


def test_maps_that_are_zero_everywhere_are_left_out(shapes, model):
    with torch.no_grad():
        model.fc.weight.zero_()
    found = intervene(model, shapes.split("test"), PAIRS[:1]).perturbed[PAIRS[0]]
    assert found == {"deletion": None, "insertion": None, "n_perturbed": 0}


class _WithoutLabels:
    """A split whose images have no labels."""

    def __init__(self, split):
        self._split = split
        self.labels = self.located = np.zeros_like(split.labels)

    def __len__(self):
        return len(self._split)

    def __getattr__(self, name):
        return getattr(self._split, name)


def test_a_split_without_labels_has_nothing_to_change(shapes, model):
    found = intervene(model, _WithoutLabels(shapes.split("test")), PAIRS[:1])
    assert found.swapped == {"f1_unswapped": None, "f1_swapped": None, "n_swapped": 0}
    assert found.perturbed[PAIRS[0]]["n_perturbed"] == 0


def test_parameters_are_trainable_afterwards(shapes, model):
    intervene(model, shapes.split("test"), PAIRS, 8)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
