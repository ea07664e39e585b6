"""What a watch would observe of a model, and how; nothing is changed here."""

from calidrift_agent._attach._attachment import Attachment, AttachRequest
from calidrift_agent._attach._chooser import KINDS, Kind, plan_attachment
from calidrift_agent._attach._options import WatchOptions

__all__ = ["KINDS", "AttachRequest", "Attachment", "Kind", "WatchOptions", "plan_attachment"]
