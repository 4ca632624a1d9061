"""What the studio can ask of each vLLM worker. Nothing here raises.

A method that raises on one rank leaves the other ranks' replies in vLLM's queue, and every later
call gets a stale one. So each method returns what went wrong, with the caller's nonce. Only the
end of the process goes through: vLLM stops its workers by SystemExit.
"""

from pathlib import Path
from typing import Any

import torch
import xxhash
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

from studio.serve.checksum import Held, checksum, has_whole_words, sums_of_files
from studio.weights import Checkpoint

Reply = dict[str, Any]


class Extension:
    """Mixed into vLLM's Worker: names begin with `studio_` to meet none of its own."""

    rank: int

    def studio_load(self, path: str, nonce: str) -> Reply:
        """Replace this rank's weights by those of the model in the folder."""
        try:
            self.reload_weights(weights_path=path)  # type: ignore[attr-defined]
            return {"rank": self.rank, "nonce": nonce, "problem": ""}
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            try:  # unfinished layers are without memory: give it back, or the engine dies
                model = self.studio_model()
                finalize_layerwise_reload(model, self.model_runner.model_config)  # type: ignore[attr-defined]
            except Exception as second:
                problem += f"; then {type(second).__name__}: {second}"
            return {"rank": self.rank, "nonce": nonce, "problem": problem}

    def studio_state(self, path: str, nonce: str, ranks: int) -> Reply:
        """What this rank holds: digest, bytes, and the checksum of every parameter.

        Beside them the checksums of its share of the model's files, in the engine's dtype, for
        those of all ranks to be compared with.
        """
        try:
            checkpoint = Checkpoint.open(Path(path), path)
            words = has_whole_words((i.shape for i in checkpoint.tensors.values()), ranks)
            parameters = dict(self.studio_model().named_parameters())
            homeless = [n for n, p in parameters.items() if p.is_meta or not p.numel()]
            digest = xxhash.xxh3_128()
            for name, parameter in parameters.items():
                if name not in homeless:
                    digest.update(name.encode())
                    raw = parameter.detach().contiguous().flatten().view(torch.uint8)
                    digest.update(raw.cpu().numpy().data)
            return {
                "rank": self.rank,
                "nonce": nonce,
                "problem": f"no memory behind {homeless[:3]}" if homeless else "",
                "digest": digest.hexdigest(),
                "nbytes": sum(p.nbytes for p in parameters.values()),
                "held": {
                    name: checksum(parameter, words=words)
                    for name, parameter in parameters.items()
                    if name not in homeless
                },
                "files": self.studio_files(checkpoint, ranks, words),
                "fused": getattr(self.studio_model(), "packed_modules_mapping", {}),
            }
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            return {"rank": self.rank, "nonce": nonce, "problem": problem}

    def studio_files(self, checkpoint: Checkpoint, ranks: int, words: bool) -> Held:
        """The checksums of every so-many-th tensor; called by `studio_state`."""
        dtype = self.model_runner.model_config.dtype  # type: ignore[attr-defined]
        names = sorted(checkpoint.tensors)[self.rank :: ranks]
        device = self.device  # type: ignore[attr-defined]
        return sums_of_files(checkpoint, dict.fromkeys(names, dtype), device, words=words)

    def studio_model(self) -> torch.nn.Module:
        """The model of this rank."""
        model = self.model_runner.get_model()  # type: ignore[attr-defined]
        assert isinstance(model, torch.nn.Module)
        return model
