"""A process under strace: the paths that it changes, and the addresses that it speaks to."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

# `make test` puts it here where the machine has none.
FETCHED = Path(__file__).parents[2] / ".cache" / "tools"
FILES = "open,openat,openat2,creat,mkdir,mkdirat,mknod,mknodat,rename,renameat,renameat2,link,linkat,symlink,symlinkat"
SOCKETS = "connect,bind,sendto,sendmsg,sendmmsg"
OPENED = re.compile(r'^(?:open|openat|openat2|creat)\((?:(?P<at>AT_FDCWD|\d+)<(?P<folder>[^>]*)>, )?"(?P<path>[^"]*)"')
FLAGS = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|^creat")
MADE = re.compile(r"^(?:mkdir|mknod|rename|link|symlink)")
PATHS = re.compile(r'(?:(?:AT_FDCWD|\d+)<(?P<folder>[^>]*)>, )?"(?P<path>[^"]*)"')
IPV4 = re.compile(r'sin_port=htons\((?P<port>\d+)\), sin_addr=inet_addr\("(?P<ip>[^"]+)"\)')
IPV6 = re.compile(r'sin6_port=htons\((?P<port>\d+)\).*?inet_pton\(AF_INET6, "(?P<ip>[^"]+)"')
# Nothing was made: there is no such folder, or the path is there already.
FAILED = re.compile(r"= -1 (?:ENOENT|EEXIST|ENOTDIR)")


@dataclass
class Trace:
    """What a process and its children did: the absolute paths that they changed, and the addresses of their sockets."""

    written: set[str] = field(default_factory=set)
    addresses: set[str] = field(default_factory=set)

    def outside(self, folders: Sequence[Path]) -> list[str]:
        """The paths that lie in none of the folders."""
        return sorted(path for path in self.written if not any(Path(path).is_relative_to(one) for one in folders))


def strace() -> str:
    """The program. The test is skipped where it is not or must not trace, and fails when CI=true."""
    fetched = FETCHED / "usr" / "bin" / "strace"
    found = shutil.which("strace") or (str(fetched) if fetched.exists() else None)
    reason = None if found else f"there is no strace on the path and none in {FETCHED}"
    if found is not None:
        done = subprocess.run(
            [*_command(found, os.devnull), "true"],
            env={**os.environ, **_libraries(found)},
            capture_output=True,
            text=True,
            check=False,
        )
        reason = done.stderr.strip() if done.returncode else None
    if found is None or reason is not None:
        text = f"no strace for the tests: {reason}"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(text, pytrace=False)
        pytest.skip(text)
    return found


def traced(command: Sequence[str], to: Path, environment: Mapping[str, str], folder: Path) -> "subprocess.Popen[bytes]":
    """Start a command in `folder`; read `to` with `read` when it has ended. Its output is in `folder`."""
    to.mkdir()
    program = strace()
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        return subprocess.Popen(
            [*_command(program, str(to / "t")), *command],
            env={**environment, **_libraries(program)},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )


def _command(program: str, to: str) -> list[str]:
    # -y: paths are absolute. -s: whole ones.
    options = ["-f", "--seccomp-bpf", "-qq", "-y", "-s", "4096", "-e", f"trace={FILES},{SOCKETS}", "-o", to]
    # A file for each thread: in one file the calls of several come in pieces.
    split = [] if to == os.devnull else ["-ff"]
    # Its libraries are not for the command.
    unset = [word for name in _libraries(program) for word in ("-E", name)]
    return [program, *options, *split, *unset]


def _libraries(program: str) -> dict[str, str]:
    """Where a strace that was fetched finds the libraries that were fetched with it."""
    folders = FETCHED.glob("usr/lib/*-linux-gnu") if program.startswith(str(FETCHED)) else ()
    return {"LD_LIBRARY_PATH": ":".join(map(str, folders))} if folders else {}


def read(folder: Path, work: Path) -> Trace:
    """What strace wrote of a process whose working directory is `work`."""
    trace = Trace()
    for line in _lines(folder):
        for peer in (IPV4, IPV6):
            if found := peer.search(line):
                trace.addresses.add(f"{found['ip'].removeprefix('::ffff:')}:{found['port']}")
        if FAILED.search(line):
            continue
        if (opened := OPENED.match(line)) and FLAGS.search(line.replace(opened["path"], "")):
            trace.written.add(os.path.normpath(work / (opened["folder"] or "") / opened["path"]))
        elif MADE.match(line):
            found_all = PATHS.finditer(line)
            trace.written |= {os.path.normpath(work / (found["folder"] or "") / found["path"]) for found in found_all}
    return trace


def _lines(folder: Path) -> Iterator[str]:
    for path in sorted(folder.iterdir()):
        yield from path.read_text(errors="replace").splitlines()
