"""A recommender that queries `tagbus views`: contents that share tags with one, best first.

    python from_views.py http://127.0.0.1:8790 CONTENT

It keeps no state: it queries the tags of the content and the most confident contents of each of these tags, and sums
the products of the confidences. Any replica of the views answers.
"""

import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

MOST = 10
OF_A_TAG = 100
TRIES = 10


def ask(address: str, path: str) -> dict[str, list[dict[str, object]]] | None:
    """Return the answer of the views; None: unknown content or tag."""
    for left in reversed(range(TRIES)):
        try:
            with urllib.request.urlopen(f"{address}{path}", timeout=10) as answer:  # noqa: S310 - the caller's own
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            if error.code != 503 or not left:  # 503: a replica is being replaced
                sys.exit(f"{path}: {error.code} {json.load(error).get('error')}")
            time.sleep(float(error.headers.get("Retry-After", "1")))
    return None


def recommend(address: str, content: str) -> list[dict[str, object]]:
    """Contents that share tags with it, scored by the products of the confidences."""
    found = ask(address, f"/contents/{urllib.parse.quote(content, safe='')}")
    scores: dict[str, float] = {}
    for tag in found["tags"] if found else []:
        name = urllib.parse.quote(tag["id"], safe="")
        page = ask(address, f"/tags/{name}/contents?order=confidence&limit={OF_A_TAG}")
        for other in page["items"] if page else []:
            if other["id"] != content:
                scores[other["id"]] = scores.get(other["id"], 0) + tag["confidence"] * other["confidence"]
    best = sorted(scores, key=lambda other: (-scores[other], other))
    return [{"id": other, "score": round(scores[other], 4)} for other in best[:MOST]]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    for line in recommend(sys.argv[1].rstrip("/"), sys.argv[2]):
        print(json.dumps(line))
