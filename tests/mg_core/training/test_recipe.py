"""Recipes against plain PyTorch loops and formulas."""

import copy
import itertools
import math
import re

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from mg_core.config import TrialConfig
from mg_core.errors import InputError, NumericalError
from mg_core.losses import CLASSIFICATION_LOSSES, classification_loss
from mg_core.training.checks import check_recipe
from mg_core.training.recipe import Recipe
from mg_core.training.schedule import SCHEDULES

CPU = torch.device("cpu")
EPOCHS, STEPS = 6, 5
OPTIMIZERS = [
    ("adam", torch.optim.Adam, {}),
    ("adamw", torch.optim.AdamW, {}),
    ({"sgd": {"momentum": 0.9, "nesterov": True}}, torch.optim.SGD, {}),
    ({"torch.optim.RAdam": {"betas": [0.8, 0.95]}}, torch.optim.RAdam, {"betas": (0.8, 0.95)}),
    ("rmsprop", torch.optim.RMSprop, {}),
    ("Adagrad", torch.optim.Adagrad, {}),
    ("torch.optim.adamw.AdamW", torch.optim.AdamW, {}),
]


@pytest.fixture
def recipe_of(baseline):
    """Return a function that gives the baseline another recipe."""

    def make(**changes):
        content = {**baseline.model_dump(mode="json"), "epochs": EPOCHS, **changes}
        return TrialConfig.model_validate(content)

    return make


def problem():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))
    inputs = torch.randn(EPOCHS * STEPS, 8, 4)
    return model, [lambda m, x=x: (m(x) - x[:, :3]).square().mean() for x in inputs]


def trained(config):
    """Return the weights and the rates after a training by the recipe."""
    model, losses = problem()
    recipe, rates = Recipe(config, model.parameters(), CPU), []
    for number, loss in enumerate(losses):
        assert recipe.update(loss(model), number / STEPS, 1 / STEPS)
        rates.append(recipe.optimizer.param_groups[0]["lr"])
    return list(model.parameters()), rates


@pytest.mark.parametrize("weight_decay", [None, 0.0, 0.05])
@pytest.mark.parametrize(("named", "made", "arguments"), OPTIMIZERS, ids=lambda v: str(v)[:20])
def test_an_optimiser_is_that_of_a_plain_loop(recipe_of, named, made, arguments, weight_decay):
    config = recipe_of(optimizer=named, weight_decay=weight_decay)
    check_recipe(config)
    model, losses = problem()
    decay = {} if weight_decay is None else {"weight_decay": weight_decay}
    if "sgd" in str(named):
        arguments = {"momentum": 0.9, "nesterov": True}
    optimizer = made(model.parameters(), lr=1e-3, **arguments, **decay)
    for loss in losses:
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()
    weights, rates = trained(config)
    assert set(rates) == {1e-3}
    for found, expected in zip(weights, model.parameters(), strict=True):
        assert torch.equal(found, expected)


def plain_rates(make, length, per_epoch=False):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    scheduler, rates = make(optimizer), []
    for number in range(length):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if not per_epoch or (number + 1) % STEPS == 0:
            scheduler.step()
    return rates


TOTAL = EPOCHS * STEPS
SCHEDULED = [
    ("constant", lambda o: lr_scheduler.ConstantLR(o, 1.0), False),
    ("cosine", lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL), False),
    ({"cosine": {"final": 0.1}}, lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL, 1e-4), False),
    ({"linear": {"final": 0.2}}, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.2, TOTAL), False),
    ({"step": {"every": 2}}, lambda o: lr_scheduler.StepLR(o, 2), True),
    ({"step": {"at": [5, 1], "factor": 0.5}}, lambda o: lr_scheduler.MultiStepLR(o, [1, 5], 0.5),
     True),
]  # fmt: skip


@pytest.mark.parametrize(("named", "make", "per_epoch"), SCHEDULED, ids=lambda v: str(v)[:20])
def test_a_schedule_is_that_of_pytorch(recipe_of, named, make, per_epoch):
    config = recipe_of(schedule=named)
    check_recipe(config)
    _, rates = trained(config)
    np.testing.assert_allclose(rates, plain_rates(make, TOTAL, per_epoch), rtol=1e-10, atol=1e-18)


def test_every_schedule_is_compared():
    assert {str(named[0]).strip("{'").split("'")[0] for named in SCHEDULED} == set(SCHEDULES)


@pytest.mark.parametrize("warmup", [1, 2, 0.4])
def test_a_warm_up_rises_in_a_line_before_the_schedule_begins(recipe_of, warmup):
    n_steps = round(warmup * STEPS)
    _, rates = trained(recipe_of(schedule="cosine", warmup_epochs=warmup))
    rising = [1e-3 * (k + 1) / n_steps for k in range(n_steps)]
    falling = plain_rates(
        lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL - n_steps), TOTAL - n_steps
    )
    np.testing.assert_allclose(rates, [*rising, *falling], rtol=1e-9)


