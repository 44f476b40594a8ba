"""Annif as a subprocess: reads a JSON list of texts per line, answers `cpu SECONDS`, the CPU time of its suggestions.

    .cache/baselines/bin/python bench/peers/annif_peer.py PROJECT

bench/models.py starts it in the environment of the baselines.
"""

import json
import sys
import time
from pathlib import Path

from tagbus.models.baselines.annif import AnnifOmikuji

TAGS = 10


def main(folder: Path) -> None:
    project = AnnifOmikuji(folder)
    project.open()
    for line in sys.stdin:
        texts = json.loads(line)
        started = time.process_time()
        project.predict(texts, TAGS)
        print(f"cpu {time.process_time() - started}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
