"""The syntax of labels and label selectors, as Ray checks it.

    {"ray.io/zone": "eu"}     equals          {"zone": "in(eu, us)"}    one of
    {"zone": "!eu"}           differs         {"zone": "!in(eu, us)"}   none of

A key is ``[prefix/]name``. Names and values are up to 63 letters, digits, ``-``, ``_`` and ``.``, with a letter or
digit at both ends; a prefix is a DNS name of up to 253 characters. What a selector selects is the scheduler's part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_WORD = r"[a-zA-Z0-9](?:[a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?"
_DNS_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9_-]{0,61}[a-zA-Z0-9])?"

# Compiled at first use, through re's own cache: most programs never use a label.
_NAME = _WORD
_PREFIX = rf"(?:{_DNS_LABEL})?(?:\.(?:{_DNS_LABEL})?)*"  # empty labels pass, as in Ray
_SELECTOR = rf"!?{_WORD}|!?(?:in)?\({_WORD}(?:\s*,\s*{_WORD})*\)"

_RULE = (
    "{what} must be 63 chars or less beginning and ending with an alphanumeric character ([a-z0-9A-Z]) "
    "with dashes (-), underscores (_),dots (.), and alphanumerics between."
)


def check_label_key(key: str) -> None:
    """ValueError, in Ray's words, unless the key is well-formed."""
    prefix, _, name = key.rpartition("/") if "/" in key else ("", "", key)
    if prefix and (len(prefix) > 253 or not re.fullmatch(_PREFIX, prefix)):
        raise ValueError(
            f"Invalid label key prefix `{prefix}`. Prefix must be a series of DNS labels separated by dots (.), "
            "not longer than 253 characters in total."
        )
    if not re.fullmatch(_NAME, name):
        raise ValueError(f"Invalid label key name `{name}`. {_RULE.format(what='Name')}")


def check_label_value(value: str) -> None:
    """ValueError, in Ray's words, unless the value of a node's label is well-formed."""
    if value and not re.fullmatch(_NAME, value):
        raise ValueError(f"Invalid label key value `{value}`. {_RULE.format(what='Value')}")


def check_label_selector(selector: Mapping[str, Any] | None) -> None:
    """ValueError, in Ray's words, unless all keys and values of the selector are well-formed."""
    for key, value in (selector or {}).items():
        check_label_key(key)
        if value and not re.fullmatch(_SELECTOR, value):
            raise ValueError(
                f"Invalid label selector value `{value}`. The label selector value should contain optional operators "
                f"and a label value. Supported operators are: ! and {{'in'}}. {_RULE.format(what='Value')}"
            )


def check_fallback_strategy(strategies: list[Any] | None) -> None:
    """ValueError, in Ray's words, unless every alternative is a dict with a well-formed ``label_selector``."""
    supported = ["label_selector"]
    for strategy in strategies or ():
        if not isinstance(strategy, dict):
            raise ValueError("Each element in fallback_strategy must be a dictionary.")
        if not strategy:
            raise ValueError("Empty dictionary found in `fallback_strategy`.")
        for option in strategy:
            if option not in supported:
                raise ValueError(f"Unsupported option found: '{option}'. Only {supported} is currently supported.")
        selector = strategy.get("label_selector")
        if selector and not isinstance(selector, dict):
            raise ValueError('The value of "label_selector" must be a dictionary.')
        check_label_selector(selector)
