"""Groups of the images of a table, and the tasks whose labels they decide."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, model_validator

from mg_core.config import Frozen
from mg_core.data.reader import Task
from mg_core.errors import InputError

Values = tuple[str, ...]
"""An image's value in each column that the groups are made of, as it is shown."""
_DIGITS = re.compile(r"(\d+)")


def _listed(value: Any) -> Any:
    """Spell a list of columns as one string."""
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)):
        return value
    names = [str(name).strip() for name in names]
    if not names or "" in names or any("," in name for name in names):
        raise ValueError("name one column or a list of them, none of which holds a comma")
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{repeated!r} is there twice")
    return ",".join(names)


def _renamed(value: Any) -> Any:
    """Spell the names of values, {column: {value: name}}, as one string: column.value=name."""
    if isinstance(value, str):
        pairs = dict(part.partition("=")[::2] for part in value.split(","))
    elif isinstance(value, Mapping) and all(isinstance(own, Mapping) for own in value.values()):
        pairs = {
            f"{column}.{old}": str(name)
            for column, own in value.items()
            for old, name in own.items()
        }
    else:
        raise ValueError("give names as in {place: {0: land, 1: water}}")
    pairs = {key.strip(): name.strip() for key, name in pairs.items()}
    if any(
        "." not in key or not name or set(key + name) & set(",=") for key, name in pairs.items()
    ):
        raise ValueError(
            "give names as in {place: {0: land, 1: water}}; none is empty or holds a comma or ="
        )
    return ",".join(f"{key}={pairs[key]}" for key in sorted(pairs))


def _which(value: Any) -> Any:
    if value not in (None, "all", "trained"):
        raise ValueError(f"unknown word {value!r}; choose from all, trained")
    return None if value == "all" else value


Columns = Annotated[str, BeforeValidator(_listed)]
"""Names of columns separated by commas, or a list of them."""


class GroupOptions(Frozen):
    """Which columns make up the groups of images, and which of them can be learnt.

    Attributes:
        groups: column of the images' groups, or several, as in `[y, place]`, whose values that
            occur together are the groups. Every image then has one class.
        tasks: those of the `groups` that are labels to learn, the default one first; without them
            the label is the class. Trials of a sweep share a baseline, so the labels of its tasks
            must agree in training.
        outside: those of the `tasks` whose evidence lies outside the boxes.
        names: what values are called, as in `{place: {0: land, 1: water}}`; a number that has no
            name is called as its column and itself.
        val_groups: which groups are used in validation: `all`, the default, or those `trained` on,
            so that checkpoints are chosen without a look at the others.
    """

    groups: Columns | None = None
    tasks: Columns | None = None
    outside: Columns | None = None
    names: Annotated[str, BeforeValidator(_renamed)] | None = None
    val_groups: Annotated[str | None, BeforeValidator(_which)] = None

    @model_validator(mode="after")
    def _are_of_each_other(self) -> GroupOptions:
        for part, whole in (("tasks", "groups"), ("outside", "tasks")):
            known = columns_of(getattr(self, whole))
            for name in columns_of(getattr(self, part)):
                if name not in known:
                    allowed = ", ".join(known) or f"none: the option {whole} is not given"
                    raise ValueError(f"{part}: {name!r} is none of the {whole} ({allowed})")
        for pair in columns_of(self.names):
            if pair.partition(".")[0] not in columns_of(self.groups):
                raise ValueError(f"names: {pair!r} begins with no column of the option groups")
        if self.val_groups and not self.groups:
            raise ValueError("val_groups: the option groups is not given")
        return self


def columns_of(option: str | None) -> tuple[str, ...]:
    """Return the columns that an option lists."""
    return tuple(option.split(",")) if option else ()


def names_of(option: str | None) -> dict[str, str]:
    """Return what values are called, by `column.value`."""
    return dict(pair.split("=", 1) for pair in columns_of(option))


def shown_value(column: str, value: str, names: Mapping[str, str]) -> str:
    """Return what a value of a column is called: by its name, or with its column if a number."""
    known = names.get(f"{column}.{value}")
    return known or (value if any(map(str.isalpha, value)) else f"{column} {value}")


def in_natural_order(values: Iterable[str]) -> list[str]:
    """Sort texts so that numbers in them are in their order."""
    return sorted(set(values), key=lambda text: [_natural(part) for part in _DIGITS.split(text)])


def _natural(part: str) -> tuple[int, str]:
    return (int(part), part) if part.isdecimal() else (0, part)


@dataclass(frozen=True)
class Grouping:
    """The groups of a table's images.

    Attributes:
        names: of each group.
        numbers: index of a group, by its values.
        tasks: by name, with the class of each group.
    """

    names: tuple[str, ...]
    numbers: Mapping[Values, int]
    tasks: Mapping[str, Task]

    @classmethod
    def of(
        cls, options: GroupOptions, found: Sequence[Values], classes: tuple[str, ...], source: str
    ) -> Grouping:
        """Find the groups: the combinations of values that any image has, in natural order.

        Args:
            options: columns of groups and tasks.
            found: values of each image.
            classes: class names of the first task.
            source: the table, for messages.

        Raises:
            InputError: all images are of one group, or a first task's value is no class.
        """
        columns = columns_of(options.groups)
        values = [in_natural_order(own[place] for own in found) for place in range(len(columns))]
        order = [{value: number for number, value in enumerate(own)} for own in values]
        groups = sorted(
            set(found), key=lambda own: [order[place][value] for place, value in enumerate(own)]
        )
        if len(groups) < 2:
            only = ", ".join(groups[0]) if groups else "none"
            raise InputError(
                f"{source}: by the option groups ({', '.join(columns)}) all images are of one "
                f"group, {only}; name columns that tell two or more groups apart"
            )
        tasks = {}
        for number, task in enumerate(columns_of(options.tasks)):
            place = columns.index(task)
            known = classes if number == 0 else tuple(values[place])
            if other := next((value for value in values[place] if value not in known), None):
                raise InputError(
                    f"{source}: {task} is {other!r}, which is not among the option classes "
                    f"({', '.join(known)})"
                )
            decided = tuple(known.index(group[place]) for group in groups)
            tasks[task] = Task(decided, known, task in columns_of(options.outside))
        numbers = {group: number for number, group in enumerate(groups)}
        return cls(tuple(", ".join(group) for group in groups), numbers, tasks)
