"""Answers in the shape of each server, taken from its own tests, documents or types.

The caller sets each probability: `probability(question text)`.
"""

import json
import math
from collections.abc import Callable, Sequence

from tests.llm.scripted import Request, Say, Script

Probability = Callable[[str], float]


def right_of_cats(text: str) -> float:
    """Answers the probe's questions correctly; 0.8 for all else."""
    if "Cats" in text:
        return 0.95
    if "Nuclear" in text:
        return 0.05
    return 0.8


def openai_decisions(probability: Probability = right_of_cats, model: str = "gpt-6-luna-2026-10-06") -> Script:
    """OpenAI's: types/decision.py and types/decision_create_params.py of the openai client 3.54."""

    def answer(request: Request) -> Say:
        for one in request.body["questions"]:
            assert set(one) <= {"type", "name", "instructions"}
            assert one["type"] == "predicate"
        return Say(
            {
                "model": model,
                "answers": [
                    {"type": "predicate", "name": one.get("name"), "probability": probability(one["instructions"])}
                    for one in request.body["questions"]
                ],
                "usage": {
                    "input_tokens": 210,
                    "input_tokens_details": {"cached_tokens": 128, "cache_write_tokens": 0},
                    "output_tokens": 0,
                    "output_tokens_details": {"reasoning_tokens": 0},
                    "total_tokens": 210,
                },
            }
        )

    return answer


def vllm_decisions(probability: Probability = right_of_cats) -> Script:
    """vLLM's: vllm-project/vllm, tests/entrypoints/generate/structured_decisions/test_decisions.py at 41cf23c4.

    Strict: a field that it does not know is refused, as is a 201st question.
    """

    def answer(request: Request) -> Say:
        questions = request.body["questions"]
        if request.body.keys() - {"model", "input", "questions", "safety_identifier"}:
            return _refused(400, "Extra inputs are not permitted")
        if not 1 <= len(questions) <= 200:
            return _refused(400, "List should have at most 200 items after validation")
        if any(set(one) - {"type", "name", "instructions"} or one["type"] != "predicate" for one in questions):
            return _refused(400, "Extra inputs are not permitted")
        said = openai_decisions(probability, "Qwen/Qwen3-0.6B")(request).body
        return Say({"id": "decision-1", "object": "decision", **said, "usage": _each(request, "input", "instructions")})

    return answer


def vllm_systemone(probability: Probability = right_of_cats, mass: float = 0.97) -> Script:
    """vLLM's: tests/entrypoints/generate/structured_decisions/test_structured_decisions_e2e.py at 0d695c43."""

    def answer(request: Request) -> Say:
        questions = request.body["questions"]
        if len(questions) > 64:
            return _refused(400, "at most 64 questions")
        found = {name: probability(one["instructions"]) for name, one in questions.items()}
        return Say(
            {
                "id": "sd-1",
                "object": "structured_decision",
                "created": 1,
                "model": "Qwen/Qwen3-0.6B",
                "answers": {
                    name: {
                        "type": "noul",
                        "noul": p,
                        "probabilities": {"yes": p, "no": 1 - p},
                        "confidence": max(p, 1 - p) * mass,
                    }
                    for name, p in found.items()
                },
                "usage": _each(request, "state", "instructions"),
                "diagnostics": {name: {"label_mass": mass, "argmax_is_label": True} for name in found},
            }
        )

    return answer


def sglang_decisions(probability: Probability = right_of_cats, mass: float = 0.97) -> Script:
    """SGLang's: python/sglang/srt/entrypoints/openai/serving_decisions.py at 17842cb5; unknown fields are refused."""

    def answer(request: Request) -> Say:
        questions = request.body["questions"]
        if any(set(one) != {"id", "type", "question"} or one["type"] != "yes_no" for one in questions):
            return _refused(400, "questions.0: Input tag 'predicate' does not match any of the expected tags")
        return Say(
            {
                "model": request.body.get("model", "default"),
                "prompt_format_version": 1,
                "answers": {
                    one["id"]: {
                        "type": "yes_no",
                        "probabilities": {"yes": probability(one["question"]), "no": 1 - probability(one["question"])},
                        "label_mass": mass,
                    }
                    for one in questions
                },
                "usage": {"prompt_tokens": _each(request, "input", "question")["input_tokens"], "completion_tokens": 0},
            }
        )

    return answer


