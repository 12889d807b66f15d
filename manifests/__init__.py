"""What goes in: tables of source videos and annotated segments, their readers and checks."""

from .bounded import conform, open_table, read_batches, read_json, read_table
from .build import SourcesReport, build_sources
from .cluster import ray_cluster
from .containers import HEAD_BYTES, container_of
from .demo import DemoVideos, make_demo_videos
from .errors import (
    CheckpointError,
    SeamlineError,
    ShardError,
    StoreError,
    UsageError,
    VideoError,
    VideoUnavailable,
)
from .ffmpeg import run_ffmpeg
from .packets import PacketScan, scan_packets
from .places import at_place, check_bucket, relative_path, resolve_path
from .probe import probe_video
from .progress import Progress, say_rate, say_seconds
from .recipe_tables import build_record, read_recipe_table
from .records import SourceVideo
from .signals import stop_on_signal
from .storage import (
    AnyPath,
    atomic_writer,
    file_sizes,
    read_many,
    storage_errors,
    to_path,
    write_atomic,
)
from .strict import cannot_open, first_line, open_bytes, open_video
from .tables import (
    SourceTable,
    read_segments,
    read_sources,
    write_segments,
    write_sources,
)
from .timegrid import (
    SampledFrames,
    SnippetGrid,
    num_sampled_frames,
    sample_frames,
    snippet_at,
    snippets_between,
)
from .upright import RgbConverter, orientation_of
from .workers import ChildProcess, Crash

__all__ = [
    "HEAD_BYTES",
    "AnyPath",
    "CheckpointError",
    "ChildProcess",
    "Crash",
    "DemoVideos",
    "PacketScan",
    "Progress",
    "RgbConverter",
    "SampledFrames",
    "SeamlineError",
    "ShardError",
    "SnippetGrid",
    "SourceTable",
    "SourceVideo",
    "SourcesReport",
    "StoreError",
    "UsageError",
    "VideoError",
    "VideoUnavailable",
    "at_place",
    "atomic_writer",
    "build_record",
    "build_sources",
    "cannot_open",
    "check_bucket",
    "conform",
    "container_of",
    "file_sizes",
    "first_line",
    "make_demo_videos",
    "num_sampled_frames",
    "open_bytes",
    "open_table",
    "open_video",
    "orientation_of",
    "probe_video",
    "ray_cluster",
    "read_batches",
    "read_json",
    "read_many",
    "read_recipe_table",
    "read_segments",
    "read_sources",
    "read_table",
    "relative_path",
    "resolve_path",
    "run_ffmpeg",
    "sample_frames",
    "say_rate",
    "say_seconds",
    "scan_packets",
    "snippet_at",
    "snippets_between",
    "stop_on_signal",
    "storage_errors",
    "to_path",
    "write_atomic",
    "write_segments",
    "write_sources",
]
