"""A real schema registry for tests: Apicurio Registry, which speaks Confluent's API, as a child process on 127.0.0.1.

It comes from Maven Central through mvn into the cache folder of Kafka's jars: 142 MB, once. It keeps all in memory.
"""

import fcntl
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tagbus.stream.local.apache import JVM
from tagbus.stream.local.child import tail
from tagbus.stream.local.jars import available, default_cache
from tests.support import wait_until

VERSION = "2.6.13.Final"
_ARTIFACT = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
_DOWNLOAD_S = 240.0
_START_S = 90.0


def missing() -> str | None:
    """Why it cannot run here, or None where it can."""
    if not _home().is_dir() and shutil.which("mvn") is None:
        return "mvn, which downloads Apicurio Registry, is not on the path"
    return available()


@contextmanager
def apicurio() -> Iterator[str]:
    """The address of its Confluent API."""
    home, port = _fetch(), _free_port()
    jar = next(home.glob("*-runner.jar"))
    properties = ("-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={port}", "-Dquarkus.log.level=WARN")
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            ["java", *JVM, *properties, "-jar", str(jar)], cwd=home, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        try:
            url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
            wait_until(lambda: _answers(url) or process.poll() is not None, _START_S, "Apicurio Registry")
            log.seek(0)
            assert process.poll() is None, tail(log.read().decode(errors="replace"))
            yield url
        finally:
            process.kill()
            process.wait()


def _home() -> Path:
    return default_cache().parent / f"apicurio-{VERSION}"


def _fetch() -> Path:
    """The folder of the registry; of several processes one downloads and the others wait for it."""
    home = _home()
    home.parent.mkdir(parents=True, exist_ok=True)
    with (home.parent / "apicurio.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.is_dir():
            with tempfile.TemporaryDirectory(dir=home.parent, prefix="apicurio-download-") as folder:
                _download(Path(folder), home)
    return home


def _download(folder: Path, home: Path) -> None:
    command = ["mvn", "-q", "-B", "-C", _GOAL, f"-Dartifact={_ARTIFACT}", f"-DoutputDirectory={folder}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_DOWNLOAD_S, check=False)
    assert done.returncode == 0, tail(done.stdout)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder / "home", filter="data")
    os.rename(folder / "home", home)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/subjects", timeout=2) as answer:  # noqa: S310 our own address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
