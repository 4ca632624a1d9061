"""Amounts of bytes in words."""


def size_text(count: float) -> str:
    """Bytes for people: "41.30 GB", "5.7 MB"."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
