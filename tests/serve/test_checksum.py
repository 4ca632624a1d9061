"""Checksums that do not depend on how weights are split over ranks."""

import pytest
import torch

from studio.serve.checksum import MODULUS, checksum, compare, has_whole_words

Sums = dict[str, tuple[int, int]]
FUSED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}


def random(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(*shape).to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_checksum_of_parts_adds_up(dtype: torch.dtype) -> None:
    whole = random(64, 48, dtype=dtype)
    for dim in (0, 1):
        parts = [checksum(part) for part in whole.chunk(4, dim)]
        size, total = checksum(whole)
        assert (size, total) == (64 * 48, sum(part for _, part in parts) % MODULUS)


def test_checksum_of_whole_words_adds_up_too() -> None:
    whole = random(64, 128)
    for ranks in (1, 2, 32):  # one answer for all, or their digests would differ
        assert has_whole_words([(64, 128), (256,), ()], ranks)
        assert not has_whole_words([(64, 128), (64,)], ranks)
    assert not has_whole_words([(64, 128)], 64)
    for dim in (0, 1):
        parts = [checksum(part, words=True)[1] for part in whole.chunk(4, dim)]
        assert sum(parts) % MODULUS == checksum(whole, words=True)[1] != checksum(whole)[1]


def test_checksum_sees_one_changed_bit_and_no_padding() -> None:
    tensor = random(1000, 5000)  # more than one chunk
    padded = torch.cat([tensor, torch.zeros(24, 5000, dtype=tensor.dtype)])
    assert checksum(padded)[1] == checksum(tensor)[1]
    changed = tensor.clone()
    changed.view(torch.int16)[999, 4999] ^= 1
    assert checksum(changed)[1] != checksum(tensor)[1]
    assert checksum(tensor.flip(0)) == checksum(tensor)


def sums(**tensors: torch.Tensor) -> Sums:
    return {name.replace("__", "."): checksum(tensor) for name, tensor in tensors.items()}


def split(ranks: int) -> tuple[list[Sums], Sums]:
    """A small model whole, and as `ranks` ranks hold it; keys and values repeat above 2 ranks."""
    q, k, v = random(16, 8), random(4, 8), random(4, 8)
    norm, table = random(8), random(20, 8)
    files = {
        "a.q_proj.weight": checksum(q), "a.k_proj.weight": checksum(k),
        "a.v_proj.weight": checksum(v), "norm.weight": checksum(norm),
        "table.weight": checksum(table),
    }  # fmt: skip
    rows = torch.cat([table, torch.zeros(4, 8, dtype=table.dtype)]).chunk(ranks)
    held = []
    for rank in range(ranks):
        kept = min(ranks, 2)
        parts = [q.chunk(ranks)[rank], *(t.chunk(kept)[rank * kept // ranks] for t in (k, v))]
        held.append(
            {
                "a.qkv_proj.weight": checksum(torch.cat(parts)),
                "norm.weight": checksum(norm),
                "table.weight": checksum(rows[rank]),
            }
        )
    return held, files


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_agree_with_the_files(ranks: int) -> None:
    found = compare(*split(ranks), FUSED)
    assert (found.wrong, found.verified) == ((), "3 of 3 parameters")


def test_the_digest_is_of_the_weights_alone() -> None:
    """However they are split or fused; and of other weights it is another."""
    made = []
    for seed in (1, 1, 1, 2):
        torch.manual_seed(seed)
        made.append(compare(*split(2 ** len(made) if seed == 1 else 2), FUSED).digest)
    torch.manual_seed(1)
    _, files = split(1)
    made.append(compare([files], files, {}).digest)
    assert len(made[0]) == 32 and made[0] == made[1] == made[2] == made[4] != made[3]


@pytest.mark.parametrize("name", ["a.qkv_proj.weight", "norm.weight", "table.weight"])
def test_a_wrong_rank_is_found(name: str) -> None:
    held, files = split(2)
    size, total = held[1][name]
    held[1][name] = (size, (total + 1) % MODULUS)
    found = compare(held, files, FUSED)
    assert (found.wrong, found.digest) == ((name,), "")


def test_what_has_no_counterpart_is_not_called_checked() -> None:
    held, files = split(2)
    held[0]["extra.weight"] = (3, 17)
    found = compare(held, files, FUSED)
    assert (found.wrong, found.verified, found.digest) == ((), "3 of 4 parameters", "")
