"""What comes out: snippet features of whole videos, their store, exports, heads and metrics."""

from .check import VerifyReport, describe_store, verify_store
from .demo import DemoReport, run_demo
from .detections import DetectedVideo, Detection, read_detections, write_detections
from .difference import DiffReport, compare_stores
from .encoder import Encoder, encoder_of_run
from .exports import FORMATS, ExportReport, export_store
from .extract import ExtractReport, extract_features
from .pictures import draw_timelines
from .predict import predict_frames, predictor_of_runs
from .probe import HEADS, ProbeReport, probe_store
from .spec import FeatureSpec
from .store import FeatureStore
from .stored import StoredVideo, rows_digest
from .window_dataset import SnippetWindows
from .windows import average_windows

__all__ = [
    "FORMATS",
    "HEADS",
    "DemoReport",
    "DetectedVideo",
    "Detection",
    "DiffReport",
    "Encoder",
    "ExportReport",
    "ExtractReport",
    "FeatureSpec",
    "FeatureStore",
    "ProbeReport",
    "SnippetWindows",
    "StoredVideo",
    "VerifyReport",
    "average_windows",
    "compare_stores",
    "describe_store",
    "draw_timelines",
    "encoder_of_run",
    "export_store",
    "extract_features",
    "predict_frames",
    "predictor_of_runs",
    "probe_store",
    "read_detections",
    "rows_digest",
    "run_demo",
    "verify_store",
    "write_detections",
]