def llamacpp_systemone(probability: Probability = right_of_cats) -> Script:
    """llama.cpp's: ggml-org/llama.cpp, tools/server/tests/unit/test_systemone.py at 491e91a0."""

    def answer(request: Request) -> Say:
        if not isinstance(request.body.get("model", ""), str) or not request.body.get("questions"):
            return Say({"error": {"code": 422, "type": "unprocessable_entity_error", "message": "model"}}, 422)
        return Say(
            {
                "model": "tinylaya.gguf",
                "answers": {
                    name: {"type": "noul", "noul": probability(one["instructions"])}
                    for name, one in request.body["questions"].items()
                },
                "usage": {"input_tokens": 188, "output_tokens": 0},
            }
        )

    return answer


# llama.cpp's answer for a model without a decision type.
LLAMACPP_501 = Say(
    {"error": {"code": 501, "type": "not_supported_error", "message": "This model has no decision type"}}, 501
)


def chat(
    probability: Probability = right_of_cats, *, model: str = "test-model", tops: Sequence[str] = ("Yes", "No", " yes")
) -> Script:
    """Chat completions as of OpenAI, vLLM, SGLang and llama.cpp: types/chat/chat_completion.py of the client.

    A request with a schema gets a matching object.
    """

    def answer(request: Request) -> Say:
        question = request.body["messages"][-1]["content"].rpartition("</data>")[2]
        if "response_format" in request.body:
            schema = request.body["response_format"]["json_schema"]["schema"]
            return Say(completion(_by_schema(schema, question, probability), model=model))
        p = probability(question)
        shares = {"Yes": p * 0.6, " yes": p * 0.38, "No": (1 - p) * 0.98}
        found = [(token, math.log(shares[token])) for token in tops if shares[token] > 0]
        return Say(completion("Yes" if p > 0.5 else "No", found, model=model))

    return answer


def completion(
    text: str,
    tops: Sequence[tuple[str, float]] | None = None,
    *,
    model: str = "test-model",
    finish: str = "stop",
    refusal: str | None = None,
) -> dict[str, object]:
    """The body of a chat completion."""
    logprobs = None
    if tops is not None:
        top = [{"token": token, "logprob": value, "bytes": None} for token, value in tops]
        first = top[0] if top else {"token": text, "logprob": 0.0, "bytes": None}
        logprobs = {"content": [{**first, "top_logprobs": top}], "refusal": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": refusal},
                "logprobs": logprobs,
                "finish_reason": finish,
            }
        ],
        "usage": {
            "prompt_tokens": 150,
            "completion_tokens": 1,
            "total_tokens": 151,
            "prompt_tokens_details": {"cached_tokens": 96},
        },
    }


def models(*names: str) -> Say:
    """GET /models."""
    return Say(
        {"object": "list", "data": [{"id": name, "object": "model", "created": 1, "owned_by": "x"} for name in names]}
    )


def _each(request: Request, shared: str, own: str) -> dict[str, int]:
    """The usage of a server that reads the content with each question and reports the sum, as strategies.py of vLLM at
    02cc9cd5 and score_prompts of SGLang do: at four bytes a token, with 20 tokens of its own prompt."""
    questions = request.body["questions"]
    texts = [one[own] for one in (questions.values() if isinstance(questions, dict) else questions)]
    read = sum((len(request.body[shared]) + len(text)) // 4 + 20 for text in texts)
    return {"input_tokens": read, "output_tokens": len(texts)}


def _refused(status: int, message: str) -> Say:
    return Say({"error": {"message": message, "type": "BadRequestError", "param": None, "code": status}}, status)


def _by_schema(schema: dict[str, object], question: str, probability: Probability) -> str:
    properties = schema["properties"]
    lines = dict(line.split(": ", 1) for line in question.splitlines() if line[1:2] == ":")
    if "tags" in properties:
        items = properties["tags"]["items"]["enum"]
        chosen = [label for label in items if label in lines and probability(lines[label]) >= 0.5]
        return json.dumps({"tags": chosen})
    return json.dumps({label: round(100 * probability(lines[label])) for label in properties})
