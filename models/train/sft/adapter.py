"""A trained adapter as GGUF, for `llama-server --lora`, and as peft keeps it, for vLLM's `--lora-modules`."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from gguf import GGUFWriter
from numpy.typing import NDArray
from peft import PeftModel

from tagbus.models.train.sft.model import MODULES

GGUF: Final = "adapter.gguf"
_NAME: Final = re.compile(r"\.layers\.(\d+)\.\w+\.(\w+)\.lora_([AB])\.")


def write(model: PeftModel, architecture: str, alpha: int, to: Path) -> Path:
    """Write both formats; return the path of the GGUF. `alpha`: both scale the adapter by alpha over its rank."""
    # Tokens are not adapted, so no embeddings are saved, and no check whether they have changed is made.
    model.save_pretrained(str(to), save_embedding_layers=False)
    file = to / GGUF
    beside = file.with_suffix(".new")
    writer = GGUFWriter(beside, architecture)
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(alpha))
    for name, values in tensors(model):
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    beside.replace(file)
    return file


def tensors(model: PeftModel) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Return the adapter's matrices by their names in GGUF: A [rank, in] and B [out, rank] of each module."""
    for name, parameter in model.named_parameters():
        found = _NAME.search(name)
        if found is not None:
            layer, module, side = found.groups()
            kept = parameter.detach().float().cpu().numpy()
            yield f"blk.{layer}.{MODULES[module]}.weight.lora_{side.lower()}", np.ascontiguousarray(kept)
