"""The catalogue of columns: each column of the result table is declared once, here.

Schemas, table headers, menus, axes of figures, objectives, the grouping into fronts and the labels
of trials are derived from it. A new metric is one entry of `METRICS`; a new axis of the grid is one
entry of `CONFIGURATION_COLUMNS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

Type = Literal["text", "bool", "int32", "int64", "float64", "list", "texts"]
Role = Literal["setting", "axis", "key", "metric", "bookkeeping"]
Part = Literal["data", "network", "guidance", "boxes", "training"]

BOX_SIZE_EDGES = (0.0, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Edges of the bins of `epg_by_box_size`, as shares of the image; upper edges are inside."""

SPLITS = {"val": "validation", "test": "test"}
"""Prefix of a metric's columns, as in `val_epg` -> name of the split."""


@dataclass(frozen=True)
class Column:
    """One column of the result table, or one entry of `METRICS`, which is a column in each split.

    Attributes:
        name: name in the table; an entry of `METRICS` lacks the prefix of the split.
        type: type of the values; `list` is a list of float64, `texts` one of texts.
        description: one phrase for documentation.
        role: `setting` and `axis` describe the trial, and a grid varies the axes; `key` says what
            a row is about; `metric` is measured; `bookkeeping` is none of these.
        label: short name for table headers; empty uses `name`.
        long_label: name for menus and axes of figures; empty uses the short one.
        source: dotted path of the value in a `TrialConfig`.
        part: the part of the trial that a setting or axis describes.
        usual: value of an axis in sweeps that do not vary it; `...` if there is none.
        brief: format of an unusual value in the label of a trial.
        phrase: format of the value where settings are compared in words.
        usual_phrase: words for the usual value, in place of `phrase`.
        is_share: whether the values are fractions, which are shown in percent.
        better: whether higher or lower values of a metric are better; none if neither is.
        needs: what a data set must have for the metric to be measured.
        of_pair: whether the metric is measured for each evaluated (attribution, layer).
        splits: prefixes of the splits on which the metric is measured.
        metric: name of the entry of `METRICS` that the column belongs to.
        per: what the values of a list belong to, in order.
    """

    name: str
    type: Type
    description: str
    role: Role = "metric"
    label: str = ""
    long_label: str = ""
    source: str = ""
    part: Part | None = None
    usual: Any = ...
    brief: str = "{}"
    phrase: str = ""
    usual_phrase: str = ""
    is_share: bool = False
    better: Literal["higher", "lower"] | None = None
    needs: Literal["groups", "masks", "one label"] | None = None
    of_pair: bool = False
    splits: tuple[str, ...] = ("val", "test")
    metric: str = ""
    per: Literal["threshold", "class", "box size", "group"] | None = None

    @property
    def header(self) -> str:
        """Name of the column in table headers."""
        return self.label or self.name.replace("_", " ")

    @property
    def menu(self) -> str:
        """Name of the column in menus and on axes of figures."""
        return self.long_label or self.header

    @property
    def is_of_guidance(self) -> bool:
        """Whether the value is a part of the guidance, which a baseline does not have."""
        return self.source.startswith("guidance.")

    def in_words(self, value: Any) -> str:
        """Describe a value of a setting or axis, such as `boxes dilated by 10 %`."""
        if self.usual_phrase and value == self.usual:
            return self.usual_phrase
        shown = 100 * value if self.is_share else value
        return (self.phrase or f"{self.header} {{}}").format(shown)


def _of_trial(name: str, type_: Type, role: Role, part: Part | None, source: str, description: str,
              **more: Any) -> Column:  # fmt: skip
    return Column(name, type_, description, role, part=part, source=source, **more)


def _share(name: str, description: str, label: str = "", **more: Any) -> Column:
    return Column(name, "float64", description, label=label, is_share=True,
                  **{"better": "higher", **more})  # fmt: skip


