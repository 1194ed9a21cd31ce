"""The tables. Columns and keys only; what happens to the rows is decided in pipeline/."""

from models.annotation import Annotation
from models.api_token import ApiToken
from models.artifact import Artifact
from models.audit import AuditEntry
from models.backfill import Backfill
from models.batch import Batch
from models.bulk_action import BulkAction
from models.columns import Base
from models.dataset import Dataset, DatasetItem, DatasetVersion
from models.delivery import Delivery, DeliveryBody
from models.export import Export
from models.follow_up import FollowUp, Join
from models.image_size import ImageSize
from models.job import Job
from models.purge import PurgeLeftover, RetentionRun
from models.request_file import RequestFile
from models.response import Response
from models.runtime_state import (
    CreationPause,
    MissedTask,
    RateLimit,
    SpendCounter,
    WorkerHeartbeat,
    WorkflowPause,
    WorkflowSeen,
)
from models.subscriber import Notification, Subscriber
from models.sync_run import SyncRun
from models.task import Task

__all__ = [
    "Annotation",
    "ApiToken",
    "Artifact",
    "AuditEntry",
    "Backfill",
    "Base",
    "Batch",
    "BulkAction",
    "CreationPause",
    "Dataset",
    "DatasetItem",
    "DatasetVersion",
    "Delivery",
    "DeliveryBody",
    "Export",
    "FollowUp",
    "ImageSize",
    "Job",
    "Join",
    "MissedTask",
    "Notification",
    "PurgeLeftover",
    "RateLimit",
    "RequestFile",
    "Response",
    "RetentionRun",
    "SpendCounter",
    "Subscriber",
    "SyncRun",
    "Task",
    "WorkerHeartbeat",
    "WorkflowPause",
    "WorkflowSeen",
]
