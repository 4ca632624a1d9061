"""The Chromium that browser tests drive. `python -m tools.chromium` gets one if none is found."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOW_TO = (
    "no working Chromium found: install Debian's package `chromium`, or Google Chrome, "
    "or set STUDIO_CHROMIUM to the path of a Chromium"
)


def find() -> str | None:
    """The path of a Chromium that starts: STUDIO_CHROMIUM, CHROMIUM, the system's, Playwright's."""
    named = os.environ.get("STUDIO_CHROMIUM") or os.environ.get("CHROMIUM")
    candidates = [named] if named else [path for name in NAMES if (path := shutil.which(name))]
    for path in candidates:
        if _starts(path):
            return path
    return None if named else _playwrights_own()


def _starts(path: str) -> bool:
    # Ubuntu's chromium-browser is a script that only asks for a snap.
    try:
        return subprocess.run([path, "--version"], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _playwrights_own() -> str | None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if _starts(path) else None


def _install() -> str:
    """Try what can be done here; why it failed, in a few words, or an empty string."""
    is_root = os.geteuid() == 0
    release = Path("/etc/os-release")
    is_debian = release.exists() and "ID=debian" in release.read_text().splitlines()
    if is_root and is_debian and shutil.which("apt-get"):
        print("[setup] installing Debian's chromium", flush=True)
        subprocess.run(["apt-get", "update", "-qq"], check=False)
        apt = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"]
        if subprocess.run(apt, stdout=subprocess.DEVNULL, check=False).returncode == 0:
            return ""
    print("[setup] downloading a Chromium with Playwright", flush=True)
    playwright = [sys.executable, "-m", "playwright", "install", "chromium"]
    command = playwright + ["--with-deps"] * is_root
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in (done.stderr + done.stdout).splitlines() if "Error" in line]
    return f" (Playwright: {said[0].strip()})" if done.returncode and said else ""


def main() -> None:
    """Install a Chromium unless one is found; exit with one line if that fails."""
    if find() is None:
        named = os.environ.get("STUDIO_CHROMIUM") or os.environ.get("CHROMIUM")
        why = "" if named else _install()
        if find() is None:
            sys.exit(f"[setup] {HOW_TO}{why}")


if __name__ == "__main__":
    main()
