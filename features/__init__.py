"""What comes out: snippet features of whole videos, their store, exports, heads and metrics."""

from .annotations import Annotations
from .boundaries import BoundaryReport, draw_boundaries
from .check import VerifyReport, describe_store, verify_store
from .demo import DemoReport, run_demo
from .detection_heads import DETECTION_HEADS
from .detections import DetectedVideo, Detection, read_detections, write_detections
from .difference import DiffReport, compare_stores
from .encoder import Encoder, encoder_of_run
from .evaluate import METRICS, EvaluationReport, evaluate_files
from .evaluators import EvaluationOptions
from .exports import FORMATS, ExportReport, export_store, export_tree
from .extract import ExtractReport, extract_features
from .heads import TrainedHead, read_public_head
from .own_encoder import encoder_of_module, encoder_of_program
from .pictures import draw_timelines
from .predict import predict_frames, predictor_of_runs
from .predictions import frame_detections, write_frame_detections, write_frame_scores
from .probe import HEADS, ProbedVideo, ProbeReport, probe_store, score_head
from .probe_any import check_kept, keep, probe
from .probe_detection import DetectionReport, probe_detection
from .similarity import SimilarityReport, draw_similarity
from .spec import FeatureSpec
from .store import FeatureStore
from .stored import StoredVideo, rows_digest
from .timeline_figures import draw_timeline_figures
from .window_dataset import SnippetWindows
from .windows import average_windows

__all__ = [
    "DETECTION_HEADS",
    "FORMATS",
    "HEADS",
    "METRICS",
    "Annotations",
    "BoundaryReport",
    "DemoReport",
    "DetectedVideo",
    "Detection",
    "DetectionReport",
    "DiffReport",
    "Encoder",
    "EvaluationOptions",
    "EvaluationReport",
    "ExportReport",
    "ExtractReport",
    "FeatureSpec",
    "FeatureStore",
    "ProbeReport",
    "ProbedVideo",
    "SimilarityReport",
    "SnippetWindows",
    "StoredVideo",
    "TrainedHead",
    "VerifyReport",
    "average_windows",
    "check_kept",
    "compare_stores",
    "describe_store",
    "draw_boundaries",
    "draw_similarity",
    "draw_timeline_figures",
    "draw_timelines",
    "encoder_of_module",
    "encoder_of_program",
    "encoder_of_run",
    "evaluate_files",
    "export_store",
    "export_tree",
    "extract_features",
    "frame_detections",
    "keep",
    "predict_frames",
    "predictor_of_runs",
    "probe",
    "probe_detection",
    "probe_store",
    "read_detections",
    "read_public_head",
    "rows_digest",
    "run_demo",
    "score_head",
    "verify_store",
    "write_detections",
    "write_frame_detections",
    "write_frame_scores",
]
