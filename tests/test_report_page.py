"""The page of a report in a real browser: clicked through with 2,000 explanations, and with hostile names."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_runs import CLASSES, invented, write_run

pytest.importorskip("jinja2")
playwright = pytest.importorskip("playwright.sync_api")

from igos_pl.report import write_report  # noqa: E402
from igos_pl.report.colors import colored  # noqa: E402
from igos_pl.store import MaskFile  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
]

IMAGES, TARGETS = 500, 4
LAPTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of 2,000 explanations: two targets of two starts for each of 500 images."""
    base = tmp_path_factory.mktemp("report")
    rows = IMAGES * TARGETS
    columns = invented(
        IMAGES,
        TARGETS,
        target=np.tile([0, 0, 1, 1], IMAGES),
        start_cell=np.tile([0, 1, 0, 1], IMAGES),
        best=np.tile([1, 0, 0, 1], IMAGES),
        box=np.tile(np.array([10, 10, 60, 50], np.float32), (rows, 1)),
    )
    columns["status"][3] = "nan"
    run = write_run(base / "run", columns, failures=3, pictures=base / "photos")
    run.expect([f"folder/{n:05}.jpg" for n in range(IMAGES + 1)])
    report = write_report(base / "run", base / 'a "report" & <more>')
    assert report.shown == rows
    return report.index.parent


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Reader:
    """Someone who reads the page."""

    def __init__(self, browser: Any, folder: Path, viewport: dict[str, int], hash_: str = "") -> None:
        self.context = browser.new_context(viewport=viewport, color_scheme="light")
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda said: self.problems.extend([said.text] * (said.type == "error")))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.problems.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(f"{(folder / 'index.html').as_uri()}{hash_}")
        self.page.wait_for_selector("#tiles li")

    def count(self) -> int:
        return int(self.page.inner_text("#count").split()[0].replace(",", ""))

    def close(self) -> None:
        self.context.close()
        assert self.problems == []
        assert all(url.startswith(("file:", "data:")) for url in self.requests)


@pytest.fixture
def read(browser: Any, folder: Path) -> Iterator[Any]:
    readers: list[Reader] = []

    def opened(viewport: dict[str, int] = LAPTOP, hash_: str = "") -> Reader:
        readers.append(Reader(browser, folder, viewport, hash_))
        return readers[-1]

    yield opened
    for reader in readers:
        reader.close()


def test_only_tiles_that_can_be_seen_are_in_the_page(read: Any) -> None:
    reader = read()
    page = reader.page
    assert reader.count() == IMAGES * TARGETS
    assert page.locator("#tiles li").count() < 200
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.wait_for_selector(f"#tiles li[aria-posinset='{IMAGES * TARGETS}']")
    assert page.locator("#tiles li").count() < 200
    last = page.locator(f"#tiles li[aria-posinset='{IMAGES * TARGETS}'] img")
    page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=last.element_handle())


def test_filters_and_order_are_in_the_address(read: Any, folder: Path) -> None:
    reader = read()
    page = reader.page
    with MaskFile(folder.parent / "run") as masks:
        difference = masks.column("insertion") - masks.column("deletion")
        label = masks.column("label_name")
    page.select_option("[name=class]", label=CLASSES[1])
    assert reader.count() == (label == CLASSES[1]).sum()
    page.select_option("[name=sort]", "difference")
    page.select_option("[name=order]", "down")
    first = page.locator("#tiles li[aria-posinset='1'] a")
    best = np.flatnonzero(label == CLASSES[1])[difference[label == CLASSES[1]].argmax()]
    assert f"minus deletion {difference[best]:.2f}" in first.get_attribute("aria-label")
    page.click("#ranges summary")
    page.fill("[name=min-difference]", "0.4")
    wanted = ((label == CLASSES[1]) & (difference >= 0.4)).sum()
    assert reader.count() == wanted
    again = read(hash_=page.evaluate("location.hash"))
    assert again.count() == wanted
    assert again.page.locator("[name=order]").input_value() == "down"
    page.click("button[type=reset]")
    assert reader.count() == IMAGES * TARGETS
    page.fill("[name=q]", "00007")
    assert reader.count() == TARGETS
    page.fill("[name=q]", "nothing is called this")
    assert "nothing fits" in page.inner_text("#count")


