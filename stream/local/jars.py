"""The jars of Apache Kafka, downloaded from Maven Central with mvn into a cache folder: 43 MB, once."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from tagbus.stream.errors import DependencyDown, UserError
from tagbus.stream.local.child import tail

VERSION = "4.2.0"
_LOG4J = "2.25.1"
_JAVA = 17  # the oldest version that Kafka 4 supports
DOWNLOAD_S = 240.0

_POM = f"""<project>
<modelVersion>4.0.0</modelVersion><groupId>tagbus</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId><version>{_LOG4J}</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>{_LOG4J}</version></dependency>
</dependencies>
</project>
"""
_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


def available(cache: Path | None = None) -> str | None:
    """Why Apache Kafka cannot run here, in one line; None if it can. `cache` as for `ApacheKafka`."""
    if shutil.which("java") is None:
        return f"java is not on the path; Apache Kafka needs Java {_JAVA} or newer"
    said = subprocess.run(
        ["java", "-version"], capture_output=True, encoding="utf-8", errors="replace", check=False
    ).stderr
    version = re.search(r'version "(?:1\.)?(\d+)', said)
    if version is None or int(version[1]) < _JAVA:
        return f"java is {version[1] if version else 'of an unknown version'}; Apache Kafka needs {_JAVA} or newer"
    if shutil.which("mvn") is None and not _libs(cache or default_cache()).is_dir():
        return "mvn, which downloads Apache Kafka's jars, is not on the path"
    return None


def default_cache() -> Path:
    """`tagbus/kafka` in the user's cache folder (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "tagbus" / "kafka"


def fetch(cache: Path) -> Path:
    """The folder of the jars, downloaded with mvn if `cache` has none yet.

    Safe for concurrent processes: one downloads into a temporary folder, the others wait. Raises UserError if it cannot
    run here, DependencyDown with mvn's output if the download fails.
    """
    reason = available(cache)
    if reason:
        raise UserError(reason)
    libs = _libs(cache)
    if libs.is_dir():
        return libs
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not libs.is_dir():
            _download(cache, libs)
    return libs


def _libs(cache: Path) -> Path:
    return cache.absolute() / f"kafka-{VERSION}-log4j-{_LOG4J}"


def _download(cache: Path, libs: Path) -> None:
    for stale in cache.glob("download-*"):  # left by a killed process: only the lock's holder has one
        shutil.rmtree(stale)
    with tempfile.TemporaryDirectory(prefix="download-", dir=cache) as name:
        folder = Path(name).absolute()
        (folder / "pom.xml").write_text(_POM, encoding="utf-8")
        # -C: a jar whose checksum is wrong fails the download
        command = ["mvn", "-q", "-B", "-C", _GOAL, "-DincludeScope=runtime", f"-DoutputDirectory={folder / 'libs'}"]
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=DOWNLOAD_S)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)  # mvn is a script around java
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise DependencyDown(f"mvn did not download Apache Kafka within {DOWNLOAD_S:g} s") from error
            raise
        if process.returncode:
            raise DependencyDown(f"mvn cannot download Apache Kafka:\n{tail(said)}")
        (folder / "libs").rename(libs)
