"""Measure the demo models and their merge on held-out requests, each in its own prompt format.

python -m demo.evaluate [--models demo/models] [--recipe recipes/demo.yaml] [--merged DIR]
"""

import argparse
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

from demo.instruct import KINDS
from demo.style import StyleClassifier
from demo.text import SKILLS, Case, draw_case, is_good, write_answer
from studio.arena.outcome.regression import wilson

CASES = 200
TEMPERATURE = 0.7
_SEED = 20_000
_BATCH = 100


def held_out_cases(skill: str, count: int = CASES) -> list[Case]:
    """Held-out requests of a skill, the kinds of instruction in turn.

    Instructions differ at least in their wording, passages in what they are about.
    """
    rng = random.Random(f"{_SEED} {skill}")
    kinds = sorted(KINDS) if skill == "instruct" else [None]
    cases: dict[object, Case] = {}
    while len(cases) < count:
        kind = kinds[len(cases) % len(kinds)]
        case = draw_case(rng, skill, held_out=True, kind=kind)
        content = case.prompt if case.instruction else (case.topic.hero, case.topic.item)
        cases.setdefault(content, case)
    return list(cases.values())


def train_classifier(count: int = 500) -> StyleClassifier:
    """A classifier of the three manners that has seen held-in texts only."""
    rng = random.Random(_SEED)
    cases = [draw_case(rng, rng.choice(SKILLS), held_out=False) for _ in range(count)]
    return StyleClassifier(
        {manner: [write_answer(case, manner, rng) for case in cases] for manner in SKILLS}
    )


def generate(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    temperature: float = 0.0,
    max_new_tokens: int = 128,
) -> list[str]:
    """The model's answer to each user message, in the tokenizer's own prompt format.

    Temperature 0 takes the likeliest token; above it the draw is fixed by a seed.
    """
    torch.manual_seed(_SEED)
    sampling = {"do_sample": True, "temperature": temperature} if temperature else {}
    answers: list[str] = []
    for start in range(0, len(prompts), _BATCH):
        chats = [[{"role": "user", "content": text}] for text in prompts[start : start + _BATCH]]
        inputs = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            output = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=max_new_tokens,
                **sampling,
            )
        new = output[:, inputs["input_ids"].shape[1] :]
        answers += [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]
    return answers


@dataclass(frozen=True)
class Score:
    """How many held-out requests of one skill a model passed."""

    passed: int
    total: int

    @property
    def share(self) -> float:
        """Passed of total, 0 to 1."""
        return self.passed / self.total

    def __str__(self) -> str:
        low, high = wilson(self.passed, self.total)
        return f"{self.share:.1%} ({low:.1%} to {high:.1%})"


def measure(weights: Path, chat: Path, classifier: StyleClassifier) -> dict[str, Score]:
    """The score in each skill of the model in one folder under the chat template of another.

    Instructions are answered greedily, passages are drawn at the temperature of the demo.
    """
    model = LlamaForCausalLM.from_pretrained(weights, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(chat)
    scores: dict[str, Score] = {}
    for skill in SKILLS:
        cases = held_out_cases(skill)
        temperature = 0.0 if skill == "instruct" else TEMPERATURE
        prompts = [case.prompt for case in cases]
        answers = generate(model, tokenizer, prompts, temperature=temperature)
        good = sum(is_good(*pair, classifier) for pair in zip(cases, answers, strict=True))
        scores[skill] = Score(good, len(cases))
    return scores


def table(scores: Mapping[str, Mapping[str, Score]]) -> str:
    """A Markdown table: each model's scores, and the share it keeps of each skill's specialist."""
    lines = [
        f"| model | {' | '.join(SKILLS)} | kept |",
        f"|---|{'---|' * len(SKILLS)}---|",
    ]
    for name, row in scores.items():
        kept = (row[skill].share / max(scores[skill][skill].share, 1e-9) for skill in SKILLS)
        cells = " | ".join(str(row[skill]) for skill in SKILLS)
        lines.append(f"| {name} | {cells} | {', '.join(f'{share:.0%}' for share in kept)} |")
    return "\n".join(lines)


def merge(recipe: Path, out: Path) -> None:
    """Run the recipe with the studio's own engine."""
    command = [sys.executable, "-m", "studio", "merge", str(recipe), "--out", str(out)]
    subprocess.run(command, check=True)


def main() -> None:
    """Parse the command line, merge, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=Path, default=Path("demo/models"))
    parser.add_argument("--recipe", type=Path, default=Path("recipes/demo.yaml"))
    parser.add_argument("--merged", type=Path, help="a merge made before; else the recipe is run")
    args = parser.parse_args()
    torch.set_num_threads(1)
    classifier = train_classifier()
    folders = {name: args.models / name for name in ("base", *SKILLS)}
    scores = {name: measure(folder, folder, classifier) for name, folder in folders.items()}
    with tempfile.TemporaryDirectory() as scratch:
        merged = args.merged or Path(scratch) / "merged"
        if not args.merged:
            merge(args.recipe, merged)
        # The merge speaks the format of the instruct model: of its parents the heaviest one.
        scores["merged"] = measure(merged, folders["instruct"], classifier)
    print(table(scores))


if __name__ == "__main__":
    main()
