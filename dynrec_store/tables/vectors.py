"""Contents and vectors, with their history."""

from pgvector.sqlalchemy import HALFVEC, Vector
from sqlalchemy import BigInteger, Column, Double, Index, Integer, LargeBinary, PrimaryKeyConstraint, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR

from dynrec_store.tables.base import CLOCK, CREATED_AT, REPLACED_AT, TIME, metadata

VALID_FROM = "since when it is true in the world"
VALID_TO = "until when it was true in the world"
EMBEDDING = "the vector; null: it is stored in half precision"
HALF = "the vector in half precision, where it is stored so"
ENDED = "_forget_old_history: what ended before a moment; reads as of a moment: what was replaced since"
STATE = "one decayed sum of item vectors for each half-life, or for each head of a learned model, as at reference_time"
HALF_LIVES = "those of the recommender when this was made, in seconds; none for a learned model"
CONTEXTS = "learned model: what the item adds to a user, one vector for each head"
WEIGHTS = "learned model: the sum of weights behind each vector of state"

item_content = Table(
    "item_content",
    metadata,
    Column("recommender_id", Integer, nullable=False),
    Column("item_id", Text, nullable=False),
    PrimaryKeyConstraint("item_id", "recommender_id"),
    Column("content_hash", LargeBinary, nullable=False, comment="sha256 of the text that was encoded"),
    Column("document", TSVECTOR, nullable=False),
    Column("features", JSONB, nullable=False, comment="the numeric and categorical columns"),
    Column("valid_from", TIME, nullable=False, comment=VALID_FROM),
    Column("created_at", TIME, nullable=False, server_default=CLOCK, comment=CREATED_AT),
    Index(
        "item_content_hash",
        "content_hash",
        "recommender_id",
        info={"comment": "_read_items: an item with an equal text, whose vector can be copied"},
    ),
    Index(
        "item_content_document",
        "document",
        postgresql_using="gin",
        info={"comment": "search: the full-text half"},
    ),
    comment="What an item's source row said when it was last read.",
)

item_content_history = Table(
    "item_content_history",
    metadata,
    Column("recommender_id", Integer, primary_key=True),
    Column("item_id", Text, primary_key=True),
    Column("content_hash", LargeBinary, nullable=False),
    Column("features", JSONB, nullable=False),
    Column("valid_from", TIME, nullable=False, comment=VALID_FROM),
    Column("valid_to", TIME, primary_key=True, comment=VALID_TO),
    Column("created_at", TIME, nullable=False, comment=CREATED_AT),
    Column("replaced_at", TIME, nullable=False, comment=REPLACED_AT),
    Index(
        "item_content_history_ended",
        "valid_to",
        "replaced_at",
        postgresql_using="brin",
        postgresql_with={"autosummarize": "on"},
        info={"comment": ENDED},
    ),
    postgresql_partition_by="RANGE (valid_to)",
    comment="What item_content said before; one partition a month.",
)

item_vector = Table(
    "item_vector",
    metadata,
    Column("model_id", Integer, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("embedding", Vector, comment=EMBEDDING),
    Column("valid_from", TIME, nullable=False, comment=VALID_FROM),
    Column("created_at", TIME, nullable=False, server_default=CLOCK, comment=CREATED_AT),
    Column("contexts", ARRAY(Vector), comment=CONTEXTS),
    Column("half", HALFVEC, comment=HALF),
    PrimaryKeyConstraint("item_id", "model_id"),
    postgresql_partition_by="LIST (model_id)",
    comment="The current vector of each item; partition item_vector_N belongs to model version N.",
)

item_vector_history = Table(
    "item_vector_history",
    metadata,
    Column("model_id", Integer, primary_key=True),
    Column("item_id", Text, primary_key=True),
    Column("embedding", Vector, comment=EMBEDDING),
    Column("valid_from", TIME, nullable=False, comment=VALID_FROM),
    Column("valid_to", TIME, primary_key=True, comment=VALID_TO),
    Column("created_at", TIME, nullable=False, comment=CREATED_AT),
    Column("replaced_at", TIME, nullable=False, comment=REPLACED_AT),
    Column("contexts", ARRAY(Vector), comment=CONTEXTS),
    Column("half", HALFVEC, comment=HALF),
    Index(
        "item_vector_history_ended",
        "valid_to",
        "replaced_at",
        postgresql_using="brin",
        postgresql_with={"autosummarize": "on"},
        info={"comment": ENDED},
    ),
    postgresql_partition_by="RANGE (valid_to)",
    comment="The item vectors of before; one partition a month.",
)

user_vector = Table(
    "user_vector",
    metadata,
    Column("model_id", Integer, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("state", ARRAY(Vector), nullable=False, comment=STATE),
    Column("half_lives", ARRAY(Double), nullable=False, comment=HALF_LIVES),
    Column("reference_time", TIME, nullable=False),
    Column("event_count", BigInteger, nullable=False),
    Column("valid_from", TIME, nullable=False, comment=VALID_FROM),
    Column("created_at", TIME, nullable=False, server_default=CLOCK, comment=CREATED_AT),
    Column("weights", ARRAY(Double), comment=WEIGHTS),
    PrimaryKeyConstraint("user_id", "model_id"),
    postgresql_partition_by="LIST (model_id)",
    comment="The current vector of each user; partition user_vector_N belongs to model version N.",
)

user_vector_history = Table(
    "user_vector_history",
    metadata,
    Column("model_id", Integer, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("state", ARRAY(Vector), nullable=False, comment=STATE),
    Column("half_lives", ARRAY(Double), nullable=False, comment=HALF_LIVES),
    Column("reference_time", TIME, nullable=False),
    Column("event_count", BigInteger, nullable=False),
    Column("valid_from", TIME, nullable=False, comment=VALID_FROM),
    Column("valid_to", TIME, primary_key=True, comment=VALID_TO),
    Column("created_at", TIME, nullable=False, comment=CREATED_AT),
    Column("replaced_at", TIME, nullable=False, comment=REPLACED_AT),
    Column(
        "closing_events",
        JSONB,
        nullable=False,
        comment="the interactions that the next version folded in, with captured_at: reads as of between need them",
    ),
    Column("weights", ARRAY(Double), comment=WEIGHTS),
    Index(
        "user_vector_history_ended",
        "valid_to",
        "replaced_at",
        postgresql_using="brin",
        postgresql_with={"autosummarize": "on"},
        info={"comment": ENDED},
    ),
    postgresql_partition_by="RANGE (valid_to)",
    comment="The user vectors of before; one partition a month.",
)
