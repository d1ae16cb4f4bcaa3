"""Measures the time and the memory that finding the samples of WebDataset's shards takes.

python benchmarks/shards.py --samples 40000
"""

from __future__ import annotations

import argparse
import io
import os
import tarfile
import tempfile
import time
from pathlib import Path

from igos_pl import WebDatasetDataModule

_PER_SHARD = 10_000


def write_shards(folder: Path, samples: int, size: int) -> None:
    """Write shards of pictures (random bytes) with labels."""
    for start in range(0, samples, _PER_SHARD):
        with tarfile.open(folder / f"{start:09}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for number in range(start, min(samples, start + _PER_SHARD)):
                for ending, content in (("jpg", os.urandom(size)), ("cls", b"3")):
                    info = tarfile.TarInfo(f"{number:09}.{ending}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))


def resident() -> int:
    """The resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Write shards, find their samples, and print the times and the memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=40_000)
    parser.add_argument("--size", type=int, default=20_000, help="bytes of a picture")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder), options.samples, options.size)
        content = sum(path.stat().st_size for path in Path(folder).iterdir())
        data = WebDatasetDataModule(f"{folder}/*.tar")
        before, wall, cpu = resident(), time.perf_counter(), time.process_time()
        samples = data.find_samples()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        count = len(samples)
        print(f"{count:,} samples, {content / 1e6:,.0f} MB: {wall:.1f} s, {content / wall / 1e6:,.0f} MB/s")
        print(f"a sample: {cpu / count * 1e6:.0f} us of a CPU, {(resident() - before) / count:.0f} bytes")


if __name__ == "__main__":
    main()
