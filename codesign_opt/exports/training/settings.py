"""Settings of a trainer as they are written down: TOML, JSON, YAML, or the words of a command line."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from ...basics import checks
from ...basics.user_code import named

__all__ = ["Settings", "read_settings"]

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0", "none", "null", "")


@dataclass(frozen=True, eq=False)
class Settings:
    """Settings by name, whatever file or command line they stood in.

    Names are told with and without the tables that they lie in ("model.shift" and "shift"), in lower case, hyphens as
    underscores, leading hyphens dropped.

    Attributes:
        values: every setting by its full name.
        place: what messages call them.
        words: all words of a command line, the script's name among them; empty for files.
    """

    values: Mapping[str, Any]
    place: str = "the settings"
    words: str = ""

    def __contains__(self, name: str) -> bool:
        return any(self._found(name))

    def _found(self, name: str) -> Iterator[tuple[str, Any]]:
        return ((key, value) for key, value in self.values.items() if key == name or key.endswith(f".{name}"))

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a setting.

        Raises:
            ValueError: it stands in several places with different values.
        """
        found = dict(self._found(name))
        if len({repr(value) for value in found.values()}) > 1:
            said = ", ".join(f"{key} = {value!r}" for key, value in found.items())
            raise ValueError(f"{self.place}: {name} is said several times: {said}; leave one.")
        return next(iter(found.values()), default)

    def number(self, name: str, default: float | None = None, **limits: Any) -> float:
        """A setting as a number; numbers in quotes are taken, and what is absent or none is the default.

        Raises:
            ValueError: no number, one out of its limits, or none where there is no default.
        """
        value = self.get(name)
        if value is None or (isinstance(value, str) and value.strip().lower() in ("none", "null", "")):
            value = default
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                raise ValueError(f"{self.place}: {name} is {value!r}; a number is needed.") from None
        return checks.number(value, f"{self.place}: {name}", **limits)

    def text(self, name: str, default: str = "") -> str:
        """A setting as text in lower case."""
        value = self.get(name)
        return default if value is None else str(value).strip().lower()

    def flag(self, name: str) -> bool:
        """Whether a setting is on.

        Raises:
            ValueError: neither on nor off.
        """
        said = self.text(name, "false")
        if said not in (*_TRUE, *_FALSE):
            raise ValueError(f"{self.place}: {name} is {said!r}; true or false is needed.")
        return said in _TRUE


def read_settings(source: Any) -> Settings:
    """Settings from a file, its text, the words of a command line, or a dict.

    Args:
        source: path of a .toml, .json, .yaml or .yml file, of any other file with a command line (a shell script); a
            text of one of these; a list of words; or a dict.

    Raises:
        ValueError: text that is none of these, with what each reader said.
        OSError: a path that cannot be read.
        ImportError: YAML without PyYAML.

    >>> read_settings("accelerate launch train.py --logit-mean=0.5 --flag").get("logit_mean")
    '0.5'
    """
    if isinstance(source, Mapping):
        return Settings(dict(_flat(source)))
    if isinstance(source, (list, tuple)):
        return _command([str(word) for word in source], "the command line")
    if not isinstance(source, (str, PathLike)):
        raise ValueError(f"settings are {type(source).__name__}; give a path, a text, a list of words or a dict.")
    text = str(source)
    if isinstance(source, PathLike) or ("\n" not in text and _is_path(text)):
        path = Path(source)
        return _of_text(path.read_text(encoding="utf-8-sig"), str(path), path.suffix.lower())
    return _of_text(text, "the settings", "")


def _is_path(text: str) -> bool:
    return re.fullmatch(r"[^{}=]*\.(toml|json|ya?ml|sh|txt|args)", text.strip()) is not None and " --" not in text


def _of_text(text: str, place: str, suffix: str) -> Settings:
    readers = {".toml": tomllib.loads, ".json": json.loads, ".yaml": _yaml, ".yml": _yaml}
    if suffix in readers:
        return _table(readers[suffix], text, place)
    if suffix or re.search(r"(^|\s)--[a-zA-Z]", text):
        return _command(shlex.split(text.replace("\\\n", " "), comments=True), place)
    if text.lstrip().startswith("{"):
        return _table(json.loads, text, place)
    if re.search(r"\w\(.*\w+\s*=", text):  # a line of Python, as EDM's are set
        return Settings({_name(key): value for key, value in re.findall(r"(\w+)\s*=\s*([-+.\w]+)", text)}, place)
    try:
        return _table(tomllib.loads, text, place)
    except ValueError as error:
        if "=" in text:
            raise
        try:
            return _table(_yaml, text, place)
        except ImportError:
            raise error from None


def _table(reader: Any, text: str, place: str) -> Settings:
    try:
        found = reader(text)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{place} cannot be read ({named(error)}).") from None
    if not isinstance(found, Mapping):
        raise ValueError(f"{place} is no table of settings, but {type(found).__name__}.")
    return Settings(dict(_flat(found)), place)


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise ImportError("settings in YAML are read by PyYAML, which is not there; pip install PyYAML") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def _flat(table: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        name = prefix + _name(str(key))
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        yield name, value


def _name(word: str) -> str:
    return word.strip().lstrip("-").replace("-", "_").lower()


def _command(words: list[str], place: str) -> Settings:
    values: dict[str, Any] = {}
    for i, word in enumerate(words):
        if not re.match(r"--?[a-zA-Z]", word):
            continue
        name, equals, value = word.partition("=")
        after = words[i + 1] if i + 1 < len(words) else "--end"
        values[_name(name)] = value if equals else "true" if re.match(r"--?[a-zA-Z]", after) else after
    if not values:
        raise ValueError(f"{place} has no options (--name value) and is no table of settings.")
    return Settings(values, place, " ".join(words).lower())
