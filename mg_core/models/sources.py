"""Names of the networks and weights of libraries, read in their source.

Importing a library would load PyTorch, which a plan does without. So the names of networks are
searched for in the library's files, and the weights of one network in the file that defines it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from mg_core.errors import InputError
from mg_core.models.weights import WeightFile

DEFINITION = {
    "torchvision": re.compile(r"^@register_model\(\)(?:\n@.*)*\ndef (\w+)\(", re.M),
    "timm": re.compile(r"^@register_model\ndef (\w+)\(", re.M),
    "bcos": re.compile(r"^@register\ndef (\w+)\(", re.M),
}
"""How each library marks the function that builds a network."""
HUB = "https://huggingface.co"


@cache
def networks(library: str) -> Mapping[str, Path]:
    """Return the file that defines each network of a library.

    Raises:
        InputError: the library is not installed.
    """
    spec = find_spec(library)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"the package {library!r} is not installed; install it on every node: "
            f"pip install {library}"
        )
    folder = Path(spec.submodule_search_locations[0]) / "models"
    found = {
        name: file
        for file in sorted(folder.glob("*.py"))
        for name in DEFINITION[library].findall(file.read_text(encoding="utf-8"))
    }
    return dict(sorted(found.items()))


@cache
def published_weights(library: str, network: str) -> Mapping[str, WeightFile]:
    """Return the published weights of a network by name; "imagenet" is the library's default."""
    tree = ast.parse(networks(library)[network].read_text(encoding="utf-8"))
    found = dict(READERS[library](tree, network))
    default = found.pop("DEFAULT", None) or next(iter(found.values()), None)
    return {"imagenet": default, **found} if default else found


def _torchvision(tree: ast.Module, network: str) -> Iterator[tuple[str, WeightFile]]:
    """Yield the members of the enumeration that annotates the function's `weights`."""
    function = _function(tree, network)
    annotations = {argument.arg: argument.annotation for argument in _arguments(function)}
    annotation = annotations.get("weights")
    enumeration = (
        {n.id for n in ast.walk(annotation) if isinstance(n, ast.Name)} if annotation else {}
    )
    files: dict[str, WeightFile] = {}
    for definition in tree.body:
        if isinstance(definition, ast.ClassDef) and definition.name in enumeration:
            for name, value in _assignments(definition):
                url = _keywords(value).get("url")
                if isinstance(value, ast.Name) and value.id in files:
                    files[name] = files[value.id]
                elif url:
                    files[name] = WeightFile.named(url)
    yield from files.items()


def _timm(tree: ast.Module, network: str) -> Iterator[tuple[str, WeightFile]]:
    """Yield the tags of a network from tables whose keys are such as "resnet50.a1_in1k"."""
    for table in ast.walk(tree):
        if not isinstance(table, ast.Dict):
            continue
        for key, value in zip(table.keys, table.values, strict=True):
            name = key.value if isinstance(key, ast.Constant) else None
            if not (isinstance(name, str) and name.partition(".")[0] == network):
                continue
            tag = name.partition(".")[2]
            if file := _timm_file(name.rstrip("*"), _keywords(value)):
                if tag.endswith("*") or not tag:
                    yield "DEFAULT", file
                if tag:
                    yield tag.rstrip("*"), file


def _timm_file(name: str, settings: Mapping[str, str]) -> WeightFile | None:
    place = settings.get("hf_hub_id")
    if place:
        place += name if place.endswith("/") else ""
        file = settings.get("hf_hub_filename") or "model.safetensors"
        return WeightFile(f"{HUB}/{place}/resolve/main/{file}", None)
    url = settings.get("url", "")
    if not url.startswith("http"):
        return None
    digits = re.search(r"-([0-9a-f]{8,64})\.", url)
    return WeightFile(url, digits[1] if digits else None)


def _bcos(tree: ast.Module, network: str) -> Iterator[tuple[str, WeightFile]]:
    """Yield the file in the table `URLS` that the function's last call names."""
    values = {name: value for name, value in _assignments(tree)}
    base = str(getattr(values["BASE"], "value", ""))
    (call,) = (
        statement.value
        for statement in _function(tree, network).body
        if isinstance(statement, ast.Return) and isinstance(statement.value, ast.Call)
    )
    wanted = {"experiment_name": _text(call.args[0], base)}
    wanted = {"base_network": "bcos_final", **wanted, **_keywords(call)}
    for group, table in _items(values["URLS"]):
        for name, url in _items(table):
            if (group, name) == (wanted["base_network"], wanted.get("experiment_name")):
                yield "DEFAULT", WeightFile.named(_text(url, base))


READERS = {"torchvision": _torchvision, "timm": _timm, "bcos": _bcos}


def _function(tree: ast.Module, name: str) -> ast.FunctionDef:
    return next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)


def _arguments(function: ast.FunctionDef) -> list[ast.arg]:
    return [*function.args.args, *function.args.kwonlyargs]


def _assignments(scope: ast.Module | ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    for statement in scope.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            yield statement.targets[0].id, statement.value
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id, statement.value or ast.Constant(None)


def _keywords(value: ast.expr) -> dict[str, str]:
    """Return the keyword arguments of a call that are texts."""
    return {
        str(word.arg): word.value.value
        for word in getattr(value, "keywords", [])
        if isinstance(word.value, ast.Constant) and isinstance(word.value.value, str)
    }


def _items(value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(value, ast.Dict):
        for key, inner in zip(value.keys, value.values, strict=True):
            if isinstance(key, ast.Constant):
                yield str(key.value), inner


def _text(value: ast.expr, base: str) -> str:
    """Return a text in which the only variable is the base of all addresses."""
    if isinstance(value, ast.JoinedStr):
        return "".join(_text(part, base) for part in value.values)
    return str(value.value) if isinstance(value, ast.Constant) else base
