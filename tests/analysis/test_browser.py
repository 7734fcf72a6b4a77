"""The report in a real browser: Chromium, headless."""

import itertools
import json
import shutil
from dataclasses import replace

import pytest

import analysis
from analysis.cli import report
from analysis.results import read_results

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def page_file(trained, tmp_path_factory):
    copy = tmp_path_factory.mktemp("report") / "store"
    shutil.copytree(trained.uri, copy)
    report([str(copy)], heatmaps=3)
    return copy / "analysis" / "report.html"


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture
def page(browser, page_file, request):
    """The page, opened, with what it asked the network for and what it complained about."""
    context = browser.new_context(**getattr(request, "param", {}))
    opened = context.new_page()
    opened.requested, opened.problems = [], []
    opened.on("request", lambda r: opened.requested.append(r.url))
    opened.on("pageerror", lambda error: opened.problems.append(str(error)))
    opened.on("console", lambda m: m.type == "error" and opened.problems.append(m.text))
    opened.goto(page_file.as_uri())
    opened.wait_for_selector("#explorer-plot[data-ready]", timeout=60_000)
    yield opened
    context.close()


def test_it_needs_no_network_and_complains_of_nothing(page, page_file):
    assert page.problems == []
    outside = [url for url in page.requested if not url.startswith(("data:", "blob:"))]
    assert outside == [page_file.as_uri()]


def test_choosing_axes_and_a_checkpoint_shows_its_maps(page):
    assert page.text_content("#explorer-plot .xtitle") == "F1 (%)"
    page.select_option("#explorer-y", "iou")
    page.wait_for_function("document.querySelector('.ytitle').textContent === 'IoU (%)'")
    page.select_option("#explorer-point", index=1)
    detail = page.locator("#explorer-detail")
    assert "vanilla_tiny" in detail.inner_text()
    captions = detail.locator("figcaption").all_inner_texts()
    assert captions in (["before guidance", "after guidance"], ["baseline"])
    widths = detail.locator("img").evaluate_all("all => all.map(i => i.naturalWidth)")
    assert all(width > 3 * 90 for width in widths)


def test_a_metric_of_the_test_split_of_which_less_is_better_can_be_an_axis(page):
    page.select_option("#explorer-y", "deletion")
    title = "deletion area (%, less is better)"
    page.wait_for_function(f"document.querySelector('.ytitle').textContent === '{title}'")
    assert not page.text_content("#explorer-count").startswith("0 ")
    page.select_option("#explorer-split", "val")
    assert page.text_content("#explorer-count") == "0 checkpoints and 0 baselines shown"
    assert page.problems == []


def test_clicking_a_point_chooses_it(page):
    page.locator("#explorer-plot .scatterlayer .point").first.scroll_into_view_if_needed()
    box = page.locator("#explorer-plot .scatterlayer .point").first.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#explorer-detail p")
    assert page.input_value("#explorer-point") != ""


def test_the_keyboard_is_enough(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"explorer-x", "explorer-y", "explorer-split", "explorer-point"} <= reached
    page.focus("#explorer-point")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("#explorer-detail p")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"


def test_a_reload_keeps_what_was_chosen(page):
    page.select_option("#explorer-y", "iou")
    page.select_option("#explorer-point", index=1)
    text = page.inner_text("#explorer-detail")
    page.reload()
    page.wait_for_selector("#explorer-plot[data-ready]")
    assert page.input_value("#explorer-y") == "iou"
    assert page.inner_text("#explorer-detail") == text


@pytest.mark.parametrize(
    "page",
    [
        {"viewport": {"width": 390, "height": 844}, "is_mobile": True},
        {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
    ],
    indirect=True,
)
def test_a_phone_scrolls_down_only(page):
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize(
    ("page", "is_dark"), [({"color_scheme": "dark"}, True), ({}, False)], indirect=["page"]
)
def test_text_stands_out_in_both_colour_schemes(page, is_dark):
    """Contrast of text and its background is at least 4.5 (WCAG AA)."""
    colours = json.loads(
        page.evaluate(
            """() => {
          const of = (s) => getComputedStyle(document.documentElement).getPropertyValue(s).trim();
          return JSON.stringify(['--ink','--soft','--link','--bad','--good','--paper'].map(of));
        }"""
        )
    )

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    *texts, paper = map(luminance, colours)
    assert (paper < 0.5) == is_dark
    for text in texts:
        bright, dark = max(text, paper), min(text, paper)
        assert (bright + 0.05) / (dark + 0.05) >= 4.5


def test_landmarks_and_names_for_a_screen_reader(page):
    assert page.locator("main").count() == page.locator("nav").count() == 1
    for select in page.locator("#explorer select, #explorer input").all():
        assert select.evaluate("e => e.labels.length") == 1
    for image in page.locator("img").all():
        assert image.get_attribute("alt")
    levels = page.locator("h1, h2, h3").evaluate_all("all => all.map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_a_name_with_tags_is_shown_as_it_is(browser, demo, tmp_path):
    name = "<b>a&b</b>"
    results = read_results(demo)
    rows = results.rows.assign(loss=results.rows["loss"].str.replace("energy", name))
    path = analysis.report(replace(results, rows=rows), tmp_path, testing=None).path
    opened = browser.new_context().new_page()
    opened.goto(path.as_uri())
    opened.wait_for_selector("#explorer-plot[data-ready]", timeout=60_000)
    assert name in opened.locator(".legendtext").all_text_contents()
    assert any(name in text for text in opened.locator("option").all_text_contents())
    opened.context.close()
