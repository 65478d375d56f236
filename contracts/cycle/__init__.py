"""The exam cycle as data. The services read a cycle once, at start, and pass it about."""

from contracts.cycle.cycle import Cycle, Notice
from contracts.cycle.desks import (
    Document,
    Employer,
    PhotoRules,
    ProcessedPhoto,
    ReviewLevel,
    Site,
    SourcePhoto,
)
from contracts.cycle.exam import Fee, Level, Mode, Paper, Returning, Specialty, Subject, Switches
from contracts.cycle.problems import CycleInvalid, Finding, Problem
from contracts.cycle.windows import DailyHours, Interval, PaymentWindow, QuietHours, Window, Windows

__all__ = [
    "Cycle",
    "CycleInvalid",
    "DailyHours",
    "Document",
    "Employer",
    "Fee",
    "Finding",
    "Interval",
    "Level",
    "Mode",
    "Notice",
    "Paper",
    "PaymentWindow",
    "PhotoRules",
    "Problem",
    "ProcessedPhoto",
    "QuietHours",
    "Returning",
    "ReviewLevel",
    "Site",
    "SourcePhoto",
    "Specialty",
    "Subject",
    "Switches",
    "Window",
    "Windows",
]
