"""Plan 10 million samples of 650,000 videos, restart such a job: `python -m benchmarks.planning`.

Takes about ten minutes, nearly all of them to draw the plan; needs 3 GB in FOLDER, if one is named,
or else in the temporary folder.
"""

import tempfile
from pathlib import Path

from . import clips, memory, restart
from .measure import HEADER

MANY = (650_000, 16, 512)  # videos, samples per video and per shard


def main(folder: Path) -> None:
    """Measure and print row by row."""
    work = Path(tempfile.mkdtemp(prefix="planning-", dir=folder))
    print(HEADER)
    print(memory.plan_row(work, *MANY), flush=True)
    for row in restart.measure(work):
        print(row, flush=True)


if __name__ == "__main__":
    clips.run_in_folder(main)
