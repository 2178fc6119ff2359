"""The documents that describe the gateway, and whether something fits what they say."""

import functools
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import best_match

from tests.support.processes import ROOT

_formats = FormatChecker(("uuid",))


@_formats.checks("date-time", raises=ValueError)
def _is_time(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


def read_document(name: str) -> Any:
    """A document of the web folder with every `$ref` replaced by what it points to; KeyError if that is nothing."""
    document = json.loads((ROOT / "web" / name).read_bytes())
    return _resolved(document, document)


def _resolved(document: Any, value: Any) -> Any:
    if isinstance(value, list):
        return [_resolved(document, item) for item in value]
    if not isinstance(value, dict):
        return value
    own = {key: _resolved(document, item) for key, item in value.items() if key != "$ref"}
    if "$ref" not in value:
        return own
    target = document
    for step in value["$ref"].removeprefix("#/").split("/"):
        target = target[step.replace("~1", "/").replace("~0", "~")]
    return _resolved(document, target) | own


@functools.cache
def _validator(schema_text: str) -> Draft202012Validator:
    schema = json.loads(schema_text)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=_formats)


class Schema:
    """A JSON schema, itself a good one, without references."""

    def __init__(self, schema: Any) -> None:
        self._validator = _validator(json.dumps(schema))

    def is_fit(self, value: Any) -> bool:
        """Whether a value fits the schema."""
        return bool(self._validator.is_valid(value))

    def assert_fits(self, value: Any) -> None:
        """AssertionError, saying what is wrong and where, if the value does not fit."""
        if not self._validator.is_valid(value):
            error = best_match(self._validator.iter_errors(value))
            raise AssertionError(f"not as documented: {error.json_path}: {error.message}\nin {value!r}")


OPENAPI = read_document("openapi.json")
ASYNCAPI = read_document("asyncapi.json")

MESSAGES = {name: Schema(message["payload"]) for name, message in ASYNCAPI["channels"]["chat"]["messages"].items()}
# Exactly one kind of frame, of those that the gateway sends.
SENT_FRAME = Schema({"oneOf": [message["payload"] for message in ASYNCAPI["operations"]["sendFrames"]["messages"]]})


def examples_in(value: Any) -> Iterator[tuple[Any, Schema]]:
    """Every example and default in a document, or a part of one, with the schema that it has to fit."""
    if isinstance(value, list):
        for item in value:
            yield from examples_in(item)
    elif isinstance(value, dict):
        examples = value.get("examples", [])
        if "payload" in value:  # a message
            yield from ((example["payload"], Schema(value["payload"])) for example in examples)
        elif "schema" in value:  # a parameter or a body
            several = [example["value"] for example in dict(examples).values()]
            yield from ((value[key], Schema(value["schema"])) for key in ("example",) if key in value)
            yield from ((example, Schema(value["schema"])) for example in several)
        elif isinstance(examples, list):  # a schema
            yield from ((example, Schema(value)) for example in examples)
            yield from ((value[key], Schema(value)) for key in ("default",) if key in value)
        for key, item in value.items():
            if key not in ("example", "examples", "default"):
                yield from examples_in(item)