# fmt: off
CONFIGURATION_COLUMNS: tuple[Column, ...] = (
    _of_trial("trial_id", "text", "bookkeeping", None, "trial_id",
              "identity of the trial, a hash of its configuration", label="trial"),
    _of_trial("kind", "text", "bookkeeping", None, "kind", "baseline or guided"),
    _of_trial("dataset", "text", "setting", "data", "data.name", "registered data set"),
    _of_trial("dataset_options", "text", "setting", "data", "data.options",
              "options of the data set, as JSON", label="options"),
    _of_trial("image_size", "int32", "setting", "data", "data.image_size",
              "pixels on each side", phrase="{} px"),
    _of_trial("horizontal_flip", "bool", "setting", "data", "data.horizontal_flip",
              "whether training images are flipped with probability 1/2"),
    _of_trial("model", "text", "axis", "network", "model", "registered model"),
    _of_trial("weights", "text", "setting", "network", "weights",
              "initial weights of the baseline; missing where it starts from scratch"),
    _of_trial("seed", "int64", "axis", "training", "seed",
              "seed of initialisation, shuffling, class draws and annotation subsets"),
    _of_trial("epochs", "int32", "axis", "training", "epochs",
              "passes over the training split that make the trial complete", phrase="{} epochs"),
    _of_trial("learning_rate", "float64", "axis", "training", "learning_rate",
              "learning rate before schedule and warm-up", usual=1e-4, brief="lr{:g}",
              phrase="learning rate {:g}"),
    _of_trial("batch_size", "int32", "axis", "training", "batch_size", "images per step",
              usual=64, brief="b{}"),
    _of_trial("precision", "text", "axis", "training", "precision",
              "precision of the training step", usual="fp32"),
    _of_trial("optimizer", "text", "axis", "training", "optimizer",
              "optimiser and its arguments", usual="adam", phrase="{}"),
    _of_trial("weight_decay", "float64", "axis", "training", "weight_decay",
              "weight decay; missing where it is the optimiser's own", usual=None, brief="wd{:g}",
              phrase="weight decay {:g}"),
    _of_trial("schedule", "text", "axis", "training", "schedule",
              "course of the learning rate", usual="constant"),
    _of_trial("warmup_epochs", "float64", "axis", "training", "warmup_epochs",
              "epochs in which the learning rate rises from 0", usual=0.0, brief="warmup{:g}"),
    _of_trial("clip_norm", "float64", "axis", "training", "clip_norm",
              "largest norm of a step's gradient; missing where it is not clipped", usual=None,
              brief="clip{:g}"),
    _of_trial("classification_loss", "text", "axis", "training", "classification_loss",
              "registered classification loss", usual="bce"),
    _of_trial("label_smoothing", "float64", "axis", "training", "label_smoothing",
              "share of a label that is spread over the classes", usual=0.0, brief="smooth{:g}"),
    _of_trial("augment", "text", "axis", "training", "augment",
              "transforms of the training images; missing where there are none", usual=None,
              brief="augmented"),
    _of_trial("early_stop", "text", "axis", "training", "early_stop",
              "when training stops before its last epoch; missing where it does not", usual=None,
              brief="stops-early"),
    _of_trial("baseline", "text", "bookkeeping", None, "baseline",
              "trial the guided one starts from; missing for a baseline"),
    _of_trial("origin", "text", "bookkeeping", None, "origin",
              "trained network that a baseline is; missing where it was trained here"),
    _of_trial("guided_attribution", "text", "axis", "guidance", "guidance.attribution",
              "attribution whose maps are guided", label="guided", long_label="guided attribution"),
    _of_trial("guided_layer", "text", "axis", "guidance", "guidance.layer",
              "layer at which the guided maps are taken", label="at", long_label="guided layer"),
    _of_trial("loss", "text", "axis", "guidance", "guidance.loss", "localization loss"),
    _of_trial("localization_weight", "float64", "axis", "guidance", "guidance.localization_weight",
              "λ of Eq. 1", label="λ"),
    _of_trial("reduction", "text", "axis", "guidance", "guidance.reduction",
              "how the losses of a batch's annotated images are combined", usual="sum"),
    _of_trial("annotated_fraction", "float64", "axis", "boxes", "guidance.annotated_fraction",
              "share of the training images that keep their boxes", is_share=True, usual=1.0,
              label="boxes kept", long_label="share of boxes", brief="f{:g}",
              phrase="{:.3g} % of the boxes", usual_phrase="all boxes"),
    _of_trial("box_dilation", "float64", "axis", "boxes", "guidance.box_dilation",
              "growth of a training box on each side, as a share of its size", is_share=True,
              usual=0.0, label="dilation", brief="d{:g}", phrase="boxes dilated by {:.3g} %",
              usual_phrase="boxes as they are"),
    _of_trial("annotation", "text", "axis", "boxes", "guidance.annotation",
              "what is annotated of an object: the ladder of supervision", usual="box",
              phrase="guided by {}", usual_phrase="guided by boxes"),
    _of_trial("task", "text", "axis", "data", "guidance.task",
              "which label is learnt, for data sets with several", usual=None, phrase="{} task"),
)
"""What the trial is: the same values in all of its rows."""

