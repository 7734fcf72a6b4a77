"""The data sets on the nodes of a cluster that was started elsewhere, read before any trial."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mg_core.config import DataConfig, Runtime
from mg_core.data import open_data
from mg_core.data.annotations import check_annotatable
from mg_core.errors import InputError
from mg_core.recipe import Named
from mg_core.registry import import_variants


def prepare_on_nodes(
    nodes: Sequence[str],
    configs: Sequence[DataConfig],
    runtime: Runtime,
    annotations: Sequence[Named] = (),
) -> list[str]:
    """Read and decode data sets on some nodes, all at the same time.

    Args:
        nodes: Ray's ids of the nodes, each of which has its own copy of the files and caches.
        configs: the data sets.
        runtime: its `data_root` and `cache` say where the data are.
        annotations: what is to be drawn of the training images.

    Returns:
        What looks wrong, one sentence each, as `Data.prepare` logs it.

    Raises:
        InputError: the data on a node are wrong; the message names the node.
    """
    work = ray.remote(_prepare)
    texts = [config.model_dump_json() for config in configs]
    drawn = [annotation.model_dump_json() for annotation in annotations]
    running = [
        work.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        ).remote(runtime.model_dump_json(), texts, drawn)
        for node in nodes
    ]
    said: list[str] = []
    for result in running:
        try:
            found: list[str] = ray.get(result)
            said += found
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, InputError):
                raise InputError(str(error.cause)) from None
        except ray.exceptions.RayError:
            pass  # The node was lost, or has another version: its trials say so, and go elsewhere.
    return list(dict.fromkeys(said))


def _prepare(settings: str, configs: Sequence[str], annotations: Sequence[str]) -> list[str]:
    runtime, said = Runtime.model_validate_json(settings), _Sentences()
    import_variants(runtime.imports)
    drawn = [Named.model_validate_json(annotation) for annotation in annotations]
    logger = logging.getLogger("mg_core")
    logger.addHandler(said)
    try:
        for text in configs:
            config = DataConfig.model_validate_json(text)
            data = open_data(config, runtime.data_root, runtime.cache)
            data.prepare()
            said.found += check_annotatable(data.split("train"), drawn)
    except InputError as error:
        raise InputError(f"node {socket.gethostname()}: {error}") from None
    finally:
        logger.removeHandler(said)
    return said.found


class _Sentences(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record.getMessage())