def test_steps_are_counted_from_the_start_of_the_training(recipe_of):
    _, rates = trained(recipe_of(schedule={"step": {"at": [3]}}, warmup_epochs=1))
    epochs = [rates[n * STEPS + STEPS - 1] for n in range(EPOCHS)]
    np.testing.assert_allclose(epochs, [1e-3] * 3 + [1e-4] * 3)


@pytest.mark.parametrize("clip_norm", [1e-3, 0.05, 100.0])
def test_a_gradient_is_scaled_to_the_norm(recipe_of, clip_norm):
    config = recipe_of(optimizer="sgd", learning_rate=1.0, clip_norm=clip_norm)
    model, losses = problem()
    twin = copy.deepcopy(model).double()
    inputs = losses[0].__defaults__[0].double()
    (twin(inputs) - inputs[:, :3]).square().mean().backward()
    gradients = [p.grad.numpy() for p in twin.parameters()]
    norm = math.sqrt(sum((g**2).sum() for g in gradients))
    Recipe(config, model.parameters(), CPU).update(losses[0](model), 0, 1)
    for found, before, g in zip(model.parameters(), twin.parameters(), gradients, strict=True):
        expected = before.detach().numpy() - g * min(1.0, clip_norm / norm)
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=2e-4, atol=1e-6)


def slow_loss(name, logits, labels, smoothing):
    """Compute a loss from its definition, one number after another."""
    total, (n_images, n_classes) = 0.0, logits.shape
    for scores, truth in zip(logits.tolist(), labels.tolist(), strict=True):
        share = 2 if name == "bce" else n_classes
        wanted = [y * (1 - smoothing) + smoothing / share for y in truth]
        if name == "bce":
            chances = [1 / (1 + math.exp(-z)) for z in scores]
            terms = [
                -y * math.log(p) - (1 - y) * math.log(1 - p)
                for y, p in zip(wanted, chances, strict=True)
            ]
            total += sum(terms) / n_classes
        else:
            whole = sum(map(math.exp, scores))
            total -= sum(y * (z - math.log(whole)) for y, z in zip(wanted, scores, strict=True))
    return total / n_images


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("name", CLASSIFICATION_LOSSES)
def test_a_classification_loss_is_its_formula(name, smoothing):
    torch.manual_seed(0)
    logits = (3 * torch.randn(7, 5, dtype=torch.float64)).requires_grad_()
    labels = torch.eye(5)[torch.arange(7) % 5].bool()
    found = classification_loss(name, logits, labels, smoothing)
    expected = slow_loss(name, logits, labels.int(), smoothing)
    assert found.item() == pytest.approx(expected, rel=1e-9)
    assert torch.autograd.gradcheck(
        lambda z: classification_loss(name, z, labels, smoothing), logits
    )


def test_half_precision_logits_lose_nothing_in_the_loss():
    logits = torch.tensor([[9.0, -7.0]], dtype=torch.float16)
    found = classification_loss("bce", logits, torch.tensor([[0, 1]]))
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(slow_loss("bce", logits, torch.tensor([[0, 1]]), 0.0))


def test_a_step_whose_gradient_overflows_is_left_out_and_counted(recipe_of):
    model, losses = problem()
    recipe = Recipe(recipe_of(precision="fp16"), model.parameters(), CPU)
    before = copy.deepcopy(list(model.parameters()))
    assert not recipe.update(losses[0](model) * 1e38, 0, 0.2)
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))
    assert recipe.state_dict()["scaler"]["scale"] == 2**15
    assert recipe.update(losses[0](model), 0.2, 0.2)
    assert not any(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))
    twin = Recipe(recipe_of(precision="fp16"), model.parameters(), CPU)
    twin.load_state_dict(recipe.state_dict())
    assert twin.state_dict()["scaler"] == recipe.state_dict()["scaler"]
    recipe.check_scale(1)
    while recipe.state_dict()["scaler"]["scale"] >= 1:
        assert not recipe.update(losses[0](model) * math.inf, 0, 0.2)
    with pytest.raises(NumericalError, match="epoch 3: gradients do not fit into fp16"):
        recipe.check_scale(3)


