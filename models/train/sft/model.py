"""The language model in training: a GGUF read into torch, with low-rank adapters and output logits in float32.

GGUF stores query and key in another order than transformers does. The adapter leaves both unchanged, so llama.cpp
applies exactly what is trained here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from gguf import GGUFReader
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from tagbus.models.train.sft.examples import Example
from tagbus.stream.errors import UserError
from tagbus.stream.llm.prompts import YES_NO

# The adapted modules, by their names in transformers and in GGUF (models/train/sft/adapter.py).
MODULES: Final = {
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}
ARCHITECTURES: Final = frozenset({"llama", "mistral", "qwen2", "qwen3"})
ADAPTER: Final = "default"


@dataclass(frozen=True, slots=True)
class Trainable:
    """A model with its adapter. `words`: the tokens that answer yes and no; `architecture`: as GGUF names it."""

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    words: tuple[int, int]
    architecture: str

    def logits(self, batch: Sequence[Example], length: int) -> Tensor:
        """Return the logits after each prompt, float32 [n, v]. Prompts over `length` tokens lose their first tokens."""
        prompts = [self.prompt(one)[-length:] for one in batch]
        longest = max(map(len, prompts))
        device = next(self.model.parameters()).device
        ids = torch.zeros((len(batch), longest), dtype=torch.long, device=device)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt, device=device)
            mask[row, : len(prompt)] = 1
        base: Any = self.model.get_base_model()
        hidden: Tensor = base.model(input_ids=ids, attention_mask=mask).last_hidden_state
        ends = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)
        last = hidden[torch.arange(len(batch), device=device), ends]
        head: nn.Linear = base.get_output_embeddings()
        # This product alone is in float32, one row per example: Yes and No tie in bfloat16.
        bias = None if head.bias is None else head.bias.float()
        return nn.functional.linear(last.float(), head.weight.float(), bias)

    def prompt(self, example: Example) -> list[int]:
        """Return the tokens of a prompt by the model's own chat template, as its server renders it."""
        messages = [{"role": "system", "content": example.task}, {"role": "user", "content": example.question}]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return list(self.tokenizer(str(text), add_special_tokens=False)["input_ids"])


def load(file: Path, rank: int, alpha: int, seed: int) -> Trainable:
    """Load the model of a GGUF with a new adapter. Raises UserError for a model that cannot be adapted like this."""
    architecture = architecture_of(file)
    folder, name = str(file.parent), file.name
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name, local_files_only=True)
        kind = torch.bfloat16 if torch.cuda.is_available() else torch.float32
        base: nn.Module = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=name, local_files_only=True, dtype=kind
        )
    except (ValueError, NotImplementedError, KeyError) as error:
        raise UserError(f"--model {file}: transformers cannot read it: {' '.join(str(error).split())[:200]}") from None
    if torch.cuda.is_available():
        base = base.to("cuda")
    if not tokenizer.chat_template:
        raise UserError(
            f"--model {file}: it has no chat template, so its server's prompts would differ from the training's"
        )
    torch.manual_seed(seed)
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=sorted(MODULES), task_type="CAUSAL_LM"
    )
    model = get_peft_model(cast(PreTrainedModel, base), config, adapter_name=ADAPTER)
    if not isinstance(model, PeftModel):
        raise AssertionError("an adapter of one kind makes this model")
    # The adapter must contain no path of this machine.
    model.peft_config[ADAPTER].base_model_name_or_path = file.name
    return Trainable(model, tokenizer, _words(tokenizer), architecture)


def architecture_of(file: Path) -> str:
    """Return the architecture named in the GGUF. Raises UserError for another file format or architecture."""
    try:
        field = GGUFReader(file).get_field("general.architecture")
    except (OSError, ValueError, IndexError) as error:
        raise UserError(f"--model {file}: {error}; expected a model in GGUF") from None
    found = "" if field is None else str(field.contents())
    if found not in ARCHITECTURES:
        raise UserError(
            f"--model {file}: architecture {found or 'unknown'}, expected {', '.join(sorted(ARCHITECTURES))}"
        )
    return found


def _words(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Return the tokens of the two answers. The judge reads one token, so each must be one. Raises UserError."""
    found = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in YES_NO]
    if any(len(one) != 1 for one in found):
        raise UserError(f"{' and '.join(YES_NO)} are not single tokens of this model, so the judge cannot use it")
    return int(found[0][0]), int(found[1][0])
