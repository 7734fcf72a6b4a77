"""Measure guided training on a GPU: `python tests/benchmarks/gpu.py`, with nothing else running.

Both sides of a ratio take turns in one process, and medians are divided. Images are noise: what is
measured is the step. `--size`, `--batch` and `--rounds` change the usual 224 pixels, 64 images and
15 repetitions.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from mg_core.guidance import Batch, Guidance, guided_loss, kernels
from mg_core.losses import localization_loss
from mg_core.models import build_model
from mg_core.training.trial import memory_format

CLASSES = 20
METHODS = {"vanilla_resnet50": "ixg", "xdnn_resnet50": "intgrad", "bcos_resnet50": "bcos"}
PRECISIONS = ("fp32", "tf32", "bf16")
DEVICE = torch.device("cuda")
Step = Callable[[], object]


def batch_of(model: nn.Module, size: int, count: int) -> Batch:
    """Return images of noise, each with two classes and the box of one of them."""
    generator = torch.Generator().manual_seed(1)
    masks = torch.zeros(count, size, size, dtype=torch.bool)
    masks[:, size // 4 : size // 2, size // 4 : 3 * size // 4] = True
    classes = torch.arange(count) % CLASSES
    labels = F.one_hot(classes, CLASSES) + F.one_hot((classes + 7) % CLASSES, CLASSES)
    images = torch.rand(count, 3, size, size, generator=generator)
    return Batch(
        inputs=model.encode(images.to(DEVICE)),
        labels=labels.bool().to(DEVICE),
        target_classes=classes.to(DEVICE),
        masks=masks.to(DEVICE),
        annotated=torch.arange(count, device=DEVICE),
    )


def network(name: str, precision: str, size: int) -> nn.Module:
    torch.manual_seed(0)
    model = build_model(name, CLASSES, image_size=size).to(DEVICE).train()
    return model.to(memory_format=memory_format(DEVICE, precision))


def ours(name: str, layer: str | None, precision: str, options: argparse.Namespace) -> Step:
    """Return a training step of ours, guided at a layer or not at all."""
    model = network(name, precision, options.size)
    batch = batch_of(model, options.size, options.batch)
    guidance = Guidance(METHODS.get(name, "ixg"), layer, "energy", 1e-3) if layer else None
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        with kernels(precision):
            loss, _ = guided_loss(model, batch, guidance, precision)
            loss.backward()
        optimizer.step()

    return run


def image_by_image(name: str, layer: str, precision: str, options: argparse.Namespace) -> Step:
    """Return a step written as a plain loop: a graph and a second derivative for each image.

    It takes the gradient of one logit by the whole batch for each image, and adds up their losses.
    This is the simplest way to write guidance; it is not the published code.
    """
    model = network(name, precision, options.size)
    batch = batch_of(model, options.size, options.batch)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    assert layer == "input"

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        with kernels(precision):
            inputs = batch.inputs.clone().requires_grad_()
            logits = model(inputs)
            loss = F.binary_cross_entropy_with_logits(logits, batch.labels.float())
            guided: Tensor | float = 0.0
            for image, target in enumerate(batch.target_classes.tolist()):
                (gradient,) = torch.autograd.grad(
                    logits[image, target], inputs, create_graph=True, retain_graph=True
                )
                maps = (inputs * gradient)[image : image + 1].sum(1)
                guided = guided + localization_loss("energy", maps, batch.masks[image, None]).sum()
            (loss + 1e-3 * guided).backward()
        optimizer.step()

    return run


def seconds(runs: dict[str, Step], rounds: int) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Time steps in turns, and count the largest memory of each, in bytes."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    peaks = {}
    for name, run in runs.items():
        for _ in range(2):  # the first chooses kernels
            torch.cuda.reset_peak_memory_stats()
            run()
            torch.cuda.synchronize()
        peaks[name] = torch.cuda.max_memory_allocated()
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
    return times, peaks


def freed() -> None:
    gc.collect()
    torch.cuda.empty_cache()


def training(options: argparse.Namespace) -> Iterator[str]:
    """Compare guided with unguided steps, and precisions with one another."""
    yield "| network | precision | guided at | images/s | guided / unguided | fp32 / this | GB |"
    yield "|---|---|---|---:|---:|---:|---:|"
    for name in options.model or METHODS:
        slow: dict[str | None, float] = {}
        for precision in PRECISIONS:
            freed()
            runs = {at: ours(name, at, precision, options) for at in (None, "final", "input")}
            times, peaks = seconds(runs, options.rounds)
            medians = {at: statistics.median(found) for at, found in times.items()}
            for at, median in medians.items():
                slow.setdefault(at, median)
                yield (
                    f"| {name} | {precision} | {at or '–'} | {options.batch / median:.0f} "
                    f"| {median / medians[None]:.2f} | {slow[at] / median:.2f} "
                    f"| {peaks[at] / 1e9:.1f} |"
                )
            del runs


def loop(options: argparse.Namespace) -> Iterator[str]:
    """Compare a step guided at the input with one that goes through images."""
    yield "| vanilla_resnet50 at input | ms | image by image / ours | GB |"
    yield "|---|---:|---:|---:|"
    few = argparse.Namespace(**{**vars(options), "batch": min(options.batch, 16)})
    for precision in ("fp32", "tf32"):
        freed()
        runs = {
            "image by image": image_by_image("vanilla_resnet50", "input", precision, few),
            "ours": ours("vanilla_resnet50", "input", precision, few),
        }
        times, peaks = seconds(runs, max(3, options.rounds // 3))
        medians = {kind: statistics.median(found) for kind, found in times.items()}
        for kind, median in medians.items():
            ratio = medians["image by image"] / median
            what = f"{kind}, {precision}, batch {few.batch}"
            yield f"| {what} | {median * 1e3:.0f} | {ratio:.1f} | {peaks[kind] / 1e9:.1f} |"


def trials(options: argparse.Namespace) -> Iterator[str]:
    """Train whole epochs from images on disk, and say how much of the time the GPU waits for them.

    The same steps on a batch that lies on the GPU are what an epoch takes without waiting.
    """
    yield "| vanilla_resnet50 at input, an epoch | images/s | GPU waits | validation images/s |"
    yield "|---|---:|---:|---:|"
    for precision in PRECISIONS:
        freed()
        found = epoch_of_trial(precision, options)
        bare, _ = seconds(
            {"step": ours("vanilla_resnet50", "input", precision, options)}, options.rounds
        )
        step = statistics.median(bare["step"])
        waits = max(0.0, 1 - step / found["seconds_step"])
        yield (
            f"| {precision} | {options.batch / found['seconds_step']:.0f} | {waits:.0%} "
            f"| {found['val'] / found['seconds_val']:.0f} |"
        )


def epoch_of_trial(precision: str, options: argparse.Namespace) -> dict[str, float]:
    """Run one guided epoch, after one that warms up, and return what the store says of it."""
    import sweeps
    from mg_core.store import ResultStore

    n_train, n_val = 16 * options.batch, 4 * options.batch
    stage = {"learning_rate": 1e-4, "batch_size": options.batch, "precision": precision}
    content = {
        "name": "gpu",
        "store": "store",
        "data": {
            "name": "shapes",
            "image_size": options.size,
            "options": {"train": n_train, "val": n_val, "test": 8, "size": options.size},
        },
        "resources": {"cpu": 8, "gpu": 1},
        "baseline": {"epochs": 1, **stage},
        "guided": {"epochs": 2, **stage},
        "grid": {
            "model": "vanilla_resnet50",
            "attribution": "ixg",
            "layer": "input",
            "loss": {"energy": 1e-3},
        },
    }
    with tempfile.TemporaryDirectory() as folder:
        sweeps.run(content, store=Path(folder) / "store", runner="inline")
        rows = ResultStore(str(Path(folder) / "store")).rows().to_pandas()
    last = rows[rows.epoch == 2].iloc[0]
    return {"seconds_step": last.seconds_step, "seconds_val": last.seconds_val, "val": n_val}


PARTS = {"training": training, "loop": loop, "trials": trials}


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--model", action="append", help="only this one; repeatable")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("PyTorch sees no GPU here")
    print(
        f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, "
        f"{options.size} × {options.size}, batch {options.batch}, {options.rounds} rounds"
    )
    for name, part in PARTS.items():
        if options.only in (None, name):
            print()
            for line in part(options):
                print(line, flush=True)


if __name__ == "__main__":
    main()
