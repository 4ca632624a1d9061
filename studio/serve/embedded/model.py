"""A model that transformers loaded: answers token by token, and log-probabilities."""

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from transformers import AutoModelForCausalLM, AutoTokenizer

from studio.errors import StudioError
from studio.serve.embedded.drawing import next_token
from studio.serve.engine import FinishReason, Piece
from studio.serve.sampling import Sampling


class Model:
    """Several answers may be under way at once, each in a thread: their steps take turns."""

    def __init__(self, path: Path, dtype: str, max_model_len: int | None = None) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        self.dtype = dtype
        self._network = self._read(path)
        self._turn = threading.Lock()
        longest = int(self._network.config.max_position_embeddings)
        if max_model_len is not None and max_model_len > longest:
            raise StudioError(
                f"{path}: max_model_len is {max_model_len}, but the model was made for at most "
                f"{longest} tokens; use a smaller one"
            )
        self.max_model_len = max_model_len or longest

    def _read(self, path: Path) -> Any:
        network: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=getattr(torch, self.dtype), local_files_only=True
        )
        return network.eval()

    def switch(self, path: Path) -> None:
        """Take other weights of the same architecture; on an error the old ones stay."""
        network = self._read(path)
        with self._turn:
            self._network = network

    def parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Every parameter by name."""
        yield from self._network.named_parameters()

    @property
    def nbytes(self) -> int:
        """Bytes of all parameters."""
        return sum(parameter.nbytes for _, parameter in self.parameters())

    def encode(self, text: str, begin: bool) -> list[int]:
        """The tokens of a text, with the begin token if the tokenizer puts one."""
        return list(self.tokenizer(text, add_special_tokens=begin)["input_ids"])

    def answer(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        ends: Collection[int],
        is_cancelled: Callable[[], bool],
    ) -> Iterator[Piece]:
        """The answer to a prompt, a piece for each token, until it ends or is cancelled.

        It ends with the tokenizer's end token, or with one of `ends`.
        """
        room = self.max_model_len - len(prompt)
        if room < 1:
            raise StudioError(
                f"This model's maximum context length is {self.max_model_len} tokens. However, "
                f"your prompt contains {len(prompt)} input tokens; shorten it"
            )
        if prompt and not (0 <= min(prompt) and max(prompt) < self._network.config.vocab_size):
            raise StudioError("the prompt holds token ids that are out of vocabulary")
        text = _Text(self.tokenizer, prompt, sampling.stop)
        limit = min(sampling.max_tokens, room)
        sampling = replace(sampling, max_tokens=limit)
        for token, count in self._tokens(prompt, sampling):
            reason: FinishReason | None = None
            if token == self.tokenizer.eos_token_id or token in ends:
                reason = "stop"
            elif text.take(token):
                reason = "stop"
            elif count == limit:
                reason = "length"
            elif is_cancelled():
                reason = "abort"
            yield Piece(text.ready(is_last=reason is not None), count, reason)
            if reason is not None:
                return

    def _tokens(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(sampling.seed)
        answer: list[int] = []
        cache = None
        fresh = list(prompt)
        while len(answer) < sampling.max_tokens:
            with self._turn, torch.inference_mode():
                out = self._network(torch.tensor([fresh]), past_key_values=cache, use_cache=True)
                cache = out.past_key_values
                token = next_token(out.logits[0, -1], prompt, answer, sampling, generator)
            answer.append(token)
            fresh = [token]
            yield token, len(answer)

    def logprobs(self, tokens: Sequence[int]) -> list[float | None]:
        """ln p of each token given those before it; None for the first."""
        with self._turn, torch.inference_mode():
            logits = self._network(torch.tensor([list(tokens)])).logits[0, :-1].float()
        rows = logits.log_softmax(-1).gather(1, torch.tensor(tokens[1:]).unsqueeze(1))
        return [None, *(float(value) for value in rows[:, 0])]


class _Text:
    """The text of an answer as its tokens come; what may become a stop string is held back."""

    def __init__(self, tokenizer: Any, prompt: Sequence[int], stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer.backend_tokenizer
        self._stream = DecodeStream(ids=list(prompt), skip_special_tokens=True)
        self._stop = stop
        self._held_back = max((len(each) for each in stop), default=1) - 1
        self._text = ""
        self._given = 0

    def take(self, token: int) -> bool:
        """Add a token; True if the text now holds a stop string, and then ends before it."""
        new = self._stream.step(self._tokenizer, token) or ""
        self._text += new
        start = max(len(self._text) - len(new) - self._held_back, 0)
        found = [
            (at + len(each), at) for each in self._stop if (at := self._text.find(each, start)) >= 0
        ]
        if found:
            self._text = self._text[: min(found)[1]]  # the one that was complete first
        return bool(found)

    def ready(self, is_last: bool) -> str:
        """The text that can be given away and was not yet."""
        end = len(self._text) if is_last else max(len(self._text) - self._held_back, self._given)
        new = self._text[self._given : end]
        self._given = end
        return new
