"""The march that models are prepared for: one for the whole process, as in the published workflow."""

from __future__ import annotations

from enum import StrEnum

from hbir.errors import TrainingError
from hbir.march import load_march

__all__ = ["March", "get_march", "set_march"]


class March(StrEnum):
    """The marches by the names that scripts use; each is the name of a march file as well."""

    BAYES = "bayes"
    NASH_E = "nash-e"
    NASH_M = "nash-m"
    NASH_P = "nash-p"
    NASH_H = "nash-h"


_current: list[str] = []


def set_march(march: March | str) -> None:
    """Choose the march. Raises BackendError HB05xx for one that does not exist."""
    name = march.value if isinstance(march, March) else march
    load_march(name)
    _current[:] = [name]


def get_march() -> str:
    """The march that was chosen. Raises TrainingError HB0902 when none was."""
    if not _current:
        what = "no march is set"
        raise TrainingError(
            2, what, why="what integers can do depends on it", lever="call set_march(March.NASH_E) first"
        )
    return _current[0]
