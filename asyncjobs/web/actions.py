"""What may be asked for: the words that ``authorize`` and tokens speak of."""

from __future__ import annotations

STATUS = "status"
"""The snapshot and the stream."""
RESULT = "result"
CANCEL = "cancel"
OPENAPI = "openapi"
"""The description of the routes; it is about no job."""

READING = (STATUS, RESULT)
JOB_ACTIONS = (*READING, CANCEL)
ACTIONS = (*JOB_ACTIONS, OPENAPI)
