"""The environment of a real tritonserver: nvidia-pytriton from PyPI in its own folder, 374 MB, once, in about 20 s.

Only its server and its Python backend are used. It is separate from tagbus's environment because Triton 2.51 needs
numpy below 2: with numpy 2 models are ready but give empty outputs.
"""

import fcntl
import hashlib
import platform
import shutil
import signal
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from importlib.metadata import version
from os import environ, killpg
from pathlib import Path

from tagbus.stream.errors import DependencyDown, UserError
from tagbus.stream.local import jars
from tagbus.stream.local.child import tail

PYTRITON = "nvidia-pytriton==0.7.0"  # Triton 2.51
# ONNX Runtime and tokenizers have the same versions as in this process, so that vectors agree to the last digits.
NEEDS = ("numpy==1.26.4", *(f"{name}=={version(name)}" for name in ("onnxruntime", "tokenizers")))
LIBRARY = "libtriton_python.so"
INSTALL_S = 600.0
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Environment:
    """The paths of the server's parts."""

    folder: Path

    @property
    def _packages(self) -> Path:
        return self.folder / "lib" / f"python{PYTHON}" / "site-packages"

    @property
    def server(self) -> Path:
        """The server's executable."""
        return self._packages / "pytriton" / "tritonserver" / "bin" / "tritonserver"

    @property
    def caches(self) -> Path:
        """The folder of its cache plugins, which it needs to start."""
        return self._packages / "pytriton" / "tritonserver" / "caches"

    def variables(self) -> dict[str, str]:
        """The environment variables of the server, without tagbus's settings."""
        kept = {name: environ[name] for name in ("HOME", "LANG", "TMPDIR", "TZ") if name in environ}
        # The Python backend's process links libpython and finds its packages through VIRTUAL_ENV.
        libraries = [str(self._packages / "nvidia_pytriton.libs"), str(sysconfig.get_config_var("LIBDIR"))]
        return {
            **kept,
            "PATH": f"{self.folder / 'bin'}:{environ.get('PATH', '')}",
            "VIRTUAL_ENV": str(self.folder),
            "LD_LIBRARY_PATH": ":".join(libraries),
            # A model repository may be in an installed package, where the server must not write.
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def backends(self, target: Path) -> None:
        """Copy the backends into a folder: Triton's own for Python, and our replacement for the onnxruntime one."""
        source = self.server.parent.parent
        stub = source / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"
        python, onnxruntime = target / "python", target / "onnxruntime"
        python.mkdir(parents=True)
        onnxruntime.mkdir()
        # Copied because Triton rejects symbolic links here.
        shutil.copy(source / "backends" / "python" / "triton_python_backend_utils.py", python)
        shutil.copy(stub, python)
        # It creates /tmp/python_env_..., which is left behind when it is killed and cannot be configured
        # (python_backend, #380). The patched library creates it in the server's working directory, which is removed.
        library = (source / "backends" / "python" / LIBRARY).read_bytes()
        (python / LIBRARY).write_bytes(library.replace(b"/tmp/python_env_", b".////python_env_"))
        shutil.copy(Path(__file__).with_name("ort_backend.py"), onnxruntime / "model.py")


def available() -> str | None:
    """Why tritonserver cannot run here, in one line; None if it can."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return (
            f"nvidia-pytriton has no server for {platform.system()} on {platform.machine()}, only for Linux on x86_64"
        )
    if not (3, 9) <= sys.version_info[:2] <= (3, 13):
        return f"nvidia-pytriton has no backend for Python {PYTHON}, only for 3.9 to 3.13"
    return None


def default_cache() -> Path:
    """`tagbus/triton` in the user's cache folder."""
    return jars.default_cache().with_name("triton")


def install(cache: Path) -> Environment:
    """The environment in `cache`, installed with pip if missing.

    Safe for concurrent processes: one installs, the others wait. Raises UserError if it cannot run here, DependencyDown
    with pip's output if the installation fails.
    """
    reason = available()
    if reason:
        raise UserError(reason)
    named = hashlib.sha256(" ".join((PYTRITON, *NEEDS, PYTHON, sys.base_prefix)).encode()).hexdigest()[:12]
    folder = cache.absolute() / f"{PYTRITON.replace('==', '-')}-{named}"
    done = folder / "complete"
    if not done.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                _install(folder)
                done.touch()
    return Environment(folder)


def _install(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([*pip, "--no-deps", PYTRITON])
        _run([*pip, *NEEDS])
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _run(command: list[str]) -> None:
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=INSTALL_S)
    except BaseException as error:
        killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise DependencyDown(f"pip did not install Triton's environment within {INSTALL_S:g} s") from error
        raise
    if process.returncode:
        raise DependencyDown(f"Triton's environment cannot be installed:\n{tail(said)}")
