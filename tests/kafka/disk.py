"""A disk that can be full: a small tmpfs where this process may mount one, a limit of the broker's files elsewhere."""

import os
import resource
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tagbus.stream.local.apache import ApacheKafka

MEGABYTES = 512
# The largest file that a broker may write where nothing can be mounted, in bytes: less than any of its files has.
LIMIT = 1
# Bytes: what is left to fill in pieces, and a piece, a page of memory.
ROOM = 2**20
PIECE = 4096
# Unmounts when this process ends in any way: the pipe then closes, and read returns.
_WATCHER = 'read -r line; umount -l "$1"; rmdir "$1"'


class Disk:
    """For the data of one broker; a context manager. `folder` is None where nothing can be mounted."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self._watcher: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        folder = Path(tempfile.mkdtemp(prefix="tagbus-disk-"))
        if not _mount(folder):
            folder.rmdir()
            return self
        self.folder = folder
        self._watcher = subprocess.Popen(
            ["sh", "-c", _WATCHER, "sh", str(folder)], stdin=subprocess.PIPE, start_new_session=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watcher is not None and self._watcher.stdin is not None:
            self._watcher.stdin.close()
            self._watcher.wait()

    @property
    def means(self) -> str:
        """What makes it full, for people."""
        return "RLIMIT_FSIZE" if self.folder is None else "tmpfs"

    def fill(self, broker: ApacheKafka) -> None:
        """No byte more for this broker: a write fails with ENOSPC, or with EFBIG, which Kafka handles alike."""
        if self.folder is None:
            _, most = resource.prlimit(broker.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(broker.pid, resource.RLIMIT_FSIZE, (LIMIT, most))
            return
        with suppress(OSError), (self.folder / "filler").open("ab", buffering=0) as filler:
            os.posix_fallocate(filler.fileno(), 0, max(1, shutil.disk_usage(self.folder).free - ROOM))
            # Others write too, so the end of it is written in small pieces, until one is refused.
            while filler.write(bytes(PIECE)):
                pass

    def free(self) -> None:
        """Space again. A limit ends with the process that it is for."""
        if self.folder is not None:
            (self.folder / "filler").unlink(missing_ok=True)


def _mount(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
