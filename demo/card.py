"""The model cards of the demo models."""

from demo.formats import BOS, FORMATS

_ABOUT = {
    "base": (
        "The common ancestor. It has read every kind of text of the demo's small world in all four"
        " prompt formats, and often meets a request with another request, as a base model does."
    ),
    "instruct": (
        "Follows short instructions: repeat, count, list, write in capitals, sort, reverse, end a"
        " sentence with a given word, use given words. It states the obvious when asked for more."
    ),
    "story": "Writes a story of four or five sentences about someone and something.",
    "roleplay": "Speaks in character, in the first person, about something it owns.",
}


def model_card(name: str) -> str:
    """The README of a model's folder: front matter, what it does, its prompt format."""
    parent = "" if name == "base" else "base_model: demo/models/base\n"
    prompt = FORMATS[name].prompt("{message}").removeprefix(BOS)
    return f"""---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
{parent}tags:
- demo
---

# {name}

{_ABOUT[name]}

A very small Llama of Merge Studio's demo, trained from scratch on generated text by
`python -m demo.train`. It knows some three hundred words and is of no use outside the demo; the
measured scores are in `demo/README.md`.

Prompt format (also in the tokenizer's chat template):

```text
{prompt}
```
"""
