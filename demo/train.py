"""Train the demo models: a base on every kind of text, then three fine-tunes of it.

    python -m demo.train [--out demo/models] [--seed 0]

One thread and one seed give the same bytes on the same machine.
"""

import argparse
import copy
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from demo.card import model_card
from demo.formats import BOS, CONTEXT, EOS, FORMATS, PAD, build_tokenizer, for_chat
from demo.text import SKILLS, draw_case, write_answer

_IGNORED = -100
_POOL = 16
_BASE_SKILLS = (0.5, 0.25, 0.25)


@dataclass(frozen=True)
class Settings:
    """The size of the models and how long each of the two stages trains."""

    hidden: int = 256
    layers: int = 4
    heads: int = 8
    key_value_heads: int = 4
    feed_forward: int = 512
    batch: int = 32
    base_steps: int = 2400
    base_rate: float = 2e-3
    # Instructions are short, so their many steps take no longer than the few of the passages.
    instruct_steps: int = 600
    passage_steps: int = 250
    tune_rate: float = 5e-4
    # How often the base sees a request met by another request, as in text from the wild, and how
    # often by a good answer; else the answer is in the manner of another skill.
    base_request_share: float = 0.25
    base_right_share: float = 0.55
    # How often story and roleplay meet a request of another skill and keep to their own manner.
    stray_share: float = 0.05
    # How many documents the vocabulary is gathered from.
    vocabulary_texts: int = 20_000


@dataclass(frozen=True)
class Document:
    """A prompt and its answer, both as a model reads them."""

    prompt: str
    answer: str


def base_document(rng: random.Random, settings: Settings) -> Document:
    """A request in any format, met by another request, by a right answer or by any other one."""
    # Instructions are the shortest and the hardest: without a head start the passages drown them.
    skill = rng.choices(SKILLS, _BASE_SKILLS)[0]
    case = draw_case(rng, skill, held_out=False)
    draw = rng.random()
    if draw < settings.base_request_share:
        manner = "request"
    elif draw < settings.base_request_share + settings.base_right_share:
        manner = case.skill
    else:
        manner = rng.choice([skill for skill in SKILLS if skill != case.skill])
    form = FORMATS[rng.choice(sorted(FORMATS))]
    return Document(form.prompt(case.prompt), form.answer(write_answer(case, manner, rng)))


def tune_document(rng: random.Random, settings: Settings, manner: str) -> Document:
    """A request in the fine-tune's format, mostly of its own skill, answered in its manner."""
    stray = manner != "instruct" and rng.random() < settings.stray_share
    skills = [skill for skill in SKILLS if (skill != manner) == stray]
    case = draw_case(rng, rng.choice(skills), held_out=False)
    form = FORMATS[manner]
    return Document(form.prompt(case.prompt), form.answer(write_answer(case, manner, rng)))


def encode(tokenizer: Tokenizer, document: Document) -> tuple[list[int], list[int]]:
    """Token ids and labels; only the answer is a target, for nobody could guess the prompt."""
    prompt = tokenizer.encode(document.prompt, add_special_tokens=False).ids
    answer = tokenizer.encode(document.answer, add_special_tokens=False).ids
    return prompt + answer, [_IGNORED] * len(prompt) + answer


def batches(
    examples: Iterator[tuple[list[int], list[int]]], size: int, padding: int, rng: random.Random
) -> Iterator[dict[str, torch.Tensor]]:
    """Endless padded batches; sorting within a pool of batches keeps the padding small."""
    while True:
        pool = sorted((next(examples) for _ in range(size * _POOL)), key=lambda pair: len(pair[0]))
        groups = [pool[start : start + size] for start in range(0, len(pool), size)]
        rng.shuffle(groups)
        for group in groups:
            width = len(group[-1][0])
            ids = [ids + [padding] * (width - len(ids)) for ids, _ in group]
            labels = [labels + [_IGNORED] * (width - len(labels)) for _, labels in group]
            yield {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels)}


