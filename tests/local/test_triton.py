"""tritonserver as a child process: never left behind, and clear about what is wrong."""

import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tagbus.stream.encoder.release import MODEL
from tagbus.stream.errors import DependencyDown, UserError
from tagbus.stream.local import environment
from tagbus.stream.local.child import SHARED_MEMORY, reachable
from tagbus.stream.local.triton import TritonServer, available, default_repository, servable
from tests.local.test_apache import gone
from tests.support import wait_until
from tests.triton.conftest import can_run as can_run
from tests.triton.harness import copy_repository, model_pids


def shared(folder: Path) -> list[Path]:
    """What the server of that folder holds in shared memory."""
    return list(SHARED_MEMORY.glob(f"{folder.name}*"))


def test_it_is_killed_restarted_on_its_port_and_stopped(tmp_path: Path) -> None:
    with TritonServer(copy_repository(tmp_path, instances=1)) as server:
        address, pid, folder = server.address, server.pid, server.folder
        (behind,) = model_pids(pid, "encoder")
        assert server.cpu_seconds() > 0
        assert shared(folder)
        assert list(folder.glob("python_env_*")), "which killed servers would leave in /tmp"
        with pytest.raises(UserError, match="already started"):
            server.start()

        server.kill()
        wait_until(lambda: gone(pid) and gone(behind), 120, "the end of the server and of the process behind the model")
        assert not shared(folder)
        with pytest.raises(UserError, match="not running"):
            _ = server.pid
        server.restart()

        assert server.address == address
        assert not gone(server.pid)
        pid = server.pid
    assert gone(pid)
    assert not folder.exists()
    assert not shared(folder)


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    repository = copy_repository(tmp_path, instances=1)
    script = (
        "from pathlib import Path\n"
        "from tagbus.stream.local.triton import TritonServer\n"
        f"with TritonServer(Path({str(repository)!r})) as server:\n"
        "    print(server.pid, server.folder, flush=True)\n"
        "    input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid, folder = parent.stdout.readline().split()
        (behind,) = model_pids(int(pid), "encoder")

        parent.send_signal(signal.SIGKILL)
        parent.wait(120)

        wait_until(lambda: gone(int(pid)) and gone(behind), 120, "the end of the server")
        wait_until(lambda: not Path(folder).exists(), 120, "the end of its folder")
        wait_until(lambda: not shared(Path(folder)), 120, "the end of its shared memory")


def test_a_model_that_does_not_load_is_told_with_the_end_of_the_log(tmp_path: Path) -> None:
    repository = copy_repository(tmp_path, instances=1)
    (repository / "encoder" / "1" / MODEL).unlink()
    (repository / "encoder" / "1" / MODEL).write_bytes(b"no model")
    server = TritonServer(repository)
    with pytest.raises(DependencyDown, match="exited with code 1 on startup") as told, server:
        pass
    assert "Load model from" in str(told.value)
    assert not server.folder.exists()


def test_an_installation_that_fails_is_told_in_pips_words_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DependencyDown, match="No matching distribution found for nvidia-pytriton"):
        environment.install(tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["lock"]


def test_an_installation_that_hangs_ends_at_its_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "INSTALL_S", 0.1)
    with pytest.raises(DependencyDown, match=r"within 0\.1 s"):
        environment.install(tmp_path / "cache")


def test_it_says_why_it_cannot_run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert available() is None
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert "only for Linux on x86_64" in (available() or "")
    with pytest.raises(UserError, match="no server for Darwin"), TritonServer(cache=tmp_path):
        pass


def test_the_servers_environment_holds_no_settings_and_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAGBUS_KAFKA__SECRETS", '{"sasl.password": "hush"}')
    variables = environment.Environment(tmp_path).variables()
    assert not any(name.startswith("TAGBUS_") or "hush" in value for name, value in variables.items())


def test_what_lies_in_a_repository_is_served_by_the_newest_version(tmp_path: Path) -> None:
    """Given configurations with a model, without one, with an old version, and a model without a configuration."""
    for name in ("encoder/1", "encoder/10", "encoder/9", "trained_elsewhere/1", "ranker/1"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("encoder/1", "encoder/10", "encoder/9", "ranker/1"):
        (tmp_path / name / MODEL).touch()
    for name in ("encoder", "trained_elsewhere"):
        (tmp_path / name / "config.pbtxt").touch()

    assert servable(tmp_path) == {"encoder": tmp_path / "encoder" / "10"}
    assert servable(default_repository()).keys() == {"encoder", "heads"}


def test_make_triton_starts_one_until_ctrl_c_and_says_how_to_reach_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tagbus.stream.local.triton"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        kind, address = process.stdout.readline().split()
        assert kind == "TAGBUS_ENCODER__KIND=triton"
        assert reachable(address.removeprefix("TAGBUS_ENCODER__ADDRESS="))
        kind, folder = process.stdout.readline().split()
        assert kind == "TAGBUS_COMPONENTS__HEADS__KIND=triton"
        assert Path(folder.removeprefix("TAGBUS_COMPONENTS__HEADS__FOLDER=")).is_dir()

        process.send_signal(signal.SIGINT)

        assert process.wait(120) == 0
        assert not reachable(address.removeprefix("TAGBUS_ENCODER__ADDRESS="))
