"""What comes out: snippet features of whole videos, their store, exports, heads and metrics."""

from .check import VerifyReport, describe_store, verify_store
from .spec import FeatureSpec
from .store import FeatureStore, StoredVideo, rows_digest

__all__ = [
    "FeatureSpec",
    "FeatureStore",
    "StoredVideo",
    "VerifyReport",
    "describe_store",
    "rows_digest",
    "verify_store",
]
