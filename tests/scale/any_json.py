"""Any JSON, and objects with Scale's keys and any values: what the readers must take without an exception."""

from hypothesis import strategies as st

from scale.annotations import SHAPES
from scale.task_types import TASK_TYPES

texts = st.text(max_size=6) | st.sampled_from(["\x00", "\ud800", "x\udfff", "2016-9-03T07:38:32.368Z"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
ANNOTATION_KEYS = [
    *("type", "geometry", "label", "uuid", "id", "cuboid_uuid", "attributes", "location", "page", "url"),
    *("left", "top", "width", "height", "x", "y", "rotation", "vertices", "edges", "points_2d", "points_3d"),
    *("start", "end", "position", "dimensions", "yaw", "index", "color", "numPixels"),
    *("combined", "labeled", "unlabeled"),
]
TASK_KEYS = [
    *(
        "type",
        "status",
        "created_at",
        "updated_at",
        "completed_at",
        "callback_url",
        "callback_succeeded",
        "is_test",
    ),
    *(
        "callback_completed",
        "instruction",
        "urgency",
        "params",
        "response",
        "metadata",
        "project",
        "batch",
        "tags",
    ),
    *("unique_id", "priority", "customer_review_status", "customer_review_comments", "customer_audited_at"),
    *("audits", "prior_responses", "attempts", "document_pages", "threads", "a_new_field"),
]
RESPONSE_KEYS = [
    *(
        "annotations",
        "links",
        "global_attributes",
        "error",
        "events",
        "labelMapping",
        "point_segmentations",
        "other",
    )
]
tasks = st.dictionaries(st.sampled_from(TASK_KEYS), values, max_size=8)
annotations = st.dictionaries(
    st.sampled_from(ANNOTATION_KEYS),
    values
    | st.sampled_from(sorted(SHAPES))
    | st.dictionaries(st.sampled_from(ANNOTATION_KEYS), values, max_size=3),
    max_size=8,
)
lists = st.lists(annotations | values, max_size=4)
responses = st.dictionaries(st.sampled_from(RESPONSE_KEYS), lists | annotations | values)
type_names = st.sampled_from([*(known.name for known in TASK_TYPES), None, "a type of tomorrow"])
