"""What every Python client writes and must read back, and small things their scripts share."""

import random
import signal
import sys
import time

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
# The base of all explicit timestamps: recent, so that retention leaves the records alone.
NOW_MS = int(time.time()) * 1000 - 60_000


def sample(codec):
    """Records as (key, value, headers, timestamp): null keys and values, empty ones, headers, 1 MB."""
    rng = random.Random(codec)
    records = []
    for i in range(60):
        key = None if i % 7 == 1 else f"key-{i}".encode()
        value = None if i % 11 == 5 else (b"" if i % 11 == 6 else f"{codec} value {i} ".encode() * (i % 5 + 1))
        headers = [] if i % 3 else [("source", b"interop"), ("number", str(i).encode()), ("source", b""), ("n\u00e4me", b"\x00\xff")]
        records.append((key, value, headers, NOW_MS + i))
    # Half of it random, so that no codec makes it small.
    records.append((b"large", rng.randbytes(500_000) + b"x" * 490_000, [], NOW_MS + 1_000))
    return records


def check_same(got, wanted, what):
    """Compares lists of records, and names the first difference instead of printing a megabyte."""
    for i, (g, w) in enumerate(zip(got, wanted)):
        for field, a, b in zip(["key", "value", "headers", "timestamp"], g, w):
            assert a == b, f"{what}: record {i}: {field} is {str(a)[:200]}, wanted {str(b)[:200]}"
    assert len(got) == len(wanted), f"{what}: {len(got)} records, wanted {len(wanted)}"


def eventually(what, probe, limit=200):
    """Repeats a probe until it returns something true: for what a broker does after it has answered."""
    deadline = time.monotonic() + limit
    while True:
        found = probe()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {limit} s"
        time.sleep(0.1)


class Stop:
    """True once SIGTERM came."""

    def __init__(self):
        self.set = False
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, *_):
        self.set = True


def say(*words):
    print(*words, flush=True)


def main(cases):
    """Calls the case that the command line names: BOOTSTRAP CASE ARGUMENTS..."""
    bootstrap, case, *arguments = sys.argv[1:]
    cases[case](bootstrap, *arguments)
