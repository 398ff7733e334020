"""Fuzzing with coverage as the guide: atheris (libFuzzer for Python) on a function of bytes.

atheris is no development dependency: it is 35 MB, and there is none for macOS. What is found goes
into tests/fuzz/corpus, which the tests run through without it.
"""

import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
FOUND: Final = ROOT / ".fuzz"
"""Inputs that reached new code, and those that failed, by target. Not committed."""
INPUT_BYTES_MAX: Final = 4096
INPUT_SECONDS_MAX: Final = 10
MEMORY_MIB_MAX: Final = 2048
MISSING: Final = "atheris is not installed: .venv/bin/python -m pip install 'atheris>=3'"


def run(target: str, seconds: int, runs: int) -> int:
    """Fuzz for so many seconds, or runs (0: any number); does not return when it could begin.

    The process ends with an exit code other than 0 when an input fails; libFuzzer says which.
    """
    try:
        import atheris  # noqa: PLC0415 - optional  # pyright: ignore[reportMissingImports]
    except ImportError:
        print(MISSING, file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=["protocol", "server", "tests"]):
        from tests.fuzz.targets import CORPUS, TARGETS  # noqa: PLC0415 - instrumented
    found = FOUND / target
    found.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-runs={runs or -1}",
        f"-max_len={INPUT_BYTES_MAX}",
        f"-timeout={INPUT_SECONDS_MAX}",
        f"-rss_limit_mb={MEMORY_MIB_MAX}",
        f"-artifact_prefix={found}/failed-",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(found), str(CORPUS / target)], TARGETS[target])
    atheris.Fuzz()
    return 0
