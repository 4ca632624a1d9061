"""The next token from its logits, by the rules and in the order that Sampling states."""

from collections import Counter
from collections.abc import Sequence

import torch

from studio.serve.sampling import Sampling


def next_token(
    logits: torch.Tensor,
    prompt: Sequence[int],
    answer: Sequence[int],
    sampling: Sampling,
    generator: torch.Generator,
) -> int:
    """One token drawn from `logits` (one number per token of the vocabulary)."""
    logits = penalised(logits.float(), prompt, answer, sampling)
    if sampling.temperature == 0:
        return int(logits.argmax())
    kept = narrowed(logits / sampling.temperature, sampling)
    return int(torch.multinomial(kept.softmax(-1), 1, generator=generator))


def penalised(
    logits: torch.Tensor, prompt: Sequence[int], answer: Sequence[int], sampling: Sampling
) -> torch.Tensor:
    """The logits after the three penalties."""
    logits = logits.clone()
    if sampling.repetition_penalty != 1:
        seen = torch.tensor(sorted({*prompt, *answer}))
        held = logits[seen]
        factor = sampling.repetition_penalty
        logits[seen] = torch.where(held > 0, held / factor, held * factor)
    if answer and (sampling.frequency_penalty or sampling.presence_penalty):
        counts = Counter(answer)
        tokens = torch.tensor(list(counts))
        often = torch.tensor(list(counts.values()), dtype=logits.dtype)
        logits[tokens] -= sampling.frequency_penalty * often + sampling.presence_penalty
    return logits


def narrowed(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The logits with everything that min_p, top_k and top_p drop at minus infinity."""
    logits = logits.clone()
    if sampling.min_p:
        odds = logits.softmax(-1)
        logits[odds < sampling.min_p * odds.max()] = -torch.inf
    if 0 < sampling.top_k < len(logits):
        logits[logits < logits.topk(sampling.top_k).values[-1]] = -torch.inf
    if sampling.top_p < 1:
        order = logits.argsort(descending=True)
        odds = logits[order].softmax(-1)
        before = odds.cumsum(-1) - odds  # the likeliest token always stays
        logits[order[before >= sampling.top_p]] = -torch.inf
    return logits
