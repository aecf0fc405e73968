"""The OpenAPI document of the routes."""

from __future__ import annotations

from typing import Any

from .. import __version__

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
_NUMBER: Schema = {"type": "number"}
_INTEGER: Schema = {"type": "integer"}
_INSTANT: Schema = {"type": "string", "format": "date-time"}
_INSTANT_OR_NULL: Schema = {"type": ["string", "null"], "format": "date-time"}


def _object(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _or_null(name: str) -> Schema:
    return {"oneOf": [{"$ref": f"#/components/schemas/{name}"}, {"type": "null"}]}


SCHEMAS: Schema = {
    "Status": _object(
        {
            "id": _TEXT,
            "task": _TEXT,
            "state": {"enum": ["blocked", "queued", "running", "completed", "failed", "cancelled"]},
            "status": {
                "type": "string",
                "description": "The state, or scheduled (due later) or retrying (failed before).",
            },
            "reason": _TEXT_OR_NULL,
            "attempt": _INTEGER,
            "crashes": _INTEGER,
            "created_at": _INSTANT,
            "run_at": _INSTANT,
            "started_at": _INSTANT_OR_NULL,
            "finished_at": _INSTANT_OR_NULL,
            "progress": _or_null("Progress"),
            "error": _or_null("Failure"),
            "file": _or_null("File"),
        }
    ),
    "Progress": _object(
        {
            "done": _NUMBER,
            "total": {"type": ["number", "null"]},
            "note": _TEXT_OR_NULL,
            "at": _INSTANT,
        }
    ),
    "Failure": _object({"type": _TEXT, "message": _TEXT}),
    "File": _object({"name": _TEXT, "media_type": _TEXT, "size": _INTEGER}),
    "Cancelled": _object({"answer": {"enum": ["cancelled", "requested", "finished"]}}),
    "Error": _object({"error": _object({"code": _TEXT, "message": _TEXT})}),
}


def status_openapi(prefix: str = "/jobs") -> Schema:
    """The OpenAPI 3.1 document of ``status_routes(prefix=...)``, to be served or merged."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Status of jobs", "version": __version__},
        "paths": _paths(prefix),
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "query": {"type": "apiKey", "in": "query", "name": "token"},
            },
        },
        "security": [{"bearer": []}, {"query": []}],
    }


def _paths(prefix: str) -> Schema:
    one = f"{prefix}/{{job_id}}"
    return {
        one: {"get": _operation("status", "Where the job stands.", _json("Status"))},
        f"{one}/events": {
            "get": _operation(
                "events",
                "Server-sent events: snapshot, state and outcome bring a Status, progress a "
                "Progress; gone says that the job was deleted. Close it at outcome and gone.",
                _content("text/event-stream", _TEXT),
                {"204": {"description": "The outcome was told: nothing more comes."}},
                [{"name": "Last-Event-ID", "in": "header", "schema": _TEXT}],
            )
        },
        f"{one}/result": {
            "get": _operation(
                "result",
                "What the job returned: JSON, or a file to download.",
                {"content": {"application/json": {"schema": {}}, "*/*": {"schema": {}}}},
                {
                    "409": _error("The job is not finished, or did not complete."),
                    "410": _error("The job completed, and its result was not kept."),
                },
            )
        },
        f"{one}/cancel": {
            "post": _operation(
                "cancel",
                "Cancel the job; from the same origin, or with a bearer token.",
                _json("Cancelled"),
            )
        },
    }


def _operation(
    name: str,
    summary: str,
    answer: Schema,
    others: Schema | None = None,
    parameters: list[Schema] | None = None,
) -> Schema:
    job_id = {"name": "job_id", "in": "path", "required": True, "schema": _TEXT}
    return {
        "operationId": f"asyncjobs_{name}",
        "summary": summary,
        "parameters": [job_id, *(parameters or [])],
        "responses": {
            "200": {"description": "As asked.", **answer},
            "401": _error("A token that is malformed or has expired."),
            "403": _error("Not allowed, or a token of somebody else."),
            "404": _error("There is no such job, or not any more."),
            "503": _error("The runner is not running, or its database fails."),
            **(others or {}),
        },
    }


def _json(name: str) -> Schema:
    return _content("application/json", {"$ref": f"#/components/schemas/{name}"})


def _content(media_type: str, schema: Schema) -> Schema:
    return {"content": {media_type: {"schema": schema}}}


def _error(description: str) -> Schema:
    return {"description": description, **_json("Error")}
