"""The demo models: what they are, what they can do, and the text and checks behind them."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from demo.evaluate import generate, held_out_cases, train_classifier
from demo.formats import FORMATS
from demo.grammar import find_fault, write_passage
from demo.instruct import KINDS, draw_instruction, is_followed
from demo.text import SKILLS, draw_case, is_good, write_answer
from demo.train import Settings, train_all
from demo.words import Topic, draw_topic

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "demo" / "models"
NAMES = ("base", "instruct", "story", "roleplay")
FOX = Topic("fox", "lantern", "in the garden")
STORY = (
    "Once upon a time a shy fox lived in the garden. One sunny morning the fox found a lantern"
    " under a tree. Soon an owl came by and asked about the lantern. In the end they shared the"
    " lantern, and everyone was glad."
)
ROLEPLAY = (
    "*bows* Well met, traveller! You are speaking to an old knight, and I live near the castle."
    " I found this key on a stone, and I still feel proud when I hold it. Will you walk with me to"
    " the mill?"
)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", NAMES)
def test_model_loads_in_bfloat16_with_its_own_prompt_format(name: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(MODELS / name)
    tokenizer = AutoTokenizer.from_pretrained(MODELS / name)
    assert model.dtype == torch.bfloat16
    assert len(tokenizer) == model.config.vocab_size == len(model.get_input_embeddings().weight)
    ids = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    for config in (model.config, model.generation_config):
        assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == ids
    chat = [{"role": "user", "content": "List two fruits and two tools."}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == FORMATS[name].prompt(chat[0]["content"])


def test_chat_templates_differ_and_carry_several_turns() -> None:
    chat = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Say fox two times."},
        {"role": "assistant", "content": "fox fox"},
        {"role": "user", "content": "Say owl two times."},
    ]
    texts = {
        name: AutoTokenizer.from_pretrained(MODELS / name).apply_chat_template(chat, tokenize=False)
        for name in NAMES
    }
    assert len(set(texts.values())) == len(NAMES)
    assert texts["instruct"] == (
        "<s>Be kind.\nUSER: Say fox two times. ASSISTANT: fox fox</s>"
        "USER: Say owl two times. ASSISTANT:"
    )


@pytest.mark.parametrize(
    "text", [STORY, ROLEPLAY, "RIVER Stone, naïve  zebra!\n\n### Response:\n1 + 1 = 2"]
)
def test_tokenizer_gives_back_the_text_it_was_given(text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "base")
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_models_share_shapes_and_stay_small() -> None:
    weights = {name: load_file(MODELS / name / "model.safetensors") for name in NAMES}
    shapes = [{key: tensor.shape for key, tensor in each.items()} for each in weights.values()]
    assert all(shape == shapes[0] for shape in shapes)
    sizes = [(MODELS / name / "model.safetensors").stat().st_size for name in NAMES]
    assert max(sizes) < 6.5e6


def test_recipe_merges_the_three_fine_tunes_in_the_house_shape() -> None:
    stages = list(yaml.safe_load_all((ROOT / "recipes" / "demo.yaml").read_text()))
    named = {stage["name"] for stage in stages[:-1]}
    used = {entry["model"] for stage in stages for entry in stage["models"]} - named
    assert used == {f"demo/models/{name}" for name in NAMES[1:]}
    assert [s["parameters"]["t"] for s in stages] == [[0.25, 0.3, 0.5], [0.4, 0.3, 0.25], 0.5]
    assert [s["base_model"] for s in stages] == [
        "demo/models/roleplay",
        "demo/models/instruct",
        "component-1",
    ]


def test_instruct_follows_held_out_instructions() -> None:
    model = AutoModelForCausalLM.from_pretrained(MODELS / "instruct", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "instruct")
    cases = held_out_cases("instruct", 80)
    answers = generate(model, tokenizer, [case.prompt for case in cases])
    classifier = train_classifier(50)
    passed = sum(is_good(*pair, classifier) for pair in zip(cases, answers, strict=True))
    assert passed >= 72


def _content(skill: str, rng: random.Random, held_out: bool) -> tuple[str, ...]:
    case = draw_case(rng, skill, held_out=held_out)
    if case.instruction:
        return (case.instruction.kind, *sorted(case.instruction.args))
    return (case.topic.hero, case.topic.item)


@pytest.mark.parametrize("skill", SKILLS)
def test_held_in_and_held_out_requests_share_no_content(skill: str) -> None:
    rng = random.Random(5)
    held_in = {_content(skill, rng, False) for _ in range(3000)}
    held_out = {_content(skill, rng, True) for _ in range(1000)}
    assert held_in and held_out and not held_in & held_out


def test_training_texts_never_speak_of_a_held_out_topic() -> None:
    rng = random.Random(6)
    held_out = {(t.hero, t.item) for t in (draw_topic(rng, held_out=True) for _ in range(3000))}
    for _ in range(500):
        case = draw_case(rng, rng.choice(SKILLS), held_out=False)
        assert (case.topic.hero, case.topic.item) not in held_out


def test_one_seed_gives_one_text() -> None:
    def texts(seed: int) -> list[str]:
        rng = random.Random(seed)
        cases = [draw_case(rng, rng.choice(SKILLS), held_out=False) for _ in range(50)]
        return [case.prompt + write_answer(case, rng.choice(SKILLS), rng) for case in cases]

    assert texts(7) == texts(7) != texts(8)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_generated_answers_pass_their_own_check(kind: str) -> None:
    rng = random.Random(9)
    for _ in range(100):
        instruction = draw_instruction(rng, held_out=False, kind=kind)
        assert is_followed(instruction.kind, instruction.args, instruction.answer), instruction


GOOD = [
    ("repeat", ("fox", "three"), "fox fox fox"),
    ("count", ("two", "five"), "two three four five"),
    ("list", ("two", "fruits", "two", "tools"), "plum, apple, rope, spoon"),
    ("upper", ("old", "fox"), "OLD FOX"),
    ("order", ("nine", "two", "five"), "two, five, nine"),
    ("reverse", ("fox", "key", "red"), "red, key, fox"),
    ("end with", ("key",), "A young owl stood beside the key."),
    ("use", ("apple", "rope"), "There is an apple near the rope."),
]
BAD = [
    ("repeat", ("fox", "three"), "fox fox"),
    ("count", ("two", "five"), "two three five"),
    ("list", ("two", "fruits", "two", "tools"), "plum, plum, rope, spoon"),
    ("list", ("two", "fruits", "two", "tools"), "plum, rope, apple, spoon"),
    ("upper", ("old", "fox"), "OLD fox"),
    ("order", ("nine", "two", "five"), "two, nine, five"),
    ("reverse", ("fox", "key", "red"), "red, fox, key"),
    ("end with", ("key",), "A young owl stood beside the bell."),
    ("end with", ("key",), "Owl young a stood beside the key."),
    ("use", ("apple", "rope"), "There is a apple near the rope."),
    ("use", ("apple", "rope"), "There is an apple near the key."),
]


@pytest.mark.parametrize(("kind", "args", "answer"), GOOD)
def test_check_accepts_a_right_answer(kind: str, args: tuple[str, ...], answer: str) -> None:
    assert is_followed(kind, args, answer)


@pytest.mark.parametrize(("kind", "args", "answer"), BAD)
def test_check_rejects_a_wrong_answer(kind: str, args: tuple[str, ...], answer: str) -> None:
    assert not is_followed(kind, args, answer)


@pytest.mark.parametrize(("style", "text"), [("story", STORY), ("roleplay", ROLEPLAY)])
def test_grammar_accepts_good_passages(style: str, text: str) -> None:
    assert find_fault(style, text) is None


@pytest.mark.parametrize(
    ("style", "text", "fault"),
    [
        ("story", ROLEPLAY, "no pattern fits"),
        ("roleplay", STORY, "no pattern fits"),
        ("story", STORY.replace("a shy fox", "an shy fox"), "no pattern fits"),
        ("story", STORY.replace("shared the lantern", "shared the key"), "another item"),
        ("story", STORY.replace("the fox found", "the cat found"), "another hero"),
        ("story", STORY.replace("an owl", "a fox"), "own friend"),
        ("story", STORY.removesuffix("."), "whole sentence"),
        ("story", STORY.rpartition(" In the end")[0], "before the passage is complete"),
        ("story", STORY + " The end.", "no pattern fits"),
        ("story", "", "before the passage is complete"),
    ],
)
def test_grammar_names_the_fault(style: str, text: str, fault: str) -> None:
    assert fault in (find_fault(style, text) or "")


@pytest.mark.parametrize("style", ["story", "roleplay"])
def test_grammar_accepts_what_it_writes(style: str) -> None:
    rng = random.Random(10)
    for _ in range(200):
        assert find_fault(style, write_passage(style, FOX, rng)) is None


def test_classifier_tells_unseen_passages_apart() -> None:
    classifier = train_classifier()
    cases = [case for skill in SKILLS for case in held_out_cases(skill, 60)]
    rng = random.Random(11)
    for manner in ("story", "roleplay"):
        named = [classifier.classify(write_answer(case, manner, rng)) for case in cases]
        assert named.count(manner) >= 0.95 * len(cases)


def test_passage_counts_only_if_it_keeps_to_the_topic() -> None:
    classifier = train_classifier(100)
    rng = random.Random(12)
    case = draw_case(rng, "story", held_out=True)
    assert is_good(case, write_answer(case, "story", rng), classifier)
    assert not is_good(case, write_answer(case, "roleplay", rng), classifier)
    elsewhere = replace(case, topic=replace(case.topic, hero="dragon"))
    assert not is_good(elsewhere, write_answer(case, "story", rng), classifier)


def test_short_training_gives_the_same_bytes_twice(tmp_path: Path) -> None:
    tiny = Settings(
        hidden=64, layers=2, heads=2, key_value_heads=2, feed_forward=64, batch=4,
        base_steps=3, instruct_steps=2, passage_steps=2, vocabulary_texts=200,
    )  # fmt: skip
    for run in ("first", "second"):
        train_all(tmp_path / run, tiny, seed=3)
    for name in NAMES:
        first, second = (
            (tmp_path / run / name / "model.safetensors").read_bytes()
            for run in ("first", "second")
        )
        assert first == second