KEY_COLUMNS: tuple[Column, ...] = (
    Column("epoch", "int32", "0 is the baseline's checkpoint before any guided update", "key"),
    Column("attribution", "text", "evaluated attribution; missing for a baseline", "key",
           "judged by", "judged attribution"),
    Column("layer", "text", "evaluated layer; missing for a baseline", "key",
           "at", "judged layer"),
)
"""What a row of a trial is about."""

TRAINING_COLUMNS: tuple[Column, ...] = (
    Column("train_loss", "float64", "mean over the epoch's steps"),
    Column("train_bce", "float64", "classification part of the loss, mean over steps"),
    Column("train_localization_loss", "float64", "localization part before λ, mean over steps"),
    Column("n_annotated", "int64", "images guided in the epoch"),
    Column("n_annotated_objects", "int64",
           "objects of the images that have annotations; missing in older stores"),
    Column("n_skipped_steps", "int64",
           "steps left out since a gradient did not fit into fp16; missing in other precisions"),
)
"""What is measured during training; null at epoch 0."""

METRICS: tuple[Column, ...] = (
    _share("f1", "micro F1 over all (image, class) decisions", "F1"),
    _share("precision", "micro precision"),
    _share("recall", "micro recall"),
    _share("map", "macro mean of average precision", "mAP"),
    _share("macro_f1", "mean F1 of the classes that have positives", "macro F1"),
    Column("bce", "float64", "binary cross-entropy", label="BCE", better="lower"),
    Column("n_images", "int64", "images of the split"),
    Column("n_classes_without_positives", "int64", "classes left out of map and macro_f1"),
    _share("f1_unswapped", "micro F1 of the images whose background is swapped, before it is",
           "F1 before swap", splits=("test",)),
    _share("f1_swapped", "micro F1 of the same images with the background of another one",
           "F1 after swap", splits=("test",)),
    Column("n_swapped", "int64", "images whose background is swapped", splits=("test",)),
    _share("accuracy", "share of images whose largest logit is their class, where each has one",
           needs="one label"),
    Column("groups", "texts", "names of the groups, in the order of the lists that are per group",
           needs="groups", per="group"),
    Column("accuracy_by_group", "list", "accuracy of each group, NaN without any image",
           needs="groups", per="group"),
    Column("n_by_group", "list", "images of each group", needs="groups", per="group"),
    _share("accuracy_mean_group", "mean of the groups' accuracies", "mean group accuracy",
           needs="groups"),
    # Those of Waterbirds alone, as Table 1 has them.
    _share("accuracy_group_0", "accuracy of landbirds on land", needs="groups"),
    _share("accuracy_group_1", "accuracy of landbirds on water", needs="groups"),
    _share("accuracy_group_2", "accuracy of waterbirds on land", needs="groups"),
    _share("accuracy_group_3", "accuracy of waterbirds on water", needs="groups"),
    _share("accuracy_worst_group", "accuracy of waterbirds on land, the worst group of Table 1",
           "worst-group accuracy", needs="groups"),
    _share("accuracy_min_group", "lowest accuracy of a group", "lowest group accuracy",
           needs="groups"),
    _share("epg", "mean energy pointing game over (image, ground-truth class) pairs", "EPG",
           of_pair=True),
    _share("iou", "mean IoU at iou_threshold", "IoU", of_pair=True),
    Column("iou_threshold", "float64", "the threshold with the highest mean validation IoU",
           of_pair=True),
    _share("iou_at_0.5", "mean IoU at threshold 0.5", "IoU at 0.5", of_pair=True),
    Column("iou_by_threshold", "list", "mean IoU at every threshold of the grid", of_pair=True,
           per="threshold"),
    _share("pointing_game", "share of pairs whose map is highest inside the boxes",
           "pointing game", of_pair=True),
    Column("n_pairs", "int64", "(image, ground-truth class) pairs", of_pair=True),
    Column("n_without_energy", "int64", "pairs whose map has no positive value; they count 0",
           of_pair=True),
    Column("n_zero_map", "int64", "pairs whose map is zero everywhere; they count 0", of_pair=True),
    Column("n_empty_mask", "int64", "pairs whose boxes cover no pixel; they count 0",
           of_pair=True),
    _share("box_area", "mean share of the image inside the boxes: the EPG of a uniform map",
           better=None, of_pair=True),
    _share("on_object", "mean share of the in-box energy that is on the object", "on object",
           long_label="on-object energy", needs="masks", of_pair=True),
    Column("n_on_object", "int64", "pairs with a segmentation mask and energy in the box",
           of_pair=True),
    _share("mask_epg", "mean share of the energy that is on the object", "mask EPG",
           needs="masks", of_pair=True),
    Column("n_mask_epg", "int64", "pairs whose class has pixels in a segmentation mask",
           of_pair=True),
    _share("deletion", "mean area under the class's probability while the image is blurred, "
           "highest attribution first", "deletion area", better="lower", of_pair=True,
           splits=("test",)),
    _share("insertion", "mean area under the class's probability while a blurred image is "
           "restored, highest attribution first", "insertion area", of_pair=True,
           splits=("test",)),
    Column("n_perturbed", "int64", "pairs that deletion and insertion are means over",
           of_pair=True, splits=("test",)),
    Column("epg_by_class", "list", "mean EPG of each class", of_pair=True, splits=("test",),
           per="class"),
    Column("epg_by_box_size", "list",
           "mean EPG by box-area bin (mg_core.columns.BOX_SIZE_EDGES)",
           of_pair=True, splits=("test",), per="box size"),
)
"""What is measured on a split, in the order of the table; `of_split` makes the columns."""

