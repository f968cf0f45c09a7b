"""How long patches take from a bucket, beside their bytes alone.

    python benchmarks/buckets.py [--patches 256] [--size 256] [--rounds 9]

Starts an S3 server (moto) on this machine, uploads a generated store and reads 32 random patches
of it: by `open_pairs(...).read`, whose checksums are checked, and by obstore alone, which is told
the byte ranges and fetches them in one call for each shard, all shards at the same time. In turn,
each time with nothing in memory but the shards' indexes; the ratio is the median over rounds.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from loading import make_store, tissue_like

from wsisr import open_pairs
from wsisr.arrays import Int64Array
from wsisr.store import upload_store

URL = "s3://bucket/bench.zarr"


def start_server() -> "subprocess.Popen[bytes]":
    """The server, with a bucket; the environment then leads there."""
    import boto3

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "something",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    for attempt in range(120):
        try:
            client.create_bucket(Bucket="bucket")
            break
        except Exception:
            if attempt == 119:
                raise
            time.sleep(0.5)
    return process


def wall(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(rounds: int, batch: int) -> None:
    """Read the store in the bucket, in turn by wsisr and by obstore."""
    import obstore

    store = open_pairs(URL)
    slide = next(iter(store.slides))
    reader = store.reader(slide, "40x")
    files, count = store.paths.root.files, reader.shape[0]
    target = np.empty((batch, *reader.shape[1:]), np.uint8)
    bare = obstore.store.from_url(
        URL,
        config={"endpoint": os.environ["AWS_ENDPOINT_URL"]},
        client_options={"allow_http": True},
    )
    rng = np.random.default_rng(0)
    reader.read(np.arange(count))  # the indexes

    def ranges(rows: Int64Array) -> dict[str, list[tuple[int, int]]]:
        found: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for row in rows.tolist():
            for key, offset, length in reader.ranges(row, 0, 0, target[0]):
                found[key].append((offset, length))
        return found

    pool = ThreadPoolExecutor(16)

    def shard(task: tuple[str, list[tuple[int, int]]]) -> None:
        starts, lengths = zip(*sorted(task[1]), strict=True)
        obstore.get_ranges(bare, task[0], starts=starts, lengths=lengths)

    def alone(wanted: dict[str, list[tuple[int, int]]]) -> None:
        list(pool.map(shard, wanted.items()))

    ours: list[float] = []
    theirs: list[float] = []
    for number in range(rounds + 1):
        rows = rng.choice(count, batch, replace=False)
        wanted = ranges(rows)

        def read(rows: Int64Array = rows) -> None:
            reader.read(rows, out=target)

        def fetch(wanted: dict[str, list[tuple[int, int]]] = wanted) -> None:
            alone(wanted)

        # Both begin with nothing of these patches in memory; who is first changes.
        vars(files)["_cache"].clear()
        vars(files)["_cached"] = 0
        if number % 2:
            first, second = wall(read), wall(fetch)
        else:
            second, first = wall(fetch), wall(read)
        if number:  # the first round opens connections
            ours.append(first)
            theirs.append(second)
    size = sum(length for places in wanted.values() for _, length in places) / 1e6
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    print(
        f"  {batch} patches, {size:.1f} MB from {len(wanted)} shard(s): "
        f"open_pairs().read {1e3 * statistics.median(ours):.0f} ms, obstore alone "
        f"{1e3 * statistics.median(theirs):.0f} ms, ratio {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, default=1024, help="patches in the store")
    parser.add_argument("--size", type=int, default=256, help="their side in px")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    server = start_server()
    try:
        for codec in ("raw", "small"):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "bench.zarr"
                make_store(path, tissue_like(options.patches, options.size), codec)
                upload_store(path, URL, overwrite=True)
            print(f"{codec}, {options.size} px:")
            measure(options.rounds, 32)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
