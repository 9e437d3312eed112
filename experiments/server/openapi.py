"""The server's description: by OpenAPI for programs, and of the model for whoever asks."""

import math
from typing import Any

from dwa_jax import __version__
from dwa_jax.finetune.predictor import Prediction
from dwa_jax.finetune.serving.batcher import Batcher
from experiments.server.limits import Limits

_NUMBER, _TRUTH, _STRING = {"type": "number"}, {"type": "boolean"}, {"type": "string"}
_NUMBERS = {"type": "array", "items": _NUMBER}
# Of every field that a prediction may have.
FIELDS: dict[str, dict[str, Any]] = {
    "score": _NUMBER | {"description": "in [-1, 1]"},
    "category": {"type": "integer", "minimum": 0},
    "name": _STRING | {"description": "the category's"},
    "probabilities": _NUMBERS | {"description": "one a category"},
    "in_range": _NUMBER | {"description": "the score in the range that the run was given"},
    "truncated": _TRUTH | {"description": "whether the text lost its end"},
    "interval": _NUMBERS
    | {"minItems": 2, "maxItems": 2, "description": "low and high end for the score"},
    "unlike": _TRUTH | {"description": "whether the text is unlike those trained on"},
    "abstained": _TRUTH,
}
_REASONS = {
    "400": "the body is no JSON, or did not come whole",
    "408": "the request took too long to come",
    "413": "the body, a text or their number is too large",
    "415": "the content-type is another",
    "422": "the body is JSON and not what is asked for; `field` says where",
    "429": "too much waits; retry-after says when to come again",
    "500": "a fault of the server's",
    "503": "the end has begun",
    "504": "the answer took too long",
}


def about(batcher: Batcher, limits: Limits) -> dict[str, Any]:
    """Returns what GET /model answers: what is predicted, and the limits."""
    predictor, width = batcher.predictor, batcher.abstain
    config = predictor.config
    thresholds = predictor.thresholds
    return {
        "tasks": list(config.tasks),
        "categories": config.num_classes,
        "names": list(predictor.names) if predictor.names else None,
        "score_range": list(config.score_range) if config.score_range else None,
        "thresholds": None if thresholds is None else thresholds.tolist(),
        "coverage": predictor.coverage,
        "intervals": predictor.intervals,
        "abstains": width is not None,
        # None too where any interval will do; JSON knows no infinity.
        "abstains_above": width if width is not None and math.isfinite(width) else None,
        "tokens": predictor.run.max_tokens,
        "version": __version__,
        "limits": limits._asdict(),
    }


def description(batcher: Batcher, limits: Limits) -> dict[str, Any]:
    """Returns the description in OpenAPI 3.1."""
    text = _STRING | {"maxLength": limits.characters}
    fields = {name: FIELDS.get(name, {}) for name in Prediction._fields}
    fields["abstained"] = FIELDS["abstained"] | {"description": _abstention(batcher.abstain)}
    schemas = {
        "Prediction": {
            "type": "object",
            "description": "A field is absent where the run has none.",
            "required": ["category", "truncated"],
            "properties": fields,
        },
        "Word": {
            "type": "object",
            "required": ["word"],
            "properties": {
                "word": _STRING,
                "score": {"type": ["number", "null"]},
                "probability": {"type": ["number", "null"]},
            },
        },
        "Error": _object(
            error={
                "type": "object",
                "required": ["status", "reason"],
                "properties": {
                    "status": {"type": "integer"},
                    "reason": _STRING,
                    "field": _STRING,
                },
            },
        ),
        "Text": _object(text=text),
        "Texts": _object(
            texts={"type": "array", "items": text, "minItems": 1, "maxItems": limits.texts}
        ),
        "Predictions": _object(predictions={"type": "array", "items": _ref("Prediction")}),
        "Explanation": _object(
            prediction=_ref("Prediction"), words={"type": "array", "items": _ref("Word")}
        ),
    }
    line = "a line an object {text}; a line a prediction, or {error, line}"
    lines = {"application/x-ndjson": {"schema": _STRING | {"description": line}}}
    paths = {
        "/predict": {
            "post": _post(
                "Predicts texts, in their order",
                _json_of("Texts") | lines,
                _json_of("Predictions") | lines,
            )
        },
        "/explain": {
            "post": _post(
                "Says what each word of a text adds", _json_of("Text"), _json_of("Explanation")
            )
        },
        "/model": {"get": _get("What is predicted, and the limits")},
        "/health": {"get": _get("Whether the process answers")},
        "/ready": {"get": _get("Whether texts are taken")},
        "/metrics": {"get": _get("Counters, as Prometheus reads them", "text/plain")},
        "/openapi.json": {"get": _get("This description")},
        "/": {"get": _get("A page to try the model", "text/html")},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "dwa_jax", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _abstention(width):
    if width is None:
        return "absent: the server was started without --abstain"
    wide = f", or its interval is wider than {width:g}" if math.isfinite(width) else ""
    return f"better not relied on: the text is unlike those trained on{wide}"


def _object(**properties):
    return {"type": "object", "required": list(properties), "properties": properties}


def _ref(name):
    return {"$ref": f"#/components/schemas/{name}"}


def _json_of(name):
    return {"application/json": {"schema": _ref(name)}}


def _post(summary, takes, gives):
    errors = {
        status: {"description": reason, "content": _json_of("Error")}
        for status, reason in _REASONS.items()
    }
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": takes},
        "responses": {"200": {"description": "the answer", "content": gives}} | errors,
    }


def _get(summary, media="application/json"):
    return {
        "summary": summary,
        "responses": {"200": {"description": "the answer", "content": {media: {}}}},
    }