BOOKKEEPING_COLUMNS: tuple[Column, ...] = (
    Column("attempt", "int32", "run of the trial that wrote the row", "bookkeeping"),
    Column("seconds_train", "float64", "training time of the epoch", "bookkeeping"),
    Column("seconds_val", "float64", "validation time of the epoch", "bookkeeping"),
    Column("seconds_step", "float64", "mean time of a training step", "bookkeeping"),
)
"""What may differ between two runs of the same trial."""
# fmt: on


def of_split(split: str) -> tuple[Column, ...]:
    """Return the columns of all metrics on one split."""
    return tuple(
        replace(
            metric,
            name=f"{split}_{metric.name}",
            description=f"{SPLITS[split]}: {metric.description}",
            metric=metric.name,
        )
        for metric in METRICS
        if split in metric.splits
    )


TABLE: tuple[Column, ...] = (
    *CONFIGURATION_COLUMNS,
    *KEY_COLUMNS,
    *TRAINING_COLUMNS,
    *of_split("val"),
    *BOOKKEEPING_COLUMNS,
)
"""One row for each (trial, epoch, evaluated attribution, evaluated layer)."""

TEST_TABLE: tuple[Column, ...] = (CONFIGURATION_COLUMNS[0], *KEY_COLUMNS, *of_split("test"))
"""One row for each tested row of `TABLE`, with the same `KEY`."""

COLUMNS: Mapping[str, Column] = {column.name: column for column in (*TABLE, *TEST_TABLE)}
"""Every column by name."""

BY_METRIC: Mapping[str, Column] = {column.name: column for column in METRICS}
"""Every metric by its name without a split."""

KEY = ["trial_id", *(column.name for column in KEY_COLUMNS)]
"""Columns that identify a row."""

PAIR = ["attribution", "layer"]
"""Columns that identify what a row's maps were evaluated with."""

AXES: tuple[Column, ...] = tuple(c for c in CONFIGURATION_COLUMNS if c.role == "axis")
"""Columns that a grid varies."""

RUN = ["baseline", "seed"]
"""Columns that no front pools: trials of other seeds or other baselines are never on one front."""

CONFIGURATION: list[str] = [
    column.name
    for part in get_args(Part)
    for column in CONFIGURATION_COLUMNS
    if column.part == part and column.name not in {"localization_weight", "seed"}
]
"""What the guided trials of one front have in common: all settings and axes but λ and the seed."""

SCORES: list[str] = [c.name for c in METRICS if c.is_share and c.better]
"""Metrics in [0, 1] of which more, or less, is better: menus offer them, findings compare them."""

_VALIDATED = [c for c in METRICS if c.better and c.type == "float64" and "val" in c.splits]

OBJECTIVES: list[str] = [c.name for c in _VALIDATED if c.better == "higher" and not c.needs]
"""Metrics that a front may be taken over: larger is better, and every data set has them."""

STOPPABLE: list[str] = [c.name for c in _VALIDATED if c.needs != "masks"]
"""Metrics on whose validation values training may stop early."""


def configured(config: Any, column: Column) -> Any:
    """Return a column's value in a `TrialConfig`; None where it has no such part, like guidance."""
    value = config
    for name in column.source.split("."):
        value = getattr(value, name, None)
    return as_value(value, column)


def as_value(value: Any, column: Column) -> Any:
    """Return a value of a `TrialConfig` as its column holds it."""
    if column.type != "text" or isinstance(value, str | dict | None):
        return value
    return (", ".join(map(str, value)) or None) if isinstance(value, tuple) else str(value)
