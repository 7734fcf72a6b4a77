"""Augmentation: masks follow pixels, draws depend on the image alone, and what cannot be used."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter

from mg_core.data.augmentation import Augmentation
from mg_core.errors import InputError
from mg_core.recipe import Transform

SIZE = 40
GEOMETRIC = [
    "random_resized_crop",
    "random_horizontal_flip",
    "vertical_flip",
    {"rotation": {"degrees": 40}},
    {"rotation": {"degrees": 40, "interpolation": "bilinear"}},
    {"affine": {"degrees": 20, "translate": [0.2, 0.2], "scale": [0.7, 1.3], "shear": 10}},
    {"perspective": {"p": 1, "distortion_scale": 0.4}},
    {"elastic_transform": {"alpha": 30.0}},
    {"random_crop": {"padding": 8}},
    {"center_crop": {}},
    "resize",
]
LONGER = [
    ["random_zoom_out", "resize"],
    [{"pad": {"padding": 5}}, "random_crop"],
    [{"scale_jitter": {"target_size": [60, 60], "scale_range": [0.8, 2]}}, "resize"],
    [{"random_choice": {"transforms": ["RandomHorizontalFlip", {"rotation": {"degrees": 30}}]}}],
    [{"random_resize": {"min_size": 40, "max_size": 60}}, "resize"],
    [{"random_shortest_size": {"min_size": [30, 50]}}, "resize"],
]
PHOTOMETRIC = [
    "color_jitter",
    {"color_jitter": {"brightness": 0.4, "hue": 0.2}},
    {"gaussian_blur": {"kernel_size": 3}},
    "gaussian_noise",
    {"jpeg": {"quality": [20, 60]}},
    {"grayscale": {"num_output_channels": 3}},
    "random_grayscale",
    "autocontrast",
    "equalize",
    {"solarize": {"threshold": 100}},
    {"posterize": {"bits": 3}},
    {"adjust_sharpness": {"sharpness_factor": 2}},
    "random_invert",
    "random_photometric_distort",
    "random_channel_permutation",
    {"erasing": {"p": 1}},
]


def transforms(*written):
    return [TypeAdapter(Transform).validate_python(one) for one in written]


def rectangle(top, left, bottom, right):
    mask = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def drawn(masks):
    """Return pictures in which the masks are white on black."""
    return 255 * masks[:, None].expand(-1, 3, -1, -1).byte()


MASKS = torch.stack([rectangle(8, 5, 24, 30), rectangle(20, 22, 36, 34), rectangle(0, 0, 12, 40)])


@pytest.mark.parametrize("pipeline", [[one] for one in GEOMETRIC] + LONGER, ids=str)
def test_a_rectangle_and_its_box_end_at_the_same_place(pipeline):
    augment, moved = Augmentation(transforms(*pipeline), SIZE, seed=0), 0
    for epoch in range(12):
        images, masks, is_visible = augment(
            drawn(MASKS), MASKS, np.arange(3), epoch, np.arange(3) + 10
        )
        assert images.shape == (3, 3, SIZE, SIZE)
        white = images[:, 0] > 127
        # Colours between black and white, along an edge, may fall on either side.
        around = F.max_pool2d(masks[:, None].float(), 3, 1, 1)[:, 0].bool()
        inside = ~F.max_pool2d((~masks)[:, None].float(), 3, 1, 1)[:, 0].bool()
        if "random_zoom_out" not in pipeline and "center_crop" not in str(pipeline):
            # At the edge of the image, a mask has no pixel outside by which it were thinner.
            inside[:, [0, -1]] = inside[:, :, [0, -1]] = False
        assert not (white & ~around).any()
        assert not (inside & ~white).any()
        assert is_visible.tolist() == masks.any((1, 2)).tolist()
        moved += not torch.equal(masks, MASKS)
    is_still = pipeline[0] in ("resize", {"center_crop": {}})
    assert moved == 0 if is_still else moved > 5


@pytest.mark.parametrize("transform", PHOTOMETRIC, ids=str)
def test_what_changes_colours_moves_no_mask(transform):
    augment = Augmentation(transforms(transform), SIZE, seed=0)
    torch.manual_seed(0)
    pictures = torch.randint(50, 200, (3, 3, SIZE, SIZE), dtype=torch.uint8)
    changed = 0
    for epoch in range(8):
        images, masks, is_visible = augment(pictures, MASKS, np.arange(3), epoch, np.arange(3))
        assert torch.equal(masks, MASKS)
        assert is_visible.all()
        assert images.dtype == torch.uint8
        changed += not torch.equal(images, pictures)
    assert changed > 0


def test_draws_depend_on_the_image_alone():
    pipeline = transforms("random_resized_crop", {"color_jitter": {"hue": 0.3}}, "rotation")[:2]
    augment = Augmentation(pipeline, SIZE, seed=3)
    pictures = torch.randint(0, 255, (4, 3, SIZE, SIZE), dtype=torch.uint8)
    masks, ids = MASKS[[0, 1]], np.array([7, 2, 9, 4])
    torch.manual_seed(1)
    state = torch.get_rng_state()
    images, found, _ = augment(pictures, masks, np.array([0, 2]), 5, ids)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again, moved, _ = augment(pictures.flip(0), masks[[1]], np.array([1]), 5, ids[::-1].copy())
    assert torch.equal(again.flip(0), images)
    assert torch.equal(moved[0], found[1])
    for other in (Augmentation(pipeline, SIZE, seed=4), augment):
        epoch = 6 if other is augment else 5
        assert not torch.equal(other(pictures, masks, np.array([0, 2]), epoch, ids)[0], images)


def test_an_object_that_is_cropped_away_has_no_box():
    masks = torch.stack([rectangle(4, 4, 12, 12), rectangle(10, 10, 30, 30)])
    augment = Augmentation(transforms({"random_resized_crop": {"scale": [0.1, 0.3]}}), SIZE, 0)
    gone = 0
    for epoch in range(40):
        images, moved, is_visible = augment(drawn(masks), masks, np.arange(2), epoch, np.arange(2))
        gone += not is_visible[0]
        if not is_visible[0]:
            assert not moved[0].any()
            assert not images[0].any()
    assert 5 < gone < 40


def test_outside_a_box_is_what_is_left_of_the_image_around_it():
    outside, inside = ~MASKS[:2], MASKS[:2]
    augment = Augmentation(transforms({"rotation": {"degrees": [30, 60]}}), SIZE, 0)
    _, moved, is_visible = augment(drawn(inside), outside, np.arange(2), 1, np.arange(2), True)
    _, box, _ = augment(drawn(inside), inside, np.arange(2), 1, np.arange(2))
    _, whole, _ = augment(drawn(inside), torch.ones_like(inside), np.arange(2), 1, np.arange(2))
    assert is_visible.all()
    assert torch.equal(moved, whole & ~box)
    assert not whole.all()  # corners that come from outside the image are in no mask
    crop = Augmentation(transforms({"random_resized_crop": {"scale": [0.01, 0.03]}}), SIZE, 0)
    seen = [
        crop(drawn(inside), outside, np.arange(2), epoch, np.arange(2), True) for epoch in range(30)
    ]
    for _, masks, is_visible in seen:
        for mask, is_kept in zip(masks, is_visible, strict=True):
            assert is_kept == (bool(mask.any()) and not mask.all())
    assert len({bool(v) for _, _, visible in seen for v in visible}) == 2


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("random_resize_crop", "unknown transform 'random_resize_crop' (did you mean RandomResiz"),
        ("mylib.Cut", "mylib.Cut cannot be imported"),
        ("torch.nn.Linear", "torch.nn.Linear: "),
        ({"color_jitter": {"brigth": 1}}, "color_jitter: ColorJitter.__init__() got an unexpected"),
        ({"rotation": {"degrees": -3}}, "random_rotation: "),
        (
            {"rotation": {"degrees": 9, "interpolation": "linear"}},
            "random_rotation: 'linear' is not a valid InterpolationMode; its arguments are degre",
        ),
        ("rotation", "random_rotation: RandomRotation.__init__() missing 1 required positional"),
        ("five_crop", "five_crop does not take images with masks"),
        ("AutoAugment", "auto_augment does not take images with masks"),
        ("cut_mix", "cut_mix does not take images with masks"),
        ("random_iou_crop", "random_iou_crop does not take images with masks"),
        ("to_pil_image", "to_pil_image does not carry masks along with images"),
        ({"normalize": {"mean": [0], "std": [1]}}, "normalize does not take images with masks"),
        ({"pad": {"padding": 2}}, "images end with 3 channels and 44 × 44 pixels, but are trained"),
        ({"random_apply": {"transforms": ["nothing"]}}, "unknown transform 'nothing'"),
    ],
)
def test_what_cannot_be_used_is_refused(written, sentence):
    with pytest.raises(InputError, match=re.escape(sentence)) as caught:
        Augmentation(transforms(written), SIZE, 0)
    assert "\n" not in str(caught.value)
