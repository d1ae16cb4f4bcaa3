"""Measures what a report costs: the time to make it, its size, and the time until its page can be used.

    python benchmarks/report.py FOLDER --images 50000 --count 2000
    python benchmarks/report.py FOLDER --images 50000 --all

The masks are synthetic. All images link to ``--pictures`` different JPEGs of 500 x 375 pixels of noise.
The page is opened in Chromium, if Chromium and playwright are installed.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from scale import ATTRIBUTES, result_of

from igos_pl.report import ReportSettings, write_report
from igos_pl.store import RunFolder, merge

SEGMENT = 1024
SIZE = (500, 375)  # of the images, as benchmarks/scale.py has them


def make(folder: Path, images: int, pictures: int) -> None:
    """Publish a run of synthetic explanations, with image files."""
    random = np.random.default_rng(0)
    photos = folder / "photos"
    photos.mkdir(parents=True)
    for number in range(pictures):
        coarse = Image.fromarray(random.integers(0, 256, (30, 40, 3), np.uint8))
        coarse.resize(SIZE, Image.Resampling.BICUBIC).save(photos / f"{number}.jpg", quality=90)
    run = RunFolder(folder / "run")
    run.prepare()
    for start in range(0, images, SEGMENT):
        numbers = range(start, min(start + SEGMENT, images))
        result = result_of(numbers, np.ones(len(numbers), np.int64), 28, random)
        records = []
        for number, record in zip(numbers, result.images, strict=True):
            path = photos / "linked" / f"{number}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.symlink_to(photos / f"{number % pictures}.jpg")
            records.append(replace(record, path=str(path)))
        result.explanations["box"][:] = np.nan
        result.explanations["object"][:] = -1
        run.publish([replace(result, images=records)], ATTRIBUTES)
    merge(run, partial=True)


def processor_seconds() -> float:
    """The CPU time of this process and of its children that ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def opened(index: Path) -> str:
    """How long the page takes until its gallery is there, in words."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return "not measured: playwright is not installed"
    if chromium is None:
        return "not measured: Chromium is not installed"
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        begin = time.perf_counter()
        page.goto(index.as_uri())
        page.wait_for_selector("#tiles li")
        words = f"{time.perf_counter() - begin:.2f} s"
        busy = page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd / 1000")
        begin = time.perf_counter()
        page.select_option("[name=sort]", "difference")
        page.wait_for_function("() => location.hash.includes('difference')")
        words += f" (the page itself says {busy:.2f} s), sorted in {time.perf_counter() - begin:.2f} s"
        browser.close()
    return words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--all", action="store_true")
    options = parser.parse_args()
    if not (options.folder / "run").exists():
        make(options.folder, options.images, options.pictures)
    begin, before = time.perf_counter(), processor_seconds()
    output = options.folder / "report"
    settings = ReportSettings(count=None if options.all else options.count)
    report = write_report(options.folder / "run", output, settings)
    took, used = time.perf_counter() - begin, processor_seconds() - before
    files = [path for path in output.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    print(f"{report.shown:,} of {report.total:,} explanations, {os.cpu_count()} cores")
    print(f"made in {took:.0f} s, {used:.0f} s of CPU; {len(files):,} files, {size / 1e6:,.0f} MB")
    print(f"opened in {opened(report.index)}")


if __name__ == "__main__":
    main()
