"""A recommender that reads `tagged` itself: contents that share tags with one, best first.

    python from_topic.py BROKERS TOPIC CONTENT

It keeps the latest tags of every content in memory, so the topic must fit there. A recommender that serves would keep
reading; this one reads to the end and answers once, one JSON object per line.
"""

import json
import sys
import uuid

from confluent_kafka import Consumer, KafkaError, TopicPartition

MOST = 10


def latest(brokers: str, topic: str) -> dict[str, dict[str, float]]:
    """Return the latest tags and confidences by content."""
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": f"example-{uuid.uuid4().hex}",  # required by librdkafka; no consumer joins it
            "isolation.level": "read_committed",  # without it results of aborted transactions count
            "enable.partition.eof": True,  # offsets cannot tell the end of a partition: markers count in them
            "enable.auto.commit": False,
        }
    )
    found: dict[str, dict[str, float]] = {}
    partitions = set(consumer.list_topics(topic, timeout=30).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    while partitions:
        for message in consumer.consume(500, 1.0):
            error = message.error()
            if error is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    sys.exit(f"{topic}: {error}")
                partitions.discard(message.partition())
                continue
            try:
                content = message.key().decode()
                tags = tags_of(message.value())
            except (AttributeError, ValueError, KeyError, TypeError):
                continue  # not of tagbus
            found.pop(content, None)
            if tags is not None:
                found[content] = tags
    consumer.close()
    return found


def tags_of(value: bytes | None) -> dict[str, float] | None:
    """Tags and confidences of a result; None: the content was withdrawn."""
    if value is None:
        return None
    # In the wire format of a schema registry a zero byte and the schema's id precede the JSON.
    result = json.loads(value[5:] if value[:1] == b"\0" else value)
    return {tag["id"]: tag["confidence"] for tag in result["tags"]}


def recommend(contents: dict[str, dict[str, float]], content: str) -> list[dict[str, object]]:
    """Contents that share tags with it, scored by the products of the confidences."""
    liked = contents.get(content, {})
    scores = {
        other: sum(sure * liked[tag] for tag, sure in tags.items() if tag in liked)
        for other, tags in contents.items()
        if other != content and not other.startswith("tagbus-helm-test-")
    }
    best = sorted((other for other in scores if scores[other] > 0), key=lambda other: (-scores[other], other))
    return [{"id": other, "score": round(scores[other], 4)} for other in best[:MOST]]


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    for line in recommend(latest(sys.argv[1], sys.argv[2]), sys.argv[3]):
        print(json.dumps(line))
