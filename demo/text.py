"""Requests of the three skills, and answers to them in the manner of each model."""

import random
import re
from dataclasses import dataclass

from demo.grammar import find_fault, write_passage
from demo.instruct import Instruction, draw_instruction, is_followed
from demo.style import StyleClassifier
from demo.words import HEROES, ITEMS, Topic, category_of, draw_topic, with_article

SKILLS = ("instruct", "story", "roleplay")
_STORY_PROMPTS = (
    "Tell me a story about {a_hero} and {an_item}.",
    "Write a short story about {a_hero} who finds {an_item}.",
    "I would like a tale of {a_hero} and {an_item}.",
    "Write a tale about {an_item} and {a_hero}.",
)
_ROLEPLAY_PROMPTS = (
    "You are {a_hero}. Tell me about your {item}.",
    "Speak to me as {a_hero} who owns {an_item}.",
    "Pretend to be {a_hero} and show me your {item}.",
    "Play {a_hero}. I ask about your {item}.",
)


@dataclass(frozen=True)
class Case:
    """A request of one skill. Instructions carry their check, the others a topic to keep to."""

    skill: str
    prompt: str
    topic: Topic
    instruction: Instruction | None = None


def draw_case(rng: random.Random, skill: str, *, held_out: bool, kind: str | None = None) -> Case:
    """A request of the skill (and for instructions of the kind) from one side of the split."""
    if skill == "instruct":
        instruction = draw_instruction(rng, held_out=held_out, kind=kind)
        hero = next((word for word in instruction.args if word in HEROES), None)
        item = next((word for word in instruction.args if word in ITEMS), None)
        topic = draw_topic(rng, held_out=held_out, hero=hero, item=item)
        return Case(skill, instruction.prompt, topic, instruction)
    topic = draw_topic(rng, held_out=held_out)
    pattern = rng.choice(_STORY_PROMPTS if skill == "story" else _ROLEPLAY_PROMPTS)
    prompt = pattern.format(
        a_hero=with_article(topic.hero),
        item=topic.item,
        an_item=with_article(topic.item),
    )
    return Case(skill, prompt, topic)


def _state_plainly(topic: Topic, rng: random.Random) -> str:
    facts = [
        f"{with_article(word).capitalize()} is {with_article(category_of(word))}."
        for word in (topic.hero, topic.item)
    ]
    return " ".join(facts if rng.random() < 0.5 else facts[::-1])


def write_answer(case: Case, manner: str, rng: random.Random) -> str:
    """The case's answer in a manner: one of the skills, or "request", which is another request.

    Any request can be met in any manner: with a story, in character, or soberly. Only the manner
    that is the case's own skill answers it well.
    """
    if manner == "request":
        return draw_case(rng, rng.choice(SKILLS), held_out=False).prompt
    if manner != "instruct":
        return write_passage(manner, case.topic, rng)
    if case.instruction:
        return case.instruction.answer
    return _state_plainly(case.topic, rng)


def is_good(case: Case, answer: str, classifier: StyleClassifier) -> bool:
    """Whether the answer passes its skill's check.

    An instruction must be followed. A passage must be grammatical, be told apart as its own style
    and speak of what was asked for.
    """
    if case.instruction:
        return is_followed(case.instruction.kind, case.instruction.args, answer)
    return (
        {case.topic.hero, case.topic.item} <= set(re.findall(r"\w+", answer))
        and find_fault(case.skill, answer) is None
        and classifier.classify(answer) == case.skill
    )