def test_class_table_leads_to_the_gallery(read: Any) -> None:
    reader = read()
    link = reader.page.locator("a.to-gallery").first
    name = link.inner_text()
    link.click()
    reader.page.wait_for_function("() => !document.getElementById('count').textContent.startsWith('2,000')")
    assert reader.page.locator("[name=class] option:checked").inner_text() == name
    assert 0 < reader.count() < IMAGES * TARGETS


def test_large_view(read: Any) -> None:
    reader = read(hash_="#sort=score&order=down")
    page = reader.page
    page.click("#tiles li[aria-posinset='2'] a")
    page.wait_for_selector("#view[data-place] #over")
    row = page.evaluate("new URLSearchParams(location.hash.slice(1)).get('view')")

    def pixels(stage: str) -> list[int]:
        """What a canvas shows, from a screenshot: pages from disk may not read their own pictures."""
        return list(page.locator(f"#{stage}").screenshot())

    page.fill("#at", "0")
    whole = pixels("stage-deletion")
    page.fill("#at", "0.3")
    assert pixels("stage-deletion") != whole
    text = page.inner_text("#at-scores")
    assert text.startswith("At 30 %")
    curve = page.locator("#view-curves .u-over")
    box = curve.bounding_box()
    page.mouse.move(box["x"] + 10, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 20)
    page.mouse.up()
    assert "at=0.75" in page.evaluate("location.hash")
    assert page.inner_text("#at-scores").startswith("At 75 %")
    page.fill("#opacity", "0")
    clear = pixels("stage-overlay")
    assert page.locator("#stage-overlay .grey").count() == 0
    page.fill("#opacity", "1")
    assert pixels("stage-overlay") != clear
    assert page.locator("#stage-overlay .grey").count() == 1
    own = pixels("stage-saliency")
    page.uncheck("#own")
    assert pixels("stage-saliency") != own
    assert page.locator("#stage-overlay .box").count() == 1
    titles = page.locator("#view-starts h3").all_inner_texts()
    assert titles == ["Starts of this target", "Other targets of this image"]
    assert page.locator("#view-starts a").count() == TARGETS
    address = page.evaluate("location.hash")
    page.keyboard.press("Tab")
    page.locator("#next").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"() => new URLSearchParams(location.hash.slice(1)).get('view') !== '{row}'")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(f"() => new URLSearchParams(location.hash.slice(1)).get('view') === '{row}'")
    page.keyboard.press("Escape")
    page.wait_for_function("() => !document.getElementById('view').open")
    assert page.evaluate("document.activeElement.closest('li').getAttribute('aria-posinset')") == "2"
    again = read(hash_=address)
    again.page.wait_for_selector("#view[data-place] #over")
    assert again.page.inner_text("#at-value") == "75 %"
    assert again.page.inner_text("#view-facts").endswith(f"row of the result\n{row}")


@pytest.mark.parametrize(("at", "times"), [("0.3", 0), ("0.32", 1)])
def test_a_score_that_was_not_measured_is_called_interpolated(read: Any, at: str, times: int) -> None:
    page = read(hash_=f"#view=0&at={at}").page  # the curves have 21 points
    page.wait_for_selector("#view[data-place] #over")
    assert page.inner_text("#at-scores").count("(interpolated)") == 2 * times
    for stage in ("#deleted", "#inserted"):
        assert page.inner_text(stage).count("(interpolated)") == times


def test_going_back_closes_the_large_view(read: Any) -> None:
    page = read().page
    page.click("#tiles li[aria-posinset='1'] a")
    page.wait_for_selector("#view[data-place] #over")
    page.go_back()
    page.wait_for_function("() => !document.getElementById('view').open")


def test_keys_move_through_the_gallery(read: Any) -> None:
    page = read().page
    page.locator("#tiles li[aria-posinset='1'] a").focus()
    for _ in range(30):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    at = int(page.evaluate("document.activeElement.closest('li').getAttribute('aria-posinset')"))
    places = page.evaluate("[...document.querySelectorAll('#tiles li')].map((e) => e.style.transform)")
    columns = len({place.split(",")[0] for place in places})
    assert at == 30 * columns + 2
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.closest('li').getAttribute('aria-posinset')") == "2000"
    page.keyboard.press("Enter")
    page.wait_for_selector("#view[data-place] #over")


def test_page_fits_on_a_phone(read: Any) -> None:
    page = read(PHONE).page
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator("#tiles li a").first.click()
    page.wait_for_selector("#view[data-place] #over")
    assert page.evaluate("document.getElementById('view').scrollWidth <= innerWidth")


