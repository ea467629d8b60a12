"""An object store that speaks S3, as files may lie in: moto's server, on a port of its own.

It is not among this project's requirements, since it is a fifth of their size. Tests that want it are run
where `moto_server` is on the PATH: `pip install moto flask flask-cors` in an environment of its own.
"""

import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import HOST, free_port

BUCKET = "lobbyd"
PATIENCE_S = 30.0


class Bucket:
    """A bucket, as its owner sees it without lobbyd."""

    def __init__(self, port: int) -> None:
        self._endpoint = f"http://{HOST}:{port}"

    @property
    def variables(self) -> dict[str, str]:
        """The environment in which `s3://lobbyd` is this bucket."""
        return {
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT": self._endpoint,
            "AWS_ALLOW_HTTP": "true",
        }

    def ask(self, query: str = "", method: str = "GET") -> str:
        """What the store answers. Raises OSError."""
        request = urllib.request.Request(f"{self._endpoint}/{BUCKET}{query}", method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.read().decode())

    @property
    def unfinished(self) -> int:
        """How many uploads in parts are under way."""
        return self.ask("?uploads").count("<UploadId>")


def run_bucket(log: Path) -> Iterator[Bucket]:
    """A new bucket, while it is wanted. Skips the test where there is no server for it."""
    program = shutil.which("moto_server")
    if program is None:
        pytest.skip("moto_server is not on the PATH")
    port = free_port()
    with log.open("wb") as output:
        server = subprocess.Popen([program, "-H", HOST, "-p", str(port)], stdout=output, stderr=output)
    try:
        bucket = Bucket(port)
        _make(bucket)
        yield bucket
    finally:
        server.kill()
        server.wait()


def _make(bucket: Bucket) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            bucket.ask(method="PUT")
        except OSError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.05)
        else:
            return
