"""The device of the model: the first available provider, which is reported; and the options for a GPU."""

import logging
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import REGISTRY

from tagbus.stream.config import EncoderSettings, Provider, load
from tagbus.stream.encoder import onnx, session
from tagbus.stream.encoder.golden import TEXTS
from tagbus.stream.encoder.onnx import OnnxEncoder
from tagbus.stream.encoder.open import open_encoder
from tagbus.stream.encoder.release import GOLDEN, MODEL, RELEASE, default_folder, sha256
from tagbus.stream.encoder.session import NAMES, Device, Session
from tagbus.stream.errors import ReleaseMismatch, UserError
from tagbus.stream.onnx_runtime import onnxruntime
from tests.encoder.test_onnx import SAME

MODEL_PATH = default_folder() / MODEL
LARGEST = (64, 256)


def missing(provider: Provider) -> str | None:
    """Why a provider cannot be tested here."""
    if NAMES[provider] not in onnxruntime.get_available_providers():
        return f"this ONNX Runtime was built without {provider}; a GPU needs onnxruntime-gpu"
    try:
        Session(MODEL_PATH, Device((provider,)), LARGEST)
    except UserError as error:
        return str(error)
    return None


class TestPreference:
    def test_it_tells_what_it_got(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO):
            assert Session(MODEL_PATH, Device(), LARGEST).provider == "cpu"
        assert f"encoder: ONNX Runtime {onnxruntime.__version__} on cpu" in caplog.text
        labels = {"provider": "cpu", "runtime": onnxruntime.__version__}
        assert REGISTRY.get_sample_value("tagbus_encoder_info", labels) == 1

    @pytest.mark.skipif(missing("cuda") is None, reason="there is a GPU here")
    async def test_an_unavailable_provider_is_logged_and_the_next_is_used(
        self, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        encoder = await open_encoder(EncoderSettings(providers=("tensorrt", "cuda", "cpu")), default_folder())
        assert (await encoder.encode(["Tea"])).shape == (1, encoder.release.dimension)
        await encoder.close()
        assert "encoder: no tensorrt: " in caplog.text
        assert "encoder: no cuda: " in caplog.text
        assert capfd.readouterr().out == ""

    @pytest.mark.skipif(missing("cuda") is None, reason="there is a GPU here")
    async def test_without_an_available_provider_the_error_names_the_existing_ones(self) -> None:
        with pytest.raises(
            UserError, match=r"TAGBUS_ENCODER__PROVIDERS=tensorrt,cuda: tensorrt: .*; cuda: .* was built with .*cpu$"
        ):
            await open_encoder(EncoderSettings(providers=("tensorrt", "cuda")), default_folder())

    def test_a_model_that_cannot_be_read_is_not_a_provider_that_is_missing(self, tmp_path: Path) -> None:
        (tmp_path / MODEL).write_bytes(b"no model")
        with pytest.raises(Exception, match="Load model from") as caught:
            Session(tmp_path / MODEL, Device(), LARGEST)
        assert not isinstance(caught.value, UserError)


class TestSetting:
    @pytest.mark.parametrize(
        ("value", "found"),
        [("cpu", ("cpu",)), ("tensorrt,cuda,cpu", ("tensorrt", "cuda", "cpu")), ("cuda, cpu", ("cuda", "cpu"))],
    )
    def test_it_is_a_list_with_commas(
        self, value: str, found: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TAGBUS_ENCODER__PROVIDERS", value)
        assert load().encoder.providers == found

    @pytest.mark.parametrize("value", ["gpu", "cuda,", "CPUExecutionProvider"])
    def test_another_name_is_refused(self, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TAGBUS_ENCODER__PROVIDERS", value)
        with pytest.raises(UserError) as caught:
            load()
        assert str(caught.value) == (
            f"TAGBUS_ENCODER__PROVIDERS={value!r}: expected tensorrt, cuda or cpu, several with commas"
        )


class TestTensorRT:
    """The requested options; their effect is tested on a GPU."""

    def options(self, device: Device) -> dict[str, str]:
        (name, options), *below = session._stack("tensorrt", device, LARGEST)
        assert [name, *(one for one, _ in below)] == [NAMES["tensorrt"], NAMES["cuda"], NAMES["cpu"]]
        return options

    def test_one_engine_holds_the_least_the_usual_and_the_largest_batch(self) -> None:
        options = self.options(Device(("tensorrt",)))
        assert options["trt_profile_min_shapes"] == "input_ids:1x1,attention_mask:1x1"
        assert options["trt_profile_opt_shapes"] == "input_ids:32x32,attention_mask:32x32"
        assert options["trt_profile_max_shapes"] == "input_ids:64x256,attention_mask:64x256"

    def test_fp16_is_asked_for_and_norms_stay_in_float32(self) -> None:
        assert self.options(Device(("tensorrt",)))["trt_fp16_enable"] == "0"
        options = self.options(Device(("tensorrt",), fp16=True))
        assert (options["trt_fp16_enable"], options["trt_layer_norm_fp32_fallback"]) == ("1", "1")

    def test_engines_are_kept_where_the_setting_says(self, tmp_path: Path) -> None:
        assert "trt_engine_cache_enable" not in self.options(Device(("tensorrt",)))
        options = self.options(Device(("tensorrt",), engines=tmp_path))
        assert (options["trt_engine_cache_enable"], options["trt_engine_cache_path"]) == ("1", str(tmp_path))

    def test_cuda_computes_in_float32(self) -> None:
        assert session._stack("cuda", Device(("cuda",)), LARGEST)[0] == (NAMES["cuda"], {"use_tf32": "0"})


class OnTheGpu(Session):
    """The CPU under another name: the encoder batches as for a GPU, and asks for the golden texts first."""

    def __init__(self, path: Path, device: Device, largest: tuple[int, int]) -> None:
        super().__init__(path, device, largest)
        self.provider = "cuda"


class TestGpu:
    async def test_it_gives_the_vectors_in_large_batches_too(
        self, encoder: OnnxEncoder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = await encoder.encode(TEXTS * 3)
        monkeypatch.setattr(onnx, "Session", OnTheGpu)
        other = OnnxEncoder(default_folder())
        np.testing.assert_allclose(await other.encode(TEXTS * 3), expected, atol=SAME)
        await other.close()

    async def test_a_device_with_other_vectors_is_refused(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        golden = (folder / GOLDEN).read_text().replace('"sauna"', '"steam bath"', 1)
        (folder / GOLDEN).write_text(golden)
        shipped = sha256((default_folder() / GOLDEN).read_bytes())
        (folder / RELEASE).write_text((folder / RELEASE).read_text().replace(shipped, sha256(golden.encode())))
        monkeypatch.setattr(onnx, "Session", OnTheGpu)
        with pytest.raises(ReleaseMismatch, match=r"ONNX Runtime on cuda is not release .* 'steam bath' has a cosine"):
            OnnxEncoder(folder)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("device", "same"),
    [
        (Device(("cuda",)), 1e-4),
        (Device(("tensorrt",)), 5e-3),
        (Device(("tensorrt",), fp16=True), 5e-3),
    ],
    ids=["cuda", "tensorrt", "tensorrt fp16"],
)
async def test_a_gpu_gives_the_vectors_of_the_cpu(
    device: Device, same: float, encoder: OnnxEncoder, tmp_path: Path
) -> None:
    if reason := missing(device.providers[0]):
        pytest.skip(reason)
    on_gpu = OnnxEncoder(default_folder(), device=Device(device.providers, device.fp16, tmp_path))
    assert on_gpu._session.provider == device.providers[0]
    np.testing.assert_allclose(await on_gpu.encode(TEXTS), await encoder.encode(TEXTS), atol=same)
    await on_gpu.close()
