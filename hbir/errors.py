"""Errors that speak to people: a stable code, what happened, where (the user's layer name), why, and what to change."""

from __future__ import annotations

__all__ = [
    "BackendError",
    "CalibrationError",
    "ConfigError",
    "FileFormatError",
    "HbError",
    "ImportModelError",
    "IrError",
    "PassError",
    "SimulationError",
    "TrainingError",
]


class HbError(Exception):
    """Base of every error that a user can cause.

    Subclasses fix the hundreds of the code: a code is never reused for another meaning. `str(error)` is one paragraph:
    ``HB0203 at node 'conv1': what; why. Change: lever``.
    """

    family: int = 0

    def __init__(self, number: int, what: str, *, where: str = "", why: str = "", lever: str = "") -> None:
        self.code = f"HB{self.family + number:04d}"
        self.what, self.where, self.why, self.lever = what, where, why, lever
        super().__init__(what)

    def __str__(self) -> str:
        text = self.code
        if self.where:
            text += f" at {self.where}"
        text += f": {self.what}"
        if self.why:
            text += f"; {self.why}"
        if self.lever:
            text += f". Change: {self.lever}"
        return text


class ImportModelError(HbError):
    """HB01xx: a model file that cannot be read, or an operator that cannot be imported."""

    family = 100


class IrError(HbError):
    """HB02xx: a module that is not well formed, or text that is not a module."""

    family = 200


class PassError(HbError):
    """HB03xx: a pass, a pipeline or its options; a proof that does not hold."""

    family = 300


class CalibrationError(HbError):
    """HB04xx: calibration or evaluation data that does not fit the model."""

    family = 400


class BackendError(HbError):
    """HB05xx: a march, or a network that a march cannot run as asked."""

    family = 500


class FileFormatError(HbError):
    """HB06xx: a damaged, truncated or hostile `.hbm` or weight file."""

    family = 600


class SimulationError(HbError):
    """HB07xx: a program that does what no machine may do: reads unwritten memory, misses an event, leaves its memory."""

    family = 700


class ConfigError(HbError):
    """HB08xx: command-line options, configuration files, output folders."""

    family = 800


class TrainingError(HbError):
    """HB09xx: a PyTorch model that cannot be prepared, calibrated, trained or exported as asked."""

    family = 900
