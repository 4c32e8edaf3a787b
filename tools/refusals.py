"""The refusals of the command line: each has one number, never used for anything else."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Refusal", "SampleRefusal"]


class Refusal(IntEnum):
    """The last two digits of an HB08xx code; HB0801 is a file or folder that cannot be written."""

    CONFIG_FILE = 10  # the configuration file cannot be read
    CONFIG_SYNTAX = 11  # it is not YAML, or not a table of sections
    UNKNOWN_KEY = 12
    VALUE = 13  # a value of the wrong type or outside its range
    MISSING = 14  # a required key or option is missing
    UNSUPPORTED = 15  # a published key whose effect does not exist here
    CONFLICT = 16  # keys or options that exclude each other
    FILE_KIND = 17  # a file of a kind that the command does not take
    INPUT_NAMES = 18  # names or counts that do not fit the model's inputs
    INPUT_KIND = 19  # an input that cannot be an image
    MODULE_STATE = 20  # a module that is not in the state the command needs
    FUNCTION = 21  # no such model in the file
    FILE = 22  # a file that cannot be read
    SYSTEM = 23  # the operating system refused something
    EXTRA = 24  # a package that only one feature needs is not installed
    LAYERS = 25  # values by layer of another network
    INTERNAL = 99  # a fault of the compiler


class SampleRefusal(IntEnum):
    """The last two digits of an HB04xx code, for data in files; the observers have the numbers below 20."""

    FOLDER = 20  # no such folder
    EMPTY = 21  # no sample in it
    NOT_NPY = 22  # a file that is not an .npy file
    SHAPE = 23
    DTYPE = 24
    COUNT = 25  # inputs with different numbers of samples
    PIXELS = 26  # values that are no pixels
    LABELS = 27  # labels that do not fit the samples or the outputs
    NOT_FINITE = 28
