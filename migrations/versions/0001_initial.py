"""Create the tables.

Revision ID: 0001
Revises:
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def json() -> sa.types.TypeEngine[Any]:
    return sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "annotations",
        sa.Column("response_id", sa.Uuid(), nullable=False),
        sa.Column("file", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("uuid", sa.String(), nullable=True),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("label", sa.String(), nullable=True),
        sa.Column("frame", sa.BigInteger(), nullable=True),
        sa.Column("attributes", json(), nullable=True),
        sa.Column("geometry", json(), nullable=False),
        sa.Column("warning", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("response_id", "file", "position", name=op.f("pk_annotations")),
    )
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("scopes", json(), nullable=False),
        sa.Column("projects", json(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_tokens")),
        sa.UniqueConstraint("digest", name=op.f("uq_api_tokens_digest")),
    )
    op.create_table(
        "artifacts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("response_id", sa.Uuid(), nullable=False),
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("stored_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("first_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("media_type", sa.String(), nullable=True),
        sa.Column("path", sa.String(), nullable=True),
        sa.Column("annotation_count", sa.Integer(), nullable=True),
        sa.Column("details", json(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("purged_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifacts")),
        sa.UniqueConstraint("response_id", "ordinal", name=op.f("uq_artifacts_response_id_ordinal")),
    )
    with op.batch_alter_table("artifacts", schema=None) as batch_op:
        batch_op.create_index(
            "ix_artifacts_state",
            ["state"],
            unique=False,
            sqlite_where=sa.text("state != 'stored'"),
            postgresql_where=sa.text("state != 'stored'"),
        )
        batch_op.create_index("ix_artifacts_sha256", ["sha256"], unique=False)
        batch_op.create_index("ix_artifacts_task_id", ["task_id"], unique=False)

    op.create_table(
        "audit_log",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("details", json(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_table(
        "batches",
        sa.Column("environment", sa.String(length=8), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("project", sa.String(), nullable=True),
        sa.Column("status", sa.String(), nullable=True),
        sa.Column("details", json(), nullable=True),
        sa.Column("clock", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("environment", "name", name=op.f("pk_batches")),
    )
    op.create_table(
        "bulk_actions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("filters", json(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("expected", sa.Integer(), nullable=False),
        sa.Column("cost", sa.String(), nullable=True),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.Column("after", sa.Uuid(), nullable=True),
        sa.Column("stopped_by", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bulk_actions")),
    )
    op.create_table(
        "dataset_items",
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("response_id", sa.Uuid(), nullable=False),
        sa.Column("response_number", sa.Integer(), nullable=False),
        sa.Column("delivery_id", sa.Uuid(), nullable=True),
        sa.Column("status", sa.String(), nullable=True),
        sa.Column("split", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("version_id", "position", name=op.f("pk_dataset_items")),
    )
    with op.batch_alter_table("dataset_items", schema=None) as batch_op:
        batch_op.create_index("ix_dataset_items_task_id", ["task_id"], unique=False)

    op.create_table(
        "dataset_versions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=True),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("filters", json(), nullable=False),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
        sa.Column("shares", json(), nullable=True),
        sa.Column("split_by", sa.String(), nullable=False),
        sa.Column("classes", json(), nullable=False),
        sa.Column("counts", json(), nullable=False),
        sa.Column("damage", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset_versions")),
        sa.UniqueConstraint("name", "version", name=op.f("uq_dataset_versions_name_version")),
    )
    op.create_table(
        "datasets",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("latest_version", sa.Integer(), nullable=False),
        sa.Column("classes", json(), nullable=False),
        sa.Column("excluded_labels", json(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_datasets")),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("may_create", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("environment", sa.String(length=8), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("headers", json(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("clock", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("event", sa.String(length=32), nullable=True),
        sa.Column("task_id", sa.String(), nullable=True),
        sa.Column("review", json(), nullable=True),
        sa.Column("warnings", json(), nullable=True),
        sa.Column("duplicates", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("dismissed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("purged_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("environment", "sha256", name=op.f("uq_deliveries_environment_sha256")),
    )
    with op.batch_alter_table("deliveries", schema=None) as batch_op:
        batch_op.create_index("ix_deliveries_task_id", ["task_id"], unique=False)
        batch_op.create_index(
            "ix_deliveries_unprocessed",
            ["status", "id"],
            unique=False,
            sqlite_where=sa.text("status != 'processed'"),
            postgresql_where=sa.text("status != 'processed'"),
        )

    op.create_table(
        "delivery_bodies",
        sa.Column("delivery_id", sa.Uuid(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("delivery_id", name=op.f("pk_delivery_bodies")),
        postgresql_partition_by="RANGE (delivery_id)",
    )
    op.create_table(
        "exports",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("format", sa.String(length=32), nullable=False),
        sa.Column("dataset", sa.String(), nullable=True),
        sa.Column("filters", json(), nullable=True),
        sa.Column("options", json(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("tasks_done", sa.Integer(), nullable=False),
        sa.Column("tasks_total", sa.Integer(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("report", json(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exports")),
    )
    op.create_table(
        "follow_ups",
        sa.Column("unique_id", sa.String(length=200), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workflow", sa.String(), nullable=False),
        sa.Column("workflow_digest", sa.String(length=64), nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason_code", sa.String(length=16), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("first_unique_id", sa.String(length=200), nullable=True),
        sa.Column("environment", sa.String(length=8), nullable=False),
        sa.Column("source_task_id", sa.String(), nullable=False),
        sa.Column("source_response_id", sa.Uuid(), nullable=True),
        sa.Column("source_annotation", sa.String(), nullable=True),
        sa.Column("task_type", sa.String(), nullable=False),
        sa.Column("request", json(), nullable=False),
        sa.Column("files", json(), nullable=True),
        sa.Column("task_id", sa.String(), nullable=True),
        sa.Column("depth", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("decided_by", sa.String(), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("notified_state", sa.String(length=16), nullable=True),
        sa.Column("planned_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("unique_id", name=op.f("pk_follow_ups")),
        sa.UniqueConstraint("id", name=op.f("uq_follow_ups_id")),
    )
    with op.batch_alter_table("follow_ups", schema=None) as batch_op:
        batch_op.create_index("ix_follow_ups_first_unique_id", ["first_unique_id", "attempt"], unique=False)
        batch_op.create_index(
            "ix_follow_ups_held_by_limit",
            ["id"],
            unique=False,
            sqlite_where=sa.text("state = 'held' AND reason_code = 'limit'"),
            postgresql_where=sa.text("state = 'held' AND reason_code = 'limit'"),
        )
        batch_op.create_index("ix_follow_ups_source_task_id", ["source_task_id"], unique=False)
        batch_op.create_index("ix_follow_ups_state", ["state", "id"], unique=False)
        batch_op.create_index("ix_follow_ups_step", ["workflow", "step", "planned_at"], unique=False)
        batch_op.create_index("ix_follow_ups_task_id", ["task_id"], unique=False)

    op.create_table(
        "image_sizes",
        sa.Column("address_sha256", sa.String(length=64), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("orientation", sa.Integer(), nullable=False),
        sa.Column("media_type", sa.String(), nullable=False),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("address_sha256", name=op.f("pk_image_sizes")),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("queue", sa.String(length=8), server_default="", nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("enqueue_count", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("lost_leases", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("run_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lease_owner", sa.String(), nullable=True),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("key", name=op.f("uq_jobs_key")),
    )
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.create_index(
            "ix_jobs_dead",
            ["id"],
            unique=False,
            sqlite_where=sa.text("state = 'dead'"),
            postgresql_where=sa.text("state = 'dead'"),
        )
        batch_op.create_index(
            "ix_jobs_due",
            ["queue", "run_at"],
            unique=False,
            sqlite_where=sa.text("state != 'dead'"),
            postgresql_where=sa.text("state != 'dead'"),
        )

    op.create_table(
        "joins",
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("workflow", sa.String(), nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("awaited_step", sa.String(), nullable=False),
        sa.Column("source_task_id", sa.String(), nullable=False),
        sa.Column("source_response_id", sa.Uuid(), nullable=True),
        sa.Column("source_annotation", sa.String(), nullable=True),
        sa.Column("per_response", sa.Boolean(), server_default=sa.text("(false)"), nullable=False),
        sa.Column("expected", sa.Integer(), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fired_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("verdict", sa.String(length=8), nullable=True),
        sa.Column("conclusion", sa.String(length=16), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("result", json(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_joins")),
    )
    with op.batch_alter_table("joins", schema=None) as batch_op:
        batch_op.create_index("ix_joins_opened_at", ["opened_at", "id"], unique=False)
        batch_op.create_index("ix_joins_source_task_id", ["source_task_id"], unique=False)
        batch_op.create_index("ix_joins_workflow", ["workflow", "opened_at"], unique=False)

    op.create_table(
        "notifications",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("subscriber_id", sa.Uuid(), nullable=False),
        sa.Column("event", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("payload", json(), nullable=True),
        sa.Column("delivery_id", sa.Uuid(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", json(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notifications")),
        sa.UniqueConstraint("subscriber_id", "key", name=op.f("uq_notifications_subscriber_id_key")),
    )
    with op.batch_alter_table("notifications", schema=None) as batch_op:
        batch_op.create_index("ix_notifications_subscriber_id", ["subscriber_id", "id"], unique=False)

    op.create_table(
        "request_files",
        sa.Column("recipe", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("media_type", sa.String(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("recipe", name=op.f("pk_request_files")),
    )
    with op.batch_alter_table("request_files", schema=None) as batch_op:
        batch_op.create_index("ix_request_files_sha256", ["sha256"], unique=False)

    op.create_table(
        "responses",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("event", sa.String(length=32), nullable=False),
        sa.Column("delivery_id", sa.Uuid(), nullable=False),
        sa.Column("clock", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("error", json(), nullable=True),
        sa.Column("answer", json(), nullable=True),
        sa.Column("response", sa.JSON(), nullable=True),
        sa.Column("warnings", json(), nullable=True),
        sa.Column("annotation_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("artifact_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_responses")),
        sa.UniqueConstraint("task_id", "digest", name=op.f("uq_responses_task_id_digest")),
        sa.UniqueConstraint("task_id", "number", name=op.f("uq_responses_task_id_number")),
    )
    op.create_table(
        "subscribers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("events", json(), nullable=False),
        sa.Column("filters", json(), nullable=True),
        sa.Column("with_result", sa.Boolean(), server_default=sa.text("(false)"), nullable=False),
        sa.Column("secret", sa.String(), nullable=False),
        sa.Column("headers", json(), nullable=True),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("(true)"), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subscribers")),
    )
    op.create_table(
        "tasks",
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("environment", sa.String(length=8), nullable=False),
        sa.Column("type", sa.String(), nullable=True),
        sa.Column("status", sa.String(), nullable=True),
        sa.Column("project", sa.String(), nullable=True),
        sa.Column("batch", sa.String(), nullable=True),
        sa.Column("unique_id", sa.String(), nullable=True),
        sa.Column("instruction", sa.String(), nullable=True),
        sa.Column("urgency", sa.String(), nullable=True),
        sa.Column("tags", json(), nullable=True),
        sa.Column("priority", sa.BigInteger(), nullable=True),
        sa.Column("metadata", json(), nullable=True),
        sa.Column("params", json(), nullable=True),
        sa.Column("extra", json(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("review_status", sa.String(), nullable=True),
        sa.Column("review_comments", json(), nullable=True),
        sa.Column("reviewed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("callback_succeeded", sa.Boolean(), nullable=True),
        sa.Column("clock", sa.DateTime(timezone=True), nullable=True),
        sa.Column("clock_delivery_id", sa.Uuid(), nullable=True),
        sa.Column("described_clock", sa.DateTime(timezone=True), nullable=True),
        sa.Column("described_delivery_id", sa.Uuid(), nullable=True),
        sa.Column("recalled_clock", sa.DateTime(timezone=True), nullable=True),
        sa.Column("recalled_delivery_id", sa.Uuid(), nullable=True),
        sa.Column("latest_response_id", sa.Uuid(), nullable=True),
        sa.Column("latest_response_clock", sa.DateTime(timezone=True), nullable=True),
        sa.Column("latest_response_delivery_id", sa.Uuid(), nullable=True),
        sa.Column("response_id", sa.Uuid(), nullable=True),
        sa.Column("response_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("replayed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("follow_up_unique_id", sa.String(), nullable=True),
        sa.Column("purged_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_tasks")),
        sa.UniqueConstraint("id", name=op.f("uq_tasks_id")),
    )
    for column, *rest in (("type", "id"), ("project", "id"), ("batch", "id"), ("unique_id",)):
        op.create_index(f"ix_tasks_{column}", "tasks", [sa.text(f"substr({column}, 1, 64)"), *rest])
    op.create_index("ix_tasks_status", "tasks", ["status", "id"])
    if op.get_bind().dialect.name == "postgresql":
        # LZ4 takes less time than to log and write what it saves; PostgreSQL's own compression takes more. Older servers, and
        # some builds, lack LZ4.
        op.execute("""
            DO $$ BEGIN
                EXECUTE 'ALTER TABLE delivery_bodies ALTER COLUMN body SET COMPRESSION lz4';
                EXECUTE 'ALTER TABLE responses ALTER COLUMN response SET COMPRESSION lz4';
            EXCEPTION WHEN feature_not_supported OR syntax_error THEN
                ALTER TABLE delivery_bodies ALTER COLUMN body SET STORAGE EXTERNAL;
            END $$
        """)
        # A body is stored also where its month is missing. env.py makes the months.
        op.execute("CREATE TABLE delivery_bodies_default PARTITION OF delivery_bodies DEFAULT")
        # A later callback of an old task finds room next to its row: without it, it would write to every index of the table.
        op.execute("ALTER TABLE tasks SET (fillfactor = 85)")
    op.create_table(
        "creation_pauses",
        sa.Column("environment", sa.String(length=8), nullable=False),
        sa.Column("paused_by", sa.String(), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("environment", name=op.f("pk_creation_pauses")),
    )
    op.create_table(
        "missed_tasks",
        sa.Column("source", sa.String(length=8), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("missed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("source", "name", "task_id", name=op.f("pk_missed_tasks")),
    )
    op.create_table(
        "purge_leftovers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("responses", json(), nullable=False),
        sa.Column("files", json(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_purge_leftovers")),
    )
    op.create_table(
        "retention_runs",
        sa.Column("name", sa.String(length=16), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("after", sa.Uuid(), nullable=True),
        sa.Column("counts", json(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_retention_runs")),
    )
    op.create_table(
        "rate_limits",
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seconds", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_rate_limits")),
    )
    op.create_table(
        "spend_counters",
        sa.Column("counter", sa.String(), nullable=False),
        sa.Column("period", sa.String(length=10), nullable=False),
        sa.Column("granted", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("counter", "period", name=op.f("pk_spend_counters")),
    )
    op.create_table(
        "sync_runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("requested_by", sa.String(length=16), nullable=False),
        sa.Column("environment", sa.String(length=8), nullable=False),
        sa.Column("project", sa.String(), nullable=True),
        sa.Column("file_digest", sa.String(length=64), nullable=True),
        sa.Column("since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("position", json(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=True),
        sa.Column("seen", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("missing", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("stale", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("repaired", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sync_runs")),
    )
    with op.batch_alter_table("sync_runs", schema=None) as batch_op:
        batch_op.create_index("ix_sync_runs_kind", ["kind", "environment", "id"], unique=False)

    op.create_table(
        "worker_heartbeats",
        sa.Column("worker", sa.String(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("worker", name=op.f("pk_worker_heartbeats")),
    )
    op.create_table(
        "workflow_pauses",
        sa.Column("workflow", sa.String(), nullable=False),
        sa.Column("paused_by", sa.String(), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("workflow", name=op.f("pk_workflow_pauses")),
    )
    op.create_table(
        "workflows_seen",
        sa.Column("workflow", sa.String(), nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("active_from", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("workflow", "step", name=op.f("pk_workflows_seen")),
    )
    op.create_table(
        "backfills",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workflow", sa.String(), nullable=False),
        sa.Column("requested_by", sa.String(), nullable=False),
        sa.Column("filters", json(), nullable=False),
        sa.Column("max_results", sa.Integer(), nullable=True),
        sa.Column("per_minute", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("position", sa.Uuid(), nullable=True),
        sa.Column("evaluated", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("not_ready", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("failed", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("results", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("follow_ups", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_backfills")),
    )
    with op.batch_alter_table("backfills", schema=None) as batch_op:
        batch_op.create_index("ix_backfills_workflow", ["workflow", "id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("backfills", schema=None) as batch_op:
        batch_op.drop_index("ix_backfills_workflow")

    op.drop_table("backfills")
    op.drop_table("workflows_seen")
    op.drop_table("workflow_pauses")
    op.drop_table("worker_heartbeats")
    with op.batch_alter_table("sync_runs", schema=None) as batch_op:
        batch_op.drop_index("ix_sync_runs_kind")

    op.drop_table("sync_runs")
    op.drop_table("spend_counters")
    op.drop_table("rate_limits")
    op.drop_table("retention_runs")
    op.drop_table("purge_leftovers")
    op.drop_table("missed_tasks")
    op.drop_table("creation_pauses")
    op.drop_table("tasks")
    op.drop_table("subscribers")
    op.drop_table("responses")
    with op.batch_alter_table("request_files", schema=None) as batch_op:
        batch_op.drop_index("ix_request_files_sha256")

    op.drop_table("request_files")
    with op.batch_alter_table("notifications", schema=None) as batch_op:
        batch_op.drop_index("ix_notifications_subscriber_id")

    op.drop_table("notifications")
    with op.batch_alter_table("joins", schema=None) as batch_op:
        batch_op.drop_index("ix_joins_workflow")
        batch_op.drop_index("ix_joins_source_task_id")
        batch_op.drop_index("ix_joins_opened_at")

    op.drop_table("joins")
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_index("ix_jobs_due")
        batch_op.drop_index("ix_jobs_dead")

    op.drop_table("jobs")
    op.drop_table("image_sizes")
    with op.batch_alter_table("follow_ups", schema=None) as batch_op:
        batch_op.drop_index("ix_follow_ups_task_id")
        batch_op.drop_index("ix_follow_ups_step")
        batch_op.drop_index("ix_follow_ups_state")
        batch_op.drop_index("ix_follow_ups_source_task_id")
        batch_op.drop_index(
            "ix_follow_ups_held_by_limit",
            sqlite_where=sa.text("state = 'held' AND reason_code = 'limit'"),
            postgresql_where=sa.text("state = 'held' AND reason_code = 'limit'"),
        )
        batch_op.drop_index("ix_follow_ups_first_unique_id")

    op.drop_table("follow_ups")
    op.drop_table("exports")
    op.drop_table("delivery_bodies")
    with op.batch_alter_table("deliveries", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_deliveries_unprocessed",
            sqlite_where=sa.text("status != 'processed'"),
            postgresql_where=sa.text("status != 'processed'"),
        )
        batch_op.drop_index("ix_deliveries_task_id")

    op.drop_table("deliveries")
    op.drop_table("datasets")
    op.drop_table("dataset_versions")
    with op.batch_alter_table("dataset_items", schema=None) as batch_op:
        batch_op.drop_index("ix_dataset_items_task_id")

    op.drop_table("dataset_items")
    op.drop_table("bulk_actions")
    op.drop_table("batches")
    op.drop_table("audit_log")
    with op.batch_alter_table("artifacts", schema=None) as batch_op:
        batch_op.drop_index("ix_artifacts_task_id")
        batch_op.drop_index(
            "ix_artifacts_state",
            sqlite_where=sa.text("state != 'stored'"),
            postgresql_where=sa.text("state != 'stored'"),
        )
        batch_op.drop_index("ix_artifacts_sha256")

    op.drop_table("artifacts")
    op.drop_table("api_tokens")
    op.drop_table("annotations")
