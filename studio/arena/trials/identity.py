"""Masking: an answer must not tell who wrote it.

What is masked is a claim in the first person ("I'm ChatGPT", "Ich bin Claude.", "my developers at
OpenAI") and every label of the trial's own models that cannot be an ordinary word. Hermes, Gemini
or Palm are names of gods, stars and trees first: they are masked only where the sentence claims to
be a machine of that name, or where a model of this trial is called so and the sentence says no more
than the name. A character of a story speaks in quotation marks; Claude Monet has a family name.
The answer itself is stored as it was; the mask is put on when it is shown.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

MASK = "█████"
# Names that mean nothing but a language model or its maker.
_PLAIN = (
    r"Chat-?GPT|GPT-?[2345](?:\.\d|o)?(?:-\w+)*|Open ?AI|Anthropic|Deep ?Mind|Mistral ?AI"
    r"|Xwin(?:-LM)?|Mythospice|Mytho(?:max|logic|mix)|Nous[- ]Hermes|Nous ?Research"
    r"|LLaMA[- ]?[234](?:\.\d)?|Wizard ?LM|Open ?Hermes|Open ?Orca|Qwen\w*|Deep ?Seek|Meta ?AI"
    r"|LAION|Eleuther ?AI|Together ?AI|通义千问"
)
# Names that are words too.
_WORDS = (
    r"Hermes|Gemini|Pa?LM|Claude|Bard|Mistral|Mixtral|Falcon|Orca|Dolphin|Phi|Gemma|Vicuna|Alpaca"
    r"|LLaMA|Guanaco|Zephyr|Platypus|Airoboros|Grok|Bing|Copilot|Sydney|Meta|Google|Microsoft"
)
# Those of them that people hardly bear: saying only "I am …" is a claim already.
_ALONE = r"Claude|Grok|Copilot|LLaMA|Mixtral|Vicuna"
_MAKERS = rf"{_PLAIN}|Google|Meta|Microsoft|Mistral"
_MACHINE = (
    r"(?:AI|A\.I\.|artificial intelligence|(?:large )?language model|LLM|chat ?bot|"
    r"(?:virtual|digital|AI) assistant|KI|IA|Sprachmodell|modèle de langage|"
    r"modelo de (?:lenguaje|linguagem)|modello linguistico|taalmodel)"
)
# The first person, in the languages that language.py knows by their words; a name may be in bold.
_I_AM = (
    r"\b(?:I am|I['’]m|my name is|my name['’]s|ich bin|ich hei(?:ß|ss)e|mein Name ist|je suis"
    r"|je m['’]appelle|mon nom est|soy|me llamo|mi nombre es|sono|mi chiamo|il mio nome è"
    r"|eu sou|chamo-me|me chamo|meu nome é|ik ben|ik heet|mijn naam is)\s+\**"
)
_AM = rf"(?:{_I_AM}|\b(?:I was|call me|this is|as|en tant que)\s+\**)"
_AN = r"(?:(?:an?|the|your|eine?|une?|una|uma?|een)\s+)?"
_MADE = (
    r"\b(?:(?:developed|created|made|trained|built|designed|fine-?tuned)\s+by"
    r"|(?:entwickelt|erstellt|trainiert)\s+von|(?:développée?|créée?|entraînée?)\s+par"
    r"|(?:desarrollad|cread|entrenad|desenvolvid|criad|treinad)[oa]\s+por"
    r"|(?:sviluppat|creat|addestrat)[oa]\s+da|(?:ontwikkeld|gemaakt|getraind)\s+door)\s+\**"
)
_I_WAS = (
    r"\b(?:I(?:['’]m| was| am| have been)|j['’]ai été|fui|he sido|sono stat[oa]|ik ben|ik werd)\s+"
)
_MY_MAKERS = (
    r"\b(?:my (?:developer|creator|maker)s?|meine (?:Entwickler|Schöpfer)"
    r"|mes (?:développeurs|créateurs)|mis (?:desarrolladores|creadores)"
    r"|i miei (?:sviluppatori|creatori)|meus (?:desenvolvedores|criadores)"
    r"|mijn (?:ontwikkelaars|makers))"
    r"(?:,|\s+(?:at|is|are|from|bei|von|chez|en|de|di|da|na|bij|van))"
)
# The same in the languages that language.py knows by their script; some of them part no words.
_I_AM_ELSEWHERE = (
    r"(?<![\"“«「‘'])(?:(?<!\w)(?:я|меня зовут|мо[её] имя|είμαι|με λένε|ονομάζομαι|أنا|اسمي)\b"
    r"|我(?:是|叫|的名字是)|(?:私|僕|わたし|私の名前)は|저는|나는|제 이름은|मैं|मेरा नाम)[\s*—–:-]*"
)
_MACHINE_ELSEWHERE = (
    r"(?:(?<![A-Za-z])AI(?![A-Za-z])|языков\w+ модел|ассистент|искусственн\w+ интеллект"
    r"|γλωσσικό μοντέλο|βοηθός|模型|人工智[能慧]|助手|言語モデル|アシスタント|언어 ?모델"
    r"|인공지능|어시스턴트|نموذج لغوي|مساعد|भाषा मॉडल|सहायक)"
)
_ON = r"[^。．.!?！？।؟\n\"“”«»「」]"  # on within the sentence, and into no quotation
# From the beginning of a sentence, with no quotation mark before the claim.
_SENTENCE = r"""(?:^|(?<=[.!?]))[^"“”„«»‘.!?\n]*?(?<!')"""
_NO_MORE = r"(?=\**\s*(?:[.!?…]|$)|\**,\s+(?:how|what|wie|comment|cómo|come|como|hoe)\b)"


@lru_cache(maxsize=64)
def _claims(labels: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    """What finds claims of being a known assistant or one of a trial's models. The first of them
    finds any of the names: most answers have none, and need no further look."""
    mine = "|".join(re.escape(name) for name in sorted(_names(labels), key=len, reverse=True))
    words = rf"{_WORDS}|{mine}" if mine else _WORDS
    alone = rf"{_ALONE}|{mine}" if mine else _ALONE
    name = rf"(?P<name>{_PLAIN}|{words})(?!\w)"
    patterns = (
        rf"(?<![A-Za-z0-9])(?:{_PLAIN}|{words})",
        # I'm ChatGPT … — also with an article or a few words between.
        rf"{_AM}{_AN}(?:\w+\s+){{0,2}}?(?P<name>{_PLAIN})\b",
        # I am Claude. I'm hermes, how can I help?
        rf"{_SENTENCE}{_I_AM}(?P<name>{alone}){_NO_MORE}",
        # I am Hermes, an AI assistant …
        rf"{_AM}(?:the\s+)?(?P<name>{words})(?=[\s*,(—–-]+{_AN}(?:\w+\s+){{0,2}}?{_MACHINE}\b)",
        # I'm Claude, made by Anthropic
        rf"{_AM}(?P<name>{words})(?=[\s*,(—–-]+{_MADE}(?:{_PLAIN}|{words})(?!\w))",
        rf"{_AM}(?:{_PLAIN}|{words})[\s*,(—–-]+{_MADE}{name}",
        # I am an AI assistant named Hermes
        rf"{_AM}{_AN}(?:\w+\s+){{0,2}}?{_MACHINE}(?:\s+\w+){{0,3}}?\s+(?:named|called|known as"
        rf"|namens|nommée?|appelée?|llamad[oa]|chiamat[oa]|chamad[oa]|genaamd)\s+{name}",
        # … language model trained by Google; an AI made by OpenAI
        rf"\b{_MACHINE}(?:\s+\w+){{0,6}}?,?\s+{_MADE}(?:the\s+team\s+at\s+)?{name}",
        # I was created by OpenAI; ich wurde von OpenAI entwickelt; my developers at OpenAI
        rf"{_I_WAS}{_MADE}{name}",
        rf"\bich wurde von\s+\**(?P<name>{_MAKERS})\b",
        rf"{_MY_MAKERS}\s+\**(?:the\s+team\s+at\s+)?(?P<name>{_MAKERS})\b",
        # 我是ChatGPT; Я создан OpenAI; 私はClaudeです; 저는 Google에서 개발한 언어 모델입니다
        rf"{_I_AM_ELSEWHERE}{_ON}{{0,16}}?(?P<name>{_PLAIN})(?![A-Za-z0-9])",
        rf"{_I_AM_ELSEWHERE}(?P<name>{alone})(?!\s?[A-Za-z0-9])",
        *(  # the first name and the last: the model's, and its maker's
            rf"{_I_AM_ELSEWHERE}(?={_ON}{{0,60}}{_MACHINE_ELSEWHERE}){reach}"
            rf"(?<![A-Za-z0-9])(?P<name>{_PLAIN}|{words})(?![A-Za-z0-9])"
            for reach in (f"{_ON}{{0,60}}?", f"{_ON}{{0,60}}")
        ),
    )
    return tuple(re.compile(pattern, re.IGNORECASE | re.MULTILINE) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class Masked:
    """A text fit to be shown, and how many claims were masked in it."""

    text: str
    claims: int


def mask_identity(text: str, labels: Sequence[str]) -> Masked:
    """Replace what tells the writer's identity; `labels` are the models' labels and sources."""
    any_name, *claiming = _claims(tuple(labels))
    if not any_name.search(text):
        claiming = []
    spans = [match.span("name") for claim in claiming for match in claim.finditer(text)]
    for name in _own_names(labels):
        pattern = rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])"
        spans += [match.span() for match in re.finditer(pattern, text, re.IGNORECASE)]
    shown, claims, end = [], 0, 0
    for start, stop in sorted(spans):
        if stop <= end:
            continue
        if start >= end:
            shown.append(text[end:start] + MASK)
            claims += 1
        end = stop
    return Masked("".join([*shown, text[end:]]), claims)


def _names(labels: Sequence[str]) -> set[str]:
    """The labels, and of folders and Hub ids the last part."""
    return {part for label in labels for part in (label, label.rpartition("/")[2]) if part}


def _own_names(labels: Sequence[str]) -> set[str]:
    """The labels that cannot be ordinary words: those with a digit, a slash or a hyphen inside."""
    return {name for name in _names(labels) if len(name) >= 5 and re.search(r"[0-9/_-]", name)}
