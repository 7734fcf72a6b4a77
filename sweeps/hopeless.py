"""Trials that cannot be guided at all, refused before a run spends anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mg_core.attributions import ATTRIBUTIONS
from mg_core.config import TrialConfig
from mg_core.errors import InputError
from mg_core.losses import LOSSES
from mg_core.models.study import STUDY_MODELS


def refuse_hopeless(trials: Iterable[TrialConfig]) -> None:
    """Refuse trials with variants from outside that cannot be guided.

    The variants of this package are tested. All others are rehearsed on noise, which takes neither
    data nor pretrained weights.

    Raises:
        InputError: names the first combination that cannot work, and why.
    """
    combinations: dict[tuple[str, int], dict[tuple[str, str], set[str]]] = {}
    evaluated: dict[tuple[str, int], set[tuple[str, str]]] = {}
    for config in trials:
        g = config.guidance
        if g and not g.is_none and not is_tested(config.model, g.attribution, g.loss):
            network = (config.model, config.data.image_size)
            pairs = combinations.setdefault(network, {})
            pairs.setdefault((g.attribution, g.layer), set()).add(g.loss)
            own = evaluated.setdefault(network, set())
            own |= {(pair.attribution, pair.layer) for pair in config.evaluate}
    problems = []
    for (model, size), pairs in combinations.items():
        others = sorted(evaluated[model, size] - pairs.keys())
        problems += _problems_of(model, size, pairs, others)
    if problems:
        more = f" (and {len(problems) - 1} more; mg-sweep check lists all)"
        raise InputError(
            f"grid: {problems[0]}{more if len(problems) > 1 else ''}; leave it out of the grid"
        )


def _problems_of(
    model: str,
    size: int,
    pairs: Mapping[tuple[str, str], Iterable[str]],
    evaluated: Sequence[tuple[str, str]],
) -> list[str]:
    """Try a model on noise: each guided pair with its losses, and the pairs that are evaluated."""
    from mg_core.guidance import check_guidance
    from mg_core.guidance.rehearsal import noise_batch, rehearse
    from mg_core.models import build_model

    network = build_model(model, num_classes=4, image_size=size)
    batch = noise_batch(network, size, num_classes=4)
    problems = []
    for pair, losses in pairs.items():
        found = rehearse(network, batch, *pair, sorted(losses)).problems
        problems += [f"{model} {'@'.join(pair)}, {loss}: {p}" for loss, p in found.items()]
    try:
        check_guidance(network, [], evaluated, size)
    except InputError as error:
        problems.append(f"{model}, evaluated at {error}")
    return problems


def is_tested(model: str, attribution: str, loss: str) -> bool:
    """Say whether model, attribution and loss are this package's own."""
    homes = (ATTRIBUTIONS.home(attribution), LOSSES.home(loss))
    return model in STUDY_MODELS and all(home.startswith("mg_core.") for home in homes)
