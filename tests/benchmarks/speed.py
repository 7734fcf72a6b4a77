"""Measure what guidance costs, both sides of every ratio in one run.

Run `python tests/benchmarks/speed.py`, with nothing else running.

Two steps that are compared take turns, so that a busy machine slows both, and the medians of their
times are divided. Other work on the machine still widens the spread that the table shows.

An exact step guided at input costs at least twice an unguided one in convolutions: forward (1),
backward (2), explanation (1), and its derivative by weights and by features (2), over 1 + 2. What
is below or above comes from everything else; `--only profile` shows by operator where it goes. A
fast unguided step makes this ratio larger, so the B-cos step is also held against vanilla's.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
import torchvision
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mg_core.attributions import explain, upsample
from mg_core.guidance import Batch, Guidance, guided_loss, guided_step
from mg_core.losses import localization_loss
from mg_core.metrics import IOU_THRESHOLDS, classification, epg, iou
from mg_core.models import Model, build_model

CLASSES = 20
METHODS = {"vanilla_resnet50": "ixg", "xdnn_resnet50": "intgrad", "bcos_resnet50": "bcos"}
TRANSFORMER = "timm/vit_tiny_patch16_224"


@dataclass(frozen=True)
class Row:
    """One line of the table: a ratio, its spread, its bound."""

    what: str
    ratio: float
    low: float
    high: float
    bound: str
    flops: float | None = None

    def __str__(self) -> str:
        flops = "" if self.flops is None else f"{self.flops:.2f}"
        spread = f"{self.low:.2f} … {self.high:.2f}"
        return f"{self.what:58} {self.ratio:7.3f}   {spread:15} {self.bound:>9} {flops:>7}"


def make_batch(model: Model, size: int, batch_size: int) -> Batch:
    torch.manual_seed(1)
    masks = torch.zeros(batch_size, size, size, dtype=torch.bool)
    masks[:, size // 4 : size // 2, size // 4 : 3 * size // 4] = True
    return Batch(
        inputs=model.encode(torch.rand(batch_size, 3, size, size)),
        labels=torch.rand(batch_size, CLASSES) > 0.9,
        target_classes=torch.randint(0, CLASSES, (batch_size,)),
        masks=masks,
        annotated=torch.arange(batch_size),
    )


def step(name: str, layer: str | None, precision: str, options: argparse.Namespace):
    """Return a training step of a freshly built model, guided at a layer or not at all."""
    torch.manual_seed(0)
    model = build_model(name, CLASSES, image_size=options.size).train()
    batch = make_batch(model, options.size, options.batch)
    guidance = Guidance(METHODS.get(name, "ixg"), layer, "energy", 1e-3) if layer else None
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    return partial(guided_step, model, optimizer, batch, guidance, precision)


def compare(
    what: str,
    ours: Callable[[], object],
    reference: Callable[[], object],
    bound: str,
    rounds: int,
    count_flops: bool = False,
) -> Row:
    times: tuple[list[float], list[float]] = ([], [])
    counts = []
    for run in (ours, reference):  # also warms up
        counter = FlopCounterMode(display=False)
        with counter if count_flops else nullcontext():
            run()
        counts.append(counter.get_total_flops())
    for _ in range(rounds):
        for run, seconds in zip((ours, reference), times, strict=True):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
    ratios = sorted(a / b for a, b in zip(*times, strict=True))
    ratio = statistics.median(times[0]) / statistics.median(times[1])
    flops = counts[0] / counts[1] if count_flops else None
    return Row(what, ratio, ratios[0], ratios[-1], bound, flops)


def training_rows(options: argparse.Namespace):
    bounds = {
        "vanilla_resnet50": {"input": "≤ 2.4", "mid2": "≤ 1.7", "final": "≤ 1.03"},
        "xdnn_resnet50": {"input": "≤ 2.3"},
        "bcos_resnet50": {"input": "≤ 1.9"},
    }
    for name, layers in bounds.items():
        for layer, bound in layers.items():
            what = f"{name}, guided at {layer} / unguided"
            guided, plain = (step(name, at, "fp32", options) for at in (layer, None))
            yield compare(what, guided, plain, bound, options.rounds, count_flops=True)
    sides = (step(name, None, "fp32", options) for name in ("bcos_resnet50", "vanilla_resnet50"))
    yield compare("bcos_resnet50 / vanilla_resnet50, unguided", *sides, "≤ 1.6", options.rounds)
    what = "bcos_resnet50 guided at input / vanilla_resnet50 unguided"
    guided = step("bcos_resnet50", "input", "fp32", options)
    plain = step("vanilla_resnet50", None, "fp32", options)
    yield compare(what, guided, plain, "≤ 3.04", options.rounds)
    sides = (step("vanilla_resnet50", "input", p, options) for p in ("bf16", "fp32"))
    what = "vanilla_resnet50, guided at input, bf16 / fp32 (AVX512-BF16)"
    yield compare(what, *sides, "≤ 0.7", options.rounds)


def attention_rows(options: argparse.Namespace):
    """Compare fused attention below a guided layer with attention written out everywhere."""

    def written_out(run: Callable[[], object]) -> object:
        with sdpa_kernel(SDPBackend.MATH):
            return run()

    plain, other = (step(TRANSFORMER, None, "fp32", options) for _ in range(2))
    what = f"{TRANSFORMER}, unguided, written out / fused"
    yield compare(what, partial(written_out, other), plain, "", options.rounds)
    for layer in ("input", "mid3"):
        guided, other = (step(TRANSFORMER, layer, "fp32", options) for _ in range(2))
        what = f"{TRANSFORMER}, guided at {layer} / unguided"
        yield compare(what, guided, plain, "", options.rounds)
        what = f"{TRANSFORMER}, guided at {layer}, all written out / ours"
        yield compare(what, partial(written_out, other), guided, "", options.rounds)


def evaluation_rows(options: argparse.Namespace):
    """Compare two maps an image at input with one full-batch backward for each of them."""
    batch_size = 4
    torch.manual_seed(0)
    model = build_model("vanilla_resnet50", CLASSES).eval()
    batch = make_batch(model, options.size, batch_size)
    slots = [torch.arange(batch_size), torch.arange(batch_size) + 1]

    def judge(maps: Tensor, masks: Tensor) -> None:
        maps = upsample(maps, options.size)
        epg(maps, masks)
        iou(maps, masks, IOU_THRESHOLDS)

    def batched_maps() -> list[Tensor]:
        model.requires_grad_(False)
        explanation = explain(model, batch.inputs, [("ixg", "input")])
        return [explanation.maps(classes)[0] for classes in slots]

    def bookkeeping(maps: list[Tensor]) -> None:
        for found in maps:
            judge(found, batch.masks)
        classification(torch.zeros(batch_size, CLASSES), batch.labels)

    def one_by_one() -> None:
        model.requires_grad_(True)
        inputs = batch.inputs.clone().requires_grad_()
        logits = model(inputs)
        for image in range(batch_size):
            for classes in slots:
                score = logits[image, classes[image]]
                (gradient,) = torch.autograd.grad(score, inputs, retain_graph=True)
                judge((inputs * gradient).sum(1)[image : image + 1], batch.masks[image : image + 1])

    def batched() -> None:
        bookkeeping(batched_maps())

    yield compare(
        "evaluation, a map at a time / batched", one_by_one, batched, "≥ 3", options.rounds
    )
    maps = batched_maps()
    what = "evaluation, bookkeeping / batched evaluation"
    yield compare(what, partial(bookkeeping, maps), batched, "≤ 0.03", options.rounds)


def memory_rows(options: argparse.Namespace):
    """Compare what the loss keeps for its backward pass with what the attribution keeps."""

    def kept(run: Callable[[], object]) -> int:
        seen: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            result = run()
        del result
        return sum(seen.values())

    torch.manual_seed(0)
    model: nn.Module = build_model("vanilla_resnet50", CLASSES).train()
    batch = make_batch(model, options.size, options.batch)
    maps = torch.randn(batch.masks.shape, requires_grad=True)
    loss = kept(lambda: localization_loss("energy", maps, batch.masks))
    guidance = Guidance("ixg", "input", "energy", 1e-3)
    whole = kept(lambda: guided_loss(model, batch, guidance))
    share = loss / (whole - loss)
    yield Row("memory kept by loss and masks / by the attribution", share, share, share, "≤ 0.05")


def profile(options: argparse.Namespace) -> Iterator[str]:
    """Say by operator where the time of guided and unguided steps goes."""
    for name in METHODS:
        for layer in (None, "input"):
            run = step(name, layer, "fp32", options)
            run()
            with torch.profiler.profile() as profiler:
                run()
            found = profiler.key_averages()
            yield f"\n{name}, " + (f"guided at {layer}" if layer else "unguided")
            yield found.table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=40)


PARTS = {
    "training": training_rows,
    "attention": attention_rows,
    "evaluation": evaluation_rows,
    "memory": memory_rows,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=(*PARTS, "profile"))
    parser.add_argument("--rounds", type=int, default=7, help="repetitions of every pair")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=128, help="pixels on each side")
    parser.add_argument("--batch", type=int, default=8, help="images a training step")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, Python "
        f"{platform.python_version()}, {torch.backends.cpu.get_cpu_capability()}, "
        f"{options.threads} threads; {options.size} × {options.size}, batch {options.batch}, "
        f"{options.rounds} rounds"
    )
    if options.only == "profile":
        for text in profile(options):
            print(text, flush=True)
        return
    print(f"{'ratio':58} {'median':>7}   {'spread':15} {'bound':>9} {'FLOPs':>7}")
    for name, rows in PARTS.items():
        if options.only in (None, name):
            for row in rows(options):
                print(row, flush=True)


if __name__ == "__main__":
    main()
