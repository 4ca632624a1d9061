"""The look: system fonts, one accent, the same calm in light and dark. Files lie in web/."""

from pathlib import Path

import gradio as gr

WEB = Path(__file__).parent / "web"
SANS = ("ui-sans-serif", "system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
MONO = ("ui-monospace", "SF Mono", "Cascadia Mono", "Menlo", "Consolas", "monospace")


def script(*names: str) -> str:
    """The scripts as the body of one function, in this order."""
    texts = [(WEB / name).read_text(encoding="utf-8") for name in names]
    return '"use strict";\n' + "\n".join(texts)


def styles() -> str:
    """All style sheets, that of every tab before those of one, which may say otherwise."""
    sheets = sorted(WEB.glob("*.css"), key=lambda path: (path.name != "studio.css", path.name))
    return "\n".join(path.read_text(encoding="utf-8") for path in sheets)


def theme() -> gr.themes.Base:
    """Gradio's own parts in the studio's colours."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.teal, neutral_hue=gr.themes.colors.slate, font=SANS,
        font_mono=MONO,
    ).set(
        body_background_fill="#f6f5f1",
        body_background_fill_dark="#14171a",
        body_text_color="#1d2326",
        body_text_color_dark="#e6e8e6",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
    )  # fmt: skip
