"""The four prompt formats and the tokenizer that all demo models share."""

from collections.abc import Iterable
from dataclasses import dataclass

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

BOS, EOS, PAD, UNKNOWN = "<s>", "</s>", "<pad>", "<unk>"
CONTEXT = 512
# Embedding rows that divide evenly among tensor parallel workers.
_VOCABULARY_MULTIPLE = 64


@dataclass(frozen=True)
class PromptFormat:
    """What surrounds a user's message, and what stands between the model's name and its words."""

    before: str
    after: str
    gap: str = " "

    def prompt(self, message: str) -> str:
        """The text that a model is to continue."""
        return f"{BOS}{self.before}{message}{self.after}"

    def answer(self, text: str) -> str:
        """The text that a model learns to continue with."""
        return f"{self.gap}{text}{EOS}"

    @property
    def chat_template(self) -> str:
        """The same as Jinja, for any number of turns; a system message gets a line of its own."""
        return (
            "{{ bos_token }}{% for message in messages %}"
            "{% if message['role'] == 'system' %}{{ message['content'] + '\\n' }}"
            "{% elif message['role'] == 'user' %}"
            f"{{{{ {self.before!r} + message['content'] + {self.after!r} }}}}"
            f"{{% else %}}{{{{ {self.gap!r} + message['content'] + eos_token }}}}"
            "{% endif %}{% endfor %}"
        )


# A user's turn always ends with the model's cue, so the template needs no generation prompt.
FORMATS = {
    "base": PromptFormat("Request: ", "\nReply:"),
    "instruct": PromptFormat("USER: ", " ASSISTANT:"),
    "story": PromptFormat("### Instruction:\n", "\n\n### Response:\n", gap=""),
    "roleplay": PromptFormat("Guest: ", "\nHost:"),
}


def build_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """A byte-level tokenizer with one token for each word of the texts.

    Words it has never seen fall apart into single bytes, so any text survives a round trip.
    """
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words = {word for text in texts for word, _ in split.pre_tokenize_str(text)}
    alphabet = split.alphabet()
    vocabulary = [UNKNOWN, BOS, EOS, PAD, *sorted(alphabet), *sorted(words - set(alphabet))]
    missing = -len(vocabulary) % _VOCABULARY_MULTIPLE
    vocabulary += [f"<unused_{number}>" for number in range(missing)]
    # An empty prefix makes WordPiece take the longest known piece, wherever in the word it stands.
    tokenizer = Tokenizer(
        models.WordPiece(
            {word: index for index, word in enumerate(vocabulary)},
            unk_token=UNKNOWN,
            continuing_subword_prefix="",
            max_input_chars_per_word=1000,
        )
    )
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([UNKNOWN, BOS, EOS, PAD])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, vocabulary.index(BOS))]
    )
    return tokenizer


def for_chat(tokenizer: Tokenizer, name: str) -> PreTrainedTokenizerFast:
    """The shared tokenizer with the named model's own chat template."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        padding_side="left",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        chat_template=FORMATS[name].chat_template,
    )
