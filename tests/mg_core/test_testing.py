"""The contracts that are public hold for every variant of this package, and can fail."""

import numpy as np
import pytest
import torch

from mg_core.attributions import ATTRIBUTIONS, Attribution
from mg_core.data.annotations import ANNOTATIONS
from mg_core.errors import InputError
from mg_core.losses import LOSSES, informed
from mg_core.models.study import STUDY_MODELS
from mg_core.testing import check_annotation, check_attribution, check_loss, check_model


@pytest.mark.parametrize("name", LOSSES)
def test_losses_keep_theirs(name):
    check_loss(name)


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_attributions_keep_theirs(name):
    families = ATTRIBUTIONS[name].families
    check_attribution(name, f"{min(families)}_tiny" if families else None)


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_annotations_keep_theirs(name):
    check_annotation(name)


@pytest.mark.parametrize("name", sorted(n for n in STUDY_MODELS if n.endswith("_tiny")))
def test_models_keep_theirs(name):
    check_model(name)


def depending(attributions, masks):
    return (attributions * masks).sum().expand(len(attributions))


def unbounded(attributions, masks):
    return attributions.exp().sum((1, 2))


def cut(attributions, masks):
    return (attributions.detach().sigmoid() * attributions.tanh()).sum((1, 2))


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (depending, "depends on the other maps"),
        (unbounded, "of huge maps is not finite"),
        (cut, "has another gradient than finite differences"),
        (lambda maps, masks: maps.sum(), "gives \\(\\), not one value a map"),
    ],
)
def test_a_loss_that_breaks_its_contract_is_told_how(loss, sentence, monkeypatch):
    monkeypatch.setattr(LOSSES, "_variants", dict(LOSSES))
    LOSSES.register("own")(loss)
    with pytest.raises(AssertionError, match=sentence):
        check_loss("own")


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (lambda e: e.attributions.sum((1, 2)) / e.logits.detach().mean(), "depends on the other"),
        (lambda e: e.attributions.sum((1, 2)) / e.masks.sum((1, 2)), "is not finite"),
        (lambda e: e.attributions.detach().sum((1, 2)) * e.logits.sum(1), "give another gradient"),
        (lambda e: e.logits.detach().sum(1), "does not depend on the maps"),
        (lambda e: e.attributions.sum((1, 2)) @ e.labels, "one value a map"),
    ],
)
def test_an_informed_loss_that_breaks_its_contract_is_told_how(loss, sentence, monkeypatch):
    monkeypatch.setattr(LOSSES, "_variants", dict(LOSSES))
    LOSSES.register("own")(informed(loss))
    with pytest.raises((AssertionError, InputError), match=sentence):
        check_loss("own")


@pytest.mark.parametrize(
    ("combine", "sentence"),
    [
        (lambda f, g: (f * g).sum(1) - (f * g).sum(1).mean(), "depends on the other images"),
        (lambda f, g: (f * g).sum((1, 2, 3)), "gives \\(2,\\), not \\(B, h, w\\)"),
        (lambda f, g: (f * g.detach()).sum(1).detach(), "do not depend on any weight"),
        (lambda f, g: (f * torch.log(g - g)).sum(1), "is not finite"),
    ],
)
def test_an_attribution_that_breaks_its_contract_is_told_how(combine, sentence, monkeypatch):
    monkeypatch.setattr(ATTRIBUTIONS, "_variants", dict(ATTRIBUTIONS))
    ATTRIBUTIONS.register("own")(Attribution(combine))
    with pytest.raises(AssertionError, match=sentence):
        check_attribution("own")


@pytest.mark.parametrize(
    ("draw", "sentence"),
    [
        (lambda place: place.boxes, "does not return"),
        (lambda place: np.random.rand(place.size, place.size) > 0.5, "more than the place"),
        (lambda place: place.fill(place.boxes[:1]), "more than the place"),
        (lambda place: place.fill(place.boxes) & False, "draws nothing"),
    ],
)
def test_an_annotation_that_breaks_its_contract_is_told_how(draw, sentence, monkeypatch):
    monkeypatch.setattr(ANNOTATIONS, "_variants", dict(ANNOTATIONS))
    ANNOTATIONS.register("own")(draw)
    with pytest.raises(AssertionError, match=sentence):
        check_annotation("own")