def test_the_scale_does_not_change_what_is_clipped(recipe_of):
    changes = {"optimizer": "sgd", "learning_rate": 1.0, "clip_norm": 0.05}
    ends = [trained(recipe_of(precision=p, **changes))[0] for p in ("fp32", "fp16")]
    for found, expected in zip(*ends, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"optimizer": "sdg"},
            "optimizer: unknown optimizer 'sdg' (did you mean 'sgd'?); choose f",
        ),
        ({"optimizer": {"sgd": {"momntum": 0.9}}}, "optimizer: sgd takes no 'momntum'; its argume"),
        ({"optimizer": {"sgd": {"nesterov": True}}}, "optimizer: sgd: Nesterov momentum requires"),
        (
            {"optimizer": {"adam": {"lr": 0.1}}},
            "optimizer: lr is no argument of adam here; give le",
        ),
        ({"optimizer": "lbfgs", "weight_decay": 0.1}, "optimizer: lbfgs takes no 'weight_decay'"),
        ({"optimizer": "lbfgs"}, "optimizer: lbfgs cannot be used here"),
        ({"optimizer": "sparseadam"}, "optimizer: sparseadam cannot be used here"),
        ({"optimizer": "no_such.Thing"}, "optimizer: no_such.Thing cannot be imported"),
        ({"optimizer": "math.pi"}, "optimizer: unknown optimizer 'math.pi'"),
        ({"schedule": "cosin"}, "schedule: unknown schedule 'cosin' (did you mean 'cosine'?)"),
        ({"schedule": {"cosine": {"end": 0}}}, "schedule: cosine: got an unexpected keyword argum"),
        ({"schedule": {"cosine": {"final": "low"}}}, "schedule: cosine: "),
        ({"schedule": {"cosine": {"final": -1}}}, "schedule: cosine(final=-1) gives a learning ra"),
        ({"schedule": "step"}, "schedule: step: give either every, a number of epochs, or at"),
        ({"schedule": {"step": {"every": 6}}}, "schedule: step: every 6 epochs is too late for a"),
        ({"schedule": {"step": {"every": 0}}}, "schedule: step: every is a number of epochs of at"),
        ({"schedule": {"step": {"at": [2, 9]}}}, "schedule: step: at 2, 9 is too late for a train"),
        ({"warmup_epochs": 6}, "warmup_epochs: a warm-up of 6 epochs never ends in 6 epochs"),
        ({"classification_loss": "ce"}, "classification_loss: unknown classification loss 'ce'"),
        (
            {"classification_loss": "cross_entropy"},
            "classification_loss: cross_entropy needs exactly one label in each image, and those",
        ),
        ({"augment": ["random_crp"]}, "augment: unknown transform 'random_crp' (did you mean Rand"),
        ({"early_stop": {"metric": "epg", "patience": 2}}, "early_stop: a baseline has no maps, s"),
        (
            {"early_stop": {"metric": "accuracy", "patience": 2}},
            "early_stop: accuracy needs one label in each image, and those of shapes may have",
        ),
        (
            {"early_stop": {"metric": "f1", "patience": 6}},
            "early_stop: a patience of 6 epochs never ends in 6 epochs",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_before(recipe_of, changes, sentence):
    with pytest.raises(InputError, match=re.escape(sentence)) as caught:
        check_recipe(recipe_of(**changes))
    assert "\n" not in str(caught.value)


def test_one_recipe_has_one_id_however_it_is_written(recipe_of, baseline):
    plain = recipe_of()
    for written in (
        {"optimizer": "adam"},
        {"optimizer": {"Adam": {}}},
        {"optimizer": "torch.optim.Adam", "schedule": {"constant": None}},
        {"weight_decay": None, "warmup_epochs": 0, "label_smoothing": 0.0, "augment": []},
        {"clip_norm": None, "classification_loss": "bce", "early_stop": None},
    ):
        assert recipe_of(**written).trial_id == plain.trial_id
    forms = [
        [{"RandomResizedCrop": {"scale": [0.5, 1.0]}}, "horizontal_flip"],
        [{"random_resized_crop": {"scale": ["5e-1", 1]}}, "RandomHorizontalFlip"],
    ]
    assert len({recipe_of(augment=form).trial_id for form in forms}) == 1
    different = [
        {},
        {"optimizer": "sgd"},
        {"optimizer": {"sgd": {"momentum": 0.9}}},
        {"weight_decay": 0.0},
        {"schedule": "cosine"},
        {"warmup_epochs": 1},
        {"clip_norm": 1},
        {"classification_loss": "cross_entropy"},
        {"label_smoothing": 0.1},
        {"augment": ["color_jitter"]},
        {"early_stop": {"metric": "f1", "patience": 2}},
        {"precision": "fp16"},
    ]
    ids = [recipe_of(**changes).trial_id for changes in different]
    assert len(set(ids)) == len(ids)
    for changes, trial_id in zip(different, ids, strict=True):
        config = recipe_of(**changes)
        again = TrialConfig.model_validate_json(config.model_dump_json())
        assert (again, again.trial_id) == (config, trial_id)
    labels = [recipe_of(**changes).label for changes in different]
    assert all(a != b for a, b in itertools.combinations(labels, 2))
