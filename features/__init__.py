"""What comes out: snippet features of whole videos, their store, exports, heads and metrics."""

from .annotations import Annotations, read_annotations, snippet_labels
from .demo import DemoReport, run_demo
from .evaluation.evaluate import METRICS, EvaluationReport, evaluate_files
from .evaluation.evaluators import EvaluationOptions
from .exports import FORMATS, ExportReport, export_store, export_tree
from .extraction.encoder import Encoder, encoder_of_run
from .extraction.extract import ExtractReport, extract_features
from .extraction.own_encoder import encoder_of_module, encoder_of_program
from .extraction.predict import predict_frames, predictor_of_runs
from .extraction.windows import average_windows
from .heads import TrainedHead, read_public_head
from .pictures.boundaries import (
    BoundaryReport,
    NeighbourPairs,
    compare_boundaries,
    draw_boundaries,
    neighbour_pairs,
)
from .pictures.figure import BLUE, INK, RED, SOFT, new_figure, style_axes, write_figure
from .pictures.retimed import measure_equivariance
from .pictures.similarity import SimilarityReport, compare_similarity, draw_similarity
from .pictures.timeline_figures import draw_timeline_figures
from .pictures.timeline_page import draw_timelines
from .probing.detection_heads import DETECTION_HEADS
from .probing.detections import DetectedVideo, Detection, read_detections, write_detections
from .probing.predictions import frame_detections, write_frame_detections, write_frame_scores
from .probing.probe import check_kept, keep, probe
from .probing.probe_detection import DetectionReport, probe_detection
from .probing.probe_frames import HEADS, ProbedVideo, ProbeReport, probe_store, score_head
from .store.check import VerifyReport, describe_store, verify_store
from .store.difference import DiffReport, compare_stores
from .store.feature_store import FeatureStore
from .store.spec import FeatureSpec, parse_rate
from .store.stored import StoredVideo, rows_digest
from .store.window_dataset import SnippetWindows

__all__ = [
    "BLUE",
    "DETECTION_HEADS",
    "FORMATS",
    "HEADS",
    "INK",
    "METRICS",
    "RED",
    "SOFT",
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
    "NeighbourPairs",
    "ProbeReport",
    "ProbedVideo",
    "SimilarityReport",
    "SnippetWindows",
    "StoredVideo",
    "TrainedHead",
    "VerifyReport",
    "average_windows",
    "check_kept",
    "compare_boundaries",
    "compare_similarity",
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
    "measure_equivariance",
    "neighbour_pairs",
    "new_figure",
    "parse_rate",
    "predict_frames",
    "predictor_of_runs",
    "probe",
    "probe_detection",
    "probe_store",
    "read_annotations",
    "read_detections",
    "read_public_head",
    "rows_digest",
    "run_demo",
    "score_head",
    "snippet_labels",
    "style_axes",
    "verify_store",
    "write_detections",
    "write_figure",
    "write_frame_detections",
    "write_frame_scores",
]