def test_what_is_unfinished_and_what_failed_is_said(read: Any) -> None:
    page = read().page
    assert "not finished: 1 of" in page.inner_text("main")
    page.click("text=images without a complete result")
    assert "bad/<b>2</b>.jpg" in page.inner_text("main")


def test_legends_have_values_without_a_pointer(read: Any) -> None:
    page = read().page

    def legends() -> list[str]:
        return [text.replace("\n", "") for text in page.locator(".charts .u-legend").all_inner_texts()]

    first = legends()
    assert len(first) == 4
    assert first[0].startswith("part100 %deletion0.")
    assert first[1].endswith("allexplanations2,000")
    page.hover("#curves .u-over")
    page.wait_for_function("() => document.querySelector('#curves .u-legend').innerText.includes('50 %')")
    page.hover("h1")
    page.wait_for_function("() => document.querySelector('#curves .u-legend').innerText.includes('100 %')")
    assert legends() == first


def test_every_control_has_a_name(read: Any) -> None:
    page = read().page
    page.locator("#tiles li a").first.click()
    page.wait_for_selector("#view[data-place] #over")
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, a, [role=img]")].filter((e) =>
            !(e.textContent.trim() || e.ariaLabel || e.labels?.length || e.title)
        ).map((e) => e.outerHTML)"""
    )
    assert unnamed == []
    assert page.evaluate("[...document.images].every((image) => image.hasAttribute('alt'))")


def test_theme_can_be_chosen(read: Any) -> None:
    page = read().page
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_the_large_view_counts_regions_and_few_cells(browser: Any, tmp_path: Path) -> None:
    labels = np.arange(4, dtype=np.int32).repeat(2)[:, None].repeat(8, 1)
    masks = np.array([[0.0, 0.9, 0.5, 0.8], [0.3, 0.2, 0.1, 0.0]], np.float32)[:, labels]
    found = {}
    for name, extra in (("cells", {}), ("regions", {"regions": np.stack([labels, labels])})):
        columns = invented(2, masks=masks, **extra)
        write_run(
            tmp_path / name,
            columns,
            pictures=tmp_path / "photos",
            settings={"regions": "Slic"} if extra else {},
        )
        folder = write_report(tmp_path / name, tmp_path / f"report-{name}").index.parent
        reader = Reader(browser, folder, LAPTOP, "#view=0&at=0.3")
        reader.page.wait_for_selector("#view[data-place] #over")
        words = [reader.page.inner_text(f"#{kind}").partition(",")[0] for kind in ("deleted", "inserted")]
        facts = reader.page.inner_text("#view-facts").splitlines()
        found[name] = [*words, facts[facts.index("half of the saliency is in") + 1]]
        reader.close()
    assert found == {
        "cells": ["deleted: 19 of 64 cells", "inserted: 19 of 64 cells", "15 of 64 cells"],
        "regions": [
            "deleted: 1 of 4 regions (25 % of the input)", "inserted: 1 of 4 regions (25 % of the input)",
            "1 of 4 regions (25 % of the input)",
        ],
    }  # fmt: skip


@pytest.mark.parametrize(("size", "sharp"), [(7, True), (20, True), (21, False)])
def test_the_large_view_draws_few_cells_with_sharp_borders(
    browser: Any, tmp_path: Path, size: int, sharp: bool
) -> None:
    masks = np.random.default_rng(0).permutation(np.linspace(0, 1, size**2, dtype=np.float32))
    columns = invented(1, masks=masks.reshape(1, size, size))
    write_run(tmp_path / "run", columns, pictures=tmp_path / "photos", settings={"mask_size": size})
    folder = write_report(tmp_path / "run", tmp_path / "report").index.parent
    reader = Reader(browser, folder, LAPTOP, "#view=0")
    reader.page.wait_for_selector("#view[data-place] #over")
    width, height, values = reader.page.evaluate(
        """() => {
            const drawn = document.querySelector("#stage-saliency canvas");
            const pixels = drawn.getContext("2d").getImageData(0, 0, drawn.width, drawn.height);
            return [drawn.width, drawn.height, Array.from(pixels.data)];
        }"""
    )
    reader.close()
    with MaskFile(tmp_path / "run") as opened:
        shown = opened[0]
    expected = colored(shown.frame.scaled(width, height).cells_on_original(shown.saliency), top=1.0)
    found = np.array(values, np.uint8).reshape(height, width, 4)
    assert (found[..., 3] == 255).all()
    equal = (found[..., :3] == expected).all(-1).mean()
    assert equal == 1 if sharp else equal < 0.5
