"""Strings to padded token ids, inside Triton: the first step of the ensemble `embed`.

It cuts and pads like `tagbus.stream.encoder.tokens`, which is not installed with Triton; tests/triton/test_embed.py
compares the two.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer

LENGTHS = (12, 16, 24, 32, 48, 64, 128, 256)
# Text beyond is ignored; a megabyte of text costs no more than 8 kB.
CHARACTERS = 32 * LENGTHS[-1]


class TritonPythonModel:
    """One instance of the model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the tokenizer beside the encoder of the same version, or beside this file.

        A server that fetches its models from object storage puts each into a separate folder: copy tokenizer.json
        here then.
        """
        folder, version = Path(args["model_repository"]), args["model_version"]
        places = [folder / version, folder.parent / "encoder" / version]
        found = [place / "tokenizer.json" for place in places if (place / "tokenizer.json").is_file()]
        if not found:
            raise pb_utils.TritonModelException(f"tokenizer.json is neither in {places[0]} nor in {places[1]}")
        self._tokenizer = Tokenizer.from_file(str(found[0]))
        self._tokenizer.enable_truncation(LENGTHS[-1])
        self._tokenizer.no_padding()
        # "[SEP]" in a text is five characters, not the end of a segment.
        self._tokenizer.encode_special_tokens = True

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """One response for each request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        rows = pb_utils.get_input_tensor_by_name(request, "text").as_numpy().reshape(-1)
        try:
            texts = [bytes(row).decode() for row in rows]
        except UnicodeDecodeError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"text: {error}; expected UTF-8"))
        tokens = [one.ids for one in self._tokenizer.encode_batch_fast([text[:CHARACTERS] for text in texts])]
        longest = max(map(len, tokens))
        length = next(length for length in LENGTHS if length >= longest)
        ids = np.zeros((len(tokens), length), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, found in enumerate(tokens):
            ids[row, : len(found)] = found
            mask[row, : len(found)] = 1
        return pb_utils.InferenceResponse([pb_utils.Tensor("input_ids", ids), pb_utils.Tensor("attention_mask", mask)])
