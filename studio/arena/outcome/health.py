"""What a machine can say of the answers before anybody votes: the merge's health report."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from studio.arena.checks.constraints import check
from studio.arena.prompts.prompt import Prompt
from studio.arena.trials.answers import Answer, AnswerKey

# What chat templates are made of; none of it belongs into an answer.
_FORMAT = re.compile(
    r"<\|[a-z_]+\|>|<</?SYS>>|\[/?INST\]|</?s>|^### ?(?:Instruction|Response|Input)\b"
    r"|^(?:ASSISTANT|SYSTEM):",
    re.MULTILINE,
)
_USER = re.compile(r"^(?:USER|User|Human|### ?(?:Instruction|Human|User)) ?:", re.MULTILINE)
MOST_PERIOD, LOOP_TIMES, SHORTEST_LOOP = 120, 4, 40


@dataclass(frozen=True, slots=True)
class Health:
    """A model's answers, counted.

    `constraints` were asked for, `kept` of them held. The other counts are of answers: `cut_off`
    at the token limit, `loops` that end in repetition, `speaks_for_user`, `format_tokens` leaked,
    `empty`; and `shortened`, whose conversation had to be shortened to fit the context.
    `characters`: the median length.
    """

    model: str
    answers: int
    constraints: int
    kept: int
    cut_off: int
    loops: int
    speaks_for_user: int
    format_tokens: int
    empty: int
    shortened: int
    characters: int


def health(
    models: Sequence[str], prompts: Sequence[Prompt], answers: Mapping[AnswerKey, Answer]
) -> list[Health]:
    """One row a model."""
    by_id = {prompt.id: prompt for prompt in prompts}
    return [
        _row(model, [a for a in answers.values() if a.model == model], by_id) for model in models
    ]


def _row(model: str, answers: Sequence[Answer], prompts: Mapping[str, Prompt]) -> Health:
    results = [r for a in answers for r in check(prompts[a.prompt].constraints, a.text)]
    lengths = sorted(len(answer.text) for answer in answers)
    return Health(
        model=model,
        answers=len(answers),
        constraints=len(results),
        kept=sum(result.passed for result in results),
        cut_off=sum(answer.finish_reason == "length" for answer in answers),
        loops=sum(loops(answer.text) for answer in answers),
        speaks_for_user=sum(speaks_for_user(a.text, prompts[a.prompt]) for a in answers),
        format_tokens=sum(bool(_FORMAT.search(answer.text)) for answer in answers),
        empty=sum(not answer.text.strip() for answer in answers),
        shortened=sum(answer.left_out > 0 for answer in answers),
        characters=lengths[len(lengths) // 2] if lengths else 0,
    )


def loops(text: str) -> bool:
    """Whether the text ends in one piece of at most 120 characters, four times or more in a row."""
    tail = text.rstrip()
    for period in range(1, MOST_PERIOD + 1):
        length = max(period * LOOP_TIMES, SHORTEST_LOOP)
        end = tail[-length:]
        if len(end) == length and end[period:] == end[:-period]:
            return True
    return False


def speaks_for_user(text: str, prompt: Prompt) -> bool:
    """Whether the answer goes on with a turn of the user's, unless it was asked for a dialogue."""
    if any(constraint.name == "speakers" for constraint in prompt.constraints):
        return False
    by_name = prompt.user and re.search(rf"^{re.escape(prompt.user)} ?:", text, re.MULTILINE)
    return bool(by_name or _USER.search(text))
