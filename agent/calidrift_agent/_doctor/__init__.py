"""The doctor: attaches to a model of the user, runs a few requests, and says what it found."""

from calidrift_agent._doctor._advice import advise
from calidrift_agent._doctor._examine import Examination, Prescription, examine
from calidrift_agent._doctor._subject import Request, Subject, load_subject
from calidrift_agent._doctor._text import as_document, as_text

__all__ = [
    "Examination",
    "Prescription",
    "Request",
    "Subject",
    "advise",
    "as_document",
    "as_text",
    "examine",
    "load_subject",
]