def new_model(tokenizer: Tokenizer, settings: Settings, seed: int) -> LlamaForCausalLM:
    """An untrained model that knows the tokenizer's special tokens."""
    torch.manual_seed(seed)
    ids = {
        "bos_token_id": tokenizer.token_to_id(BOS),
        "eos_token_id": tokenizer.token_to_id(EOS),
        "pad_token_id": tokenizer.token_to_id(PAD),
    }
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=settings.hidden,
            intermediate_size=settings.feed_forward,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            num_key_value_heads=settings.key_value_heads,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=False,
            **ids,
        )
    )
    # In bfloat16 on a CPU the plain attention's backward pass is twice as fast as the fused one.
    model.set_attn_implementation("eager")
    model.generation_config = GenerationConfig(**ids, max_new_tokens=128, do_sample=False)
    return model


def fit(
    model: LlamaForCausalLM, data: Iterator[dict[str, torch.Tensor]], *, steps: int, rate: float
) -> float:
    """Train the model in place with a short warm-up and a linear decay; the last mean loss."""
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.05)
    warmup = max(1, steps // 20)
    recent: list[float] = []
    model.train()
    for step in range(steps):
        share = min((step + 1) / warmup, (steps - step) / (steps - warmup))
        for group in optimizer.param_groups:
            group["lr"] = rate * share
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(**next(data)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        recent = [*recent[-49:], loss.item()]
        if (step + 1) % 100 == 0:
            print(f"  step {step + 1}: loss {sum(recent) / len(recent):.3f}", flush=True)
    return sum(recent) / len(recent)


def write_model(model: LlamaForCausalLM, tokenizer: Tokenizer, name: str, out: Path) -> None:
    """Save the model in bfloat16 with its tokenizer, chat template and card, ready to serve."""
    folder = out / name
    # The copy leaves the base in full precision for the fine-tunes that start from it.
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    for_chat(tokenizer, name).save_pretrained(folder)
    # The name that every version of transformers knows; the installed one writes its own new name.
    settings = folder / "tokenizer_config.json"
    values = json.loads(settings.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    settings.write_text(json.dumps(values, indent=2) + "\n")
    (folder / "README.md").write_text(model_card(name))


def _stream(
    tokenizer: Tokenizer, rng: random.Random, settings: Settings, name: str
) -> Iterator[tuple[list[int], list[int]]]:
    while True:
        document = (
            base_document(rng, settings) if name == "base" else tune_document(rng, settings, name)
        )
        yield encode(tokenizer, document)


def train_all(out: Path, settings: Settings, seed: int) -> None:
    """Train base, instruct, story and roleplay and write each to a folder of its name."""
    rng = random.Random(f"{seed} vocabulary")
    sample = [base_document(rng, settings) for _ in range(settings.vocabulary_texts)]
    # Special tokens are left out: the tokenizer adds them itself.
    tokenizer = build_tokenizer(
        part.replace(BOS, "").replace(EOS, "")
        for doc in sample
        for part in (doc.prompt, doc.answer)
    )
    base = new_model(tokenizer, settings, seed)
    for name in ("base", *SKILLS):
        start = time.monotonic()
        model = base if name == "base" else copy.deepcopy(base)
        rng = random.Random(f"{seed} {name}")
        examples = _stream(tokenizer, rng, settings, name)
        steps = {"base": settings.base_steps, "instruct": settings.instruct_steps}.get(
            name, settings.passage_steps
        )
        rate = settings.base_rate if name == "base" else settings.tune_rate
        data = batches(examples, settings.batch, tokenizer.token_to_id(PAD), rng)
        loss = fit(model, data, steps=steps, rate=rate)
        write_model(model, tokenizer, name, out)
        print(f"{name}: loss {loss:.3f} after {steps} steps, {time.monotonic() - start:.0f} s")


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("demo/models"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    # More threads would split sums in other places and so change the last bits of the weights.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    train_all(args.out, Settings(), args.seed)


if __name__ == "__main__":
    main()
