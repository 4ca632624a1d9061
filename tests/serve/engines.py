"""Starting engines for tests, and what a model must say, computed here by the book."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from studio.serve.processes.fleet import Fleet
from studio.serve.processes.proc_table import PROC, belonging
from studio.serve.processes.spec import ModelSpec
from studio.serve.sampling import Sampling
from tests.test_architecture import ROOT

DEMO = ROOT / "demo" / "models"
END = 2
QUESTION = "Guest: Tell me about the lantern.\nHost:"
MODEL = "roleplay"
# What was said is the likelier to be said again: nothing but the limit ends such an answer.
ENDLESS = Sampling(temperature=0.0, presence_penalty=-2.0, frequency_penalty=-2.0, max_tokens=400)


def ready(fleet: Fleet, spec: ModelSpec, seconds: float = 240) -> str:
    """Start an engine and wait until it is ready; its id."""
    name = fleet.start(spec)
    state = fleet.wait(name, ("ready", "failed", "stopped"), seconds)
    assert state.phase == "ready", (state.problem, state.line, fleet.log(name, 40))
    return name


def with_ends(folder: Path, *ends: int) -> Path:
    """A copy of the model `roleplay` whose generation_config.json lists these end tokens."""
    shutil.copytree(DEMO / MODEL, folder)
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": list(ends)}))
    return folder


def titles(log: Path) -> dict[str, int]:
    """The processes of a vLLM server by what they are."""
    found = {}
    for pid in belonging(log):
        line = (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        if "studio.serve.processes.tether" in line:
            found["tether"] = pid
        elif "api_server" in line:
            found["server"] = pid
        elif "VLLM::" in line:
            found[line.partition("VLLM::")[2].split()[0]] = pid
    return found


@cache
def tokenizer() -> Any:
    """The tokenizer that all demo models share."""
    return AutoTokenizer.from_pretrained(DEMO / "instruct")


@cache
def network(model: str) -> Any:
    """A demo model in float32, in this process."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(DEMO / model, dtype=torch.float32)
    return loaded.eval()


def logits_after(model: str, tokens: Sequence[int]) -> torch.Tensor:
    """The logits of the next token."""
    with torch.inference_mode():
        logits = network(model)(torch.tensor([list(tokens)])).logits[0, -1]
    assert isinstance(logits, torch.Tensor)
    return logits.clone()


@cache
def greedy(model: str, text: str, count: int, **penalties: float) -> tuple[int, ...]:
    """The likeliest tokens one after the other, after the penalties; up to the end token."""
    prompt = tokenizer()(text)["input_ids"]
    sampling = Sampling(temperature=0, **penalties)  # type: ignore[arg-type]
    answer: list[int] = []
    fresh, cache = list(prompt), None
    while len(answer) < count and END not in answer:
        with torch.inference_mode():
            out = network(model)(torch.tensor([fresh]), past_key_values=cache, use_cache=True)
        logits, cache = out.logits[0, -1].clone(), out.past_key_values
        for token in {*prompt, *answer}:
            factor = sampling.repetition_penalty
            logits[token] = logits[token] / factor if logits[token] > 0 else logits[token] * factor
        for token, often in Counter(answer).items():
            logits[token] -= often * sampling.frequency_penalty + sampling.presence_penalty
        answer.append(int(logits.argmax()))
        fresh = answer[-1:]
    return tuple(answer)


def text_of(prompt: str, answer: Sequence[int]) -> str:
    """The text that an answer adds to its prompt."""
    before = tokenizer()(prompt)["input_ids"]
    decode: Callable[..., str] = tokenizer().decode
    whole = decode([*before, *answer], skip_special_tokens=True)
    return whole.removeprefix(decode(before, skip_special_tokens=True))


def logprobs(model: str, tokens: Sequence[int]) -> list[float | None]:
    """ln p of each token given those before it."""
    with torch.inference_mode():
        rows = network(model)(torch.tensor([list(tokens)])).logits[0].log_softmax(-1)
    return [None, *(float(rows[at, token]) for at, token in enumerate(tokens[1:]))]
