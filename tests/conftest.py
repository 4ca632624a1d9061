"""What every test may rely on: a quiet, offline environment and a real Chromium."""

import os
import tempfile

import pytest
from hypothesis import settings

from tools import chromium

# Before anything imports gradio or huggingface_hub: both read these once.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

# What lasts goes nowhere near the repository's own data folder.
os.environ["STUDIO_DATA"] = tempfile.mkdtemp(prefix="studio-tests-")

# How long an example takes is the machine's affair, not the code's.
settings.register_profile("studio", deadline=None)
settings.load_profile("studio")


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """The Chromium for browser tests. Fails, rather than skips, where there is none."""
    path = chromium.find()
    if path is None:
        pytest.fail(chromium.HOW_TO, pytrace=False)
    return path
