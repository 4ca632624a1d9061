"""A naive Bayes classifier that names a text's style by its words."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

_WORD = re.compile(r"\w+|[^\w\s]")


class StyleClassifier:
    """Multinomial naive Bayes with add-one smoothing and equal priors."""

    def __init__(self, examples: Mapping[str, Sequence[str]]) -> None:
        counts = {
            style: Counter(word for text in texts for word in _WORD.findall(text))
            for style, texts in examples.items()
        }
        self._words = set().union(*counts.values())
        self._logs = {
            style: {
                word: math.log((count[word] + 1) / (count.total() + len(self._words)))
                for word in self._words
            }
            for style, count in counts.items()
        }

    def classify(self, text: str) -> str:
        """The likeliest style of the text; words never seen in training count for none."""
        words = [word for word in _WORD.findall(text) if word in self._words]
        return max(self._logs, key=lambda style: sum(self._logs[style][word] for word in words))
