"""The tasks of an application that is named on the command line, for what only they can check."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

from ..errors import InvalidOption

if TYPE_CHECKING:
    from ..tasks import Task


def tasks_of(name: str) -> list[Task[..., object]]:
    """Those of the ``Runner`` or ``Tasks`` that ``MODULE:NAME`` is.

    The module is imported, as a server of web applications does, and nothing of it is started.
    What is imported is what was typed, never what a row of the database says.

    Raises:
        InvalidOption: it cannot be imported, or is neither.
    """
    from ..registrars import Tasks  # only here: they bring an event loop along
    from ..runner import Runner

    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise InvalidOption(f"--app={name} is no MODULE:NAME, such as shop.jobs:runner")
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except (Exception, SystemExit) as error:
        raise InvalidOption(
            f"--app={name} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    finally:
        sys.path.pop(0)
    if isinstance(found, Runner):
        return list(found.tasks.values())
    if isinstance(found, Tasks):
        return list(found)
    raise InvalidOption(f"--app={name} is {type(found).__name__}; give a Runner or Tasks")
