"""As much of PromQL as the tests need: what an expression names, and what it compares."""

import re

_STRING = r'"[^"]*"|\'[^\']*\''
_NOT_NAMES = re.compile(
    rf"""{_STRING}
    | \{{ [^}}]* \}}                       # matchers of labels
    | \[ [^\]]* \]                         # windows
    | \b (?: by | without | on | ignoring | group_left | group_right ) \s* \( [^)]* \)
    """,
    re.VERBOSE,
)
_NAME = re.compile(r"(?<![\w.:$])[a-zA-Z_:][\w:]*(?!\s*\()(?![\w:])")
_KEYWORDS = {
    "and", "or", "unless", "bool", "offset", "atan2", "group_left", "group_right", "inf", "nan",
    "start", "end",
}  # fmt: skip
_COMPARISON = re.compile(rf"({_STRING}|\{{[^}}]*\}})|(==|!=|>=|<=|>|<)(?!\s*bool\b)")
_DURATION = re.compile(rf"({_STRING}|\{{[^}}]*\}})|\b(\d+)([smhd])\b")
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def metric_names(expression: str) -> set[str]:
    """Return the metrics that it reads; not those of a `__name__` matcher."""
    bare = _NOT_NAMES.sub(" ", expression)
    return {name for name in _NAME.findall(bare) if name.lower() not in _KEYWORDS}


def matched(expression: str) -> set[tuple[str, str, str]]:
    """Return what it looks for in labels: metric, label, and each value of `this|that`."""
    return {
        (metric, label, value)
        for metric, matchers in _SELECTOR.findall(expression)
        for label, values in _MATCHER.findall(matchers)
        for value in values.split("|")
    }


def compared(expression: str) -> str:
    """Return it with comparisons that answer 0 or 1 where they would drop what is not so.

    So it has an answer whenever both sides have one and their labels fit together.
    """
    return _COMPARISON.sub(lambda m: m[1] or f"{m[2]} bool", expression)


def quicker(expression: str, factor: int) -> str:
    """Return it with durations that are shorter by `factor`, in milliseconds."""
    return _DURATION.sub(
        lambda m: m[1] or f"{int(m[2]) * _SECONDS[m[3]] * 1000 // factor}ms", expression
    )
